//! Looks at the machine that take no lock: bounded in time for whoever asks, and in number for the machine.
//!
//! The kernel's tables answer in milliseconds, or hang for everybody. A thread that hangs cannot be stopped, and those who ask
//! come again; without a bound they would take one thread after another, until the calls that do work have none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rds_csi_api::{Failure, Kind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{timeout, timeout_at};
use tracing::Span;

/// So many looks may run at once. A runtime has 512 threads for what blocks; a volume's own calls take one each.
const MOST: usize = 16;

/// The looks that run now. Clones are the same.
#[derive(Debug, Clone)]
pub struct Reads {
    room: Arc<Semaphore>,
    begun: Arc<Mutex<BTreeMap<u64, Instant>>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It did not come in time.
    #[error(
        "the node's kernel does not say within {} s how {what} is: see its log for hung tasks", limit.as_secs()
    )]
    Late {
        /// What was looked at.
        what: String,
        /// How long was waited.
        limit: Duration,
    },
    /// Nobody could look, since too many did before.
    #[error(
        "nobody can look how {what} is: {MOST} earlier looks at the node's kernel have not ended, the first since {} s; \
         see its log for hung tasks", oldest.as_secs()
    )]
    Full {
        /// What was to be looked at.
        what: String,
        /// How long the longest has been running.
        oldest: Duration,
    },
    /// A thread ended before its work was done.
    #[error("the driver has a bug")]
    Thread(#[from] JoinError),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Late { .. } => Kind::Unsure,
            Self::Full { .. } => Kind::Unreachable,
            Self::Thread(_) => Kind::Bug,
        }
    }
}

impl Default for Reads {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(MOST)), begun: Arc::default() }
    }
}

impl Reads {
    /// Looks, on a thread of its own, and waits for the answer for `limit` at most.
    pub async fn run<T, E>(
        &self,
        what: impl Into<String>,
        limit: Duration,
        look: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let end = tokio::time::Instant::now() + limit;
        let Ok(Ok(permit)) = timeout(limit, Arc::clone(&self.room).acquire_owned()).await else {
            let oldest = self.begun().first_key_value().map(|(_, begun)| begun.elapsed()).unwrap_or_default();
            return Err(Error::Full { what: what.into(), oldest }.into());
        };
        let look_s_end = self.begin(permit);
        let span = Span::current();
        let thread = spawn_blocking(move || {
            let _end = look_s_end;
            span.in_scope(look)
        });
        match timeout_at(end, thread).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Err(Error::Thread(panic).into()),
            Err(_) => Err(Error::Late { what: what.into(), limit }.into()),
        }
    }

    fn begin(&self, permit: OwnedSemaphorePermit) -> Look {
        let mut begun = self.begun();
        let number = begun.last_key_value().map_or(0, |(last, _)| last + 1);
        begun.insert(number, Instant::now());
        Look { reads: self.clone(), number, _permit: permit }
    }

    fn begun(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look that runs. It moves into the thread that may hang.
struct Look {
    reads: Reads,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Look {
    fn drop(&mut self) {
        self.reads.begun().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, mpsc};

    use super::*;

    /// Stays closed until it is opened, for all who wait at it.
    #[derive(Default)]
    struct Gate(Mutex<bool>, Condvar);

    impl Gate {
        fn pass(&self) {
            let open = self.0.lock().unwrap();
            drop(self.1.wait_while(open, |open| !*open).unwrap());
        }

        fn open(&self) {
            *self.0.lock().unwrap() = true;
            self.1.notify_all();
        }
    }

    #[tokio::test]
    async fn looks_that_hang_take_so_many_threads_and_no_more_and_are_told() {
        let reads = Reads::default();
        let gate = Arc::new(Gate::default());
        let (tell, told) = mpsc::channel();
        for _ in 0..MOST {
            let (gate, tell) = (Arc::clone(&gate), tell.clone());
            let hung = reads.run("volume pvc-a", Duration::from_millis(5), move || {
                tell.send(()).unwrap();
                gate.pass();
                Ok::<_, Error>(())
            });
            let error = hung.await.unwrap_err();
            assert_eq!(error.kind(), Kind::Unsure);
            assert!(error.to_string().contains("how volume pvc-a is"), "{error}");
        }
        let error =
            reads.run("volume pvc-b", Duration::from_millis(5), || Ok::<_, Error>(())).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unreachable);
        assert!(error.to_string().contains("volume pvc-b is: 16 earlier looks"), "{error}");
        gate.open();
        // Whoever waits for room gets it as soon as there is some.
        reads.run("volume pvc-b", Duration::from_mins(1), || Ok::<_, Error>(())).await.unwrap();
        assert_eq!(told.try_iter().count(), MOST);
        while !reads.begun().is_empty() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_panic_gives_its_room_back() {
        let reads = Reads::default();
        for _ in 0..=MOST {
            let look = || -> Result<(), Error> { panic!("as told") };
            let error = reads.run("volume pvc-a", Duration::from_mins(1), look).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Bug);
        }
    }
}
