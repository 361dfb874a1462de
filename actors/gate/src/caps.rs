//! What the gate lets pass at most.

/// Caps of one document. Each is a bound on what one sender can make every other client carry for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Bytes of one update. Positions inside an update are kept in 32 bits, so no cap goes beyond 4 GiB.
    pub update_bytes_max: usize,
    /// Nesting of values in arrays, maps and attributes: yrs recurses on them and aborts at some 6,000.
    pub any_depth_max: usize,
    /// Nesting of shared types: yrs recurses on them and aborts at some 3,000.
    pub type_depth_max: usize,
    /// Bytes of the name of a root type. Root types are never removed.
    pub root_name_bytes_max: usize,
    /// Bytes of the key of a map entry or attribute of an element.
    pub map_key_bytes_max: usize,
    /// Clients of one document: each is in every state vector for ever.
    pub document_clients_max: usize,
    /// Bytes of one client's awareness state.
    pub awareness_state_bytes_max: usize,
    /// Entries of one awareness update.
    pub awareness_entries_max: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            update_bytes_max: 16 << 20,
            any_depth_max: 32,
            type_depth_max: 64,
            root_name_bytes_max: 256,
            map_key_bytes_max: 1024,
            document_clients_max: 20_000,
            awareness_state_bytes_max: 8 << 10,
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
            type_depth_max: usize::MAX,
            ..Self::default()
        }
    }
}
