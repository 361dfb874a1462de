//! Questions that come while others are being answered wait, and are asked together: a thousand editors that reconnect at once cost a
//! few queries, not thousands, and so do the documents they open. One that comes alone is asked at once.

use async_trait::async_trait;
use contextnexus_actors::counted::Counted;
use contextnexus_actors::ids::TenantId;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Looks under way for one tenant. What comes meanwhile waits for the next.
const CONCURRENT_MAX: usize = 2;

/// How questions of one tenant are answered.
#[async_trait]
pub trait BatchQuery: Send + Sync + 'static {
    /// What is asked.
    type Question: Send + Sync + 'static;
    /// What comes of it.
    type Answer: Send + 'static;

    /// The gauge of questions that wait or are being answered.
    const WAITING: &'static str;
    /// Questions in one run.
    const QUESTIONS_MAX: usize = 256;
    /// Where there was no answer for many, each is asked alone: one may have been too much for all.
    const EACH_ALONE: bool = false;

    /// One answer for each question, in their order; none when there is no answer to be had now.
    async fn run(&self, tenant: TenantId, questions: &[Self::Question]) -> Option<Vec<Self::Answer>>;
}

/// Where questions wait. Their number is that of the connections, requests and documents that ask, each of which asks one at a time.
pub struct Batcher<L: BatchQuery>(Arc<Inner<L>>);

impl<L: BatchQuery> fmt::Debug for Batcher<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gather")
    }
}

struct Inner<L: BatchQuery> {
    query: L,
    queues: Mutex<HashMap<TenantId, TenantQueue<L>>>,
}

struct TenantQueue<L: BatchQuery> {
    waiting: VecDeque<Asked<L>>,
    running: usize,
}

struct Asked<L: BatchQuery> {
    question: L::Question,
    answer: oneshot::Sender<L::Answer>,
}

impl<L: BatchQuery> Batcher<L> {
    /// Nobody waits.
    pub fn new(look: L) -> Self {
        Self(Arc::new(Inner { query: look, queues: Mutex::default() }))
    }

    /// Asks. `None`: there is no answer to be had now.
    pub async fn ask(&self, tenant: TenantId, question: L::Question) -> Option<L::Answer> {
        let _waits = Counted::in_gauge(L::WAITING);
        let (answer, answered) = oneshot::channel();
        if self.0.join(tenant, Asked { question, answer }) {
            let look = Running { inner: Arc::clone(&self.0), tenant, is_over: false };
            tokio::spawn(look.until_nobody_waits());
        }
        answered.await.ok()
    }
}

impl<L: BatchQuery> Inner<L> {
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, TenantQueue<L>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner) // every critical section leaves it whole
    }

    /// Whether whoever joins has to start a run.
    fn join(&self, tenant: TenantId, waiting: Asked<L>) -> bool {
        let mut lines = self.lock();
        let line = lines.entry(tenant).or_insert_with(|| TenantQueue { waiting: VecDeque::new(), running: 0 });
        line.waiting.push_back(waiting);
        let starts = line.running < CONCURRENT_MAX;
        line.running += usize::from(starts);
        starts
    }

    /// What waits; `None`, and one run less, when that is nothing.
    fn take(&self, tenant: TenantId) -> Option<Vec<Asked<L>>> {
        let mut lines = self.lock();
        let line = lines.get_mut(&tenant)?;
        if line.waiting.is_empty() {
            Self::one_less(&mut lines, tenant);
            return None;
        }
        let count = line.waiting.len().min(L::QUESTIONS_MAX);
        Some(line.waiting.drain(..count).filter(|waiting| !waiting.answer.is_closed()).collect())
    }

    fn one_less(lines: &mut HashMap<TenantId, TenantQueue<L>>, tenant: TenantId) {
        if let Some(line) = lines.get_mut(&tenant) {
            line.running -= 1;
            if line.running == 0 {
                lines.remove(&tenant); // whoever waited there is told by its dropped sender
            }
        }
    }
}

/// A run that goes on as long as there are questions.
struct Running<L: BatchQuery> {
    inner: Arc<Inner<L>>,
    tenant: TenantId,
    is_over: bool,
}

