//! A search for updates that cost yrs more than the gate says, or more than it lets pass: from a seed, towards what was dearest so far.
#![allow(dead_code, clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use contextnexus_gate::lib0::{write_var_string, write_var_uint};
use contextnexus_gate::{Caps, Content, Delta, Index, Order, Update, admit};
use rand::RngExt;
use rand::rngs::StdRng;
use rustix::time::{ClockId, clock_gettime};
use yrs::Transact;
use yrs::updates::decoder::Decode;

use crate::common::doc;

/// The server's own. glibc's gives what the update before has freed back to the system within the next small one, which
/// takes milliseconds.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A candidate: what is written in turn, each as one row or together with what came before.
#[derive(Clone, Debug)]
pub struct Candidate(Vec<Shape>);

#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: u8,
    client: u64,
    count: u32,
    size: u32,
    /// It goes into the row before.
    is_joined: bool,
}

const KINDS: u8 = 19;
const BLOCKS_MAX: u32 = 20_000;
const BYTES_MAX: usize = 1 << 20;

/// One row that was admitted, and what it cost.
#[derive(Clone, Debug)]
pub struct Measured {
    pub bytes: usize,
    pub estimate: Duration,
    pub taken: Duration,
    pub shape: String,
}

impl Measured {
    /// How many times the estimate it took; what is too short to be measured counts nothing.
    pub fn times(&self) -> f64 {
        self.taken.saturating_sub(Duration::from_micros(200)).as_secs_f64() / self.estimate.as_secs_f64().max(1e-6)
    }

    pub fn ns_per_byte(&self) -> f64 {
        self.taken.as_nanos() as f64 / self.bytes.max(64) as f64
    }
}

fn any(rng: &mut StdRng) -> Shape {
    let few = |rng: &mut StdRng, usual: u32, most: u32| {
        let max = if rng.random_bool(0.05) { most } else { usual };
        let log = rng.random_range(0.0..f64::from(max).ln());
        log.exp() as u32
    };
    Shape {
        kind: rng.random_range(0..KINDS),
        client: rng.random_range(1..6),
        count: few(rng, 2_000, BLOCKS_MAX),
        size: few(rng, 300, 60_000),
        is_joined: rng.random_bool(0.3),
    }
}

impl Candidate {
    pub fn any(rng: &mut StdRng) -> Self {
        Self((0..rng.random_range(1..=5)).map(|_| any(rng)).collect())
    }

    /// Something like it.
    pub fn mutated(&self, rng: &mut StdRng) -> Self {
        let mut shapes = self.0.clone();
        for _ in 0..rng.random_range(1..=2) {
            let at = rng.random_range(0..shapes.len());
            match rng.random_range(0..9) {
                0 if shapes.len() < 7 => shapes.insert(at, any(rng)),
                1 if shapes.len() > 1 => drop(shapes.remove(at)),
                2 => shapes[at].kind = rng.random_range(0..KINDS),
                3 => shapes[at].client = rng.random_range(1..6),
                4 => shapes[at].count = (shapes[at].count * 2).min(BLOCKS_MAX),
                5 => shapes[at].count = (shapes[at].count / 2).max(1),
                6 => shapes[at].size = (shapes[at].size * 3).min(60_000),
                7 => shapes[at].size = (shapes[at].size / 3).max(1),
                _ => shapes[at].is_joined = !shapes[at].is_joined,
            }
        }
        Self(shapes)
    }

    fn rows(&self) -> Vec<(Vec<u8>, String)> {
        let mut writer = Writer::default();
        let mut rows = Vec::new();
        for (number, shape) in self.0.iter().enumerate() {
            writer.write(shape);
            if self.0.get(number + 1).is_none_or(|next| !next.is_joined) {
                let row = writer.row();
                if row.len() < BYTES_MAX {
                    rows.push((row, format!("{:?} of {:?}", shape, self.0)));
                }
            }
        }
        rows
    }

