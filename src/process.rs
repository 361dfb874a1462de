//! What this process asks of the operating system.

use rustix::process::{Pid, test_kill_process};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Stack of every thread. yrs recurses over what clients nest; the gate caps the depth for stacks of this size.
pub(crate) const STACK_BYTES: usize = 16 << 20;
const STACK_VARIABLE: &str = "RUST_MIN_STACK";

/// Gives every thread of this process a stack of 16 MiB (address space; memory is only taken when touched).
///
/// The threads that run documents belong to actix, which takes no stack size, and the standard library reads the variable
/// once, from the environment the process was started with. So the process starts itself once more in its own place, with
/// the same pid, before it has any thread or file.
pub fn ensure_stacks() {
    let given = std::env::var(STACK_VARIABLE).ok().and_then(|text| text.parse::<usize>().ok());
    if given.is_some_and(|bytes| bytes >= STACK_BYTES) {
        return;
    }
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "contextnexus".into());
    // The path keeps the process's name readable in `ps`; the link still works when a build has replaced the file.
    let program = std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "/proc/self/exe".into());
    let error = Command::new(program).arg0(name).args(arguments).env(STACK_VARIABLE, STACK_BYTES.to_string()).exec();
    // Only a failure returns. Smaller stacks are a smaller margin, not a fault: `doctor` names them.
    tracing::warn!(%error, "threads have small stacks: cannot start again with {STACK_VARIABLE}");
}

/// Whether [`ensure_stacks`] had its way.
pub fn has_large_stacks() -> bool {
    std::env::var(STACK_VARIABLE).is_ok_and(|text| text.parse::<usize>().is_ok_and(|bytes| bytes >= STACK_BYTES))
}

/// Raises the number of files this process may open to the most that it may raise it to, and returns that number.
/// Each connection is a file.
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_err() {
        return limit.current.unwrap_or(u64::MAX);
    }
    limit.maximum.unwrap_or(u64::MAX)
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether it runs. One that has ended and that nobody has waited for (a container without an init) does not.
pub fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let is_zombie = stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'));
    !is_zombie && exists(pid)
}

/// Whether any process has this number, another user's or an ended one included. This is what PostgreSQL asks.
pub fn exists(pid: Pid) -> bool {
    !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

/// Whether a program that said this on stderr ended because it got no memory: the standard library's words, before it aborts.
pub(crate) fn is_lack_of_memory(line: &str) -> bool {
    line.contains("memory allocation of ")
}
