//! One page that needs nothing else: tables and charts, light and dark, good to be sent around.

use std::fmt::Write;

use super::svg::{chart, escape, legend};
use super::{Group, Report, table};
use crate::outcome::{Line, Plot};

const STYLE: &str = "
:root { color-scheme: light dark; --page: #fbfaf8; --ink: #1d2125; --soft: #5c6670; --rule: #dcd9d3; --panel: #ffffff;
  --bad: #b3261e; --care: #8a5a00; --good: #1f6f43;
  --c0: #1f5fa8; --c1: #c2570c; --c2: #2e7d4f; --c3: #7a4bb0; --c4: #b0224e; --c5: #00747a; --c6: #7c6a0a; --c7: #55606b; }
@media (prefers-color-scheme: dark) { :root { --page: #16191c; --ink: #e7e9eb; --soft: #a1abb5; --rule: #343a40;
  --panel: #1e2226; --bad: #ff8a80; --care: #f0b95b; --good: #7fd3a2;
  --c0: #7ab4f5; --c1: #ff9f5a; --c2: #74cf98; --c3: #c39af2; --c4: #ff86a8; --c5: #59cdd3; --c6: #d8c45a; --c7: #a9b4be; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 1.05rem; margin: 32px 0 8px; }
p, ul { margin: 4px 0; } ul { padding-left: 20px; }
.soft { color: var(--soft); } .bad { color: var(--bad); } .care { color: var(--care); } .good { color: var(--good); }
.verdict { font-weight: 600; margin: 12px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 12px; border-bottom: 1px solid var(--rule); vertical-align: baseline; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; }
thead th { color: var(--soft); font-weight: 600; }
.beside { color: var(--soft); margin-left: 8px; } .range { display: block; color: var(--soft); font-size: 12px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 16px; }
figure { margin: 0; padding: 12px 14px; background: var(--panel); border: 1px solid var(--rule); border-radius: 6px; }
figcaption { font-weight: 600; } svg { width: 100%; height: auto; display: block; }
.key { margin-right: 14px; color: var(--soft); font-size: 13px; white-space: nowrap; }
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 5px; }
.grid { stroke: var(--rule); } .tick, .axis { fill: var(--soft); font-size: 12px; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
details { margin-top: 24px; } summary { cursor: pointer; color: var(--soft); } code { font-size: 13px; }
";

/// The page.
pub fn render(report: &Report) -> String {
    let mut out = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    let _ = write!(out, "<title>{}</title><style>{STYLE}", escape(&report.title()));
    for colour in 0..8 {
        let _ = write!(
            out,
            ".line-{colour}{{stroke:var(--c{colour})}}.dot-{colour}{{fill:var(--c{colour})}}.swatch-{colour}{{background:var(--c{colour})}}"
        );
    }
    out.push_str("</style></head><body><main>");
    head(report, &mut out);
    figures(&report.groups, &mut out);
    let plots = plots(&report.groups);
    if !plots.is_empty() {
        out.push_str("<h2>Charts</h2><div class=\"plots\">");
        for (title, plot) in &plots {
            let _ = write!(
                out,
                "<figure><figcaption>{}</figcaption><div>{}</div>{}</figure>",
                escape(title),
                legend(plot),
                chart(title, plot)
            );
        }
        out.push_str("</div>");
    }
    runs(&report.groups, &mut out);
    out.push_str("</main></body></html>\n");
    out
}

fn head(report: &Report, out: &mut String) {
    let title = report.title();
    let (scenario, shape) = title.split_once(": ").unwrap_or((&title, ""));
    let _ = write!(out, "<h1>{}</h1><p class=\"soft\">{}</p>", escape(scenario), escape(shape));
    match report.broken.is_empty() {
        true => out.push_str("<p class=\"verdict good\">Everything was kept.</p>"),
        false => {
            out.push_str("<p class=\"verdict bad\">Not kept:</p><ul class=\"bad\">");
            report.broken.iter().for_each(|line| out.push_str(&item(line)));
            out.push_str("</ul>");
        }
    }
    let words = report.words();
    let mut list = |class: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = write!(out, "<ul class=\"{class}\">");
            lines.iter().for_each(|line| out.push_str(&item(line)));
            out.push_str("</ul>");
        }
    };
    let of = |lines: &[(String, String)]| lines.iter().map(|(whose, what)| format!("{whose}: {what}")).collect();
    list("care", [of(&words.cautions), report.warnings.clone()].concat());
    list("soft", of(&words.notes));
    let checks = words.checks.iter().flat_map(|(whose, checks)| {
        checks.iter().map(move |check| {
            let verdict = if check.agrees() { "agree" } else { "DIFFER" };
            format!("{whose}: {}: server {}, generator {}: {verdict}", check.what, check.server, check.generator)
        })
    });
    list("soft", checks.collect());
}

fn item(line: &str) -> String {
    format!("<li>{}</li>", escape(line))
}

fn figures(groups: &[Group], out: &mut String) {
    out.push_str("<h2>Figures</h2><div class=\"scroll\"><table><thead><tr><th></th>");
    for group in groups {
        let runs = if group.runs.len() > 1 { format!(", median of {}", group.runs.len()) } else { String::new() };
        let _ = write!(out, "<th>{}{runs}</th>", escape(&group.name));
    }
    out.push_str("</tr></thead><tbody>");
    for row in table::rows(groups) {
        let _ = write!(out, "<tr><td>{}</td>", escape(row.kind.label));
        for cell in &row.cells {
            let _ = write!(out, "<td>{}", escape(if cell.value.is_empty() { "–" } else { &cell.value }));
            if !cell.beside.is_empty() {
                let _ = write!(out, "<span class=\"beside\">{}</span>", escape(&cell.beside));
            }
            if !cell.range.is_empty() {
                let _ = write!(out, "<span class=\"range\">{}</span>", escape(&cell.range));
            }
            out.push_str("</td>");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
}

/// The charts of each group's typical run. Several servers are drawn into one chart per line, each in its own colour.
fn plots(groups: &[Group]) -> Vec<(String, Plot)> {
    let typical: Vec<_> = groups.iter().map(Group::typical).collect();
    let mut all: Vec<(String, Plot)> = Vec::new();
    for plot in typical.iter().flatten().flat_map(|run| &run.plots) {
        if groups.len() == 1 {
            all.push((plot.title.to_owned(), plot.clone()));
            continue;
        }
        for line in &plot.lines {
            let title = match plot.lines.len() {
                1 => plot.title.to_owned(),
                _ => format!("{}: {}", plot.title, line.name),
            };
            if all.iter().any(|(known, _)| *known == title) {
                continue;
            }
            // One without this line keeps its place, so that a colour means the same server everywhere.
            let lines = groups.iter().zip(&typical).map(|(group, run)| {
                let same = run.and_then(|run| run.plots.iter().find(|other| other.title == plot.title));
                let same = same.and_then(|other| other.lines.iter().find(|other| other.name == line.name));
                Line::new(&group.name, same.map(|line| line.points.clone()).unwrap_or_default())
            });
            all.push((title, Plot { lines: lines.collect(), ..plot.clone() }));
        }
    }
    all.retain(|(_, plot)| plot.lines.iter().any(|line| !line.points.is_empty()));
    all
}

/// Every run, folded away.
fn runs(groups: &[Group], out: &mut String) {
    for group in groups {
        let _ = write!(out, "<details><summary>{}: every run</summary><ul>", escape(&group.name));
        for run in &group.runs {
            let json = serde_json::to_string(&run.figures).unwrap_or_default();
            let cpu: Vec<String> =
                run.cpu_by_process.iter().map(|(name, cores)| format!("{name} {:.1} %", cores * 100.0)).collect();
            let _ = write!(out, "<li>{} {}<br><code>{}</code></li>", run.run, escape(&cpu.join(", ")), escape(&json));
        }
        out.push_str("</ul></details>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    fn run(against: &str) -> Outcome {
        let mut outcome = Outcome::new("fanout", "1 <document>".to_owned());
        against.clone_into(&mut outcome.against);
        outcome.figures.set("delivery_p50_ms", 1.0);
        let lines = vec![Line::new("p50", vec![(0.0, 1.0), (1.0, 2.0)])];
        outcome.plots.push(Plot { title: "Over time", x: "s", y: "ms", log: (false, false), lines });
        outcome
    }

    #[test]
    fn the_page_needs_nothing_else_and_escapes_what_it_shows() {
        let relay = Group::new("relay", vec![run("relay")], None);
        let server = Group::new("server", vec![run("server")], Some(&relay));
        let broken = vec!["p99 is <high>".to_owned()];
        let page = Report { groups: vec![relay, server], broken, warnings: Vec::new() }.page();
        for outside in ["http:", "https:", "src=", "<link", "<script", "@import", "url("] {
            assert!(!page.contains(outside), "the page refers to something outside: {outside}");
        }
        assert!(page.contains("1 &lt;document&gt;") && page.contains("p99 is &lt;high&gt;"));
        assert_eq!(page.matches("<svg").count(), 1, "one chart for both");
        assert_eq!(page.matches("<polyline").count(), 2, "with a line of each");
        assert!(page.contains("prefers-color-scheme: dark"));
    }
}
