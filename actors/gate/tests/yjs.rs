//! Honest histories made by the real Yjs, of version 13 and of the release candidates of 14: recorded by
//! `tests/yjs/record.mjs`, replayed here through the gate. The long form is `examples/honest.rs`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use common::recorded::History;

#[test]
fn what_yjs_writes_is_never_refused_and_reads_the_same_behind_the_gate() {
    let mut count = 0;
    for entry in std::fs::read_dir(format!("{}/tests/yjs", env!("CARGO_MANIFEST_DIR"))).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        for (number, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            History::read(line).replay(&format!("{}:{}", path.file_name().unwrap().display(), number + 1));
            count += 1;
        }
    }
    assert!(count >= 30);
}
