//! End-to-end tests: the server's own binary, a real PostgreSQL and Redis, and the JavaScript clients that people use.
//!
//! Each test starts what it needs and takes it down again. `CNX_LONG=1` runs the long forms, with larger
//! numbers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::print_stdout, missing_docs)]

#[path = "../support/mod.rs"]
#[allow(dead_code)] // each part is used by some of the modules below
mod support;

mod browser;
mod embedded;
mod http_heads;
mod interop_access;
mod interop_control;
mod interop_convergence;
mod interop_culprit;
mod interop_failover;
mod interop_families;
mod interop_golden;
mod interop_hostile;
mod interop_kills;
mod interop_liveness;
mod interop_names;
mod interop_nodes;
mod interop_outage;
mod interop_planted;
mod interop_presence;
mod interop_promises;
mod interop_rights;
mod interop_slow_links;
mod interop_snippets;
mod interop_values;
mod interop_writers;
mod log_levels;
mod memory;
mod metrics;
mod postgres_authority;
mod postgres_catalogue;
mod postgres_log;
mod postgres_measure;
mod postgres_tenancy;
mod postgres_upkeep;
mod redis_bus;
mod rest_clock;
mod rest_content;
mod rest_damage;
mod rest_documents;
mod rest_isolation;
mod rest_openapi;
mod rest_quarantine;
mod rest_sessions;
mod rest_tickets;
mod tidy;
mod ws_flood;
mod ws_limits;
mod ws_origins;
mod ws_stalled;
mod ws_tls;
