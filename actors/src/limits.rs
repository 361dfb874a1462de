//! Every bound and interval of the actors, each a setting with its default and its reason. `src/config/default.toml` documents
//! the same names with their ranges; a test keeps the two equal.

use serde::{Deserialize, Serialize};

/// The bounds. Units are in the names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest update from a client, and largest body over HTTP.
    pub update_bytes_max: usize,
    /// Largest step 2 from a client. The largest honest one is a whole document that the database lost, so this is above
    /// `document_bytes_max`.
    pub step2_bytes_max: usize,
    /// Updates of one document that wait for PostgreSQL; beyond it they are dropped unadmitted and asked for again later.
    pub document_waiting_bytes_max: usize,
    /// What waits on the node: one half updates, of all documents, that wait for PostgreSQL; the other messages and request bodies that are
    /// still arriving.
    pub node_waiting_bytes_max: usize,
    /// Unacknowledged bytes of one connection at which its socket is read no further.
    pub connection_window_bytes: usize,
    /// Outgoing bytes of one connection that wait; beyond it the connection falls behind and gets one diff when it drains.
    pub outbox_bytes_max: usize,
    /// An update that is larger, or a step 2 four times as large, goes out in pieces of about this size: each counts for itself, and arrives before its client gives up.
    pub sync_piece_bytes: usize,
    /// A connection that takes nothing for so long while bytes wait is closed.
    pub outbox_stall_s: u64,
    /// A document as it is stored; beyond it, what only adds is refused.
    pub document_bytes_max: usize,
    /// Connections of one document on this node.
    pub document_connections_max: usize,
    /// Distinct client ids in one document: each is in every state vector for ever.
    pub document_clients_max: usize,
    /// What folding one update may cost, in milliseconds of one core, beyond 50 ns for each of its bytes.
    pub integration_ms_max: u64,
    /// Nesting of plain values: arrays and maps in arrays and maps.
    pub value_depth_max: usize,
    /// Nesting of shared types, of which a nested list in an editor takes two or three a level.
    pub type_depth_max: usize,
    /// Bytes of the name of a root type; root types are never removed.
    pub root_name_bytes_max: usize,
    /// Bytes of the key of a map entry or an attribute.
    pub map_key_bytes_max: usize,
    /// One client's awareness state; a larger one is left out, and its connection stays.
    pub awareness_state_bytes_max: usize,
    /// Client ids that one connection announces; more are left out.
    pub awareness_ids_per_connection_max: usize,
    /// Longest pause between two sendings of presence; the newest state wins. Few receivers are sent it sooner.
    pub awareness_interval_ms: u64,
    /// Longest that presence waits for an update that came before it.
    pub awareness_wait_ms: u64,
    /// A remote state that was not renewed for so long is gone (a dead node's cursors).
    pub awareness_timeout_s: u64,
    /// Presence states of one document, theirs and 256 bytes each; more are left out, and their connections stay.
    pub document_awareness_bytes_max: usize,
    /// The same, for all documents of the node.
    pub node_awareness_bytes_max: usize,
    /// Bytes that a connection may send before it is authenticated.
    pub unauthenticated_bytes_max: usize,
    /// What all connections and requests of the node together hold before they are authenticated.
    pub node_unauthenticated_bytes_max: usize,
    /// Messages that a connection may send before it is authenticated.
    pub unauthenticated_messages_max: usize,
    /// Documents of one connection (Hocuspocus providers carry many on one socket).
    pub documents_per_connection_max: usize,
    /// A connection without an authenticated document is closed after so long.
    pub authentication_deadline_s: u64,
    /// Something is sent to each connection at least so often: stock clients close after 30 s without data.
    pub keepalive_s: u64,
    /// A document that nobody is connected to is unloaded after so long.
    pub document_idle_s: u64,
    /// A document that nobody has changed for so many seconds is packed: kept as the bytes of its state.
    pub document_compact_after_s: u64,
    /// Memory of one document, estimated; beyond it, what adds to it is refused.
    pub document_memory_bytes_max: usize,
    /// Documents in memory, estimated; beyond it idle ones are unloaded at once.
    pub documents_bytes_max: usize,
    /// A snapshot is taken when so many bytes of log stand after the last.
    pub snapshot_tail_bytes: usize,
    /// A snapshot is taken when so many updates stand after the last.
    pub snapshot_tail_updates: u64,
    /// A snapshot is taken when the oldest update after the last is so old; in a document that was not changed since it was loaded, so long after
    /// that or up to twice as long.
    pub snapshot_age_s: u64,
    /// How often heads and rights in use are compared with PostgreSQL.
    pub check_interval_ms: u64,
    /// A bus message carries at most so many bytes of updates; larger ones are read from the log.
    pub bus_message_bytes_max: usize,
    /// Memory of the recent updates that a document keeps while it is edited: against forks, and for clients that fell behind by less.
    pub document_recent_bytes: usize,
}

