//! Every family that the server counts, with what `/metrics` says of it. A test holds that none is missing.

use contextnexus_actors::document::close;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};

/// How full every queue is (ARCHITECTURE.md, "Queues and bounds"). Here from the start, so that an alarm can be set before the first one fills.
const QUEUES: &[(&str, &str)] = &[
    (
        "contextnexus_arriving_bytes",
        "Memory held for messages and request bodies that have not come whole, or wait for their document.",
    ),
    ("contextnexus_loads_waiting", "Documents that are being read from the log."),
    ("contextnexus_authority_waiting", "Tokens and rooms that are being looked up."),
    ("contextnexus_bus_events_waiting", "Messages from the bus that documents have not taken yet."),
    ("contextnexus_bus_outgoing_bytes", "Bytes that wait to be published."),
    ("contextnexus_routes_waiting", "Joins that wait for the host of the documents."),
    ("contextnexus_documents_bytes", "Memory of open documents, estimated by what they are made of."),
    ("contextnexus_http_connections", "Connections that speak HTTP; a WebSocket is none any more."),
    ("contextnexus_log_waiting_appends", "Appends that wait for a transaction."),
    ("contextnexus_log_waiting_bytes", "Bytes of these."),
    ("contextnexus_outbox_bytes", "Bytes that wait to be written to WebSockets, all together."),
    ("contextnexus_passwords_waiting", "Passwords that are hashed or wait for it."),
    (
        "contextnexus_aside_waiting",
        "Decisions of documents that take long and wait for a thread of their own, or have it.",
    ),
    ("contextnexus_presence_bytes", "Presence states (cursors) in memory, all documents together."),
    ("contextnexus_read_backs_waiting", "Snapshots that are being read back, or wait for it."),
    ("contextnexus_recent_bytes", "Memory of the recent updates that documents keep."),
    ("contextnexus_show_waiting", "Documents that are shown as JSON or text, or wait for it."),
    ("contextnexus_unauthenticated_bytes", "Memory held for clients whose token is not checked yet."),
    ("contextnexus_waiting_bytes", "Updates that wait for their commit, all documents together."),
    ("contextnexus_waiting_bytes_of_fullest", "The same in the document where most wait."),
    (
        "contextnexus_ws_held_back_connections",
        "WebSockets that are not read, because a session or document has not taken what came.",
    ),
];

/// What was answered "full".
const REFUSALS: &[(&str, &str)] = &[
    (
        "contextnexus_behind_total",
        "Connections that fell behind in a document, and got one update for what they missed or were closed.",
    ),
    ("contextnexus_bus_overflows_total", "Subscriptions whose queue was full: the log was looked at instead."),
    ("contextnexus_dropped_updates_total", "Updates dropped unadmitted for lack of room, to be asked for again."),
    ("contextnexus_http_stalled_total", "HTTP connections closed because the client took nothing of an answer."),
    ("contextnexus_log_full_total", "Appends that found no room in the log writer in time."),
    ("contextnexus_passwords_refused_total", "Logins refused because too many waited."),
    ("contextnexus_presence_dropped_total", "States of presence (cursors) left out because of a limit."),
    ("contextnexus_show_refused_total", "Documents not shown because too many waited."),
];

/// The same by close code.
const REFUSALS_BY_CODE: &[(&str, &str)] = &[
    ("contextnexus_closed_total", "Connections closed by their session, and attachments closed by their document."),
    ("contextnexus_refused_total", "Documents that a connection asked for and did not get."),
];

/// The rest of what goes up and down. A line is there once it was written.
const GAUGES: &[(&str, &str)] = &[
    ("contextnexus_build_info", "Always 1; the labels say which version runs, and of which commit it was built."),
    ("contextnexus_bus_up", "1 while this node is connected to Redis."),
    ("contextnexus_disk_full", "1 while the last write that was tried found no room, by part."),
    ("contextnexus_documents", "Documents that are open on this node."),
    ("contextnexus_documents_bytes", "Memory of these, estimated."),
    ("contextnexus_writes_failing", "1 while the last write that was tried failed, by part; `/ready` says why."),
    ("contextnexus_ws_connections", "Open WebSockets by dialect."),
];

