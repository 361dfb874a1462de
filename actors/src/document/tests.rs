//! What a document promises, one sentence a test. The editors are real yrs documents; the log is the reference implementation.

mod bench;

mod acknowledging;
mod actor;
mod asking;
mod committing;
mod damaged;
mod limits;
mod pieces;
mod presence;
mod reading;
mod reconnecting;
mod recovering;
mod rights;
mod taken_out;
mod too_dear;
mod writers;
