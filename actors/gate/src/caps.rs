//! What the gate lets pass at most.

/// No cap on nesting goes beyond this. yrs recurses on what is nested: with a stack of 2 MiB it dies at some 6,250
/// levels of values and, in the worst of its readers, at 2,950 of types, so both at this depth together take half of
/// that. Threads of the server have 16 MiB.
pub const DEPTH_BOUND: usize = 1_000;

/// Nesting of the JSON in a format or an embed: yrs reads it with serde_json, which stops at 128.
pub(crate) const JSON_DEPTH_MAX: usize = 127;

/// Caps of one document. Each is a bound on what one sender can make every other client carry for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Bytes of one update. Positions inside an update are kept in 32 bits, so no cap goes beyond 4 GiB.
    pub update_bytes_max: usize,
    /// Nesting of values in arrays, maps and attributes; at most [`DEPTH_BOUND`].
    pub any_depth_max: usize,
    /// Nesting of shared types; at most [`DEPTH_BOUND`].
    pub type_depth_max: usize,
    /// Bytes of the name of a root type. Root types are never removed.
    pub root_name_bytes_max: usize,
    /// Bytes of the key of a map entry or attribute of an element.
    pub map_key_bytes_max: usize,
    /// Clients of one document: each is in every state vector for ever.
    pub document_clients_max: usize,
    /// What folding one update may cost yrs, in milliseconds of one core, beyond what any update of its size may: 50 ns for each byte.
    pub integration_ms_max: u64,
    /// Bytes of one client's awareness state.
    pub awareness_state_bytes_max: usize,
    /// Entries of one awareness update.
    pub awareness_entries_max: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            update_bytes_max: 16 << 20,
            any_depth_max: 512,
            type_depth_max: 512,
            root_name_bytes_max: 4 << 10,
            map_key_bytes_max: 64 << 10,
            document_clients_max: 1_000_000,
            integration_ms_max: 250,
            awareness_state_bytes_max: 64 << 10,
            awareness_entries_max: 20_000,
        }
    }
}

impl Caps {
    /// No caps beyond what the format itself bears: for what the log already holds.
    pub fn of_the_log() -> Self {
        Self {
            update_bytes_max: u32::MAX as usize,
            root_name_bytes_max: usize::MAX,
            map_key_bytes_max: usize::MAX,
            document_clients_max: usize::MAX,
            integration_ms_max: u64::MAX,
            type_depth_max: usize::MAX,
            any_depth_max: DEPTH_BOUND,
            ..Self::default()
        }
    }
}
