//! The known poisons, and what each one meets at the gate. They are samples of classes, not the list to pass.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use contextnexus_gate::{
    Admission, AwarenessUpdate, Caps, Content, Delta, Index, Refused, Rule, StateVector, Update, admit,
};

fn sample(name: &str) -> Bytes {
    let path = format!("{}/tests/hostile/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let hex: Vec<u8> = std::fs::read(path).unwrap().into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
    hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The document that the samples are applied to.
fn base() -> Index {
    let mut index = Index::new();
    let admission = index.trust(&Update::parse(sample("base"), &Caps::default()).unwrap()).unwrap();
    assert_eq!(admission.content, Content::Whole);
    index
}

fn malformed(name: &str) -> Rule {
    Update::parse(sample(name), &Caps::default()).unwrap_err().rule
}

fn admission(name: &str) -> Result<Admission, Refused> {
    let update = Update::parse(sample(name), &Caps::default()).unwrap();
    admit(&base(), &mut Delta::default(), None, &update, &Caps::default(), &mut |_| true)
}

#[test]
fn nested_values_that_overflow_the_stack_are_malformed() {
    assert_eq!(malformed("abort_stack_any_depth_7000"), Rule::ValueTooDeep);
}

#[test]
fn two_sections_of_one_client_that_free_memory_in_use_are_malformed() {
    assert_eq!(malformed("uaf_encode_12"), Rule::DuplicateSection);
    assert_eq!(malformed("uaf_integrate_14"), Rule::DuplicateSection);
    assert_eq!(malformed("panic_unreachable_update_155"), Rule::DuplicateSection);
}

#[test]
fn clocks_beyond_31_bits_are_malformed() {
    assert_eq!(malformed("uaf_squash_20"), Rule::ClockOutOfRange);
    assert_eq!(malformed("panic_block_store_317"), Rule::ClockOutOfRange);
}

#[test]
fn a_block_of_length_zero_that_hangs_is_malformed() {
    assert_eq!(malformed("hang_apply_or_encode"), Rule::EmptyBlock);
}

#[test]
fn a_block_between_one_item_and_itself_that_reads_differently_after_a_reload_is_malformed() {
    assert_eq!(malformed("diverge_reload_text"), Rule::SameOrigins);
}

#[test]
fn json_content_that_poisons_every_later_encoding_is_malformed() {
    assert_eq!(malformed("poison_diff_undecodable"), Rule::JsonContent);
    assert_eq!(malformed("poison_encode_state_panics_390"), Rule::JsonContent);
    assert_eq!(malformed("poison_snapshot_undecodable_utf8"), Rule::JsonContent);
}

#[test]
fn an_update_in_the_v2_format_is_malformed_and_called_so() {
    assert_eq!(malformed("mem_v2_rle_item_1e7"), Rule::FormatV2);
}

#[test]
fn claims_of_more_entries_than_bytes_are_malformed() {
    assert_eq!(StateVector::parse(&sample("mem_state_vector_5e8")).unwrap_err().rule, Rule::Truncated);
    assert_eq!(
        AwarenessUpdate::parse(&sample("mem_awareness_1e8"), &Caps::default()).unwrap_err().rule,
        Rule::Truncated
    );
}

#[test]
fn a_parent_that_is_text_is_refused_before_the_block_before_it_is_applied() {
    assert_eq!(admission("partial_apply_then_error").unwrap_err(), Refused::ParentNotAType);
}

#[test]
fn an_emoji_in_a_root_that_somebody_opens_as_an_array_is_honest_and_passes() {
    // `ArrayRef::to_json` hangs on it: root kinds come from a schema and are never guessed. No gate can know them.
    let admission = admission("hang_array_to_json_emoji").unwrap();
    assert_eq!(admission.content, Content::Whole);
}
