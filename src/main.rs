//! The `contextnexus` program. All of it is in the library, where tests reach it: see `contextnexus::commands`.

/// Gives memory that was freed back to the system: after a burst of large messages or a hundred documents that were closed, glibc keeps most of it.
/// Measured (120 buffers of 8 MiB, then 20 trees of 300,000 blocks with a few survivors each): 5 MiB are left here, 69 with glibc, 82 with
/// mimalloc, and it takes less time than either.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    contextnexus::commands::main()
}