/// Two settings that cannot hold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// This one …
    pub less: &'static str,
    /// … must be at least as large as this one …
    pub than: &'static str,
    /// … because otherwise this happens.
    pub else_what: &'static str,
    /// Their values.
    pub values: (usize, usize),
}

impl Limits {
    /// The first settings that cannot hold together.
    pub fn contradiction(&self) -> Option<Contradiction> {
        let at_least = [
            (
                ("step2_bytes_max", self.step2_bytes_max),
                ("document_bytes_max", self.document_bytes_max),
                "no client could bring back a document that the database lost",
            ),
            (
                ("step2_bytes_max", self.step2_bytes_max),
                ("update_bytes_max", self.update_bytes_max),
                "what a client may send while it is connected it could not send after it was offline",
            ),
            (
                ("documents_bytes_max", self.documents_bytes_max),
                ("document_memory_bytes_max", self.document_memory_bytes_max),
                "one document could take more memory than all of them may",
            ),
            (
                ("node_awareness_bytes_max", self.node_awareness_bytes_max),
                ("document_awareness_bytes_max", self.document_awareness_bytes_max),
                "one document could show more presence than all of them may",
            ),
        ];
        at_least.into_iter().find(|((_, value), (_, least), _)| value < least).map(
            |((less, value), (than, least), else_what)| Contradiction { less, than, else_what, values: (value, least) },
        )
    }
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            update_bytes_max: 16 * MIB,
            step2_bytes_max: 160 * MIB,
            document_waiting_bytes_max: 32 * MIB,
            node_waiting_bytes_max: 256 * MIB,
            connection_window_bytes: MIB,
            outbox_bytes_max: MIB,
            sync_piece_bytes: 64 * 1024,
            outbox_stall_s: 10,
            document_bytes_max: 128 * MIB,
            document_connections_max: 10_000,
            document_clients_max: 1_000_000,
            integration_ms_max: 250,
            value_depth_max: 512,
            type_depth_max: 512,
            root_name_bytes_max: 4 * 1024,
            map_key_bytes_max: 64 * 1024,
            awareness_state_bytes_max: 64 * 1024,
            awareness_ids_per_connection_max: 64,
            awareness_interval_ms: 20,
            awareness_wait_ms: 100,
            awareness_timeout_s: 25,
            document_awareness_bytes_max: 4 * MIB,
            node_awareness_bytes_max: 64 * MIB,
            unauthenticated_bytes_max: 64 * 1024,
            node_unauthenticated_bytes_max: 32 * MIB,
            unauthenticated_messages_max: 1_000,
            documents_per_connection_max: 1_000,
            authentication_deadline_s: 60,
            keepalive_s: 10,
            document_idle_s: 30,
            document_compact_after_s: 60,
            document_memory_bytes_max: 256 * MIB,
            documents_bytes_max: 1024 * MIB,
            snapshot_tail_bytes: 256 * 1024,
            snapshot_tail_updates: 2_000,
            snapshot_age_s: 300,
            check_interval_ms: 500,
            bus_message_bytes_max: MIB,
            document_recent_bytes: MIB,
        }
    }
}
