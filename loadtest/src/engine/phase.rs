//! A phase: sends at one rate for a while, watched from outside.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;

use super::fleet::Fleet;
use super::{Engine, Payload, RunError};
use crate::alarm::Alarm;
use crate::bench::{Bench, BenchError};
use crate::measure::{Generator, ServerUsage};
use crate::outcome::{Figures, Line, Outcome, Plot};
use crate::process;

/// Between two wake-ups of the sender: a timer per send would cost more than the send at 10,000 a second.
const WAKE_UPS_APART: Duration = Duration::from_micros(200);

/// What a phase looked like from outside.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Updates a second that the schedule asked for, all writers together.
    pub rate_wanted: f64,
    /// Updates a second that were sent.
    pub rate_sent: f64,
    /// Length of the measured window.
    pub elapsed: Duration,
    /// Updates received by a connection in the window, the sender's echo included; a merged one counts for each.
    pub deliveries: u64,
    /// WebSocket messages these came in.
    pub messages: u64,
    /// What the server used, where its processes are known.
    pub server: Option<ServerUsage>,
    /// What the generator used.
    pub generator: Generator,
    /// What happened second by second.
    pub ticks: Vec<Tick>,
}

/// One moment of a phase.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tick {
    /// Since the window began.
    pub at_s: f64,
    /// Updates a second.
    pub sent: f64,
    /// Deliveries a second.
    pub deliveries: f64,
    /// Of what was delivered since the last tick.
    pub p50_ms: Option<f64>,
    /// The same.
    pub p99_ms: Option<f64>,
    /// Cores that the server used.
    pub server_cpu: Option<f64>,
    /// Cores that the generator used.
    pub own_cpu: f64,
    /// The server's memory.
    pub memory_mib: Option<f64>,
}

impl Engine {
    /// Sends at `rate` updates a second, all writers together: first a warm-up, then the window that counts. What is
    /// under way at its end is for [`drain`](Engine::drain).
    pub async fn phase(
        &mut self,
        rate: f64,
        warm_up: Duration,
        duration: Duration,
        bench: &Bench,
    ) -> Result<Phase, RunError> {
        let start = Instant::now() + Duration::from_millis(50);
        let window = (start + warm_up, start + warm_up + duration);
        self.fleet.borrow_mut().begin(window);
        let mut order: Vec<usize> = (0..self.shape.documents * self.shape.writers).collect();
        order.shuffle(&mut self.random);
        let sending = self.send_all(&order, rate, start, window.1);
        let (sent, phase) = tokio::join!(sending, observe(&self.fleet, rate, window, bench));
        sent?;
        phase
    }

    async fn send_all(&self, order: &[usize], rate: f64, start: Instant, end: Instant) -> std::io::Result<()> {
        let mut alarm = Alarm::new()?;
        let mut woke = start;
        for number in 0u64.. {
            let due = start + Duration::from_secs_f64(number as f64 / rate);
            if due >= end || order.is_empty() {
                break;
            }
            let now = Instant::now();
            if due > now || number.is_multiple_of(64) {
                woke = due.max(woke + WAKE_UPS_APART);
                alarm.until(woke).await?;
            }
            let writer = order[(number % order.len() as u64) as usize];
            let link = &self.links[writer];
            if link.is_closed() {
                continue;
            }
            let bytes = self.fleet.borrow_mut().next(writer, due);
            match self.shape.payload {
                Payload::Text => link.send_update(&bytes),
                Payload::Cursor => link.send_awareness(&bytes),
            }
        }
        Ok(())
    }
}

async fn observe(
    fleet: &Rc<RefCell<Fleet>>,
    rate: f64,
    (from, to): (Instant, Instant),
    bench: &Bench,
) -> Result<Phase, RunError> {
    tokio::time::sleep_until(from.into()).await;
    let began = Instant::now();
    let step = ((to - from) / 10).clamp(Duration::from_millis(250), Duration::from_secs(1));
    let own_before = process::OwnTime::now();
    let before = bench.usage().await?;
    let mut memory_max = before.as_ref().map_or(0, process::Usage::memory_bytes);
    let mut last = (began, own_before, before.clone(), 0, 0);
    let mut ticks = Vec::new();
    loop {
        tokio::time::sleep_until((last.0 + step).min(to).into()).await;
        let usage = bench.usage().await?;
        let own = process::OwnTime::now();
        let moment = Instant::now();
        memory_max = memory_max.max(usage.as_ref().map_or(0, process::Usage::memory_bytes));
        let mut fleet = fleet.borrow_mut();
        let seconds = moment.duration_since(last.0).as_secs_f64();
        let recent = fleet.recent.quantiles();
        let server_cpu = last
            .2
            .as_ref()
            .zip(usage.as_ref())
            .map(|(before, now)| now.cpu_total().saturating_sub(before.cpu_total()).as_secs_f64() / seconds);
        let tick = Tick {
            at_s: moment.duration_since(began).as_secs_f64(),
            sent: (fleet.window_sent - last.3) as f64 / seconds,
            deliveries: (fleet.window_deliveries - last.4) as f64 / seconds,
            p50_ms: recent.map(|recent| recent.p50_ms),
            p99_ms: recent.map(|recent| recent.p99_ms),
            server_cpu,
            own_cpu: own.since(&last.1).used.as_secs_f64() / seconds,
            memory_mib: usage.as_ref().map(|usage| mib(usage.memory_bytes())),
        };
        fleet.recent.clear();
        bench.progress.at(|| tick.words());
        ticks.push(tick);
        last = (moment, own, usage, fleet.window_sent, fleet.window_deliveries);
        if moment >= to {
            break;
        }
    }
    let elapsed = began.elapsed();
    let own = process::OwnTime::now().since(&own_before);
    let fleet = fleet.borrow();
    let server = before
        .zip(last.2)
        .map(|(before, after)| ServerUsage::new(&before, &after, elapsed, fleet.window_deliveries, memory_max));
    Ok(Phase {
        rate_wanted: rate,
        // Sends and deliveries are those of the window itself; looking at it ends a little later.
        rate_sent: fleet.window_sent as f64 / (to - from).as_secs_f64(),
        elapsed: to - from,
        deliveries: fleet.window_deliveries,
        messages: fleet.window_messages,
        server,
        generator: Generator::new(own, elapsed, &fleet.late),
        ticks,
    })
}

