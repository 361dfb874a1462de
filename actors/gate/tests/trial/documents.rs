//! One document after the other: a base, a dozen hostile updates, and a look at what became of it.

use bytes::Bytes;
use contextnexus_gate::lib0::write_var_uint;
use contextnexus_gate::{
    AwarenessEntry, AwarenessUpdate, Caps, Content, Delta, Index, Order, Recent, StateVector as Known, Update, admit,
    diff, difference, encode_awareness, merge, unwrapped, wrapped,
};
use rand::RngExt;
use rand::rngs::StdRng;
use yrs::branch::{Branch, BranchID, BranchPtr};
use yrs::types::text::YChange;
use yrs::updates::decoder::Decode;
use yrs::{Any, Array, ArrayRef, Doc, Map, MapRef, Number, Out, ReadTxn, Text, TextRef, Transact};

use super::forge::{Forge, OWNED};
use super::memory::peak_of;
use super::reference::{Model, Row};
use super::spoil::{bulk, spoiled};
use super::{Counts, Switch};
use crate::common::{Editor, doc, parse, rng, state};

/// How many updates each document has to bear.
pub const UPDATES_PER_DOCUMENT: u64 = 12;

/// What the gate takes for the time of one step past a block, about.
const NS_PER_PASSED: u64 = 350;

/// Why the gate did not do what it is for.
#[derive(Debug)]
pub enum Conviction {
    /// yrs, or who reads its state again, came to grief.
    Yrs(String),
    /// A row is not what the gate says that rows are.
    Promise(String),
}

/// A document to begin with.
struct Base {
    bytes: Bytes,
    index: Index,
    order: Order,
    model: Model,
    /// Honest updates, to be spoiled.
    honest: Vec<Bytes>,
}

pub struct Trial {
    pub counts: Counts,
    off: Option<Switch>,
    caps: Caps,
    bases: Vec<Base>,
}

/// A document under attack.
struct Victim {
    doc: Doc,
    index: Index,
    order: Order,
    recent: Recent,
    model: Model,
    rows: Vec<Bytes>,
}

impl Trial {
    pub fn new(off: Option<Switch>) -> Self {
        // Low enough that small documents meet them.
        let caps = Caps {
            update_bytes_max: 128 << 10,
            any_depth_max: 32,
            type_depth_max: 3,
            root_name_bytes_max: 256,
            map_key_bytes_max: 1024,
            document_clients_max: 16,
            integration_ms_max: 5,
            awareness_state_bytes_max: 200,
            awareness_entries_max: 8,
        };
        let hex = include_bytes!("../hostile/base.hex").trim_ascii();
        let sample =
            hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
        let mut bases = vec![Base::new(Bytes::from_static(&[0, 0]), 1, &caps), Base::new(sample, 2, &caps)];
        bases.extend((3..13).map(|seed| Base::new(edited(seed), seed, &caps)));
        Self { counts: Counts::default(), off, caps, bases }
    }

    /// One document from its seed.
    pub fn play(&mut self, seed: u64) -> Result<(), Conviction> {
        let mut rng = rng(seed);
        let base = rng.random_range(0..self.bases.len());
        let mut victim = self.bases[base].victim();
        let mut broken = None;
        let is_lawful = rng.random_bool(0.5);
        for _ in 0..UPDATES_PER_DOCUMENT {
            self.counts.add("tried", 1);
            let kind = rng.random_range(0..1000);
            let bytes = match kind {
                0..30 => {
                    self.presence(&mut rng)?;
                    continue;
                }
                30..150 => spoiled(&mut rng, &self.bases[base].honest),
                150..152 => bulk(&mut rng, &victim.model),
                152..210 if !victim.rows.is_empty() => self.resent(&mut rng, &victim),
                _ => Forge::new(&mut rng, &victim.model, &self.caps, is_lawful).update(),
            };
            match self.receive(&mut victim, bytes.into()) {
                // The model cannot follow any more; yrs may still show what that leads to.
                Err(Conviction::Promise(what)) => {
                    broken = Some(what);
                    break;
                }
                other => other?,
            }
        }
        if victim.rows.len() > 1 {
            self.counts.add("documents", 1);
            self.look_at(&victim, seed, broken.is_some())?;
        }
        broken.map_or(Ok(()), |what| Err(Conviction::Promise(what)))
    }

