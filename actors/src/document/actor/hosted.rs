//! A document as its host knows it.

use super::DocumentActor;
use crate::document::follower_outputs::FollowerOutputs;
use crate::hosting::{Hosted, HostedKey, Start, Status};
use crate::ids::{DocumentKey, Position, TenantId};
use crate::ports::Ports;
use crate::ports::authority::Place;
use crate::ports::log::Head;
use metrics::{counter, gauge};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;

impl Hosted for DocumentActor {
    type Key = DocumentKey;

    fn new(Start { key, instance, ports, host, noticeboard }: Start<Self>) -> Self {
        let (drained, events) = mpsc::channel(1); // one wake-up covers all who have drained
        Self {
            key,
            ports,
            instance,
            host,
            noticeboard,
            state: None,
            failed: None,
            outputs: FollowerOutputs::new(drained),
            rights: BTreeMap::new(),
            parked: Vec::new(),
            drained_events: Some(events),
            timer: None,
            rights_timer: None,
            idle_timer: None,
            routed: 0,
            draining: None,
            unsound: Vec::new(),
            snapshot_due: None,
            is_aside: false,
            deferred: Vec::new(),
            turn: Duration::ZERO,
            fanout: counter!("contextnexus_fanout_total"),
        }
    }

    async fn changed_heads(
        ports: &Ports,
        tenant: TenantId,
        positions: Vec<(DocumentKey, Position)>,
    ) -> Vec<(DocumentKey, Head)> {
        let positions: Vec<_> = positions.into_iter().map(|(key, position)| (key.document, position)).collect();
        let changed = ports.log.changed_heads(tenant, &positions).await.unwrap_or_default();
        changed.into_iter().map(|(document, head)| (DocumentKey { tenant, document }, head)).collect()
    }

    fn count(ports: &Ports, all: impl Iterator<Item = Status>) {
        let (mut documents, mut bytes, mut recent_bytes, mut waiting_bytes, mut fullest) = (0_usize, 0, 0, 0, 0);
        for status in all {
            documents += 1;
            bytes += status.bytes;
            recent_bytes += status.recent_bytes;
            waiting_bytes += status.waiting_bytes;
            fullest = fullest.max(status.waiting_bytes);
        }
        let budgets = &ports.budgets;
        gauge!("contextnexus_documents").set(documents as f64);
        gauge!("contextnexus_documents_bytes").set(bytes as f64);
        gauge!("contextnexus_recent_bytes").set(recent_bytes as f64);
        gauge!("contextnexus_waiting_bytes").set(waiting_bytes as f64);
        gauge!("contextnexus_waiting_bytes_of_fullest").set(fullest as f64);
        gauge!("contextnexus_arriving_bytes").set(budgets.arriving.used() as f64);
        gauge!("contextnexus_unauthenticated_bytes").set(budgets.strangers.used() as f64);
        gauge!("contextnexus_presence_bytes").set(budgets.presence.used() as f64);
    }
}

impl HostedKey for DocumentKey {
    fn tenant(&self) -> TenantId {
        self.tenant
    }

    fn place(&self) -> Place {
        Place::Document(self.document)
    }

    fn at(tenant: TenantId, Place::Document(document): Place) -> Option<Self> {
        Some(Self { tenant, document })
    }

    fn spread(&self) -> u128 {
        self.document.0.as_u128()
    }
}
