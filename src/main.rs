//! The `contextnexus` program. See `contextnexus::commands`.

fn main() {}
