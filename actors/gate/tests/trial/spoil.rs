//! Hostile updates of the plain kind: honest ones spoiled byte by byte, and large ones made of the smallest things.

use bytes::Bytes;
use contextnexus_gate::lib0::write_var_uint;
use rand::RngExt;
use rand::rngs::StdRng;

use super::forge::CLIENTS;
use super::reference::Model;

/// Spoils bytes the way a fuzzer does.
pub fn spoiled(rng: &mut StdRng, honest: &[Bytes]) -> Vec<u8> {
    let mut bytes = honest[rng.random_range(0..honest.len())].to_vec();
    for _ in 0..rng.random_range(1..=4) {
        let at = rng.random_range(0..bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        match rng.random_range(0..7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if !bytes.is_empty() => bytes[at] = rng.random(),
            2 if !bytes.is_empty() => bytes[at] = bytes[at].wrapping_add([1, 255][rng.random_range(0..2)]),
            3 => bytes.insert(at, rng.random()),
            4 if !bytes.is_empty() => {
                bytes.remove(at);
            }
            5 => bytes.truncate(at),
            _ => {
                let other = &honest[rng.random_range(0..honest.len())];
                let from = rng.random_range(0..other.len());
                let to = rng.random_range(from..=other.len()).min(from + 40);
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes
}

/// Tens of kilobytes of the smallest things that there are.
pub fn bulk(rng: &mut StdRng, model: &Model) -> Vec<u8> {
    let (client, count) = (CLIENTS[rng.random_range(0..3)], rng.random_range(2_000..12_000u64));
    let (start, shape) = (model.known(client), rng.random_range(0..6));
    let mut bytes = Vec::new();
    let section = |bytes: &mut Vec<u8>, count: u64, client: u64, start: u64| {
        write_var_uint(bytes, count);
        write_var_uint(bytes, client);
        write_var_uint(bytes, start);
    };
    match shape {
        // Clients, more than any cap lets in.
        0 => {
            write_var_uint(&mut bytes, count);
            for number in (0..count).rev() {
                section(&mut bytes, 1, 1_000_000 + number, 0);
                bytes.extend([0, 1]);
            }
        }
        _ => {
            bytes.push(1);
            section(&mut bytes, count, client, start);
            for number in 0..count {
                match shape {
                    1 => bytes.extend([0, 1]),
                    2 => bytes.extend([7, 1, 1, b't', rng.random_range(0..3)]),
                    3 => bytes.extend([
                        0x24,
                        1,
                        1,
                        b'm',
                        2,
                        b'a' + (number % 26) as u8,
                        b'0' + (number % 10) as u8,
                        1,
                        b'x',
                    ]),
                    4 => bytes.extend([4, 1, 1, b't', 1, b'x']),
                    // Each is the first entry of one key, as far as its author knows.
                    _ => bytes.extend([0x28, 1, 1, b'm', 1, b'k', 1, 126]),
                }
            }
        }
    }
    if rng.random_bool(0.5) {
        bytes.push(1);
        write_var_uint(&mut bytes, client);
        write_var_uint(&mut bytes, count / 2);
        for number in 0..count / 2 {
            write_var_uint(&mut bytes, start + number * 2);
            bytes.push(1);
        }
    } else {
        bytes.push(0);
    }
    bytes
}
