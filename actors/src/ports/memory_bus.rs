//! The bus within one process: of a node that is alone, and of several nodes in one test. Nothing is encoded, and a node that is
//! alone publishes to nobody.

use super::bus::{Bus, BusEvent, BusMessage, EventSender, Subscription, events};
use crate::ids::{DocumentKey, NodeId, TenantId};
use async_trait::async_trait;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Access changes that wait for a node. It polls by itself twice a second, so more that wait would say nothing new.
const ACCESS_MAX: usize = 256;

/// What the nodes of one process share.
#[derive(Clone, Debug, Default)]
pub struct Network {
    wires: Arc<Mutex<Wires>>,
}

#[derive(Debug, Default)]
struct Wires {
    documents: HashMap<DocumentKey, Vec<Ear>>,
    access: Vec<(NodeId, mpsc::Sender<TenantId>)>,
    /// Open subscriptions of a node to documents of a tenant.
    tenants: HashMap<(NodeId, TenantId), usize>,
    /// Nodes whose connection is cut.
    cut: HashSet<NodeId>,
    ears: u64,
}

#[derive(Debug)]
struct Ear {
    id: u64,
    node: NodeId,
    sender: EventSender,
}

impl Network {
    /// A node's connection to the others.
    pub fn connect(&self, node: NodeId) -> MemoryBus {
        MemoryBus { node, network: self.clone() }
    }

    /// Cuts a node off, or heals that: what is said meanwhile neither reaches nor leaves it, and it hears of the gap after.
    pub fn cut(&self, node: NodeId, is_cut: bool) {
        let mut wires = self.lock();
        if is_cut {
            wires.cut.insert(node);
        } else if wires.cut.remove(&node) {
            for ear in wires.documents.values().flatten().filter(|ear| ear.node == node) {
                ear.sender.push(BusEvent::Gap);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner) // every critical section leaves it whole
    }

    fn forget(&self, key: DocumentKey, id: u64) {
        let mut wires = self.lock();
        let Some(ears) = wires.documents.get_mut(&key) else {
            return;
        };
        let Some(at) = ears.iter().position(|ear| ear.id == id) else {
            return;
        };
        let gone = ears.remove(at);
        if ears.is_empty() {
            wires.documents.remove(&key);
        }
        if let Some(count) = wires.tenants.get_mut(&(gone.node, key.tenant)) {
            *count -= 1;
            if *count == 0 {
                wires.tenants.remove(&(gone.node, key.tenant));
            }
        }
    }
}

/// One node's bus.
#[derive(Clone, Debug)]
pub struct MemoryBus {
    node: NodeId,
    network: Network,
}

impl MemoryBus {
    /// The bus of a node that is alone.
    pub fn alone(node: NodeId) -> Self {
        Network::default().connect(node)
    }
}

#[async_trait]
impl Bus for MemoryBus {
    fn publish(&self, message: BusMessage) {
        let mut wires = self.network.lock();
        if wires.cut.contains(&self.node) {
            metrics::counter!("contextnexus_bus_dropped_total", "reason" => "away").increment(1);
            return;
        }
        let Wires { documents, access, tenants, cut, .. } = &mut *wires;
        match message.key() {
            Some(key) => {
                let ears = documents.get(&key).map(Vec::as_slice).unwrap_or_default();
                for ear in ears.iter().filter(|ear| ear.node != self.node && !cut.contains(&ear.node)) {
                    ear.sender.push(BusEvent::Message(message.clone()));
                }
            }
            None => {
                let tenant = message.tenant();
                access.retain(|(node, sender)| {
                    let hears = *node != self.node && !cut.contains(node) && tenants.contains_key(&(*node, tenant));
                    // Full says the same again.
                    !hears || !matches!(sender.try_send(tenant), Err(mpsc::error::TrySendError::Closed(_)))
                });
            }
        }
    }

    async fn subscribe(&self, key: DocumentKey) -> Subscription {
        let mut wires = self.network.lock();
        wires.ears += 1;
        let id = wires.ears;
        let network = self.network.clone();
        let (sender, events) = events(move || network.forget(key, id));
        if wires.cut.contains(&self.node) {
            sender.push(BusEvent::Gap);
        }
        wires.documents.entry(key).or_default().push(Ear { id, node: self.node, sender });
        *wires.tenants.entry((self.node, key.tenant)).or_default() += 1;
        Subscription { events }
    }

    async fn subscribe_access(&self) -> mpsc::Receiver<TenantId> {
        let (sender, receiver) = mpsc::channel(ACCESS_MAX);
        self.network.lock().access.push((self.node, sender));
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::contract_bus::{self, Fixture};
    use std::sync::atomic::{AtomicU64, Ordering};
    use uuid::Uuid;

    #[derive(Default)]
    struct InMemory {
        network: Network,
        nodes: Mutex<Vec<NodeId>>,
        next: AtomicU64,
    }

    #[async_trait]
    impl Fixture for InMemory {
        async fn node(&self) -> (NodeId, Arc<dyn Bus>) {
            let node = NodeId(Uuid::from_u128(self.next.fetch_add(1, Ordering::Relaxed).into()));
            self.nodes.lock().unwrap_or_else(PoisonError::into_inner).push(node);
            (node, Arc::new(self.network.connect(node)))
        }

        async fn take_away(&self) {
            for node in self.nodes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                self.network.cut(*node, true);
            }
        }

        async fn bring_back(&self) {
            for node in self.nodes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                self.network.cut(*node, false);
            }
        }
    }

    #[tokio::test]
    async fn it_keeps_the_contract_of_the_bus() {
        contract_bus::all(&InMemory::default()).await;
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_subscription_that_ended() {
        let network = Network::default();
        let bus = network.connect(NodeId(Uuid::from_u128(1)));
        let key = contract_bus::key(1, 1);
        let (one, two) = (bus.subscribe(key).await, bus.subscribe(key).await);
        drop(one);
        assert_eq!(network.lock().documents[&key].len(), 1);
        drop(two);
        let wires = network.lock();
        assert!(wires.documents.is_empty() && wires.tenants.is_empty());
    }
}
