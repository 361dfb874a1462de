//! From a command line to a verdict: runs, the relay beside them, reports, thresholds.

use std::error::Error;

use crate::bench::Bench;
use crate::outcome::{Outcome, Thresholds, goals};
use crate::process;
use crate::progress::Progress;
use crate::relay::Relay;
use crate::report::{self, Group, Report};
use crate::scenarios::{OutputArgs, Scenario};

/// Whether every threshold was kept and nothing was lost.
pub type Verdict = Result<bool, Box<dyn Error>>;

/// Carries a scenario out as often as asked, reports and judges. Needs a `LocalSet` on a current-thread runtime.
pub async fn drive(scenario: &Scenario) -> Verdict {
    let common = scenario.common();
    prepare(&common.output)?;
    let bench = Bench::new(common.server.clone(), Progress::new(common.output.quiet));
    let mut warnings = Vec::new();
    let relay = match (common.runs.relay, scenario.launches()) {
        (false, _) => None,
        (true, true) => return Err("this scenario restarts its server, and a relay forgets: leave --relay out".into()),
        (true, false) => {
            if bench.server_cpu().is_none() {
                let words = "the server is pinned to no CPU, so the relay is not either: ratios may not compare";
                warnings.push(words.to_owned());
            }
            Some(Relay::start(bench.server_cpu(), common.runs.relay_writes).await?)
        }
    };
    let (mut relay_runs, mut runs) = (Vec::new(), Vec::new());
    for run in 1..=common.runs.runs.max(1) {
        if let Some(relay) = &relay {
            let bench = relay.bench(Progress::new(common.output.quiet));
            relay_runs.push(once(scenario, &bench, "relay", run, common.runs.runs, &common.output).await?);
        }
        runs.push(once(scenario, &bench, "server", run, common.runs.runs, &common.output).await?);
    }
    let relay = (!relay_runs.is_empty()).then(|| Group::new("relay", relay_runs, None));
    let server = Group::new("server", runs, relay.as_ref());
    let verdict = judge(&server, &common.thresholds);
    let report = Report { groups: relay.into_iter().chain([server]).collect(), broken: verdict, warnings };
    finish(&report, &common.output)
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        words.push_str(&format!(": {source}"));
        cause = source.source();
    }
    words
}

/// Pins the generator and takes as many sockets as it may have.
pub fn prepare(output: &OutputArgs) -> Result<(), Box<dyn Error>> {
    process::raise_file_limit()?;
    if let Some(cpu) = output.cpu {
        process::pin_self(cpu)?;
    }
    Ok(())
}

/// One run, noted in the JSON lines as soon as it is over.
pub async fn once(
    scenario: &Scenario,
    bench: &Bench,
    against: &str,
    run: usize,
    of: usize,
    output: &OutputArgs,
) -> Result<Outcome, Box<dyn Error>> {
    let name = scenario.name();
    bench.progress.head(&match of {
        0 | 1 => format!("{name} against the {against}"),
        _ => format!("{name} against the {against}, run {run} of {of}"),
    });
    let carried_out = scenario.run(bench).await;
    bench.progress.end();
    let mut outcome = carried_out?;
    against.clone_into(&mut outcome.against);
    outcome.run = run;
    outcome.dialects = bench.dialects();
    if let Some(file) = &output.json {
        report::append_json(file, &outcome)?;
    }
    Ok(outcome)
}

/// What was not kept, in words.
pub fn judge(server: &Group, thresholds: &Thresholds) -> Vec<String> {
    let mut broken = thresholds.broken(&server.summary);
    if thresholds.goals {
        let documents = server.summary.figures.get("documents").copied().unwrap_or(1.0);
        broken.extend(goals(&server.summary.scenario, documents).broken(&server.summary));
    }
    for run in &server.runs {
        broken.extend(run.faults.iter().cloned());
        if thresholds.check_metrics {
            if run.checks.is_empty() {
                broken.push("no counter of the server could be checked: is --metrics given?".to_owned());
            }
            broken.extend(run.checks.iter().filter(|check| !check.agrees()).map(|check| {
                format!("{}: the server counted {}, the generator {}", check.what, check.server, check.generator)
            }));
        }
    }
    broken
}

/// Prints, writes files, and answers the verdict.
pub fn finish(report: &Report, output: &OutputArgs) -> Verdict {
    report.print();
    if let Some(file) = &output.json {
        for group in &report.groups {
            report::append_json(file, &group.summary)?;
        }
    }
    if let Some(file) = &output.html {
        std::fs::write(file, report.page())?;
    }
    Ok(report.broken.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Check;

    fn group(faults: &[&str], checks: Vec<Check>) -> Group {
        let mut outcome = Outcome::new("fanout", String::new());
        outcome.figures.set("missing", 0.0);
        outcome.faults = faults.iter().map(|fault| (*fault).to_owned()).collect();
        outcome.checks = checks;
        Group::new("server", vec![outcome], None)
    }

    #[test]
    fn a_fault_breaks_a_run_without_any_threshold() {
        assert!(judge(&group(&[], Vec::new()), &Thresholds::default()).is_empty());
        assert_eq!(judge(&group(&["lost"], Vec::new()), &Thresholds::default()), ["lost"]);
    }

    #[test]
    fn counters_that_differ_fail_only_when_asked() {
        let check = |server| Check { what: "updates", counter: "c", server, generator: 2.0 };
        let asked = Thresholds { check_metrics: true, ..Thresholds::default() };
        assert!(judge(&group(&[], vec![check(1.0)]), &Thresholds::default()).is_empty());
        assert_eq!(judge(&group(&[], vec![check(1.0), check(2.0)]), &asked).len(), 1);
        assert_eq!(judge(&group(&[], Vec::new()), &asked).len(), 1, "nothing checked is not checked");
    }
}
