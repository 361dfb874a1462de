//! The command line. `contextnexus` alone is `contextnexus serve`.

mod admin;
mod backup;
mod deep;
mod doctor;

use crate::app;
use crate::config::{Config, ConfigError, Sources};
use crate::console::{complain, say};
use crate::folding::trial;
use crate::{process, rest, telemetry};
use clap::{Args, Parser, Subcommand};
use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

/// A self-hosted server for real-time collaboration: any Yjs editor connects, and what anyone sees is committed.
#[derive(Debug, Parser)]
#[command(name = "contextnexus", version, propagate_version = true)]
struct CommandLine {
    #[command(flatten)]
    overrides: Overrides,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Settings that every command takes. All others are in the configuration file and the environment.
#[derive(Debug, Args)]
struct Overrides {
    /// A configuration file (TOML). All settings: src/config/default.toml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where this node keeps its files [default: ./data] [env: CONTEXTNEXUS_DATA_DIR].
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address and port to serve on [default: 127.0.0.1:8080] [env: CONTEXTNEXUS_LISTEN].
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Makes the demo tenant also on a database that was brought (DATABASE_URL).
    #[arg(long, global = true)]
    demo: bool,
    /// Serves although PostgreSQL may lose what users were shown (fsync off). For tests.
    #[arg(long, global = true)]
    allow_weak_durability: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves, until SIGTERM or Ctrl-C (the default).
    Serve,
    /// Brings the schema up to date, as the role of DATABASE_OWNER_URL, and ends.
    Migrate,
    /// Looks at every part and says what is missing, unreachable or weak, and what to do. Fails when something has to be done.
    Doctor(doctor::Doctor),
    /// Prints the OpenAPI 3.1 description of the HTTP interface.
    Openapi,
    /// The child that folds what ended a server (see [`trial`]). Its input comes by stdin, from a server.
    #[command(name = trial::SUBCOMMAND, hide = true)]
    TryFold,
    #[command(flatten)]
    Backup(backup::Backups),
    #[command(flatten)]
    Admin(admin::Admin),
}

/// What a command ends with.
type Outcome = Result<(), Box<dyn Error>>;

/// The whole program.
pub fn main() -> ExitCode {
    let line = CommandLine::parse();
    if matches!(line.command, Some(Command::TryFold)) {
        return trial::child(|reporter| reporter);
    }
    process::ensure_stacks();
    let command = line.command.unwrap_or(Command::Serve);
    let config = match configure(&line.overrides, matches!(command, Command::Serve)) {
        Ok(config) => config,
        Err(error) => {
            complain(chain(error.as_ref()));
            return ExitCode::from(2);
        }
    };
    let outcome = match command {
        Command::Serve => run(async { Ok(app::serve(config).await?) }),
        Command::Migrate => run(admin::migrate(config)),
        Command::Doctor(doctor) => {
            let healthy = actix_rt::System::new().block_on(doctor::run(&doctor, &config));
            return if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Command::Openapi => return print_openapi(),
        Command::TryFold => return ExitCode::FAILURE, // it needs no configuration, and has ended above
        Command::Backup(command) => run(backup::run(command, config)),
        Command::Admin(command) => run(admin::run(command, config)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn print_openapi() -> ExitCode {
    match rest::openapi().to_pretty_json() {
        Ok(description) => {
            say(description);
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

fn configure(overrides: &Overrides, serves: bool) -> Result<Config, Box<dyn Error>> {
    let mut flags = Vec::new();
    flags.extend(overrides.data_dir.clone().map(|text| ("data_dir", text)));
    flags.extend(overrides.listen.clone().map(|text| ("server.listen", text)));
    if overrides.demo {
        flags.push(("demo.enabled", "true".to_owned()));
    }
    if overrides.allow_weak_durability {
        flags.push(("database.allow_weak_durability", "true".to_owned()));
    }
    // A variable that is not Unicode cannot be one of ours.
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let sources = Sources { file: overrides.config.clone(), environment: environment.collect(), flags };
    let config: Config = Config::load(&sources).map_err(|error: ConfigError| error)?;
    // Other commands answer in one line; a log would say the same again.
    if serves {
        telemetry::start(&config.telemetry)?;
    }
    Ok(config)
}

/// Runs on actix's runtime, which the HTTP server needs.
fn run(command: impl Future<Output = Outcome>) -> Outcome {
    actix_rt::System::new().block_on(command)
}

/// An error and its causes in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors repeat their cause in their text.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// [`chain`], and what to do where the cause is one that only PostgreSQL sees.
fn explain(error: &dyn Error) -> String {
    let text = chain(error);
    if text.contains("No space left on device") {
        return format!("the disk is full; free some space ({text})");
    }
    text
}
