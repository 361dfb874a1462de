//! Passwords: hashed with argon2id, on threads of their own.
//!
//! One hash costs 19 MiB and some 30 ms of CPU. Few threads and a short queue bound what a flood of logins can take from the
//! documents on the same machine; a full queue is an answer (try again), not a wait.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use contextnexus_actors::counted::Counted;
use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

/// OWASP's minimum for argon2id; more memory would be better against crackers and worse against a flood of logins.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Nobody types more; argon2 would hash megabytes of it.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Shorter ones fall to a list of guesses.
pub const PASSWORD_CHARS_MIN: usize = 10;

/// A password as somebody typed it. Never shown.
#[derive(Clone, serde::Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(redacted)")
    }
}

/// Hashes and verifies. Cheap to clone.
#[derive(Clone)]
pub struct Passwords {
    queue: SyncSender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passwords")
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many wait: try again in a second.
    #[error("too many passwords wait to be checked")]
    Busy,
    /// The hash cannot be made or read.
    #[error("the password cannot be hashed")]
    Unhashable,
}

impl Passwords {
    /// Two threads, and 32 that wait: see [`start_with`](Self::start_with).
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start() -> std::io::Result<Self> {
        Self::start_with(2, 32)
    }

    /// Starts so many threads; `queue_max` may wait for them. They end with the last clone.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start_with(threads: usize, queue_max: usize) -> std::io::Result<Self> {
        let (queue, jobs) = sync_channel(queue_max);
        let jobs = Arc::new(Mutex::new(jobs));
        for n in 0..threads {
            let jobs = Arc::clone(&jobs);
            std::thread::Builder::new().name(format!("passwords-{n}")).spawn(move || work(&jobs))?;
        }
        Ok(Self { queue })
    }

    /// The PHC string to store.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn hash(&self, password: Password) -> Result<String, PasswordError> {
        self.run(move || hash_now(&password.0)).await?
    }

    /// Whether the password is the one of `stored`. Without a stored hash (an unknown user, one without a password) it takes as
    /// long and says no.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn verify(&self, password: Password, stored: Option<String>) -> Result<bool, PasswordError> {
        self.run(move || {
            let Some(stored) = &stored else { return hash_now(&password.0).map(|_| false) };
            let hash = PasswordHash::new(stored).map_err(|_| PasswordError::Unhashable)?;
            Ok(argon2id()?.verify_password(password.0.as_bytes(), &hash).is_ok())
        })
        .await?
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        let waits = Counted::in_gauge("contextnexus_passwords_waiting");
        let (done, answer) = oneshot::channel();
        let job: Job = Box::new(move || {
            let _waits = waits; // until it is done, also where nobody waits for it any more
            if !done.is_closed() {
                let _ = done.send(work()); // who asked may have left: nothing to tell then
            }
        });
        match self.queue.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                metrics::counter!("contextnexus_passwords_refused_total").increment(1);
                return Err(PasswordError::Busy);
            }
        }
        answer.await.map_err(|_| PasswordError::Busy)
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            // A panic inside argon2 would take the thread with it, and with two of them all logins.
            Ok(job) => drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(job))),
            Err(_) => return, // the last clone is gone
        }
    }
}

/// Hashes on the calling thread: for the command line and for tests. Takes some 30 ms.
///
/// # Errors
/// [`PasswordError::Unhashable`].
pub fn hash_now(password: &str) -> Result<String, PasswordError> {
    let hash: PasswordHash = argon2id()?.hash_password(password.as_bytes()).map_err(|_| PasswordError::Unhashable)?;
    Ok(hash.to_string())
}

/// Why a new password is not taken, for its chooser.
#[must_use]
pub fn weakness(password: &Password) -> Option<&'static str> {
    if password.0.len() > PASSWORD_BYTES_MAX {
        Some("at most 1024 bytes")
    } else if password.0.chars().count() < PASSWORD_CHARS_MIN {
        Some("at least 10 characters")
    } else {
        None
    }
}

fn argon2id() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| PasswordError::Unhashable)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn password(text: &str) -> Password {
        Password(text.into())
    }

    #[tokio::test]
    async fn only_the_right_password_is_right() {
        let passwords = Passwords::start().unwrap();
        let stored = passwords.hash(password("correct horse battery")).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(passwords.verify(password("correct horse battery"), Some(stored.clone())).await.unwrap());
        assert!(!passwords.verify(password("correct horse"), Some(stored)).await.unwrap());
    }

    #[tokio::test]
    async fn an_unknown_user_takes_as_long_as_a_wrong_password() {
        let passwords = Passwords::start().unwrap();
        let stored = passwords.hash(password("correct horse battery")).await.unwrap();
        let time = async |stored: Option<String>| {
            let mut best = Duration::MAX;
            for _ in 0..5 {
                let start = Instant::now();
                assert!(!passwords.verify(password("wrong"), stored.clone()).await.unwrap());
                best = best.min(start.elapsed());
            }
            best
        };
        let (known, unknown) = (time(Some(stored)).await, time(None).await);
        // Without a hash it would be microseconds; the machine's own noise is a few times at most.
        assert!(unknown > known / 5, "known {known:?}, unknown {unknown:?}");
    }

    #[tokio::test]
    async fn a_flood_is_told_so() {
        let passwords = Passwords::start().unwrap();
        let answers = futures_util::future::join_all((0..100).map(|_| passwords.verify(password("x"), None))).await;
        let busy = answers.iter().filter(|answer| **answer == Err(PasswordError::Busy)).count();
        assert!((100 - 32 - 2 - 2..=100 - 32).contains(&busy), "{busy} of 100 were turned away");
    }
}
