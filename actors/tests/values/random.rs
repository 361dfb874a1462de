//! Values from a seed, the odd ones more often than editors write them.

use super::MARK;
use super::wire::string;
use rand::RngExt as _;
use rand::rngs::StdRng;

/// A value in the encoding of lib0.
pub fn any(random: &mut StdRng, depth: u32) -> Vec<u8> {
    let tags: &[u8] = if depth == 0 {
        &[127, 126, 125, 124, 123, 122, 121, 120, 119, 116]
    } else {
        &[125, 123, 122, 119, 118, 117, 116]
    };
    let tag = tags[random.random_range(0..tags.len())];
    let mut bytes = vec![tag];
    match tag {
        125 => bytes.push(random.random_range(0..0x80)), // 0x40 is -0
        124 => bytes.extend(random.random::<u32>().to_be_bytes()),
        123 if random.random_bool(0.5) => bytes.extend(f64::from(random.random_range(-9..9)).to_be_bytes()),
        123 => bytes.extend(random.random::<u64>().to_be_bytes()),
        122 => bytes.extend((random.random::<i64>() >> random.random_range(0..64)).to_be_bytes()),
        119 => bytes.extend(string(&text(random))),
        116 => {
            let buffer = if random.random_bool(0.5) { text(random).into_bytes() } else { vec![random.random(); 3] };
            bytes.push(buffer.len() as u8);
            bytes.extend(buffer);
        }
        117 | 118 => {
            let count = random.random_range(0..4);
            bytes.push(count);
            for _ in 0..count {
                if tag == 118 {
                    bytes.extend(string(&text(random)));
                }
                bytes.extend(any(random, depth - 1));
            }
        }
        _ => {}
    }
    bytes
}

/// A value as JSON.
pub fn json(random: &mut StdRng, depth: u32) -> String {
    let kinds = if depth == 0 { 5 } else { 8 };
    match random.random_range(0..kinds) {
        0 => ["null", "true", "false"][random.random_range(0..3)].to_owned(),
        1 => ["0", "-0", "1", "1.0", "0.1", "1e21", "12345678901234567890"][random.random_range(0..6)].to_owned(),
        2..5 => quoted(random),
        5 => {
            let items: Vec<String> = (0..random.random_range(0..4)).map(|_| json(random, depth - 1)).collect();
            format!("[{}]", items.join([",", ", "][random.random_range(0..2)]))
        }
        _ => {
            let entry = |random: &mut StdRng| format!("{}:{}", quoted(random), json(random, depth - 1));
            let entries: Vec<String> = (0..random.random_range(0..4)).map(|_| entry(random)).collect();
            format!("{{{}}}", entries.join(","))
        }
    }
}

fn quoted(random: &mut StdRng) -> String {
    let escape = ["", "\\n", "\\u00e9", "\\ud83d\\ude00", "\\\\", "\\\""][random.random_range(0..6)];
    format!("\"{}{escape}\"", text(random))
}

fn text(random: &mut StdRng) -> String {
    let words = ["", "a", "b", "c", "é😀", MARK, "\u{fffd}", ",", "1"];
    (0..random.random_range(0..3)).map(|_| words[random.random_range(0..words.len())]).collect()
}