    /// Rows that are there, merged, in part, or spoiled a little.
    fn resent(&self, rng: &mut StdRng, victim: &Victim) -> Vec<u8> {
        let from = rng.random_range(0..victim.rows.len());
        let rows: Vec<Update> =
            victim.rows[from..].iter().take(3).filter_map(|row| Update::parse(row.clone(), &self.caps).ok()).collect();
        let merged = merge(&rows);
        if rng.random_bool(0.5) { spoiled(rng, &[merged]) } else { merged.to_vec() }
    }

    /// Whether the blocks of an update pass so many units that half the time of the cap may go by.
    fn passes_many(&self, model: &Model, bytes: &Bytes) -> bool {
        let Ok(update) = Update::parse(bytes.clone(), &self.caps) else { return false };
        let Ok(row) = Row::read(update.bytes(), &self.caps) else { return false };
        let mut after = model.clone();
        let _ = after.take_in(&row, &self.caps); // up to where it is broken
        (after.passed - model.passed) * NS_PER_PASSED > self.caps.integration_ms_max * 1_000_000 / 2
    }

    /// One update, as a server would take it in.
    fn receive(&mut self, victim: &mut Victim, bytes: Bytes) -> Result<(), Conviction> {
        let len = bytes.len();
        let mut may_write = |client| client != OWNED || self.off == Some(Switch::Ownership);
        let (mut delta, before, tables) = (Delta::default(), victim.order.mark(), 2 * victim.order.bytes());
        let (decided, peak) = peak_of(|| {
            let update =
                Update::parse(bytes.clone(), &self.caps).map_err(|malformed| format!("{:?}", malformed.rule))?;
            let admission =
                admit(&victim.index, &mut delta, Some(&mut victim.order), &update, &self.caps, &mut may_write);
            admission.map(|admission| (update, admission)).map_err(|refused| {
                let name = format!("{refused:?}");
                name.split(' ').next().unwrap_or_default().to_owned()
            })
        });
        // The tables of the order grow to twice their size when they are full.
        if peak > 64 * len + (1 << 20) + tables {
            return Err(Conviction::Promise(format!("{peak} bytes of memory for {len} bytes")));
        }
        let most = self.counts.0.entry("max bytes of memory".into()).or_default();
        *most = (*most).max(peak as u64);
        if len > 10_000 {
            let times =
                self.counts.0.entry("max tenths of the input that parsing and admitting 10 KB or more takes".into());
            let times = times.or_default();
            *times = (*times).max((10 * peak / len) as u64);
        }
        let (update, admission) = match decided {
            Ok(decided) => decided,
            Err(rule) => {
                self.counts.add(format!("rule {rule}"), 1);
                // A document can be such that a small update is dear: then its blocks pass many others.
                if rule == "TooCostly" && len < 10_000 && !self.passes_many(&victim.model, &bytes) {
                    return Err(Conviction::Promise(format!("refused as too dear at {len} bytes: {bytes:02x?}")));
                }
                let is_honest = |row: Row| {
                    let mut model = victim.model.clone();
                    rule != "TooCostly"
                        && !model.has_huge()
                        && model.take_in(&row, &self.caps).is_ok()
                        // Of a huge block that the row itself brings the model keeps no order.
                        && !(rule == "RightOriginFirst" && model.has_huge())
                };
                if Row::read(&bytes, &self.caps).is_ok_and(is_honest) {
                    return Err(Conviction::Promise(format!(
                        "refused for {rule}, and nothing is wrong with {bytes:02x?}"
                    )));
                }
                if !delta.is_empty() || victim.order.mark() != before {
                    return Err(Conviction::Promise(format!("what is refused for {rule} leaves a trace")));
                }
                return Ok(());
            }
        };
        if self.off != Some(Switch::Fork) && victim.recent.conflicts(&update, &admission.trimmed).is_some() {
            self.counts.add("rule Fork", 1);
            victim.order.roll_back(before);
            return Ok(());
        }
        if !admission.trimmed.is_empty() {
            self.counts.add("rule Known", 1);
            if Row::read(update.bytes(), &self.caps).is_ok_and(|row| victim.model.is_forked_by(&row)) {
                return Err(Conviction::Promise("two contents at one clock, and nobody noticed".into()));
            }
        }
        if !admission.withheld.is_empty() {
            self.counts.add("rule Ownership", 1);
        }
        if admission.missing.is_some() {
            self.counts.add(format!("rule {}", waits_for(&update, victim, &self.caps)), 1);
        }
        let most = self.caps.integration_ms_max * 1_000_000 + 1_500 * len as u64;
        if admission.cost.ns > most {
            let cost = admission.cost.ns;
            return Err(Conviction::Promise(format!("{len} bytes cost {cost} ns, and {most} are the most")));
        }
        let row = match admission.content {
            Content::Nothing => return Ok(()),
            Content::Whole => {
                self.counts.add("whole", 1);
                update.bytes().clone()
            }
            Content::Part(part) => {
                self.counts.add("part", 1);
                part
            }
        };
        victim.index.apply(delta);
        victim.order.commit();
        victim.rows.push(row.clone());
        // The row as it stands in the log is read, and taken in where nothing is known to be amiss.
        let promised = Row::read(&row, &self.caps).and_then(|read| {
            if read.sections.iter().any(|section| section.0 == OWNED)
                && admission.added.iter().any(|(client, _)| *client == OWNED)
            {
                return Err("new blocks under somebody else's client id".into());
            }
            victim.model.take_in(&read, &self.caps)
        });
        if let Ok(parsed) = Update::parse(row.clone(), &self.caps) {
            victim.recent.push(victim.rows.len() as u64 + 2, parsed);
        }
        if std::env::var("GATE_TRACE").is_ok() {
            eprintln!("row {row:02x?}");
        }
        victim.fold(&row).map_err(Conviction::Yrs)?;
        promised.map_err(|what| Conviction::Promise(format!("{what}: {row:02x?}").chars().take(400).collect()))
    }

