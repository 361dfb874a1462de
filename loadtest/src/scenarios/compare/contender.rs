//! One server of a comparison, as its line on the command line says.

use std::path::PathBuf;
use std::str::FromStr;

use crate::launch::LaunchArgs;

/// A server, how to reach it and how to start it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contender {
    /// In tables.
    pub name: String,
    /// What the scenario is told of it, as options of its command line.
    options: Vec<(&'static str, String)>,
    log: Option<PathBuf>,
    start: String,
}

/// Why a line cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ContenderError {
    /// A word without `=`, and no preset.
    #[error("{0}: expected KEY=VALUE, or one of y-websocket, hocuspocus, y-sweet")]
    Malformed(String),
    /// A key that nobody reads.
    #[error("{0}: keys are name, url, dialect, credentials, token, token-in, metrics, commit-probe, pid, log, start")]
    Unknown(String),
    /// Without it there is nothing to compare.
    #[error("{0} is missing")]
    Missing(&'static str),
}

impl FromStr for Contender {
    type Err = ContenderError;

    fn from_str(text: &str) -> Result<Self, ContenderError> {
        let mut contender = Self::default();
        // The command is the rest of the line, whatever stands in it.
        let text = match text.split_once("start=").filter(|(head, _)| head.is_empty() || head.ends_with(' ')) {
            Some((head, start)) => {
                start.trim().clone_into(&mut contender.start);
                head
            }
            None => text,
        };
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').ok_or_else(|| ContenderError::Malformed(word.to_owned()))?;
            let option = match key {
                "name" => {
                    value.clone_into(&mut contender.name);
                    continue;
                }
                "log" => {
                    contender.log = Some(value.into());
                    continue;
                }
                "url" => "--url",
                "dialect" => "--dialect",
                "credentials" => "--credentials",
                "token" => "--token",
                "token-in" => "--token-in",
                "metrics" => "--metrics",
                "commit-probe" => "--commit-probe",
                "pid" => "--server-pid",
                _ => return Err(ContenderError::Unknown(key.to_owned())),
            };
            contender.options.push((option, value.to_owned()));
        }
        match &contender {
            Self { name, .. } if name.is_empty() => Err(ContenderError::Missing("name=")),
            Self { start, .. } if start.is_empty() => Err(ContenderError::Missing("start=")),
            Self { options, .. } if !options.iter().any(|(option, _)| *option == "--url") => {
                Err(ContenderError::Missing("url="))
            }
            _ => Ok(contender),
        }
    }
}

impl Contender {
    /// What a scenario is told of it.
    pub fn arguments(&self) -> Vec<String> {
        self.options.iter().flat_map(|(option, value)| [(*option).to_owned(), value.clone()]).collect()
    }

    /// The same for a scenario that starts the server itself.
    pub fn launching_arguments(&self, ready: f64) -> Vec<String> {
        let mut arguments = self.arguments();
        arguments.extend(["--start".to_owned(), self.start.clone(), "--ready".to_owned(), ready.to_string()]);
        if let Some(log) = &self.log {
            arguments.extend(["--server-log".to_owned(), log.display().to_string()]);
        }
        arguments
    }

    /// How it is started.
    pub fn launch(&self) -> LaunchArgs {
        LaunchArgs { start: Some(self.start.clone()), server_log: self.log.clone(), ready: 60.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_and_its_command_is_the_rest() {
        let line = "name=ours url=ws://h:1 url=ws://h:2 dialect=hocuspocus log=/tmp/l \
                    start=bin/x serve --set a=b url=no";
        let contender: Contender = line.parse().unwrap();
        assert_eq!(contender.name, "ours");
        assert_eq!(contender.arguments(), ["--url", "ws://h:1", "--url", "ws://h:2", "--dialect", "hocuspocus"]);
        assert_eq!(contender.launch().start.as_deref(), Some("bin/x serve --set a=b url=no"));
        let launching = contender.launching_arguments(5.0);
        assert_eq!(
            launching[6..],
            ["--start", "bin/x serve --set a=b url=no", "--ready", "5", "--server-log", "/tmp/l"]
        );
    }

    #[test]
    fn a_line_that_cannot_be_used_says_why() {
        for (line, error) in [
            ("ours", ContenderError::Malformed("ours".to_owned())),
            ("name=x colour=red start=y", ContenderError::Unknown("colour".to_owned())),
            ("name=x start=y", ContenderError::Missing("url=")),
            ("name=x url=ws://h:1", ContenderError::Missing("start=")),
            ("url=ws://h:1 start=y", ContenderError::Missing("name=")),
        ] {
            assert_eq!(line.parse::<Contender>(), Err(error), "{line}");
        }
    }
}
