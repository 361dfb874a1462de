//! The table for people: a row per figure, a column per server.

use super::Group;
use crate::outcome::{KINDS, Kind};

/// A row: the figure's words, then one cell per group.
pub struct Row {
    pub kind: &'static Kind,
    pub cells: Vec<Cell>,
}

/// What stands in one place of the table.
#[derive(Default)]
pub struct Cell {
    /// The median, or the worst.
    pub value: String,
    /// Beside the relay's; empty where that means nothing.
    pub beside: String,
    /// The least and the most of several runs; empty for one.
    pub range: String,
}

/// Rows in the order of the last group, which is the server under test where there is one, then what only others have.
pub fn rows(groups: &[Group]) -> Vec<Row> {
    let mut names: Vec<&str> = Vec::new();
    for group in groups.iter().rev() {
        for name in &group.summary.order {
            if !names.contains(name) {
                names.push(name);
            }
        }
    }
    let kinds = names.into_iter().filter_map(|name| KINDS.iter().find(|kind| kind.name == name));
    kinds.map(|kind| Row { kind, cells: groups.iter().map(|group| cell(kind, group)).collect() }).collect()
}

fn cell(kind: &Kind, group: &Group) -> Cell {
    let Some(value) = group.summary.figures.get(kind.name) else { return Cell::default() };
    let beside = group.summary.beside_relay.get(kind.name).map(|value| kind.show_beside(*value));
    let values: Vec<f64> = group.runs.iter().filter_map(|run| run.figures.get(kind.name)).collect();
    let (least, most) = values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(*value), most.max(*value)));
    let range = match values.len() > 1 && least != most {
        true => format!("{} to {}", bare(kind, least), bare(kind, most)),
        false => String::new(),
    };
    Cell { value: kind.show(*value), beside: beside.unwrap_or_default(), range }
}

fn bare(kind: &Kind, value: f64) -> String {
    kind.show(value).trim_end_matches(kind.unit).trim_end().to_owned()
}

/// As text.
pub fn render(groups: &[Group]) -> String {
    let mut lines: Vec<Vec<String>> = vec![
        std::iter::once(String::new())
            .chain(groups.iter().map(|group| match group.runs.len() {
                1 => group.name.clone(),
                runs => format!("{} (median of {runs})", group.name),
            }))
            .collect(),
    ];
    for row in rows(groups) {
        let cells =
            row.cells.iter().map(|cell| match (cell.value.as_str(), cell.beside.as_str(), cell.range.as_str()) {
                ("", _, _) => "-".to_owned(),
                (value, "", "") => value.to_owned(),
                (value, "", range) => format!("{value} ({range})"),
                (value, beside, "") => format!("{value}  {beside}"),
                (value, beside, range) => format!("{value}  {beside} ({range})"),
            });
        lines.push(std::iter::once(row.kind.label.to_owned()).chain(cells).collect());
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..=groups.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut row = String::from("  ");
        for (cell, width) in line.iter().zip(&widths) {
            row.push_str(cell);
            row.push_str(&" ".repeat(width - cell.chars().count() + 2));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    fn run(p50: f64) -> Outcome {
        let mut outcome = Outcome::new("fanout", "1 document".to_owned());
        outcome.figures.set("delivery_p50_ms", p50);
        outcome
    }

    #[test]
    fn medians_stand_beside_the_relay_with_their_range() {
        let relay = Group::new("relay", vec![run(0.5)], None);
        let mut with_loss = run(2.0);
        with_loss.figures.set("missing", 3.0);
        let server = Group::new("server", vec![run(1.0), with_loss, run(4.0)], Some(&relay));
        let text = render(&[relay, server]);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines[0].trim(), "relay    server (median of 3)");
        assert_eq!(lines[1], "  delivery p50  0.50 ms  2 ms  +1.50 ms (1 to 4)");
        assert_eq!(lines[2], "  missing       -        3");
    }
}