impl<L: BatchQuery> Running<L> {
    async fn until_nobody_waits(mut self) {
        while let Some(batch) = self.inner.take(self.tenant) {
            let (questions, answers): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|waiting| (waiting.question, waiting.answer)).unzip();
            if questions.is_empty() {
                continue;
            }
            match self.inner.query.run(self.tenant, &questions).await {
                Some(found) => {
                    for (answer, found) in answers.into_iter().zip(found) {
                        let _ = answer.send(found); // who has gone needs none
                    }
                }
                None if L::EACH_ALONE && questions.len() > 1 => self.each_alone(&questions, answers).await,
                None => {}
            }
        }
        self.is_over = true;
    }

    /// Where a second one has no answer, it is not the question: the rest has none either.
    async fn each_alone(&self, questions: &[L::Question], answers: Vec<oneshot::Sender<L::Answer>>) {
        let mut failed = false;
        for (question, answer) in questions.iter().zip(answers) {
            match self.inner.query.run(self.tenant, std::slice::from_ref(question)).await.and_then(|mut one| one.pop())
            {
                Some(found) => drop(answer.send(found)), // as above
                None if failed => return,
                None => failed = true,
            }
        }
    }
}

impl<L: BatchQuery> Drop for Running<L> {
    /// A run that panicked, or whose thread ended, must not count for ever.
    fn drop(&mut self) {
        if !self.is_over {
            Inner::one_less(&mut self.inner.lock(), self.tenant);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;
    use uuid::Uuid;

    /// Knows nothing of zero, nor of what is asked with it; thirteen ends it.
    #[derive(Default)]
    struct Doubled<const EACH_ALONE: bool> {
        runs: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl<const EACH_ALONE: bool> BatchQuery for Doubled<EACH_ALONE> {
        type Question = u32;
        type Answer = u32;

        const WAITING: &'static str = "doubled_waiting";
        const EACH_ALONE: bool = EACH_ALONE;

        async fn run(&self, _: TenantId, questions: &[u32]) -> Option<Vec<u32>> {
            self.runs.fetch_add(1, Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
            match questions.iter().find(|question| **question == 13) {
                Some(_) => panic!("thirteen"),
                None if questions.contains(&0) => None,
                None => Some(questions.iter().map(|question| question * 2).collect()),
            }
        }
    }

    const TENANT: TenantId = TenantId(Uuid::from_u128(1));

    #[tokio::test]
    async fn a_thousand_questions_at_once_take_a_few_looks_and_each_hears_its_own_answer() {
        let runs = Arc::default();
        let batcher = Arc::new(Batcher::new(Doubled::<false> { runs: Arc::clone(&runs) }));
        let asked: Vec<_> = (1..=1_000)
            .filter(|question| *question != 13)
            .map(|question| {
                let batcher = Arc::clone(&batcher);
                (question, tokio::spawn(async move { batcher.ask(TENANT, question).await }))
            })
            .collect();
        for (question, answer) in asked {
            assert_eq!(answer.await.unwrap(), Some(question * 2));
        }
        assert!(runs.load(Relaxed) <= 8, "{} runs", runs.load(Relaxed));
        assert!(batcher.0.lock().is_empty());
    }

    #[tokio::test]
    async fn no_answer_is_told_and_a_look_that_panics_stops_nobody_after_it() {
        let batcher = Batcher::new(Doubled::<false>::default());
        assert_eq!(batcher.ask(TENANT, 0).await, None);
        for _ in 0..2 * CONCURRENT_MAX {
            assert_eq!(batcher.ask(TENANT, 13).await, None);
        }
        assert_eq!(batcher.ask(TENANT, 21).await, Some(42));
    }

    /// Asked in one moment, and so in one run.
    async fn together<const EACH_ALONE: bool>(questions: &[u32]) -> Vec<Option<u32>> {
        let batcher = Batcher::new(Doubled::<EACH_ALONE>::default());
        futures_util::future::join_all(questions.iter().map(|question| batcher.ask(TENANT, *question))).await
    }

    #[tokio::test]
    async fn one_that_is_too_much_for_all_leaves_the_others_their_answers() {
        assert_eq!(together::<true>(&[3, 0, 4, 5]).await, [Some(6), None, Some(8), Some(10)]);
        assert_eq!(together::<true>(&[3, 0, 4, 0, 5]).await, [Some(6), None, Some(8), None, None], "two are an outage");
        assert_eq!(together::<false>(&[3, 0, 4]).await, [None, None, None]);
    }
}
