//! Who on this node listens to what, and what Redis was told of it. One subscription of Redis serves all listeners of a document.

use super::wire::Channel;
use contextnexus_actors::ids::{DocumentKey, TenantId};
use contextnexus_actors::ports::bus::{BusEvent, BusMessage, EventSender};
use std::collections::{HashMap, HashSet};
use tokio::sync::{mpsc, oneshot};

/// The listeners of this node.
#[derive(Debug, Default)]
pub struct Board {
    documents: HashMap<DocumentKey, Vec<Ear>>,
    /// Listeners of documents, by tenant: with the first, access changes are listened to.
    tenants: HashMap<TenantId, usize>,
    access: Vec<mpsc::Sender<TenantId>>,
    /// What Redis has confirmed.
    active: HashSet<Channel>,
    /// What Redis may have to be told.
    changed: HashSet<Channel>,
    /// Whose messages come and cannot be understood.
    without_key: HashSet<TenantId>,
    ears: u64,
}

#[derive(Debug)]
struct Ear {
    id: u64,
    sender: EventSender,
    /// Told when its channel becomes active.
    waits: Option<oneshot::Sender<()>>,
    /// Was answered before that, and hears of the gap.
    is_late: bool,
}

/// What Redis has to be told.
#[derive(Debug, Default)]
pub struct Changes {
    pub subscribe: Vec<Channel>,
    pub unsubscribe: Vec<Channel>,
    pub without_key: Vec<TenantId>,
}

impl Board {
    /// A name for a listener.
    pub fn fresh_ear(&mut self) -> u64 {
        self.ears += 1;
        self.ears
    }

    /// Listens from now on. The answer comes when Redis does too; `None` when it does already.
    pub fn add(&mut self, key: DocumentKey, id: u64, sender: EventSender) -> Option<oneshot::Receiver<()>> {
        let channel = Channel::Document(key);
        let is_active = self.active.contains(&channel);
        let (waits, active) = oneshot::channel();
        let waits = (!is_active).then_some(waits);
        self.documents.entry(key).or_default().push(Ear { id, sender, waits, is_late: false });
        *self.tenants.entry(key.tenant).or_default() += 1;
        self.changed.extend([channel, Channel::Access(key.tenant)]);
        (!is_active).then_some(active)
    }

    /// Nobody waited for this listener's channel any longer: it hears of the gap once Redis listens.
    pub fn tell_when_active(&mut self, key: DocumentKey, id: u64) {
        let is_active = self.active.contains(&Channel::Document(key));
        let ears = self.documents.get_mut(&key).into_iter().flatten();
        for ear in ears.filter(|ear| ear.id == id) {
            if is_active {
                ear.sender.push(BusEvent::Gap);
            } else {
                ear.is_late = true;
            }
        }
    }

    /// Listens no more.
    pub fn remove(&mut self, key: DocumentKey, id: u64) {
        let Some(ears) = self.documents.get_mut(&key) else {
            return;
        };
        let before = ears.len();
        ears.retain(|ear| ear.id != id);
        if ears.len() == before {
            return;
        }
        if ears.is_empty() {
            self.documents.remove(&key);
            self.changed.insert(Channel::Document(key));
        }
        if let Some(count) = self.tenants.get_mut(&key.tenant) {
            *count -= 1;
            if *count == 0 {
                self.tenants.remove(&key.tenant);
                self.changed.insert(Channel::Access(key.tenant));
            }
        }
    }

    /// Listens to access changes.
    pub fn add_access(&mut self, sender: mpsc::Sender<TenantId>) {
        self.access.push(sender);
    }

    /// Hands a message to whom it concerns.
    pub fn deliver(&mut self, message: BusMessage) {
        match message.key() {
            Some(key) => {
                for ear in self.documents.get(&key).map(Vec::as_slice).unwrap_or_default() {
                    ear.sender.push(BusEvent::Message(message.clone()));
                }
            }
            None => {
                let tenant = message.tenant();
                // Full says the same again.
                self.access
                    .retain(|sender| !matches!(sender.try_send(tenant), Err(mpsc::error::TrySendError::Closed(_))));
            }
        }
    }

    /// Tells every listener of a document.
    pub fn push_all(&self, event: &BusEvent) {
        for ear in self.documents.values().flatten() {
            ear.sender.push(event.clone());
        }
    }

    /// Messages of this tenant came, and its key is not known.
    pub fn lacks_key(&mut self, tenant: TenantId) {
        self.without_key.insert(tenant);
    }

    /// The tenant's key is known now; what came before was lost.
    pub fn has_key(&self, tenant: TenantId) {
        for (_, ears) in self.documents.iter().filter(|(key, _)| key.tenant == tenant) {
            ears.iter().for_each(|ear| ear.sender.push(BusEvent::Gap));
        }
    }

    /// The connection is lost, and every subscription of Redis with it.
    pub fn forget_redis(&mut self) {
        self.active.clear();
        self.changed = self.wanted().collect();
    }

    /// What is to be told to Redis, once.
    pub fn take_changes(&mut self) -> Changes {
        let mut changes = Changes { without_key: self.without_key.drain().collect(), ..Changes::default() };
        for channel in std::mem::take(&mut self.changed) {
            match (self.wants(channel), self.active.contains(&channel)) {
                (true, false) => changes.subscribe.push(channel),
                (false, true) => changes.unsubscribe.push(channel),
                (true, true) | (false, false) => {}
            }
        }
        changes
    }

    /// Redis has confirmed these.
    pub fn subscribed(&mut self, channels: &[Channel]) {
        for channel in channels {
            self.active.insert(*channel);
            let Channel::Document(key) = channel else {
                continue;
            };
            for ear in self.documents.get_mut(key).into_iter().flatten() {
                if let Some(waits) = ear.waits.take() {
                    let _ = waits.send(()); // it has given up waiting, and is late
                }
                if std::mem::take(&mut ear.is_late) {
                    ear.sender.push(BusEvent::Gap);
                }
            }
        }
    }

    /// Redis is to forget these. Before it is told: who subscribes again meanwhile waits for a new confirmation.
    pub fn unsubscribing(&mut self, channels: &[Channel]) {
        for channel in channels {
            self.active.remove(channel);
        }
    }

    fn wants(&self, channel: Channel) -> bool {
        match channel {
            Channel::Document(key) => self.documents.contains_key(&key),
            Channel::Access(tenant) => self.tenants.contains_key(&tenant),
            Channel::Node(_) => false,
        }
    }

    fn wanted(&self) -> impl Iterator<Item = Channel> {
        let documents = self.documents.keys().copied().map(Channel::Document);
        documents.chain(self.tenants.keys().copied().map(Channel::Access))
    }
}
