//! The pool on which all heavy work is done: decoding, cutting, rasterising, encoding, reading parcels.
//!
//! Contract: as many threads as `worker.cores`; a panic in a piece of work is caught, logged, and gives
//! `None` to whoever waits, so that the ticket it holds settles as lost. Trap: GDAL and SQLite handles
//! live in thread-locals of these threads; never move one across an await.

use std::sync::Arc;

/// A shared pool.
#[derive(Clone)]
pub struct CpuPool(Arc<rayon::ThreadPool>);

impl CpuPool {
    /// A pool of `threads` threads.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new(threads: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("cpu-{i}"))
            // The panic has been printed by the panic hook; the waiting side sees its channel closed.
            .panic_handler(|_| tracing::error!("a piece of work panicked"))
            .build()?;
        Ok(Self(Arc::new(pool)))
    }

    /// The pool itself.
    pub fn pool(&self) -> Arc<rayon::ThreadPool> {
        self.0.clone()
    }

    /// Runs `work` on the pool, inside the caller's span; `None` when it panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (tell, hear) = tokio::sync::oneshot::channel();
        let span = tracing::Span::current();
        self.0.spawn(move || {
            // Nobody listens when the task was cancelled meanwhile.
            let _ = tell.send(span.in_scope(work));
        });
        hear.await.ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_gives_none_and_the_pool_lives_on() {
        let pool = CpuPool::new(1).unwrap();
        assert_eq!(pool.run(|| if true { panic!("on purpose") } else { 1 }).await, None);
        assert_eq!(pool.run(|| 2).await, Some(2));
    }
}
