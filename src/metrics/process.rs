//! What the kernel knows about this process, under the names that Prometheus' own clients use. Written as text: CPU time and the
//! start are fractions of a second, and the recorder's counters are whole numbers.

use std::fmt::Write as _;
use std::fs;

/// Every family with its values; what the kernel does not tell is left out.
pub fn render() -> String {
    let stat = Stat::read().unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
    let may_open = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.map(|limit| limit as f64);
    let families = [
        ("process_cpu_seconds_total", "counter", "CPU time that this process has used.", stat.cpu_s),
        (
            "process_cpu_milliseconds_total",
            "counter",
            "The same in milliseconds, as earlier versions named it.",
            stat.cpu_s.map(|seconds| (seconds * 1000.0).round()),
        ),
        ("process_start_time_seconds", "gauge", "When this process started, since 1970.", stat.started_s),
        ("process_resident_memory_bytes", "gauge", "Memory of this process that is in RAM.", bytes(&status, "VmRSS:")),
        ("process_virtual_memory_bytes", "gauge", "Address space of this process.", bytes(&status, "VmSize:")),
        ("process_open_fds", "gauge", "Files and sockets that this process has open.", open),
        ("process_max_fds", "gauge", "Files and sockets that this process may open.", may_open),
        ("process_threads", "gauge", "Threads of this process.", number(&status, "Threads:")),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in families {
        if let Some(value) = value {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"); // to a string: cannot fail
        }
    }
    text
}

/// The first number of a line of `/proc/self/status`.
fn number(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn bytes(status: &str, name: &str) -> Option<f64> {
    number(status, name).map(|kib| kib * 1024.0)
}

#[derive(Default)]
struct Stat {
    cpu_s: Option<f64>,
    started_s: Option<f64>,
}

impl Stat {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
        // The name in brackets may hold spaces. After it, user and system time are the 12th and 13th field, the start is the 20th.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
        let seconds = |field: usize| -> Option<f64> { Some(fields.get(field)?.parse::<f64>().ok()? / ticks_per_s) };
        let booted_s = fs::read_to_string("/proc/stat").ok().and_then(|stat| number(&stat, "btime"));
        Some(Self {
            cpu_s: Some(seconds(11)? + seconds(12)?),
            started_s: booted_s.and_then(|booted| Some(booted + seconds(19)?)),
        })
    }
}
