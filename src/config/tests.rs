#![allow(clippy::unwrap_used)]

use super::*;
use std::io::Write;

fn load(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::load(&Sources { environment, ..Sources::default() })
}

fn refusal(environment: &[(&str, &str)]) -> String {
    load(environment).unwrap_err().to_string()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn the_default_file_says_what_the_actors_take_as_default() {
    assert_eq!(load(&[]).unwrap().limits, Limits::default());
}

#[test]
fn the_default_file_says_what_the_parts_take_as_default() {
    use crate::export::ShowLimits;
    use crate::postgres::DatabaseSettings;
    use crate::postgres::operation_log::LogSettings;
    use crate::redis::OutgoingLimits;
    use crate::rest::LoginRates;
    use std::time::Duration;
    let config = load(&[]).unwrap();
    let (database, auth) = (&config.database, &config.auth);
    let log = LogSettings::default();
    assert_eq!(
        (database.log_writers as usize, database.log_busy_updates_per_s, Duration::from_millis(database.log_gap_ms)),
        (log.connections, log.busy_updates_per_s, log.gap)
    );
    assert_eq!(
        (database.log_full_documents, database.log_batch_documents_max, database.log_batch_bytes_max),
        (log.full_documents, log.batch_documents_max, log.batch_bytes_max)
    );
    assert_eq!(
        (database.log_waiting_bytes_max, Duration::from_secs(database.log_answer_timeout_s)),
        (log.waiting_bytes_max, log.answer_timeout)
    );
    let pool = DatabaseSettings::default();
    assert_eq!(
        [database.statement_timeout_s, database.lock_timeout_s].map(Duration::from_secs),
        [pool.statement_timeout, pool.lock_timeout]
    );
    let rates = LoginRates::default();
    assert_eq!(
        [
            (auth.attempts_per_account, auth.attempt_per_account_s),
            (auth.attempts_per_address, auth.attempt_per_address_s)
        ]
        .map(|(burst, per_s)| (burst, Duration::from_secs(per_s))),
        [rates.account, rates.address].map(|rate| (rate.burst, rate.per))
    );
    let (server, show) = (&config.server, ShowLimits::default());
    assert_eq!(
        (Duration::from_secs(server.show_s_max), server.show_workers, server.show_queue_max),
        (show.time_max, show.workers, show.queue_max)
    );
    let outgoing = OutgoingLimits::default();
    assert_eq!(
        (config.redis.outgoing_bytes_max, config.redis.outgoing_messages_max),
        (outgoing.bytes_max, outgoing.messages_max)
    );
}

#[test]
fn every_number_has_a_range_that_holds_its_default() {
    let defaults: toml::Table = include_str!("default.toml").parse().unwrap();
    for (section, value) in defaults {
        let toml::Value::Table(settings) = value else { continue };
        for (key, value) in settings {
            if let Some(default) = value.as_integer() {
                let name = format!("CONTEXTNEXUS_{}__{}", section.to_uppercase(), key.to_uppercase());
                assert!(load(&[(&name, &default.to_string())]).is_ok(), "{section}.{key} refuses its default");
                let refused = refusal(&[(&name, "-1")]);
                assert!(refused.contains("must be from"), "{section}.{key} has no range: {refused}");
            }
        }
    }
}

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_the_default() {
    let file = file("[server]\nlisten = \"127.0.0.1:1\"\nkeep_alive_s = 7\nworkers = 3\n");
    let mut sources = Sources { file: Some(file.path().into()), ..Sources::default() };
    assert_eq!(Config::load(&sources).unwrap().server.listen.port(), 1);
    sources.environment =
        vec![("CONTEXTNEXUS_LISTEN".into(), "127.0.0.1:2".into()), ("CONTEXTNEXUS_SERVER__WORKERS".into(), "4".into())];
    assert_eq!(Config::load(&sources).unwrap().server.listen.port(), 2);
    sources.flags = vec![("server.listen", "127.0.0.1:3".into())];
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.server.listen.port(), config.server.workers, config.server.keep_alive_s), (3, 4, 7));
}

#[test]
fn a_long_name_beats_a_short_form_in_either_order() {
    let short = ("DATABASE_URL", "postgres://short");
    let long = ("CONTEXTNEXUS_DATABASE__URL", "postgres://long");
    for environment in [[short, long], [long, short]] {
        assert_eq!(load(&environment).unwrap().database.url.get(), Some("postgres://long"));
    }
}

