//! Any bytes at all: the parsers neither panic nor loop, and what they read they write again.
#![no_main]

use bytes::Bytes;
use contextnexus_gate::{AwarenessUpdate, Caps, StateVector, Update, encode_awareness, merge};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    let caps = Caps::default();
    if let Ok(entries) = AwarenessUpdate::parse(&bytes, &caps) {
        assert_eq!(encode_awareness(&entries), bytes);
    }
    if let Ok(vector) = StateVector::parse(&bytes) {
        assert_eq!(StateVector::parse(&vector.encode()).expect("what is written is read"), vector);
    }
    if let Ok(update) = Update::parse(bytes, &caps) {
        let merged = Update::parse(merge(&[update.clone(), update]), &caps).expect("what is merged is well formed");
        assert_eq!(Update::parse(merged.encode(), &caps).expect("what is written is read").bytes(), merged.bytes());
    }
});
