//! The one place where anything is tried again.
//!
//! Contract: only [`Severity::Transient`] failures are retried, with exponential back-off and jitter,
//! never sooner than the server asked for (`Retry-After`), at most `retries` times; the caller keeps its
//! credit meanwhile, so a sick server slows the node down instead of burning its task list.
//! Trap: an operation that is retried must be repeatable.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::health::Health;
use crate::domain::failure::{Failure, Severity};

/// How often and how fast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Further attempts after the first.
    pub retries: u32,
    /// First pause; doubles from attempt to attempt.
    pub first: Duration,
    /// Longest pause, `Retry-After` aside.
    pub longest: Duration,
}

impl RetryPolicy {
    /// `retries` further attempts, pausing 0.5 s, 1 s, 2 s, … up to a minute.
    pub fn of(retries: u32) -> Self {
        Self { retries, first: Duration::from_millis(500), longest: Duration::from_secs(60) }
    }
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq)]
pub enum GiveUp {
    /// The work is not wanted any more.
    Cancelled,
    /// It failed, and more attempts make no sense.
    Failed(Failure),
}

/// Runs `work` until it succeeds, fails for good, or is cancelled.
///
/// # Errors
/// [`GiveUp`].
pub async fn retry<T, W, F>(policy: RetryPolicy, cancel: &CancellationToken, work: W) -> Result<T, GiveUp>
where
    W: FnMut() -> F,
    F: Future<Output = Result<T, Failure>>,
{
    let pauses = ExponentialBuilder::default()
        .with_min_delay(policy.first)
        .with_max_delay(policy.longest)
        .with_max_times(policy.retries as usize)
        .with_jitter();
    let attempts = work
        .retry(pauses)
        .when(|failure| failure.severity == Severity::Transient)
        .adjust(|failure, pause| {
            let asked = failure.retry_after_s.map(Duration::from_secs);
            pause.map(|p| asked.map_or(p, |a| a.max(p)))
        })
        .notify(|failure, pause| {
            metrics::counter!("satellite_retries_total", "stage" => failure.stage).increment(1);
            tracing::warn!(
                stage = failure.stage,
                pause_ms = pause.as_millis() as u64,
                "{}, trying again",
                failure.reason
            );
        });
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(GiveUp::Cancelled),
        done = attempts => done.map_err(GiveUp::Failed),
    }
}

/// As [`retry`], for work that goes on when nobody waits for it any more, such as what is done to files on another
/// thread: cancelling ends a pause, but an attempt that is under way is waited for, and what it made is not lost.
///
/// # Errors
/// [`GiveUp`].
pub async fn retry_whole<T, W, F>(policy: RetryPolicy, cancel: &CancellationToken, mut work: W) -> Result<T, GiveUp>
where
    W: FnMut() -> F,
    F: Future<Output = Result<T, Failure>>,
{
    if cancel.is_cancelled() {
        return Err(GiveUp::Cancelled);
    }
    let (under_way, never) = (Mutex::new(()), CancellationToken::new());
    let attempt = || {
        let work = work();
        async {
            let _under_way = under_way.lock().await;
            work.await
        }
    };
    let between = async {
        cancel.cancelled().await;
        let _none = under_way.lock().await;
    };
    tokio::select! {
        // The end of an attempt first: it may be all there is to come.
        biased;
        done = retry(policy, &never, attempt) => done,
        () = between => Err(GiveUp::Cancelled),
    }
}

