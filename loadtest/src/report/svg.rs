//! Charts as SVG, by hand: one small file format is less than a library, and the page must need nothing else.

use std::fmt::Write;

use crate::outcome::Plot;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Colours are classes of the page, `line-0` on; beyond them they repeat.
const COLOURS: usize = 8;

/// Characters that mean something to HTML, as text.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// One chart.
pub fn chart(title: &str, plot: &Plot) -> String {
    let points = || {
        plot.lines
            .iter()
            .flat_map(|line| line.points.iter().copied())
            .filter(|(x, y)| x.is_finite() && y.is_finite() && (!plot.log.0 || *x > 0.0) && (!plot.log.1 || *y > 0.0))
    };
    let (Some(x), Some(y)) = (
        Axis::new(points().map(|point| point.0), plot.log.0, false),
        Axis::new(points().map(|point| point.1), plot.log.1, true),
    ) else {
        return String::new();
    };
    let across = |value: f64| LEFT + x.share(value) * (WIDTH - LEFT - RIGHT);
    let up = |value: f64| HEIGHT - BOTTOM - y.share(value) * (HEIGHT - TOP - BOTTOM);
    let mut out = format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#, escape(title));
    for tick in y.ticks() {
        let at = up(tick);
        let _ = write!(
            out,
            r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{at:.1}" y2="{at:.1}"/><text class="tick" x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            short(tick)
        );
    }
    for tick in x.ticks() {
        let _ = write!(
            out,
            r#"<text class="tick" x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            across(tick),
            HEIGHT - BOTTOM + 16.0,
            short(tick)
        );
    }
    let _ = write!(
        out,
        r#"<text class="axis" x="{:.1}" y="{:.1}" text-anchor="end">{}</text><text class="axis" x="4" y="{:.1}">{}</text>"#,
        WIDTH - RIGHT,
        HEIGHT - 6.0,
        escape(plot.x),
        HEIGHT - 6.0,
        escape(&format!("↑ {}", plot.y)),
    );
    for (number, line) in plot.lines.iter().enumerate() {
        let colour = number % COLOURS;
        let placed: Vec<(f64, f64, f64, f64)> = line
            .points
            .iter()
            .filter(|(x, y)| x.is_finite() && y.is_finite() && (!plot.log.0 || *x > 0.0) && (!plot.log.1 || *y > 0.0))
            .map(|(x, y)| (across(*x), up(*y), *x, *y))
            .collect();
        let path: Vec<String> = placed.iter().map(|(x, y, ..)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(out, r#"<polyline class="line line-{colour}" points="{}"/>"#, path.join(" "));
        for (px, py, x, y) in placed {
            let _ = write!(
                out,
                r#"<circle class="dot dot-{colour}" cx="{px:.1}" cy="{py:.1}" r="2.5"><title>{}: {} {}, {} {}</title></circle>"#,
                escape(&line.name),
                short(x),
                escape(plot.x),
                short(y),
                escape(plot.y)
            );
        }
    }
    out.push_str("</svg>");
    out
}

/// The names of a chart's lines in their colours.
pub fn legend(plot: &Plot) -> String {
    let entries = plot.lines.iter().enumerate().map(|(number, line)| {
        format!(r#"<span class="key"><i class="swatch swatch-{}"></i>{}</span>"#, number % COLOURS, escape(&line.name))
    });
    entries.collect()
}

/// One direction of a chart.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    /// `None` without values.
    fn new(values: impl Iterator<Item = f64>, log: bool, from_zero: bool) -> Option<Self> {
        let (low, high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return None;
        }
        if log {
            // Whole decades would leave most of a chart empty where values span less than one.
            let (low, high) = if high / low < 1.5 { (low / 1.5, high * 1.5) } else { (low / 1.1, high * 1.1) };
            return Some(Self { low, high, log });
        }
        let low = if from_zero { low.min(0.0) } else { low };
        let high = if high > low { high } else { low + 1.0 };
        let high = if from_zero { high + (high - low) * 0.05 } else { high };
        Some(Self { low, high, log })
    }

    /// Where a value lies: 0 at the low end, 1 at the high one.
    fn share(&self, value: f64) -> f64 {
        match self.log {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        }
    }

    /// Round values within.
    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let mut ticks = Vec::new();
            let mut decade = 10f64.powf(self.low.log10().floor());
            while decade <= self.high {
                ticks.extend([1.0, 2.0, 5.0].map(|step| step * decade).into_iter().filter(|tick| self.holds(*tick)));
                decade *= 10.0;
            }
            if ticks.len() > 7 {
                ticks.retain(|tick| (tick.log10() - tick.log10().round()).abs() < 1e-9);
            }
            return ticks;
        }
        let rough = (self.high - self.low) / 5.0;
        let size = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * size).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * size);
        let first = (self.low / step).ceil() as i64;
        (first..).map(|number| number as f64 * step).take_while(|tick| *tick <= self.high * (1.0 + 1e-9)).collect()
    }

    fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// Few characters.
fn short(value: f64) -> String {
    let size = value.abs();
    let trim = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    match size {
        _ if size >= 1e6 => trim(format!("{:.1}", value / 1e6)) + "M",
        _ if size >= 1e4 => trim(format!("{:.1}", value / 1e3)) + "k",
        _ if size >= 100.0 => format!("{value:.0}"),
        _ if size >= 1.0 => trim(format!("{value:.1}")),
        _ => trim(format!("{value:.3}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Line;

    fn plot(points: Vec<(f64, f64)>, log: (bool, bool)) -> Plot {
        Plot { title: "a", x: "s", y: "ms", log, lines: vec![Line::new("p50", points)] }
    }

    #[test]
    fn a_chart_draws_every_point_and_no_markup_of_its_text() {
        let svg = chart("a < b", &plot(vec![(0.0, 1.0), (1.0, 3.0), (2.0, f64::NAN)], (false, false)));
        assert_eq!(svg.matches("<circle").count(), 2, "what is no number is no point");
        assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        assert_eq!(chart("a < b", &plot(Vec::new(), (false, false))), "");
    }

    #[test]
    fn ticks_are_round_and_within() {
        let linear = Axis::new([0.0, 47.0].into_iter(), false, true).unwrap();
        assert_eq!(linear.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0]);
        let logarithmic = Axis::new([0.3, 40.0].into_iter(), true, true).unwrap();
        assert_eq!(logarithmic.ticks(), [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]);
        assert!((logarithmic.share(0.3) - 0.02).abs() < 0.02);
        let one = Axis::new([5.0].into_iter(), true, false).unwrap();
        assert!(one.share(5.0) > 0.4 && one.share(5.0) < 0.6, "a single value stands in the middle");
    }

    #[test]
    fn zero_has_no_place_on_a_logarithmic_axis() {
        let svg = chart("a < b", &plot(vec![(0.0, 0.0), (1.0, 2.0)], (false, true)));
        assert_eq!(svg.matches("<circle").count(), 1);
        assert!(!svg.contains("inf") && !svg.contains("NaN"));
    }
}
