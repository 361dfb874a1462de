//! Every figure that a scenario may report: its name in JSON and thresholds, its words, its unit, and how it is set
//! beside the relay's.

/// How a server's figure is set beside the relay's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// As a ratio: work and rates.
    Ratio,
    /// As a difference: what a server adds to a latency.
    Difference,
    /// Not at all: the relay's says nothing about it.
    Nothing,
}

/// What a figure is.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// In JSON and in `--max NAME=VALUE`.
    pub name: &'static str,
    /// For people.
    pub label: &'static str,
    /// Behind the number; empty for counts and shares.
    pub unit: &'static str,
    /// Beside the relay's.
    pub beside: Beside,
}

const fn ratio(name: &'static str, label: &'static str, unit: &'static str) -> Kind {
    Kind { name, label, unit, beside: Beside::Ratio }
}

const fn above(name: &'static str, label: &'static str) -> Kind {
    Kind { name, label, unit: "ms", beside: Beside::Difference }
}

const fn plain(name: &'static str, label: &'static str, unit: &'static str) -> Kind {
    Kind { name, label, unit, beside: Beside::Nothing }
}

/// All of them.
pub const KINDS: &[Kind] = &[
    // ramp and overload
    ratio("max_rate", "highest rate that kept the limit", "/s"),
    ratio("max_deliveries", "deliveries at that rate", "/s"),
    plain("stopped_at_rate", "first rate that did not", "/s"),
    plain("overload_rate", "rate of the overload", "/s"),
    ratio("delivered_rate", "updates delivered to all, until the last arrived", "/s"),
    plain("of_maximum", "the same over the maximum", ""),
    plain("drain_ms", "from the last send until everything had arrived", "ms"),
    // every scenario that sends at a rate
    ratio("cpu_us", "CPU per delivery, the server's own", "µs"),
    ratio("cpu_total_us", "CPU per delivery, database and bus included", "µs"),
    above("delivery_p50_ms", "delivery p50"),
    above("delivery_p90_ms", "delivery p90"),
    above("delivery_p99_ms", "delivery p99"),
    above("delivery_max_ms", "delivery, the slowest"),
    above("ack_p50_ms", "acknowledgement p50"),
    above("ack_p90_ms", "acknowledgement p90"),
    above("ack_p99_ms", "acknowledgement p99"),
    above("ack_max_ms", "acknowledgement, the slowest"),
    plain("commit_p50_ms", "one-row commit p50 on the same database", "ms"),
    plain("ack_beyond_3_commits_ms", "acknowledgement p50 beyond three commits", "ms"),
    // stalled and attack
    plain("calm_p99_ms", "delivery p99 before, without those who disturb", "ms"),
    plain("p99_over_calm", "delivery p99 over that without them", ""),
    plain("growth_mib", "memory more than before, the server's own", "MiB"),
    plain("growth_total_mib", "the same, database and bus included", "MiB"),
    plain("growth_of_cap", "the server's growth over the caps of all of them", ""),
    plain("stalled", "stalled readers", ""),
    plain("cut_off", "stalled connections that the server ended", ""),
    plain("hostile_opened", "connections of the attacker", ""),
    plain("hostile_refused", "of these refused or ended by the server", ""),
    plain("after_over_before", "the same over the memory before", ""),
    plain("back_ms", "until all of them had everything", "ms"),
    plain("unequal", "of them in another state than a fresh client", ""),
    // idle
    plain("kib_each", "memory of a connection, the whole process tree", "KiB"),
    plain("kib_each_own", "the same without database and bus", "KiB"),
    plain("cpu_idle_percent", "CPU while nobody does anything", "%"),
    // coldload
    plain("feed_s", "all updates in, acknowledged", "s"),
    plain("feed_rate", "updates acknowledged", "/s"),
    plain("cold_server_ms", "cold: load in the server, by its own count", "ms"),
    plain("cold_ms", "cold: from step 1 to step 2", "ms"),
    plain("warm_server_ms", "warm: step 2 made in the server, by its own count", "ms"),
    plain("warm_ms", "warm: from step 1 to step 2", "ms"),
    plain("sync_kib", "step 2", "KiB"),
    plain("document_mib", "memory of a loaded document", "MiB"),
    // storm
    plain("storm_ms", "from the start of the process until all are synced", "ms"),
    plain("start_ms", "from the start of the process to the first accepted connection", "ms"),
    // durability and converge
    plain("kills", "kills", ""),
    plain("sent", "tokens sent", ""),
    plain("owed", "of these owed: acknowledged or seen", ""),
    plain("acknowledged_rate", "tokens acknowledged while sending", "/s"),
    plain("lost", "owed and lost", ""),
    plain("lost_acknowledged", "of these acknowledged", ""),
    plain("duplicated", "tokens that stand twice", ""),
    plain("torn", "characters of no token", ""),
    plain("differing", "documents read differently by dialect", ""),
    plain("quarantined", "quarantined, by the server's own count", ""),
    plain("restart_p50_ms", "restart to the first synced client, p50", "ms"),
    plain("restart_max_ms", "restart to the first synced client, the slowest", "ms"),
    plain("edits", "edits", ""),
    plain("disconnects", "disconnects", ""),
    plain("settle_ms", "until all were equal", "ms"),
    // what every scenario may have
    plain("open_ms", "until all connections were synced", "ms"),
    plain("connections", "connections", ""),
    plain("documents", "documents", ""),
    plain("updates", "updates", ""),
    plain("rate_wanted", "rate asked for", "/s"),
    plain("rate_sent", "rate sent", "/s"),
    ratio("deliveries", "deliveries", "/s"),
    ratio("messages", "WebSocket messages these came in", "/s"),
    plain("missing", "missing", ""),
    plain("unacked", "never acknowledged", ""),
    plain("refused", "refusals heard", ""),
    plain("dropped", "connections dropped", ""),
    ratio("cpu_percent", "CPU of all server processes", "%"),
    plain("memory_before_mib", "memory before", "MiB"),
    plain("memory_mib", "memory, at most", "MiB"),
    plain("memory_after_mib", "memory after", "MiB"),
    plain("generator_percent", "CPU of the generator", "%"),
    plain("generator_waited_percent", "the generator waited for its core", "%"),
    plain("late_p99_ms", "sends late, p99", "ms"),
    plain("load_average", "load average of the machine", ""),
];