    /// The document can be encoded, read again, and is the same then.
    fn look_at(&mut self, victim: &Victim, seed: u64, is_broken: bool) -> Result<(), Conviction> {
        let yrs = |what: &str| Err(Conviction::Yrs(what.to_owned()));
        let bytes = state(&victim.doc);
        let reloaded = doc(2);
        fold(&reloaded, &bytes).map_err(|what| Conviction::Yrs(format!("its own state: {what}")))?;
        let (ours, theirs) = (victim.doc.transact().snapshot(), reloaded.transact().snapshot());
        if ours.state_map != theirs.state_map {
            return yrs("another state vector after a reload");
        }
        if ours.delete_set != theirs.delete_set {
            return Err(Conviction::Yrs(format!(
                "other deletes after a reload: {:?} and then {:?}",
                ours.delete_set, theirs.delete_set
            )));
        }
        let again = yrs::Update::decode_v1(&state(&reloaded)).map_err(|error| Conviction::Yrs(error.to_string()))?;
        if again.state_vector() != ours.state_map {
            return yrs("another state vector after a second reload");
        }
        let known = victim
            .index
            .clocks()
            .all(|(client, clock)| u64::from(ours.state_map.get(&yrs::ClientID::new(client))) == clock);
        if !known || victim.index.clients_len() != ours.state_map.len() {
            return yrs("the index does not know what yrs holds");
        }
        if let Ok(seeded) = Update::parse(bytes, &Caps { update_bytes_max: usize::MAX, ..self.caps.clone() }) {
            let index = Index::from_state(&seeded);
            if index.state_vector() != victim.index.state_vector() {
                return yrs("an index made from the state knows something else");
            }
            let (grown, made) = (victim.order.layout(), Order::of_state(&index, &seeded).0.layout());
            // After a broken promise nobody has said what became of the last update.
            if let Some(list) = made.iter().find(|list| !is_broken && !grown.contains(list)) {
                return yrs(&format!("an order made from the state is another one: {list:?}"));
            }
        } else {
            return yrs("the gate cannot read the document's state");
        }
        if is_broken {
            // Of this document nobody knows any more where text stands.
            return Ok(());
        }
        let read = |doc: &Doc| reading(doc, &victim.model);
        let (before, after) = (read(&victim.doc), read(&reloaded));
        if before != after {
            return Err(Conviction::Yrs(format!("reads differently after a reload: {before}\nand then: {after}")));
        }
        if seed.is_multiple_of(8) {
            let rows: Vec<Update> = victim.rows.iter().map(|row| parse(row)).collect();
            for (how, bytes) in [("merged", merge(&rows)), ("without what is deleted", diff(&rows, &Known::default()))]
            {
                let merged = doc(3);
                fold(&merged, &bytes).map_err(|what| Conviction::Yrs(format!("the rows {how}: {what}")))?;
                if merged.transact().snapshot() != ours || read(&merged) != before {
                    return yrs(&format!("the rows {how} make another document"));
                }
            }
            // As a server holds it.
            let held = doc(4);
            for row in &rows {
                fold(&held, &wrapped(row).unwrap_or(row.bytes().clone())).map_err(Conviction::Yrs)?;
            }
            let held = unwrapped(state(&held)).map_err(|rule| Conviction::Yrs(format!("wrapped: {rule}")))?;
            if let Some(fork) = difference(&parse(&held), &rows) {
                return yrs(&format!("its state has another value than its rows: {fork}"));
            }
            let reread = doc(5);
            fold(&reread, &held).map_err(|what| Conviction::Yrs(format!("its values unwrapped: {what}")))?;
            if reread.transact().snapshot() != ours || read(&reread) != before {
                return yrs("with its values wrapped it is another document");
            }
            let mut trusting = Index::new();
            for row in rows.iter().filter(|row| !row.is_empty()) {
                let admission = trusting.trust(row);
                if admission.as_ref().is_ok_and(|admission| admission.content != Content::Whole) {
                    return Err(Conviction::Yrs(format!(
                        "for who reads the log {row:02x?} does not follow on: {admission:?}"
                    )));
                }
            }
            if trusting.state_vector() != victim.index.state_vector() {
                return yrs("an index made from the log knows something else");
            }
        }
        Ok(())
    }

