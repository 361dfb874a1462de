//! A file mapped into memory, as words that any thread may write. The only `unsafe` of this program.
//!
//! A system call for each fold would do as well, in safe code: 0.7 us here, but 1.4 ms for one in ten thousand and 26 ms at worst while
//! PostgreSQL syncs the same disk, because each touches the file's times. A store into a mapped page is a few nanoseconds, and waits for
//! the file system once in a write-back period at most.
#![allow(unsafe_code)]

use rustix::mm::{MapFlags, ProtFlags, mmap};
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::AtomicU64;

/// Writes zeros for as many words into an empty file, and maps it. What is stored there is in the file, for whoever reads it after this
/// process, however it ends. The mapping lives as long as the process.
pub(super) fn map(file: &mut File, words: usize) -> io::Result<&'static [AtomicU64]> {
    let bytes = words * size_of::<AtomicU64>();
    // Written and not only sized: a hole would need space at the first store, and without it end the process by SIGBUS.
    file.write_all(&vec![0; bytes])?;
    file.sync_data()?;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses an address that nothing else in this process uses, and nobody unmaps it. The file has the bytes that are
    // mapped: it was made for this, is locked by this process, and nobody shortens it.
    let start = unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, &*file, 0) }?;
    // SAFETY: readable, writable and aligned to a page for as long as the process lives; zeros are words; all access is atomic, so it may be
    // shared between threads.
    Ok(unsafe { std::slice::from_raw_parts(start.cast::<AtomicU64>(), words) })
}
