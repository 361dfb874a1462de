//! A schedule: everything that happens in one world, drawn from one seed before it begins. A step that makes no sense when its turn
//! comes does nothing, so any part of a schedule is a schedule, and a failing one can be made shorter.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What the world is made of.
#[derive(Clone, Debug)]
pub struct Setting {
    pub nodes: usize,
    pub editors: usize,
    /// Queues are so short that they overflow all the time.
    pub is_tight: bool,
}

/// One thing that happens. Numbers choose among what there is when it happens.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Somebody edits, connected or not.
    Edit { editor: usize, what: u64 },
    /// Somebody's cursor moves.
    Cursor { editor: usize },
    /// Somebody connects (anew) to a node.
    Connect { editor: usize, node: usize },
    /// A socket ends; so many of the last frames were never sent.
    Disconnect { editor: usize, unsent: usize },
    /// A node reads frames of one of its sockets, or learns that it has ended.
    Hear { node: usize, socket: usize, frames: usize },
    /// Somebody reads at least so many bytes off the socket.
    Read { editor: usize, bytes: usize },
    /// Something that a node asked of the log is done.
    Log { node: usize, which: usize, luck: Luck },
    /// An append of unknown outcome is written after all.
    Late,
    /// A bus message arrives at a node.
    Bus { node: usize, post: Post },
    /// A node is cut off the bus, or connected again.
    Cut { node: usize, is_cut: bool },
    /// A node compares its head with the log's.
    Heads { node: usize, is_slow: bool },
    /// A back-end service writes over HTTP, or asks what became of its write.
    Request { node: usize, what: u64 },
    /// Time passes, for all.
    Time { ms: u64 },
    /// A node's clock jumps ahead.
    Skew { node: usize, ms: u64 },
    /// PostgreSQL goes away, or comes back.
    Away { is_away: bool },
    /// A node is killed, and started again. Appends under way are written, or not.
    Kill { node: usize, are_written: bool },
    /// A node that nobody is connected to unloads the document.
    Unload { node: usize },
    /// The newest snapshot is damaged on disk.
    Damage,
    /// A backup is taken.
    Backup,
    /// The last backup is restored, under running nodes.
    Restore,
    /// A stranger who may write does so under the client id of somebody who is away.
    Squat { editor: usize, node: usize, deletes: bool },
    /// An update of somebody's turns out to be what no process can fold: a node has died of it, and takes it out.
    Convict { which: usize },
    /// A node has died while it folded something honest: the log up to there is tried.
    Try { which: usize },
}

/// What becomes of something asked of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Luck {
    /// Done and answered.
    Good,
    /// Done; the answer comes later.
    Slow,
    /// Not done, and said so.
    Away,
    /// An append: not written, and nobody knows.
    Lost,
    /// An append: written, and nobody knows.
    Unheard,
    /// An append: nobody knows, and it may be written later ([`Step::Late`]).
    Late,
}

/// What becomes of a bus message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Post {
    Delivered,
    Lost,
    Doubled,
    /// It comes after the next.
    Overtaken,
}

/// Draws a world and its schedule.
pub fn draw(seed: u64, steps: usize) -> (Setting, Vec<Step>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let setting =
        Setting { nodes: rng.random_range(2..=3), editors: rng.random_range(3..=5), is_tight: rng.random_bool(0.5) };
    // Some worlds are calm, so that queues grow; in some everything is always late.
    let trouble = [0.05, 0.2, 0.5][rng.random_range(0..3)];
    let mut schedule: Vec<Step> =
        (0..setting.editors).map(|editor| Step::Connect { editor, node: rng.random_range(0..setting.nodes) }).collect();
    while schedule.len() < steps {
        schedule.push(draw_step(&mut rng, &setting, trouble));
    }
    // Some databases lose what was committed; in the others nothing whatever may be missing.
    if rng.random_bool(0.35) && steps >= 40 {
        let backup = rng.random_range(steps / 4..3 * steps / 4);
        schedule[backup] = Step::Backup;
        schedule[rng.random_range(backup + 1..steps)] = Step::Restore;
    } else if rng.random_bool(0.5) && steps >= 40 {
        for _ in 0..steps / 25 {
            let (editor, node) = (rng.random_range(0..setting.editors), rng.random_range(0..setting.nodes));
            let at = rng.random_range(20..steps - 1);
            schedule[at] = Step::Disconnect { editor, unsent: 0 };
            schedule[at + 1] = Step::Squat { editor, node, deletes: rng.random_bool(0.5) };
        }
    } else if rng.random_bool(0.5) && steps >= 40 {
        for _ in 0..steps / 40 {
            let which = rng.random_range(0..1_000);
            let step = if rng.random_bool(0.5) { Step::Convict { which } } else { Step::Try { which } };
            schedule[rng.random_range(20..steps)] = step;
        }
    }
    (setting, schedule)
}

fn draw_step(rng: &mut StdRng, setting: &Setting, trouble: f64) -> Step {
    let editor = rng.random_range(0..setting.editors);
    let node = rng.random_range(0..setting.nodes);
    let is_troubled = rng.random_bool(trouble);
    match rng.random_range(0..1_000) {
        0..200 => Step::Edit { editor, what: rng.random() },
        200..390 => Step::Hear { node, socket: rng.random_range(0..8), frames: rng.random_range(1..8) },
        390..520 => Step::Read { editor, bytes: if is_troubled { 1 } else { 8_192 } },
        520..760 => {
            let luck = match rng.random_range(0..6) {
                _ if !is_troubled => Luck::Good,
                0 | 1 => Luck::Slow,
                2 => Luck::Away,
                3 => Luck::Lost,
                4 => Luck::Unheard,
                _ => Luck::Late,
            };
            Step::Log { node, which: rng.random_range(0..4), luck }
        }
        760..860 => {
            let post = match rng.random_range(0..4) {
                _ if !is_troubled => Post::Delivered,
                0 | 1 => Post::Lost,
                2 => Post::Doubled,
                _ => Post::Overtaken,
            };
            Step::Bus { node, post }
        }
        860..890 => Step::Time { ms: [1, 20, 150, 700, 3_000][rng.random_range(0..5)] },
        890..915 => Step::Heads { node, is_slow: is_troubled },
        915..940 => Step::Request { node, what: rng.random() },
        940..955 => Step::Cursor { editor },
        955..965 => Step::Connect { editor, node },
        965..971 => Step::Unload { node },
        971..977 => Step::Disconnect { editor, unsent: rng.random_range(0..4) },
        977..982 => Step::Kill { node, are_written: rng.random_bool(0.5) },
        982..986 => Step::Away { is_away: rng.random_bool(0.4) },
        986..989 => Step::Cut { node, is_cut: rng.random_bool(0.5) },
        989..991 => Step::Skew { node, ms: rng.random_range(0..20_000) },
        991 => Step::Late,
        992 => Step::Damage,
        _ => Step::Heads { node, is_slow: false },
    }
}

/// The same failure with as few steps as can be found: parts are left out, large ones first, for as long as it still fails.
pub fn shrink(schedule: Vec<Step>, mut fails: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let mut schedule = schedule;
    let mut part = schedule.len() / 2;
    while part > 0 {
        let mut at = 0;
        while at < schedule.len() {
            let mut shorter = schedule.clone();
            shorter.drain(at..(at + part).min(schedule.len()));
            if fails(&shorter) {
                schedule = shorter;
            } else {
                at += part;
            }
        }
        part /= 2;
    }
    schedule
}
