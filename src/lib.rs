//! Everything in ContextNexus that touches the world: PostgreSQL, Redis, HTTP, WebSockets, files, processes and the
//! command line. What it decides about documents is decided in `contextnexus_actors`; only [`app`] knows both sides.

// One line per module, in alphabetical order, so that two people rarely touch the same line.
pub mod app;
pub mod aside;
pub mod backup;
pub mod commands;
pub mod config;
pub mod console;
pub mod cookies;
pub mod data_dir;
pub mod demo;
pub mod devices;
pub mod embedded;
pub mod export;
pub mod files;
pub mod folding;
pub mod health;
pub mod metrics;
pub mod net;
pub mod open_database;
pub mod origins;
pub mod passwords;
pub mod paths;
pub mod placement;
pub mod postgres;
pub mod process;
pub mod proxies;
pub mod redis;
pub mod rest;
pub mod telemetry;
pub mod tokens;
pub mod wait_for_postgres;
pub mod web;
pub mod workers;
pub mod ws;