    /// Sends it row by row through the gate and into yrs.
    pub fn measure(&self) -> (Vec<Measured>, u64) {
        let caps = Caps::default();
        let (mut index, mut order, ours) = (Index::new(), Order::new(), doc(999));
        let (mut measured, mut refused) = (Vec::new(), 0);
        for (row, shape) in self.rows() {
            let bytes = row.len();
            let Ok(update) = Update::parse(Bytes::from(row), &caps) else { panic!("not well formed: {shape}") };
            let mut delta = Delta::default();
            let Ok(admission) = admit(&index, &mut delta, Some(&mut order), &update, &caps, &mut |_| true) else {
                refused += 1;
                continue;
            };
            let row = match admission.content {
                Content::Nothing => continue,
                Content::Whole => update.bytes().clone(),
                Content::Part(part) => part,
            };
            index.apply(delta);
            order.commit();
            let before = cpu_time();
            fold(&ours, &row);
            let taken = cpu_time() - before;
            measured.push(Measured { bytes, estimate: Duration::from_nanos(admission.cost.ns), taken, shape });
        }
        (measured, refused)
    }
}

/// Measures again what would be the dearest, and takes the least: a core that others use now and then counts their time as ours.
fn measured(candidate: &Candidate, dearest: f64) -> (Vec<Measured>, u64) {
    let (mut measured, refused) = candidate.measure();
    for _ in 0..12 {
        if measured.iter().all(|row| score(row) <= dearest) {
            break;
        }
        for (row, again) in measured.iter_mut().zip(candidate.measure().0) {
            row.taken = row.taken.min(again.taken);
        }
    }
    (measured, refused)
}

/// How dear it is, by its estimate or by the byte.
fn score(row: &Measured) -> f64 {
    row.times().max(row.ns_per_byte() / 20_000.0)
}

