//! Work that takes long is done beside the thread that others wait for.
//!
//! A document's thread serves many documents, of many tenants. What would hold it up (a large fold, the state of a large document
//! encoded) is done by threads that do nothing else, while the mailbox of that one document waits.

use crate::ids::TenantId;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::sync::oneshot;

/// What is guessed to take as long as this is done aside. Two turns between threads cost a thousandth of it.
pub const ASIDE_FROM: Duration = Duration::from_millis(10);

/// Something to be done.
pub type Job = Box<dyn FnOnce() + Send>;

/// Does what takes long.
pub trait Aside: Send + Sync + 'static {
    /// Does it soon, on another thread or here and now. Tenants take turns, and no tenant has all the threads.
    fn run(&self, tenant: TenantId, job: Job);
}

/// Has this done aside, and answers what it made. `None`: it panicked.
pub async fn done_aside<T: Send + 'static>(
    aside: &dyn Aside,
    tenant: TenantId,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    aside.run(
        tenant,
        Box::new(move || {
            let _ = answer.send(work()); // whoever asked may have gone
        }),
    );
    answered.await.ok()
}

/// Does everything here and now: where there is only one document, as in tests.
#[derive(Clone, Copy, Debug)]
pub struct Inline;

impl Aside for Inline {
    fn run(&self, _: TenantId, job: Job) {
        job();
    }
}

/// Whose job is next: tenants take turns, each with its jobs in order, and one thread is always left to the others.
#[derive(Debug)]
pub struct Turns<J> {
    threads: usize,
    waiting: BTreeMap<TenantId, VecDeque<J>>,
    /// The tenants with something that waits.
    order: VecDeque<TenantId>,
    running: BTreeMap<TenantId, usize>,
}

impl<J> Turns<J> {
    /// For so many threads, at least two.
    pub fn new(threads: usize) -> Self {
        Self { threads, waiting: BTreeMap::new(), order: VecDeque::new(), running: BTreeMap::new() }
    }

    /// This waits for its turn.
    pub fn push(&mut self, tenant: TenantId, job: J) {
        let jobs = self.waiting.entry(tenant).or_default();
        if jobs.is_empty() {
            self.order.push_back(tenant);
        }
        jobs.push_back(job);
    }

    /// What a free thread does next. Say when it is [over](Self::over).
    pub fn take(&mut self) -> Option<(TenantId, J)> {
        let most = self.threads - 1;
        let may_run = |tenant: &TenantId| self.running.get(tenant).is_none_or(|running| *running < most);
        let place = self.order.iter().position(may_run)?;
        let tenant = self.order.remove(place)?;
        let jobs = self.waiting.get_mut(&tenant)?;
        let job = jobs.pop_front()?;
        if jobs.is_empty() {
            self.waiting.remove(&tenant);
        } else {
            self.order.push_back(tenant);
        }
        *self.running.entry(tenant).or_default() += 1;
        Some((tenant, job))
    }

    /// A job of this tenant is done.
    pub fn over(&mut self, tenant: TenantId) {
        if let Some(running) = self.running.get_mut(&tenant) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(&tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn tenant(number: u128) -> TenantId {
        TenantId(Uuid::from_u128(number))
    }

    #[test]
    fn tenants_take_turns_and_each_keeps_its_order() {
        let mut turns = Turns::new(4);
        for job in ["a1", "a2", "a3"] {
            turns.push(tenant(1), job);
        }
        turns.push(tenant(2), "b1");
        let mut done = Vec::new();
        while let Some((tenant, job)) = turns.take() {
            done.push(job);
            turns.over(tenant);
        }
        assert_eq!(done, ["a1", "b1", "a2", "a3"]);
    }

    #[test]
    fn no_tenant_has_all_the_threads() {
        let mut turns = Turns::new(3);
        for job in 0..5 {
            turns.push(tenant(1), job);
        }
        assert_eq!(turns.take(), Some((tenant(1), 0)));
        assert_eq!(turns.take(), Some((tenant(1), 1)));
        assert_eq!(turns.take(), None, "the third thread is for somebody else");
        turns.push(tenant(2), 9);
        assert_eq!(turns.take(), Some((tenant(2), 9)));
        turns.over(tenant(1));
        assert_eq!(turns.take(), Some((tenant(1), 2)));
    }

    #[tokio::test]
    async fn who_asks_gets_the_answer_or_hears_that_it_panicked() {
        struct Apart;
        impl Aside for Apart {
            fn run(&self, _: TenantId, job: Job) {
                let _ = std::thread::spawn(job).join();
            }
        }
        assert_eq!(done_aside(&Inline, tenant(1), || 7).await, Some(7));
        assert_eq!(done_aside(&Apart, tenant(1), || -> u8 { panic!("as planned") }).await, None);
    }
}