/// As [`retry`], for work that needs a service: while the service answers nobody, attempts do not count.
///
/// # Errors
/// [`GiveUp`]; a service that stays away longer than its patience is [`Severity::Fatal`].
pub async fn retry_on<T, W, F>(
    health: &Health,
    policy: RetryPolicy,
    cancel: &CancellationToken,
    mut work: W,
) -> Result<T, GiveUp>
where
    W: FnMut() -> F,
    F: Future<Output = Result<T, Failure>>,
{
    let began = Instant::now();
    loop {
        let attempt = || {
            let work = work();
            async {
                let _turn = health.turn().await;
                let done = work.await;
                if !matches!(&done, Err(f) if f.severity != Severity::Permanent) {
                    health.works();
                }
                done
            }
        };
        match retry(policy, cancel, attempt).await {
            Err(GiveUp::Failed(f)) if f.severity == Severity::Transient && !health.answers_since(began).await => {
                if began.elapsed() >= health.patience() {
                    let reason =
                        format!("{} has not answered for {} s: {}", health.name(), began.elapsed().as_secs(), f.reason);
                    return Err(GiveUp::Failed(Failure { severity: Severity::Fatal, reason, ..f }));
                }
                health.open(&f.reason);
                tokio::select! {
                    () = cancel.cancelled() => return Err(GiveUp::Cancelled),
                    () = tokio::time::sleep(policy.first.min(health.patience())) => {}
                }
            }
            done => return done,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn quick(retries: u32) -> RetryPolicy {
        RetryPolicy { retries, first: Duration::from_millis(10), longest: Duration::from_millis(40) }
    }

    async fn failing(failure: Failure, times: u32, policy: RetryPolicy) -> (Result<u32, GiveUp>, u32) {
        let calls = Cell::new(0);
        let work = || {
            calls.set(calls.get() + 1);
            let out = if calls.get() > times { Ok(7) } else { Err(failure.clone()) };
            async move { out }
        };
        let result = retry(policy, &CancellationToken::new(), work).await;
        (result, calls.get())
    }

    #[tokio::test(start_paused = true)]
    async fn transient_failures_are_tried_again_and_others_are_not() {
        let (got, calls) = failing(Failure::transient("scenes", "503"), 2, quick(5)).await;
        assert_eq!((got, calls), (Ok(7), 3));
        let (got, calls) = failing(Failure::permanent("scenes", "404"), 2, quick(5)).await;
        assert_eq!((got, calls), (Err(GiveUp::Failed(Failure::permanent("scenes", "404"))), 1));
        let (got, calls) = failing(Failure::transient("scenes", "503"), 9, quick(3)).await;
        assert_eq!((got, calls), (Err(GiveUp::Failed(Failure::transient("scenes", "503"))), 4));
    }

    #[tokio::test(start_paused = true)]
    async fn the_server_s_wish_is_a_lower_bound() {
        let before = tokio::time::Instant::now();
        let failure = Failure { retry_after_s: Some(20), ..Failure::transient("pixels", "429") };
        failing(failure, 1, quick(3)).await.0.unwrap();
        assert!(before.elapsed() >= Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn cancelling_ends_the_pause() {
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            stop.cancel();
        });
        let policy = RetryPolicy { first: Duration::from_secs(3600), ..quick(3) };
        let work = || async { Err::<(), _>(Failure::transient("pixels", "503")) };
        assert_eq!(retry(policy, &cancel, work).await, Err(GiveUp::Cancelled));
    }

    /// Work of ten seconds a time, cancelled after `after` ms: what comes of it, how often it was begun, and when.
    async fn cancelled(after: u64, outcomes: &[Result<u32, Failure>]) -> (Result<u32, GiveUp>, usize, Duration) {
        let (cancel, calls, before) = (CancellationToken::new(), Cell::new(0), Instant::now());
        let stop = cancel.clone();
        let later = async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            stop.cancel();
        };
        match after {
            0 => cancel.cancel(),
            _ => drop(tokio::spawn(later)),
        }
        let work = || {
            let outcome = outcomes[calls.get()].clone();
            calls.set(calls.get() + 1);
            async move {
                tokio::time::sleep(Duration::from_secs(10)).await;
                outcome
            }
        };
        let policy = RetryPolicy { first: Duration::from_secs(3600), longest: Duration::from_secs(3600), retries: 3 };
        let got = retry_whole(policy, &cancel, work).await;
        (got, calls.get(), before.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_under_way_is_waited_for_and_its_result_kept() {
        let (busy, seconds) = (Failure::transient("writer", "ESTALE"), Duration::from_secs);
        let near = |took: Duration, wanted| took >= seconds(wanted) && took < seconds(wanted + 1);
        let (got, calls, took) = cancelled(5_000, &[Ok(7)]).await;
        assert!((got, calls) == (Ok(7), 1) && near(took, 10), "{took:?}");
        let (got, calls, took) = cancelled(5_000, &[Err(busy.clone()), Ok(7)]).await;
        assert!((got, calls) == (Err(GiveUp::Cancelled), 1) && near(took, 10), "no other attempt: {took:?}");
        let (got, calls, took) = cancelled(60_000, &[Err(busy.clone()), Ok(7)]).await;
        assert!((got, calls) == (Err(GiveUp::Cancelled), 1) && near(took, 60), "in the pause: {took:?}");
        let (got, calls, took) = cancelled(0, &[Ok(7)]).await;
        assert!((got, calls) == (Err(GiveUp::Cancelled), 0) && near(took, 0), "before: {took:?}");
        let (got, calls, _) = cancelled(99_000_000, &[Err(busy), Ok(7)]).await;
        assert_eq!((got, calls), (Ok(7), 2));
        let broken = Failure::permanent("writer", "EIO");
        assert_eq!(cancelled(5_000, &[Err(broken.clone())]).await.0, Err(GiveUp::Failed(broken)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_down_holds_tasks_instead_of_failing_them() {
        let health = Health::new("stac", Duration::from_secs(3600));
        let calls = Cell::new(0);
        let work = || {
            calls.set(calls.get() + 1);
            let out = if calls.get() > 50 { Ok(7) } else { Err(Failure::transient("scenes", "503")) };
            async move { out }
        };
        assert_eq!(retry_on(&health, quick(3), &CancellationToken::new(), work).await, Ok(7));
        assert!(!health.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_works_for_others_fails_the_task() {
        let health = Health::new("stac", Duration::from_secs(3600));
        let work = || async {
            health.works();
            Err::<(), _>(Failure::transient("scenes", "503"))
        };
        let got = retry_on(&health, quick(3), &CancellationToken::new(), work).await;
        assert_eq!(got, Err(GiveUp::Failed(Failure::transient("scenes", "503"))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_beyond_patience_stops_the_node() {
        let health = Health::new("stac", Duration::from_secs(60));
        let work = || async { Err::<(), _>(Failure::transient("scenes", "503")) };
        let got = retry_on(&health, quick(3), &CancellationToken::new(), work).await;
        let Err(GiveUp::Failed(failure)) = got else { panic!("{got:?}") };
        assert_eq!(failure.severity, Severity::Fatal);
        assert!(failure.reason.starts_with("stac has not answered for 60 s"), "{}", failure.reason);
        assert!(health.is_open());
    }
}
