//! What a host may know of a hosted actor without asking it.

use crate::ids::{Position, UserId, UserSessionId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How a hosted actor is, as of its last turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// What of its log it contains.
    pub position: Position,
    /// Bytes that wait for their commit.
    pub waiting_bytes: usize,
    /// Memory in use, estimated, recent updates included.
    pub bytes: usize,
    /// Memory of the recent updates among them.
    pub recent_bytes: usize,
    /// Nobody is connected.
    pub is_idle: bool,
}

impl Default for Status {
    fn default() -> Self {
        Self { position: Position::START, waiting_bytes: 0, bytes: 0, recent_bytes: 0, is_idle: true }
    }
}

/// Shared between a hosted actor, which writes it, and its host. Locks are held for a few instructions, never across a wait.
#[derive(Debug, Default)]
pub struct Noticeboard {
    status: Mutex<Status>,
    rights: Mutex<HashMap<(UserId, UserSessionId), usize>>,
    /// A right came into use that no poll has compared yet.
    fresh: AtomicBool,
}

impl Noticeboard {
    /// How the actor is now.
    pub fn set_status(&self, status: Status) {
        *lock(&self.status) = status;
    }

    /// How it was at the end of its last turn.
    pub fn status(&self) -> Status {
        *lock(&self.status)
    }

    /// A connection with this user session came.
    pub fn holds(&self, user: UserId, user_session: UserSessionId) {
        *lock(&self.rights).entry((user, user_session)).or_default() += 1;
        self.fresh.store(true, Ordering::Release);
    }

    /// A connection with this user session went.
    pub fn releases(&self, user: UserId, user_session: UserSessionId) {
        let mut rights = lock(&self.rights);
        if let Some(count) = rights.get_mut(&(user, user_session)) {
            *count -= 1;
            if *count == 0 {
                rights.remove(&(user, user_session));
            }
        }
    }

    /// Whether a right came into use since the last call. It may have been looked up before a change that has been compared already.
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
