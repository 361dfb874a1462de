//! The layers of the settings: the default file, then a file, then the environment, then flags.

use super::Config;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

const DEFAULTS: &str = include_str!("default.toml");
const PREFIX: &str = "CONTEXTNEXUS_";

/// Names that tools build on, and where they lead.
const SHORT_FORMS: [(&str, &str); 7] = [
    ("CONTEXTNEXUS_LISTEN", "server.listen"),
    ("CONTEXTNEXUS_DATA_DIR", "data_dir"),
    ("DATABASE_URL", "database.url"),
    ("DATABASE_OWNER_URL", "database.owner_url"),
    ("DATABASE_BACKUP_URL", "database.backup_url"),
    ("REDIS_URL", "redis.url"),
    ("CONTEXTNEXUS_CONFIG", ""), // names the file; read before the layers
];

/// What lies over the default file, lowest first.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file of the operator's.
    pub file: Option<PathBuf>,
    /// The environment, or a part of it.
    pub environment: Vec<(String, String)>,
    /// Flags, as `(path, value)`: `("server.listen", "0.0.0.0:80")`.
    pub flags: Vec<(&'static str, String)>,
}

/// Why the settings cannot be used. Each text is one line that names the setting and where it was set.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{origin} is not valid TOML: {reason}")]
    Malformed {
        /// Which file.
        origin: String,
        /// Why, and where.
        reason: String,
    },
    /// No such setting.
    #[error("{origin}: there is no setting `{name}`{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    Unknown {
        /// Where it was set.
        origin: String,
        /// What was set.
        name: String,
        /// The known name that looks most like it.
        nearest: Option<String>,
    },
    /// A setting with a value that it cannot have.
    #[error("{origin}: `{name}` {reason}")]
    Invalid {
        /// Where it was set.
        origin: String,
        /// Which setting.
        name: String,
        /// What it should be.
        reason: String,
    },
}

impl Config {
    /// Lays the layers over each other and checks every name, type and range.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let defaults = defaults();
        let ranges = ranges();
        let mut merged = defaults.clone();
        let mut origins = HashMap::new();

        let mut lay = |origin: &str, name: &str, value: Value| -> Result<(), ConfigError> {
            check_value(origin, name, &value, &defaults, &ranges)?;
            origins.insert(name.to_owned(), origin.to_owned());
            set(&mut merged, name, value);
            Ok(())
        };

        if let Some(path) = file_of(sources) {
            let origin = path.display().to_string();
            for (name, value) in read_file(&path)? {
                lay(&origin, &name, value)?;
            }
        }
        // Short forms first: where somebody sets both, the name that says the section wins.
        for long_form in [false, true] {
            for (variable, text) in &sources.environment {
                let short = SHORT_FORMS.iter().find(|(short, _)| short == variable).map(|(_, name)| (*name).to_owned());
                if short.is_some() == long_form {
                    continue;
                }
                let Some(name) = short.or_else(|| long_name(variable)) else { continue };
                if !name.is_empty() {
                    let value = parse_like(variable, &name, text, &defaults)?;
                    lay(variable, &name, value)?;
                }
            }
        }
        for (name, text) in &sources.flags {
            let flag = format!("--{}", name.rsplit('.').next().unwrap_or(name).replace('_', "-"));
            let value = parse_like(&flag, name, text, &defaults)?;
            lay(&flag, name, value)?;
        }

        from_table(merged, &origins)
    }
}

fn file_of(sources: &Sources) -> Option<PathBuf> {
    let named =
        || sources.environment.iter().find(|(name, _)| name == "CONTEXTNEXUS_CONFIG").map(|(_, path)| path.into());
    sources.file.clone().or_else(named)
}

fn read_file(path: &Path) -> Result<Vec<(String, Value)>, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Malformed {
        origin: path.display().to_string(),
        reason: error.message().lines().collect::<Vec<_>>().join(" "),
    })?;
    let mut settings = Vec::new();
    for (name, value) in table {
        match value {
            Value::Table(section) => {
                settings.extend(section.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)))
            }
            value => settings.push((name, value)),
        }
    }
    Ok(settings)
}

/// `CONTEXTNEXUS_SERVER__LISTEN` is `server.listen`.
fn long_name(variable: &str) -> Option<String> {
    variable.strip_prefix(PREFIX).map(|rest| rest.to_lowercase().replace("__", "."))
}

/// Types and ranges were checked setting by setting; what is left (an address, a format) is checked by the types of [`Config`].
fn from_table(merged: Table, origins: &HashMap<String, String>) -> Result<Config, ConfigError> {
    // One setting at a time first, because serde's error does not say in which of them it happened.
    for (name, origin) in origins {
        let mut probe = defaults();
        if let Some(value) = get(&merged, name) {
            set(&mut probe, name, value.clone());
        }
        Config::deserialize(Value::Table(probe)).map_err(|error| ConfigError::Invalid {
            origin: origin.clone(),
            name: name.clone(),
            reason: format!("cannot be used: {}", error.message().trim()),
        })?;
    }
    let config = Config::deserialize(Value::Table(merged)).map_err(|error| ConfigError::Malformed {
        origin: "the configuration".into(),
        reason: error.message().trim().to_owned(),
    })?;
    check_together(&config, origins)?;
    Ok(config)
}

