//! What a node does beside serving, one file per task.

pub mod upkeep;
