//! Tokens and grants in memory: for simulations, and for tests of whoever uses the port. They keep the contract to the letter and
//! nothing for longer than the process lives.

use super::authority::{AccessDenied, Authority, Place, Rechecked, RightInUse, RoomName, Standing};
use crate::access::{Caller, Grant, Role, Scope, Token};
use crate::ids::{DocumentId, ProjectId, TenantId, UserId, UserSessionId};
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Tokens and grants, in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryAuthority {
    grants: Arc<Mutex<Grants>>,
}

#[derive(Debug, Default)]
struct Grants {
    epoch: u64,
    callers: HashMap<String, Caller>,
    rooms: HashMap<(TenantId, RoomName), (DocumentId, ProjectId)>,
    roles: HashMap<(UserId, DocumentId), Role>,
    ended: Vec<UserSessionId>,
    until: HashMap<UserSessionId, Instant>,
}

impl MemoryAuthority {
    /// Nobody and nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a token good.
    pub fn admit(&self, token: &str, caller: Caller) {
        self.lock().callers.insert(token.to_owned(), caller);
    }

    /// Names a document.
    pub fn name(&self, tenant: TenantId, room: RoomName, document: DocumentId, project: ProjectId) {
        self.lock().rooms.insert((tenant, room), (document, project));
    }

    /// Gives or changes a right; `None` takes it.
    pub fn grant(&self, user: UserId, document: DocumentId, role: Option<Role>) {
        let mut grants = self.lock();
        grants.epoch += 1;
        match role {
            Some(role) => grants.roles.insert((user, document), role),
            None => grants.roles.remove(&(user, document)),
        };
    }

    /// Revokes a session.
    pub fn end(&self, user_session: UserSessionId) {
        let mut grants = self.lock();
        grants.epoch += 1;
        grants.ended.push(user_session);
    }

    /// Has a session end by itself at this time.
    pub fn expire(&self, user_session: UserSessionId, until: Instant) {
        let mut grants = self.lock();
        grants.epoch += 1;
        grants.until.insert(user_session, until);
    }

    fn lock(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Authority for MemoryAuthority {
    async fn authenticate(&self, token: &Token) -> Result<Caller, AccessDenied> {
        let grants = self.lock();
        let caller = grants.callers.get(&token.0).ok_or(AccessDenied::BadToken)?;
        if grants.ended.contains(&caller.user_session) { Err(AccessDenied::BadToken) } else { Ok(caller.clone()) }
    }

    async fn open(&self, caller: &Caller, room: &RoomName) -> Result<Grant, AccessDenied> {
        let grants = self.lock();
        let by_id = match room {
            RoomName::Named { project: None, name } => crate::room::id_in(name).map(RoomName::Id),
            _ => None,
        };
        let found = by_id.and_then(|id| grants.rooms.get(&(caller.tenant, id)));
        let found = found.or_else(|| grants.rooms.get(&(caller.tenant, room.clone())));
        let (document, project) = found.ok_or(AccessDenied::NoSuchDocument)?;
        let role = grants.roles.get(&(caller.user, *document)).ok_or(AccessDenied::NoSuchDocument)?;
        let role = match caller.scope {
            Scope::User => *role,
            Scope::Document(only, most) if only == *document => (*role).min(most),
            Scope::Document(..) => return Err(AccessDenied::NoSuchDocument),
        };
        let until = grants.until.get(&caller.user_session).copied();
        Ok(Grant { document: *document, project: *project, role, until })
    }

    async fn recheck(&self, _: TenantId, since: Option<u64>, asked: &[RightInUse]) -> Result<Rechecked, AccessDenied> {
        let grants = self.lock();
        if since == Some(grants.epoch) {
            return Ok(Rechecked { epoch: grants.epoch, standings: Vec::new() });
        }
        let standing = |right: &RightInUse| {
            if grants.ended.contains(&right.user_session) {
                return Standing::SessionEnded;
            }
            let Place::Document(document) = right.place;
            let project = grants.rooms.values().find(|(id, _)| *id == document).map(|(_, project)| *project);
            match (grants.roles.get(&(right.user, document)), project) {
                (Some(role), Some(project)) => {
                    let until = grants.until.get(&right.user_session).copied();
                    Standing::Granted(Grant { document, project, role: *role, until })
                }
                _ => Standing::Forbidden,
            }
        };
        let standings = asked.iter().map(|right| (*right, standing(right))).collect();
        Ok(Rechecked { epoch: grants.epoch, standings })
    }
}