#[test]
fn a_slip_is_answered_with_the_name_that_was_meant() {
    assert_eq!(
        refusal(&[("CONTEXTNEXUS_SERVER__LISTN", "127.0.0.1:1")]),
        "CONTEXTNEXUS_SERVER__LISTN: there is no setting `server.listn`; did you mean `server.listen`?"
    );
    let file = file("[limits]\nupdate_byte_max = 3\n");
    let refused =
        Config::load(&Sources { file: Some(file.path().into()), ..Sources::default() }).unwrap_err().to_string();
    assert!(
        refused.ends_with("there is no setting `limits.update_byte_max`; did you mean `limits.update_bytes_max`?"),
        "{refused}"
    );
}

#[test]
fn a_section_is_not_a_setting() {
    assert!(refusal(&[("CONTEXTNEXUS_SERVER", "x")]).contains("there is no setting `server`"));
}

#[test]
fn each_bad_value_is_refused_by_name_in_one_line() {
    for (name, value, says) in [
        ("CONTEXTNEXUS_SERVER__KEEP_ALIVE_S", "0", "`server.keep_alive_s` must be from 1 to 3600, not 0"),
        ("CONTEXTNEXUS_SERVER__KEEP_ALIVE_S", "soon", "`server.keep_alive_s` must be a whole number, not `soon`"),
        ("CONTEXTNEXUS_DEMO__ENABLED", "maybe", "`demo.enabled` must be true or false, not `maybe`"),
        (
            "CONTEXTNEXUS_SERVER__TRUSTED_PROXIES",
            "10.0.0.0/8,proxy",
            "`server.trusted_proxies` cannot be used: \"proxy\" is neither an address nor a network such as 10.0.0.0/8",
        ),
        ("CONTEXTNEXUS_LISTEN", "here", "`server.listen` cannot be used: invalid socket address"),
        ("CONTEXTNEXUS_TELEMETRY__FORMAT", "xml", "`telemetry.format` cannot be used: unknown variant `xml`"),
    ] {
        let refused = refusal(&[(name, value)]);
        assert!(refused.contains(says), "{refused}");
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }
}

#[test]
fn limits_that_cannot_hold_together_are_refused_by_both_names() {
    let refused = refusal(&[("CONTEXTNEXUS_LIMITS__STEP2_BYTES_MAX", "33554432")]);
    assert_eq!(
        refused,
        "CONTEXTNEXUS_LIMITS__STEP2_BYTES_MAX: `limits.step2_bytes_max` is 33554432 and must be at least \
         `limits.document_bytes_max`, which is 134217728: else no client could bring back a document that the database lost"
    );
    for (name, value, than) in [
        ("DOCUMENT_BYTES_MAX", "200000000", "document_bytes_max"),
        ("UPDATE_BYTES_MAX", "200000000", "update_bytes_max"),
    ] {
        let refused = refusal(&[(&format!("CONTEXTNEXUS_LIMITS__{name}"), value)]);
        assert!(refused.starts_with(&format!("CONTEXTNEXUS_LIMITS__{name}: ")), "{refused}");
        assert!(refused.contains(&format!("must be at least `limits.{than}`")), "{refused}");
    }
}

#[test]
fn the_tighter_profile_of_the_readme_can_be_used() {
    let readme = include_str!("../../README.md");
    let (_, profile) = readme.split_once("# tighter.toml\n").unwrap();
    let file = file(profile.split_once("```").unwrap().0);
    let config = Config::load(&Sources { file: Some(file.path().into()), ..Sources::default() }).unwrap();
    assert!(config.limits.update_bytes_max < Limits::default().update_bytes_max);
    assert!(config.limits.step2_bytes_max < Limits::default().step2_bytes_max);
}

#[test]
fn lists_are_separated_by_commas() {
    let config = load(&[("CONTEXTNEXUS_SERVER__ALLOWED_ORIGINS", "https://a.example, https://b.example")]).unwrap();
    assert_eq!(config.server.allowed_origins, ["https://a.example", "https://b.example"]);
}

#[test]
fn passwords_are_not_in_debug_output() {
    let config = load(&[("DATABASE_URL", "postgres://u:marker@h/d"), ("REDIS_URL", "redis://:marker@h")]).unwrap();
    assert!(!format!("{config:?}").contains("marker"));
}