/// Bytes in MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl Tick {
    fn words(&self) -> String {
        let latency = match (self.p50_ms, self.p99_ms) {
            (Some(p50), Some(p99)) => format!("p50 {p50:.2} ms, p99 {p99:.2} ms"),
            _ => "nothing delivered".to_owned(),
        };
        let server = match (self.server_cpu, self.memory_mib) {
            (Some(cpu), Some(memory)) => format!(", server {:.0} % CPU, {memory:.0} MiB", cpu * 100.0),
            _ => String::new(),
        };
        format!(
            "{:.0} s, {:.0} updates/s, {:.0} deliveries/s, {latency}{server}, generator {:.0} %",
            self.at_s,
            self.sent,
            self.deliveries,
            self.own_cpu * 100.0
        )
    }
}

impl Phase {
    /// What every scenario that sends at a rate reports of its phase; latencies come from the engine after the drain.
    pub fn report(&self, engine: &Engine, outcome: &mut Outcome) {
        let (delivery, acknowledgement) = engine.latencies();
        let figures = &mut outcome.figures;
        figures.set("cpu_us", self.server.as_ref().map(|usage| usage.cpu_us_per_delivery_own));
        figures.set("cpu_total_us", self.server.as_ref().map(|usage| usage.cpu_us_per_delivery));
        set_quantiles(figures, delivery, ["delivery_p50_ms", "delivery_p90_ms", "delivery_p99_ms", "delivery_max_ms"]);
        set_quantiles(figures, acknowledgement, ["ack_p50_ms", "ack_p90_ms", "ack_p99_ms", "ack_max_ms"]);
        figures.set("rate_wanted", self.rate_wanted);
        figures.set("rate_sent", self.rate_sent);
        figures.set("deliveries", self.deliveries as f64 / self.elapsed.as_secs_f64());
        figures.set("messages", self.messages as f64 / self.elapsed.as_secs_f64());
        if let Some(usage) = &self.server {
            figures.set("cpu_percent", usage.cpu_total * 100.0);
            figures.set("memory_mib", usage.memory_mib_max);
            outcome.cpu_by_process.clone_from(&usage.cpu);
        }
        figures.set("generator_percent", self.generator.cpu * 100.0);
        figures.set("generator_waited_percent", self.generator.waited * 100.0);
        figures.set("late_p99_ms", self.generator.late_p99_ms);
        outcome.cautions.extend(self.generator.caution());
        outcome.plots.push(Plot {
            title: "Latencies from the quickest to the slowest",
            x: "share of all",
            y: "ms",
            log: (false, true),
            lines: engine.spread(),
        });
        outcome.plots.extend(over_time(&self.ticks));
    }
}

fn set_quantiles(figures: &mut Figures, of: Option<crate::measure::Quantiles>, names: [&'static str; 4]) {
    let values = of.map(|of| [of.p50_ms, of.p90_ms, of.p99_ms, of.max_ms]);
    for (at, name) in names.into_iter().enumerate() {
        figures.set(name, values.map(|values| values[at]));
    }
}

/// What happened over time, as charts.
pub fn over_time(ticks: &[Tick]) -> Vec<Plot> {
    let line = |name: &str, pick: fn(&Tick) -> Option<f64>| {
        Line::new(name, ticks.iter().filter_map(|tick| Some((tick.at_s, pick(tick)?))).collect())
    };
    let plot = |title, y, log, lines: Vec<Line>| Plot {
        title,
        x: "s",
        y,
        log: (false, log),
        lines: lines.into_iter().filter(|line| line.points.len() > 1).collect(),
    };
    let plots = [
        plot("Delivery over time", "ms", true, vec![line("p50", |tick| tick.p50_ms), line("p99", |tick| tick.p99_ms)]),
        plot("Deliveries over time", "/s", false, vec![line("deliveries", |tick| Some(tick.deliveries))]),
        plot(
            "CPU over time",
            "% of a core",
            false,
            vec![
                line("server", |tick| Some(tick.server_cpu? * 100.0)),
                line("generator", |tick| Some(tick.own_cpu * 100.0)),
            ],
        ),
        plot("Memory over time", "MiB", false, vec![line("server", |tick| tick.memory_mib)]),
    ];
    plots.into_iter().filter(|plot| !plot.lines.is_empty()).collect()
}

impl From<process::ProcessError> for RunError {
    fn from(error: process::ProcessError) -> Self {
        Self::Bench(BenchError::Process(error))
    }
}