/// Limits that are each in their range may still rule each other out.
fn check_together(config: &Config, origins: &HashMap<String, String>) -> Result<(), ConfigError> {
    let Some(contradiction) = config.limits.contradiction() else { return Ok(()) };
    let (value, least) = contradiction.values;
    let (name, other) = (format!("limits.{}", contradiction.less), format!("limits.{}", contradiction.than));
    // One of the two was set: the defaults hold together.
    let origin = origins.get(&name).or_else(|| origins.get(&other)).cloned();
    Err(ConfigError::Invalid {
        origin: origin.unwrap_or_else(|| "the configuration".into()),
        reason: format!(
            "is {value} and must be at least `{other}`, which is {least}: else {}",
            contradiction.else_what
        ),
        name,
    })
}

#[allow(clippy::expect_used)] // compiled in, and read by every test
fn defaults() -> Table {
    DEFAULTS.parse().expect("the default file is valid TOML")
}

/// The ranges that the comments of the default file state: `Range 1 to 300.`
fn ranges() -> HashMap<String, (i64, i64)> {
    let mut ranges = HashMap::new();
    let mut section = String::new();
    let mut comment = String::new();
    for line in DEFAULTS.lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push_str(text);
        } else if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
            comment.clear();
        } else if let Some((key, _)) = line.split_once(" = ") {
            if let Some(range) = range_in(&comment) {
                ranges.insert(format!("{section}{key}"), range);
            }
            comment.clear();
        } else {
            comment.clear();
        }
    }
    ranges
}

fn range_in(comment: &str) -> Option<(i64, i64)> {
    let (_, range) = comment.split_once("Range ")?;
    let (low, high) = range.trim_end_matches('.').split_once(" to ")?;
    Some((low.parse().ok()?, high.parse().ok()?))
}

fn get<'a>(table: &'a Table, name: &str) -> Option<&'a Value> {
    match name.split_once('.') {
        Some((section, key)) => table.get(section)?.get(key),
        None => table.get(name).filter(|value| !value.is_table()),
    }
}

fn set(table: &mut Table, name: &str, value: Value) {
    match name.split_once('.') {
        Some((section, key)) => {
            if let Some(Value::Table(section)) = table.get_mut(section) {
                section.insert(key.to_owned(), value);
            }
        }
        None => {
            table.insert(name.to_owned(), value);
        }
    }
}

fn unknown(origin: &str, name: &str, defaults: &Table) -> ConfigError {
    let known = defaults.iter().flat_map(|(name, value)| match value {
        Value::Table(section) => section.keys().map(|key| format!("{name}.{key}")).collect(),
        _ => vec![name.clone()],
    });
    let nearest = known.map(|known| (distance(&known, name), known)).min();
    ConfigError::Unknown {
        origin: origin.to_owned(),
        name: name.to_owned(),
        // Beyond half of the name it is another word, not a slip.
        nearest: nearest.filter(|(distance, _)| *distance <= name.len() / 2).map(|(_, known)| known),
    }
}

/// Reads text as what the default is.
fn parse_like(origin: &str, name: &str, text: &str, defaults: &Table) -> Result<Value, ConfigError> {
    let invalid = |reason: String| ConfigError::Invalid { origin: origin.to_owned(), name: name.to_owned(), reason };
    match get(defaults, name).ok_or_else(|| unknown(origin, name, defaults))? {
        Value::Integer(_) => text
            .replace('_', "")
            .parse()
            .map(Value::Integer)
            .map_err(|_| invalid(format!("must be a whole number, not `{text}`"))),
        Value::Boolean(_) => match text {
            "true" | "1" | "yes" | "on" => Ok(Value::Boolean(true)),
            "false" | "0" | "no" | "off" | "" => Ok(Value::Boolean(false)),
            _ => Err(invalid(format!("must be true or false, not `{text}`"))),
        },
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn check_value(
    origin: &str,
    name: &str,
    value: &Value,
    defaults: &Table,
    ranges: &HashMap<String, (i64, i64)>,
) -> Result<(), ConfigError> {
    let default = get(defaults, name).ok_or_else(|| unknown(origin, name, defaults))?;
    let invalid =
        |reason: String| Err(ConfigError::Invalid { origin: origin.to_owned(), name: name.to_owned(), reason });
    if !default.same_type(value) {
        return invalid(format!("must be of type {}, not {}", default.type_str(), value.type_str()));
    }
    match (value.as_integer(), ranges.get(name)) {
        (Some(number), Some((low, high))) if number < *low || number > *high => {
            invalid(format!("must be from {low} to {high}, not {number}"))
        }
        _ => Ok(()),
    }
}

/// Levenshtein's distance: how many letters somebody mistyped.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
