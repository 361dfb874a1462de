//! The walls of ARCHITECTURE.md, held by reading the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub fn sources(under: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(under), &mut found);
    assert!(!found.is_empty(), "{under} holds no source");
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(root).unwrap().to_owned(), text)
        })
        .collect()
}

/// Lines of code outside tests that contain one of the words.
pub fn offences(files: &[(PathBuf, String)], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn tidy_states_import_nothing_that_touches_the_world() {
    let states: Vec<_> = sources("actors/src")
        .into_iter()
        .filter(|(path, _)| path.to_string_lossy().contains("/state") && !path.to_string_lossy().contains("tests"))
        .collect();
    assert!(states.len() >= 3);
    let world = [
        "actix",
        "tokio::time",
        "tokio::spawn",
        "tokio::net",
        "Instant::now",
        "SystemTime",
        "rand::",
        "dyn Clock",
        "Arc<dyn",
    ];
    assert_eq!(offences(&states, &world), Vec::<String>::new());
}

#[test]
fn tidy_actors_know_no_database_no_http_and_no_environment() {
    let world = ["sqlx", "actix_web", "actix_http", "redis::", "std::env", "std::fs", "neo4rs"];
    assert_eq!(offences(&sources("actors/src"), &world), Vec::<String>::new());
}

#[test]
fn tidy_sql_stands_in_its_adapter_only() {
    let outside: Vec<_> = sources("src")
        .into_iter()
        .filter(|(path, _)| !path.starts_with("src/postgres") && !path.starts_with("src/embedded"))
        .collect();
    assert_eq!(offences(&outside, &["sqlx::query", "query!(", "query_as!(", "query_scalar"]), Vec::<String>::new());
}

#[test]
fn tidy_redis_commands_stand_in_their_adapter_only() {
    let outside: Vec<_> = sources("src").into_iter().filter(|(path, _)| !path.starts_with("src/redis")).collect();
    let named: Vec<_> = offences(&outside, &["redis::cmd", "redis::Client"])
        .into_iter()
        .filter(|line| !line.starts_with("src/commands/doctor"))
        .collect();
    assert_eq!(named, Vec::<String>::new());
}

#[test]
fn tidy_no_actor_imports_another_actors_state() {
    let mut found = Vec::new();
    for (path, text) in sources("actors/src") {
        let own =
            path.components().nth(2).map(|part| part.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
        for line in text.lines().filter(|line| line.contains("::state::") && line.contains("use crate::")) {
            if !line.contains(&format!("crate::{own}::")) {
                found.push(format!("{}: {line}", path.display()));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn tidy_nobody_sends_past_a_mailboxs_bound() {
    let all: Vec<_> = [sources("src"), sources("actors"), sources("loadtest")].concat();
    assert_eq!(offences(&all, &[".do_send(", "unbounded_channel", "mpsc::unbounded"]), Vec::<String>::new());
}

#[test]
fn tidy_nothing_is_unsafe_but_one_mapped_page() {
    let elsewhere: Vec<_> = [sources("src"), sources("actors"), sources("loadtest")]
        .concat()
        .into_iter()
        .filter(|(path, _)| path != Path::new("src/folding/page.rs") && !path.to_string_lossy().contains("/tests/"))
        .collect();
    assert_eq!(
        offences(&elsewhere, &["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code)"]),
        Vec::<String>::new()
    );
}

#[test]
fn tidy_no_source_file_holds_two_ideas() {
    let long: Vec<String> = [sources("src"), sources("actors"), sources("loadtest")]
        .concat()
        .into_iter()
        .filter(|(path, _)| !path.to_string_lossy().contains("/target/"))
        .filter(|(_, text)| text.lines().count() > 800)
        .map(|(path, text)| format!("{}: {} lines", path.display(), text.lines().count()))
        .collect();
    assert_eq!(long, Vec::<String>::new());
}

#[test]
fn tidy_the_readme_shows_the_programs_that_the_tests_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    for name in ["y-websocket", "y-websocket-ticket", "hocuspocus", "y-sweet", "tiptap", "codemirror"] {
        let program = fs::read_to_string(root.join(format!("tests/interop/snippets/{name}.mjs"))).unwrap();
        assert!(readme.contains(program.trim()), "README shows another {name}.mjs");
    }
    for name in ["tiptap", "codemirror"] {
        let page = fs::read_to_string(root.join(format!("tests/interop/snippets/{name}.html"))).unwrap();
        assert!(readme.contains(&format!("```html\n{page}```")), "README shows another {name}.html");
    }
}

/// The packages that a piece of Markdown tells to install, as `name@version`. A command may go on after a backslash.
fn installed_by(markdown: &str) -> BTreeSet<String> {
    let joined = markdown.replace("\\\n", " ");
    let commands = joined.lines().filter_map(|line| line.strip_prefix("npm install "));
    commands.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[test]
fn tidy_the_readme_tells_to_install_what_its_programs_are_tested_with() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let manifest = fs::read_to_string(root.join("tests/interop/snippets/package.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let tested: BTreeSet<String> = ["dependencies", "devDependencies"]
        .iter()
        .flat_map(|kind| manifest[*kind].as_object().unwrap())
        .map(|(name, version)| format!("{name}@{}", version.as_str().unwrap()))
        .collect();
    assert_eq!(installed_by(&readme), tested, "README and tests/interop/snippets/package.json");

    // Each section stands alone: what its programs import, it installs.
    let sections = readme.split("\n### ").skip(1).filter(|section| section.contains("```js\n"));
    let mut programs = 0;
    for section in sections {
        let installed = installed_by(section);
        for line in section.lines().filter(|line| line.starts_with("import ")) {
            let module = line.rsplit('\'').nth(1).unwrap();
            let parts = if module.starts_with('@') { 2 } else { 1 };
            let package = module.split('/').take(parts).collect::<Vec<_>>().join("/");
            let is_installed = installed.iter().any(|known| known.rsplit_once('@').unwrap().0 == package);
            assert!(is_installed, "README imports {package} without telling to install it:\n{section}");
        }
        programs += section.matches("```js\n").count();
    }
    assert_eq!(programs, 6);
}

/// `cargo run` hands on to the server what the build sets, and what begins with CONTEXTNEXUS_ is a setting.
#[test]
fn tidy_nothing_that_the_build_sets_looks_like_a_setting() {
    let build = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs")).unwrap();
    assert!(build.contains("rustc-env="), "it sets nothing");
    assert_eq!(offences(&[("build.rs".into(), build)], &["CONTEXTNEXUS_"]), Vec::<String>::new());
}

#[test]
fn tidy_ci_runs_the_readmes_test_command() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let ci = fs::read_to_string(root.join(".ci/run")).unwrap();
    assert!(readme.contains("```sh\ntests/run.sh\n```"));
    assert!(ci.trim_end().ends_with("exec ./tests/run.sh"));
}