/// The kind of that name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

impl Kind {
    /// A value in the digits that its size deserves, with its unit.
    pub fn show(&self, value: f64) -> String {
        let number = number(value);
        match self.unit {
            "" => number,
            unit => format!("{number} {unit}"),
        }
    }

    /// The server's value beside the relay's, in words.
    pub fn show_beside(&self, value: f64) -> String {
        match self.beside {
            Beside::Ratio => format!("{value:.2}x"),
            Beside::Difference => format!("{}{} {}", if value < 0.0 { "" } else { "+" }, number(value), self.unit),
            Beside::Nothing => String::new(),
        }
    }

    /// Sets a server's value beside the relay's; `None` where that means nothing.
    pub fn beside(&self, server: f64, relay: f64) -> Option<f64> {
        match self.beside {
            Beside::Ratio => (relay > 0.0).then(|| server / relay),
            Beside::Difference => Some(server - relay),
            Beside::Nothing => None,
        }
    }
}

/// Three digits where they say something; whole numbers whole.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1_000.0 {
        let whole = format!("{value:.0}");
        let (sign, digits) = whole.strip_prefix('-').map_or(("", whole.as_str()), |digits| ("-", digits));
        let mut out = String::from(sign);
        for (at, digit) in digits.char_indices() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                out.push(',');
            }
            out.push(digit);
        }
        out
    } else if value.fract() == 0.0 || size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_kind() {
        let mut names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn numbers_keep_the_digits_that_say_something() {
        for (value, shown) in [
            (0.0, "0"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1_234_567.8, "1,234,568"),
            (-4_000.0, "-4,000"),
        ] {
            assert_eq!(number(value), shown);
        }
    }

    #[test]
    fn work_is_compared_by_ratio_and_latency_by_difference() {
        let cpu = kind("cpu_us").unwrap();
        assert_eq!(cpu.beside(3.0, 2.0).map(|value| cpu.show_beside(value)), Some("1.50x".to_owned()));
        assert_eq!(cpu.beside(3.0, 0.0), None, "a relay that used nothing is no measure");
        let p50 = kind("delivery_p50_ms").unwrap();
        assert_eq!(p50.beside(1.5, 0.5).map(|value| p50.show_beside(value)), Some("+1 ms".to_owned()));
        assert_eq!(kind("missing").unwrap().beside(1.0, 1.0), None);
    }
}