    /// Awareness and state vectors, which have parsers of their own.
    fn presence(&mut self, rng: &mut StdRng) -> Result<(), Conviction> {
        let mut entries: Vec<AwarenessEntry> = (0..rng.random_range(0..5u64))
            .map(|client| AwarenessEntry {
                client,
                clock: rng.random_range(0..9),
                state: "{\"a\":[1]}".into(),
                is_null: false,
            })
            .collect();
        match rng.random_range(0..12) {
            0 => entries.extend(entries.first().cloned()),
            1 => entries.iter_mut().for_each(|entry| entry.clock += 1 << 32),
            2 => entries.iter_mut().for_each(|entry| entry.state = format!("\"{}\"", "x".repeat(200)).into()),
            3 => entries.extend((10..20).map(|client| AwarenessEntry {
                client,
                clock: 1,
                state: "null".into(),
                is_null: true,
            })),
            4 => entries.iter_mut().for_each(|entry| entry.state = "{".into()),
            _ => {}
        }
        let mut bytes = encode_awareness(&entries).to_vec();
        let mut vector = Vec::new();
        let clients = [[7, 8, 9], [7, 8, 7]][usize::from(rng.random_bool(0.1))];
        vector.push(3);
        for client in clients {
            write_var_uint(&mut vector, client);
            write_var_uint(&mut vector, rng.random_range(0..99));
        }
        if rng.random_bool(0.5) {
            bytes = spoiled(rng, &[bytes.into()]);
            vector = spoiled(rng, &[vector.into()]);
        }
        let bytes = Bytes::from(bytes);
        match AwarenessUpdate::parse(&bytes, &self.caps) {
            Err(malformed) => self.counts.add(format!("rule {:?}", malformed.rule), 1),
            Ok(entries) => {
                let promise = |holds: bool, what: &str| {
                    if holds { Ok(()) } else { Err(Conviction::Promise(format!("awareness: {what}"))) }
                };
                promise(entries.len() <= self.caps.awareness_entries_max, "too many entries")?;
                let mut clients: Vec<u64> = entries.iter().map(|entry| entry.client).collect();
                clients.sort_unstable();
                clients.dedup();
                promise(clients.len() == entries.len(), "a client twice")?;
                promise(entries.iter().all(|entry| entry.clock <= u32::MAX.into()), "a clock beyond 2^32 - 1")?;
                promise(
                    entries.iter().all(|entry| entry.state.len() <= self.caps.awareness_state_bytes_max),
                    "a large state",
                )?;
                let read = yrs::sync::AwarenessUpdate::decode_v1(&bytes)
                    .map_err(|error| Conviction::Yrs(format!("awareness: {error}")))?;
                promise(read.clients.len() == entries.len(), "yrs reads other entries")?;
                promise(encode_awareness(&entries) == bytes, "it is written otherwise")?;
            }
        }
        match contextnexus_gate::StateVector::parse(&vector) {
            Err(malformed) => self.counts.add(format!("rule {:?}", malformed.rule), 1),
            Ok(parsed) => {
                let read = yrs::StateVector::decode_v1(&vector)
                    .map_err(|error| Conviction::Yrs(format!("state vector: {error}")))?;
                let same =
                    parsed.iter().all(|(client, clock)| u64::from(read.get(&yrs::ClientID::new(client))) == clock);
                if !same || vector.first() != Some(&(parsed.len() as u8)) {
                    return Err(Conviction::Promise("a state vector that yrs reads otherwise".into()));
                }
            }
        }
        Ok(())
    }
}