/// The rest of what only goes up.
const COUNTERS: &[(&str, &str)] = &[
    (
        "contextnexus_bus_dropped_total",
        "Messages to or from other nodes that were dropped, by reason; the log has what they said. `mac`: forged.",
    ),
    ("contextnexus_bus_published_total", "Messages published to other nodes."),
    (
        "contextnexus_documents_closed_for_writing_total",
        "Documents closed for writing after their second row that broke a fold.",
    ),
    ("contextnexus_fanout_total", "Updates handed to connections, one for each connection."),
    ("contextnexus_http_refused_connections_total", "HTTP connections refused, by reason."),
    (
        "contextnexus_http_unreadable_total",
        "HTTP requests refused because a proxy might read them otherwise, by reason.",
    ),
    ("contextnexus_log_appends_total", "Appends of documents to the log, by outcome."),
    ("contextnexus_log_bytes_total", "Bytes of committed updates."),
    ("contextnexus_log_updates_total", "Committed updates."),
    ("contextnexus_quarantined_total", "Log rows and updates stored in quarantine, by reason."),
    (
        "contextnexus_snapshots_total",
        "Snapshots by result. `stored`; `unsound`, `too_dear`: taken and not stored; `unreadable`: stored, and passed over.",
    ),
    ("contextnexus_tls_refused_total", "Connections that ended during the TLS handshake, by reason."),
    ("contextnexus_upkeep_removed_total", "Expired rows removed by upkeep, by what they are."),
    ("contextnexus_ws_received_bytes_total", "Bytes of messages received on WebSockets."),
    ("contextnexus_ws_received_messages_total", "Messages received on WebSockets."),
    ("contextnexus_ws_refused_input_total", "WebSockets closed because of what their client sent, by reason."),
    ("contextnexus_ws_refused_upgrades_total", "Upgrade requests refused, by reason."),
    ("contextnexus_ws_sent_bytes_total", "Bytes written to WebSockets."),
    ("contextnexus_ws_shut_total", "WebSockets shut down from outside, by reason."),
];

/// What is distributed.
const HISTOGRAMS: &[(&str, &str)] = &[
    ("contextnexus_commit_documents", "Documents whose updates one transaction of the log commits."),
    ("contextnexus_commit_seconds", "Time of one transaction of the log."),
    (super::requests::SECONDS, "Time from an HTTP request to the head of its answer, by method, route and status."),
    ("contextnexus_join_seconds", "Time from a join's arrival at its document to the state it is sent."),
    ("contextnexus_load_seconds", "Time to load a document."),
    ("contextnexus_snapshot_seconds", "Time to read back and store a snapshot."),
];

/// The commit of which this program was built, where that is known (`build.rs`).
const REVISION: &str = env!("CNX_REVISION");

/// Describes all, and begins those that must be there from the start.
pub fn describe() {
    for (name, what) in QUEUES {
        describe_gauge!(*name, *what);
        gauge!(*name).set(0.0);
    }
    for (name, what) in REFUSALS {
        describe_counter!(*name, *what);
        counter!(*name).absolute(0);
    }
    for (name, what) in REFUSALS_BY_CODE {
        describe_counter!(*name, *what);
        for code in close::ALL {
            counter!(*name, "code" => code.to_string()).absolute(0);
        }
    }
    GAUGES.iter().for_each(|(name, what)| describe_gauge!(*name, *what));
    COUNTERS.iter().for_each(|(name, what)| describe_counter!(*name, *what));
    HISTOGRAMS.iter().for_each(|(name, what)| describe_histogram!(*name, *what));
    gauge!("contextnexus_build_info", "version" => env!("CARGO_PKG_VERSION"), "revision" => REVISION).set(1.0);
}
