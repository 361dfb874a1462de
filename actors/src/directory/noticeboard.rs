//! What the directory may know of a document without asking it: where it stands, and whose rights are in use.

use crate::ids::{Position, UserId, UserSessionId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shared between a document and the directory. Locks are held for a few instructions, never across a wait.
#[derive(Debug)]
pub struct Noticeboard {
    position: Mutex<Position>,
    rights: Mutex<HashMap<(UserId, UserSessionId), usize>>,
    waiting_bytes: AtomicUsize,
    bytes: AtomicUsize,
    recent_bytes: AtomicUsize,
    idle: AtomicBool,
    /// A right came into use that no poll has compared yet.
    fresh: AtomicBool,
}

impl Default for Noticeboard {
    fn default() -> Self {
        Self {
            position: Mutex::new(Position::START),
            rights: Mutex::default(),
            waiting_bytes: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            recent_bytes: AtomicUsize::new(0),
            idle: AtomicBool::new(true),
            fresh: AtomicBool::new(false),
        }
    }
}

impl Noticeboard {
    /// The document stands there now.
    pub fn stands_at(&self, position: Position) {
        *lock(&self.position) = position;
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        *lock(&self.position)
    }

    /// So many bytes wait for their commit, it takes so much memory, so many bytes of that are recent updates, and nobody (or somebody) is
    /// connected.
    pub fn counts(&self, waiting_bytes: usize, bytes: usize, recent_bytes: usize, idle: bool) {
        self.recent_bytes.store(recent_bytes, Ordering::Relaxed);
        self.waiting_bytes.store(waiting_bytes, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.idle.store(idle, Ordering::Relaxed);
    }

    /// Memory in use, guessed.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Nobody is connected.
    pub fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// Bytes of recent updates.
    pub fn recent_bytes(&self) -> usize {
        self.recent_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// A connection of that session came.
    pub fn holds(&self, user: UserId, user_session: UserSessionId) {
        *lock(&self.rights).entry((user, user_session)).or_default() += 1;
        self.fresh.store(true, Ordering::Release);
    }

    /// A connection of that session went.
    pub fn releases(&self, user: UserId, user_session: UserSessionId) {
        let mut rights = lock(&self.rights);
        if let Some(count) = rights.get_mut(&(user, user_session)) {
            *count -= 1;
            if *count == 0 {
                rights.remove(&(user, user_session));
            }
        }
    }

    /// Whether a right came into use since the last call. It may have been looked up before a change that has been looked at already.
    pub fn take_fresh(&self) -> bool {
        self.fresh.swap(false, Ordering::AcqRel)
    }

    /// Rights in use.
    pub fn rights(&self) -> Vec<(UserId, UserSessionId)> {
        lock(&self.rights).keys().copied().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // every critical section leaves it whole
}