/// Which rule makes an update wait.
fn waits_for(update: &Update, victim: &Victim, caps: &Caps) -> &'static str {
    let Ok(row) = Row::read(update.bytes(), caps) else { return "unread" };
    let is_gap = row
        .sections
        .iter()
        .any(|(client, first, items)| *first > victim.model.known(*client) || items.iter().any(|item| item.kind == 10));
    let is_delete = row.deletes.iter().any(|(client, ranges)| {
        let end = update.clients().find(|(other, _, _)| other == client).map_or(0, |(_, _, end)| end);
        ranges.iter().any(|(clock, len)| clock + len > end.max(victim.model.known(*client)))
    });
    if is_gap {
        "Gap"
    } else if is_delete {
        "DeleteGap"
    } else {
        "Reference"
    }
}

impl Base {
    fn new(bytes: Bytes, seed: u64, caps: &Caps) -> Self {
        let mut model = Model::default();
        let deep = Caps { type_depth_max: usize::MAX, ..caps.clone() };
        model.take_in(&Row::read(&bytes, &deep).unwrap(), &deep).unwrap();
        let mut honest = vec![bytes.clone()];
        let mut rng = rng(seed);
        for client in [60, 61, 2_000_000_000, (1 << 53) - 1] {
            let mut editor = Editor::new(client);
            editor.take_in(&bytes);
            (0..30).for_each(|_| editor.edit(&mut rng));
            let written: Vec<Bytes> = editor.outgoing.lock().unwrap().clone();
            let parsed: Vec<Update> = written.iter().map(|update| parse(update)).collect();
            honest.extend([merge(&parsed), state(&editor.doc)]);
            honest.extend(written);
        }
        let index = Index::from_state(&parse(&bytes));
        let (order, _) = Order::of_state(&index, &parse(&bytes));
        Self { index, order, bytes, model, honest }
    }

    fn victim(&self) -> Victim {
        let mut recent = Recent::new(1 << 22);
        recent.push(1, parse(&self.bytes));
        let victim = Victim {
            doc: doc(1),
            index: self.index.clone(),
            order: self.order.clone(),
            recent,
            model: self.model.clone(),
            rows: vec![self.bytes.clone()],
        };
        victim.fold(&self.bytes).unwrap();
        victim
    }
}

/// A document that two people wrote, deletes and all.
fn edited(seed: u64) -> Bytes {
    let mut rng = rng(seed);
    let (mut one, mut other) = (Editor::new(2), Editor::new(3));
    for _ in 0..2 {
        (0..12).for_each(|_| one.edit(&mut rng));
        (0..12).for_each(|_| other.edit(&mut rng));
        other.take_in(&state(&one.doc));
        one.take_in(&state(&other.doc));
    }
    state(&one.doc)
}

impl Victim {
    fn fold(&self, row: &Bytes) -> Result<(), String> {
        fold(&self.doc, row)
    }
}

fn fold(doc: &Doc, row: &[u8]) -> Result<(), String> {
    let update = yrs::Update::decode_v1(row).map_err(|error| format!("yrs cannot read {row:02x?}: {error}"))?;
    let mut txn = doc.transact_mut();
    txn.apply_update(update).map_err(|error| format!("yrs cannot apply {row:02x?}: {error}"))?;
    if txn.has_missing_updates() { Err(format!("yrs waits for something after {row:02x?}")) } else { Ok(()) }
}

