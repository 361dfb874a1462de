//! Who runs PostgreSQL: this process's own user, or, because PostgreSQL refuses root, an unprivileged one.

use super::EmbeddedError;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// A user of this machine that PostgreSQL's processes run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
    /// For messages.
    pub name: String,
    /// Whether this process has to become it first.
    switch: bool,
}

impl Account {
    /// The account for a new cluster. `run_as` names the one to take when this process is root; empty: `postgres`, else `nobody`.
    pub fn choose(run_as: &str) -> Result<Self, EmbeddedError> {
        if !crate::process::is_root() {
            return Ok(Self::own());
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let candidates: &[&str] = if run_as.is_empty() { &["postgres", "nobody"] } else { &[run_as] };
        candidates
            .iter()
            .find_map(|name| find(&users, name))
            .ok_or_else(|| EmbeddedError::NoAccount { tried: candidates.join(", ") })
    }

    /// The account that owns a cluster that exists.
    pub fn owner_of(cluster: &Path) -> Result<Self, EmbeddedError> {
        let metadata = std::fs::metadata(cluster).map_err(|source| EmbeddedError::io(cluster, source))?;
        let own = Self::own();
        if metadata.uid() == own.uid && own.uid != 0 {
            return Ok(own);
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = name_of(&users, metadata.uid()).unwrap_or_else(|| metadata.uid().to_string());
        if own.uid != 0 || metadata.uid() == 0 {
            return Err(EmbeddedError::ForeignCluster { cluster: cluster.into(), owner: name });
        }
        Ok(Self { uid: metadata.uid(), gid: metadata.gid(), name, switch: true })
    }

    /// This process's own user, root included: for programs that any user may run.
    pub fn own() -> Self {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { uid, gid, name: format!("uid {uid}"), switch: false }
    }

    /// A command that runs as this account: with nothing of this process's environment that could move PostgreSQL to another
    /// language, directory or port, and out of the reach of the terminal's Ctrl-C, which is for this server to act on.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").env("PATH", "/usr/local/bin:/usr/bin:/bin");
        if let Some(path) = std::env::var_os("LD_LIBRARY_PATH") {
            command.env("LD_LIBRARY_PATH", path); // where PostgreSQL was built by hand
        }
        command.current_dir("/").process_group(0).stdin(Stdio::null());
        if self.switch {
            command.uid(self.uid).gid(self.gid); // and no supplementary groups
        }
        command
    }

    /// Whether it is another user than this process's own.
    pub fn is_other(&self) -> bool {
        self.switch
    }

    /// Whether this account can work in `directory`: asked of the kernel, because modes, lists and mounts all have a say.
    pub async fn reaches(&self, directory: &Path) -> bool {
        let mut command = self.command(Path::new("/bin/sh"));
        command.args(["-c", "cd -- \"$1\" && test -w . && test -x .", "sh"]).arg(directory);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().await.is_ok_and(|status| status.success())
    }

    /// Makes a directory that belongs to this account alone.
    pub fn make_directory(&self, path: &Path) -> Result<(), EmbeddedError> {
        use std::os::unix::fs::DirBuilderExt;
        let made = std::fs::DirBuilder::new().mode(0o700).create(path);
        match made {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(EmbeddedError::io(path, error));
            }
            _ => {}
        }
        self.give(path)
    }

    /// Gives a file or directory to this account.
    pub fn give(&self, path: &Path) -> Result<(), EmbeddedError> {
        if !self.switch {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
            .map_err(|source| EmbeddedError::io(path, source))
    }
}

fn find(users: &str, name: &str) -> Option<Account> {
    let fields: Vec<&str> =
        users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name)?;
    let (uid, gid) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
    (uid != 0).then(|| Account { uid, gid, name: name.to_owned(), switch: true })
}

fn name_of(users: &str, uid: u32) -> Option<String> {
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    fields
        .into_iter()
        .find(|fields| fields.get(2).is_some_and(|field| *field == uid.to_string()))
        .map(|fields| fields[0].into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const USERS: &str =
        "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:104:PostgreSQL:/:/bin/sh\ntoor:x:0:0::/:/bin/sh\n";

    #[test]
    fn an_account_is_found_by_name_and_never_another_root() {
        let postgres = find(USERS, "postgres").unwrap();
        assert_eq!((postgres.uid, postgres.gid), (101, 104));
        assert_eq!(find(USERS, "toor"), None);
        assert_eq!(find(USERS, "post"), None);
        assert_eq!(name_of(USERS, 101).as_deref(), Some("postgres"));
    }
}
