//! The `contextnexus` program. All of it is in the library, where tests reach it: see `contextnexus::commands`.

fn main() -> std::process::ExitCode {
    contextnexus::commands::main()
}
