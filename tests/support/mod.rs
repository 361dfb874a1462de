//! What the end-to-end tests stand on.

pub mod cluster;
pub mod fleet;
pub mod killer;
pub mod ledger;
pub mod liar;
pub mod planted;
pub mod postgres;
pub mod process;
#[path = "../../src/ws/tests/raw.rs"]
pub mod raw;
pub mod redis;
pub mod relay;
pub mod rest;
pub mod server;
pub mod table_lock;
pub mod throttle;
pub mod world;

/// The long forms were asked for.
pub fn long() -> bool {
    std::env::var_os("CNX_LONG").is_some_and(|value| value != "0")
}

/// `short`, or `long` where the long forms were asked for.
pub fn scaled(short: u64, long_form: u64) -> u64 {
    if long() { long_form } else { short }
}

/// The seed of this run: `CNX_SEED`, or the clock. Every failure names it.
pub fn seed() -> u64 {
    std::env::var("CNX_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let now = std::time::UNIX_EPOCH.elapsed().expect("the clock is after 1970");
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    }) & 0xffff_ffff
}

/// Small random numbers, the same for the same seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}