/// All that can be read of a document in order, without the readers of yrs that do not bear hostile shapes: a type into which
/// somebody wrote text is read as text, every other one as an array too.
fn reading(doc: &Doc, model: &Model) -> String {
    let txn = doc.transact();
    let mut roots: Vec<(String, BranchPtr)> =
        txn.root_refs().filter_map(|(name, out)| Some((name.to_owned(), branch_of(&out)?))).collect();
    roots.sort_by(|left, right| left.0.cmp(&right.0));
    let mut into = String::new();
    for (name, branch) in roots {
        let mut root = String::new();
        read_branch(&txn, branch, model, &mut root);
        if root != "[][]{}" && root != "[]{}" {
            into.push_str(&format!("{name}:{root}\n"));
        }
    }
    into.replace('😀', "\u{fffd}\u{fffd}")
}

fn branch_of(out: &Out) -> Option<BranchPtr> {
    let branch: &Branch = match out {
        Out::YText(shared) => shared.as_ref(),
        Out::YArray(shared) => shared.as_ref(),
        Out::YMap(shared) => shared.as_ref(),
        Out::YXmlElement(shared) => shared.as_ref(),
        Out::YXmlFragment(shared) => shared.as_ref(),
        Out::YXmlText(shared) => shared.as_ref(),
        Out::UndefinedRef(branch) => return Some(*branch),
        _ => return None,
    };
    Some(BranchPtr::from(branch))
}

fn read_out<T: ReadTxn>(txn: &T, out: &Out, model: &Model, into: &mut String) {
    match (branch_of(out), out) {
        (Some(branch), _) => read_branch(txn, branch, model, into),
        (_, Out::YDoc(doc)) => into.push_str(&doc.guid()),
        (_, Out::Any(value)) => into.push_str(&sorted(value)),
        (_, other) => into.push_str(&format!("{other:?}")),
    }
}

fn sorted(value: &Any) -> String {
    match value {
        Any::Map(map) => {
            let mut entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}={}", sorted(value))).collect();
            entries.sort();
            entries.join(",")
        }
        Any::Array(values) => format!("{:?}", values.iter().map(sorted).collect::<Vec<_>>()),
        // yrs writes a number as it likes.
        Any::Number(Number::Int(number)) => format!("{:?}", *number as f64),
        Any::Number(Number::Float(number)) => format!("{number:?}"),
        other => format!("{other:?}"),
    }
}

fn read_branch<T: ReadTxn>(txn: &T, branch: BranchPtr, model: &Model, into: &mut String) {
    let id = match branch.id() {
        BranchID::Root(name) => Ok(name.to_string()),
        BranchID::Nested(id) => Err((id.client.get(), u64::from(id.clock))),
    };
    into.push('[');
    let (mut text, mut attrs_before) = (String::new(), String::new());
    for chunk in TextRef::from(branch).diff(txn, YChange::identity) {
        let mut attrs: Vec<String> = chunk
            .attributes
            .iter()
            .flat_map(|attrs| attrs.iter())
            .map(|(key, value)| format!("{key}={}", sorted(value)))
            .collect();
        attrs.sort();
        let attrs = attrs.join(",");
        // Formats that lost their meaning cut a text without changing it.
        if attrs != attrs_before {
            text.push_str(&format!("<{attrs}>"));
            attrs_before = attrs;
        }
        match &chunk.insert {
            Out::Any(Any::String(plain)) => text.push_str(plain),
            other => read_out(txn, other, model, &mut text),
        }
    }
    into.push_str(&text);
    into.push(']');
    let has_text = model
        .order
        .get(&(id, None))
        .is_some_and(|order| order.iter().any(|id| model.units.get(id).is_some_and(|unit| unit.kind == 4)));
    if !has_text && !model.has_huge() {
        into.push('[');
        for value in ArrayRef::from(branch).iter(txn) {
            if branch_of(&value).is_none() {
                read_out(txn, &value, model, into);
            }
            into.push(';');
        }
        into.push(']');
    }
    into.push('{');
    let mut entries: Vec<(String, Out)> =
        MapRef::from(branch).iter(txn).map(|(key, value)| (key.to_owned(), value)).collect();
    entries.sort_by(|left, right| left.0.cmp(&right.0));
    for (key, value) in entries {
        into.push_str(&key);
        into.push(':');
        read_out(txn, &value, model, into);
        into.push(';');
    }
    into.push('}');
}