fn fold(ours: &yrs::Doc, row: &[u8]) {
    let update = yrs::Update::decode_v1(row).unwrap();
    let mut transaction = ours.transact_mut();
    transaction.apply_update(update).unwrap();
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// One client's blocks of a row: the first clock, how many they are, and their bytes.
type Section = (u64, u64, Vec<u8>);

/// Writes rows that follow one another, and knows how far each client is.
#[derive(Default)]
struct Writer {
    clocks: BTreeMap<u64, u64>,
    sections: BTreeMap<u64, Section>,
    deletes: BTreeMap<u64, Vec<(u64, u64)>>,
    deleted: BTreeMap<u64, u64>,
    others: u64,
}

impl Writer {
    fn next(&self, client: u64) -> u64 {
        self.clocks.get(&client).copied().unwrap_or(0)
    }

    /// A block of so many units.
    fn block(&mut self, client: u64, len: u64, links: [Option<(u64, u64)>; 2], root: &str, key: &str, content: &[u8]) {
        let [origin, right] = links;
        let clock = self.next(client);
        let (_, count, body) = self.sections.entry(client).or_insert((clock, 0, Vec::new()));
        *count += 1;
        let [kind, content @ ..] = content else { return };
        let is_rooted = origin.is_none() && right.is_none();
        let has_key = is_rooted && !key.is_empty();
        body.push(kind | u8::from(origin.is_some()) << 7 | u8::from(right.is_some()) << 6 | u8::from(has_key) << 5);
        for (client, clock) in [origin, right].into_iter().flatten() {
            write_var_uint(body, client);
            write_var_uint(body, clock);
        }
        if is_rooted {
            match root.strip_prefix('#') {
                None => {
                    body.push(1);
                    write_var_string(body, root);
                }
                Some(item) => {
                    let (client, clock) = item.split_once('.').unwrap();
                    body.push(0);
                    write_var_uint(body, client.parse().unwrap());
                    write_var_uint(body, clock.parse().unwrap());
                }
            }
            if has_key {
                write_var_string(body, key);
            }
        }
        body.extend(content);
        self.clocks.insert(client, clock + len);
    }

    fn text(len: u32) -> Vec<u8> {
        let mut content = vec![4];
        write_var_string(&mut content, &"x".repeat(len as usize));
        content
    }

    fn values(len: u32) -> Vec<u8> {
        let mut content = vec![8];
        write_var_uint(&mut content, len.into());
        (0..len).for_each(|_| content.extend([119, 1, b'v']));
        content
    }

    fn write(&mut self, shape: &Shape) {
        let Shape { kind, client, count, size, .. } = *shape;
        let last = |writer: &Self| writer.next(client).checked_sub(1).map(|clock| (client, clock));
        let root = format!("r{client}");
        let letter: &[u8] = &[4, 1, b'y'];
        let other = client % 5 + 1;
        match kind {
            // A text as one block, and as one block for each letter.
            0 => self.block(client, size.into(), [None, None], &root, "", &Self::text(size)),
            1 => {
                for number in 0..count {
                    let origin = if number == 0 { None } else { last(self) };
                    self.block(client, 1, [origin, None], &root, "", letter);
                }
            }
            // From right to left.
            2 => {
                for number in 0..count {
                    let right = if number == 0 { None } else { last(self) };
                    self.block(client, 1, [None, right], &root, "", letter);
                }
            }
            // Before, behind and between what another one wrote.
            3 => {
                for clock in 0..self.next(other).min(count.into()) {
                    self.block(client, 1, [None, Some((other, clock))], &root, "", letter);
                }
            }
            4 => {
                for clock in 0..self.next(other).min(count.into()) {
                    self.block(client, 1, [Some((other, clock)), None], &root, "", letter);
                }
            }
            5 => {
                let next = self.next(other);
                for number in 0..u64::from(count) {
                    let at = number.wrapping_mul(7_919) % next.max(1);
                    if at + 1 < next {
                        self.block(client, 1, [Some((other, at)), Some((other, at + 1))], &root, "", letter);
                    }
                }
            }
            // Many clients in one place.
            6 | 7 => {
                for number in 0..u64::from(count) {
                    let of = if kind == 6 { 1_000 + self.others + number } else { 900_000 - self.others - number };
                    self.block(of, 1, [None, None], &root, "", letter);
                }
                self.others += u64::from(count);
            }
            // Entries of a key.
            8 | 9 => {
                let key = "k".repeat(size as usize);
                for number in 0..count {
                    let origin = if number == 0 || kind == 8 { None } else { last(self) };
                    if origin.is_none() && number as usize * key.len() > BYTES_MAX {
                        break;
                    }
                    self.block(client, 1, [origin, None], "m", &key, &[8, 1, 126]);
                }
            }
            // Every so many units are deleted, or all.
            10 | 11 => {
                let known = self.deleted.get(&other).copied().unwrap_or(0);
                let next = self.next(other);
                let stride = if kind == 10 { u64::from(size) + 1 } else { 1 };
                let ranges = self.deletes.entry(other).or_default();
                if kind == 11 {
                    if known < next {
                        ranges.push((known, next - known));
                    }
                    self.deleted.insert(other, next);
                } else {
                    let mut at = known;
                    while at + 1 < next && ranges.len() < count as usize {
                        ranges.push((at, 1));
                        at += stride.max(2);
                    }
                    self.deleted.insert(other, at.min(next));
                }
            }
            // Values in one block, and one block for each.
            12 => self.block(client, size.into(), [None, None], &root, "", &Self::values(size)),
            13 => {
                for number in 0..count {
                    let origin = if number == 0 { None } else { last(self) };
                    self.block(client, 1, [origin, None], &root, "", &[8, 1, 126]);
                }
            }
            // What is never joined.
            14 => {
                for number in 0..count {
                    let origin = if number == 0 { None } else { last(self) };
                    self.block(client, 1, [origin, None], &root, "", &[5, 4, b'n', b'u', b'l', b'l']);
                }
            }
            // Types, and what is in them from right to left, its clocks apart.
            15 => {
                let of = self.next(client);
                self.block(client, 1, [None, None], &root, "", &[7, 0]);
                let inside = format!("#{client}.{of}");
                let mut right = None;
                for _ in 0..count {
                    let at = (client, self.next(client));
                    self.block(client, 1, [None, right], &inside, "", letter);
                    self.block(client, 1, [None, None], &root, "", letter);
                    right = Some(at);
                }
            }
            // Each waits for the next client.
            16 => {
                let first = 10_000 + self.others;
                for number in 0..u64::from(count) {
                    let of = first + number;
                    let origin = if number == 0 { None } else { Some((of - 1, 0)) };
                    self.block(of, 1, [origin, None], &root, "", letter);
                }
                self.others += u64::from(count);
            }
            // Client ids of which several end alike, all of them side by side.
            18 => {
                let endings = u64::from(count / (size % 16 + 1)).max(1);
                for number in 0..u64::from(count) {
                    let of = 2_000_000 + number % endings + ((1 + self.others + number / endings) << 24);
                    self.block(of, 1, [None, None], &root, "", letter);
                }
                self.others += u64::from(count);
            }
            // Client ids that differ in their high bits alone.
            _ => {
                for number in 0..u64::from(count) {
                    let of = (1 + self.others + number) << 32;
                    self.block(of, 1, [None, None], &format!("c{}", number % 7), "", letter);
                }
                self.others += u64::from(count);
            }
        }
    }

    fn row(&mut self) -> Vec<u8> {
        let mut row = Vec::new();
        let sections = std::mem::take(&mut self.sections);
        write_var_uint(&mut row, sections.len() as u64);
        for (client, (clock, count, body)) in sections.into_iter().rev() {
            write_var_uint(&mut row, count);
            write_var_uint(&mut row, client);
            write_var_uint(&mut row, clock);
            row.extend(body);
        }
        let deletes: Vec<_> =
            std::mem::take(&mut self.deletes).into_iter().filter(|(_, ranges)| !ranges.is_empty()).collect();
        write_var_uint(&mut row, deletes.len() as u64);
        for (client, mut ranges) in deletes.into_iter().rev() {
            ranges.sort_unstable();
            ranges.dedup();
            write_var_uint(&mut row, client);
            write_var_uint(&mut row, ranges.len() as u64);
            for (clock, len) in ranges {
                write_var_uint(&mut row, clock);
                write_var_uint(&mut row, len);
            }
        }
        row
    }
}

/// What a search has found.
#[derive(Debug, Default)]
pub struct Found {
    pub candidates: u64,
    pub rows: u64,
    pub refused: u64,
    /// The dearest by the estimate, and by the byte.
    pub by_estimate: Option<Measured>,
    pub by_byte: Option<Measured>,
    /// The longest of all.
    pub longest: Option<Measured>,
}

/// A text of one block for each letter: what this machine takes for what an honest update costs. Shared machines change within minutes.
pub fn honest() -> Measured {
    let text = Candidate(vec![Shape { kind: 1, client: 1, count: BLOCKS_MAX, size: 1, is_joined: false }]);
    let mut measured: Vec<Measured> = (0..3).flat_map(|_| text.measure().0).collect();
    measured.sort_by_key(|row| row.taken);
    measured.swap_remove(measured.len() / 2)
}

/// Tries so many candidates, half of them like the dearest so far.
pub fn search(rng: &mut StdRng, candidates: u64) -> Found {
    let mut found = Found::default();
    let mut best: Vec<(f64, Candidate)> = Vec::new();
    for _ in 0..candidates {
        let candidate = match best.len() {
            0 => Candidate::any(rng),
            _ if rng.random_bool(0.3) => Candidate::any(rng),
            len => {
                let at = rng.random_range(0..len);
                best[at].1.mutated(rng)
            }
        };
        let (measured, refused) = measured(&candidate, best.first().map_or(0.0, |best| best.0));
        found.candidates += 1;
        found.rows += measured.len() as u64;
        found.refused += refused;
        let mut dearest: f64 = 0.0;
        for row in measured {
            dearest = dearest.max(score(&row));
            let exceeds = |old: &Option<Measured>, value: fn(&Measured) -> f64| {
                old.as_ref().is_none_or(|old| value(&row) > value(old))
            };
            if exceeds(&found.by_estimate, Measured::times) {
                found.by_estimate = Some(row.clone());
            }
            if exceeds(&found.by_byte, Measured::ns_per_byte) {
                found.by_byte = Some(row.clone());
            }
            if exceeds(&found.longest, |row| row.taken.as_secs_f64()) {
                found.longest = Some(row);
            }
        }
        best.push((dearest, candidate));
        best.sort_by(|one, other| other.0.total_cmp(&one.0));
        best.truncate(24);
    }
    found
}
