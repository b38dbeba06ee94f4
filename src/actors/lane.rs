//! The bounded way from one actor to the next.
//!
//! Contract: at most N messages of a lane exist, from the moment a credit is taken until the stage that
//! received the message has dropped it; `reserve` and `send` wait for a credit, and that waiting is the
//! back-pressure of the whole node. A message to a stopped actor is dropped, and with it its ticket.
//! Measured in seconds, by lane: waiting for a credit, waiting in the mailbox, and the work itself, in which
//! the waiting for the next lane's credit is contained; so a slow stage shows in its own row and, as
//! `blocked`, in the one after which everything queues.
//! Trap: an actix mailbox alone is no bound (`send().await` queues without end, `do_send` ignores the
//! capacity, handlers that return futures empty the mailbox), so the raw calls are banned outside this
//! file.

use std::sync::Arc;
use std::time::Instant;

use actix::{Message, Recipient};
use metrics::{Histogram, histogram};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{Instrument as _, Span};

/// A message together with the credit it travels on; keep the credit until the work is done.
pub struct Credited<M> {
    /// The message.
    pub message: M,
    /// Freed on drop.
    pub credit: Credit,
}

impl<M> Message for Credited<M> {
    type Result = ();
}

impl<M: 'static> Credited<M> {
    /// What every stage does with a message: `work` on it beside the actor, inside `span`, keeping its credit
    /// until that ends.
    pub fn work<F>(self, span: Span, work: impl FnOnce(M) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        let Self { message, credit } = self;
        let begun = Instant::now();
        credit.times.wait.record(begun.duration_since(credit.since));
        let work = work(message);
        let work = async move {
            // The whole of it: a block that named its times alone would leave the permit outside.
            let credit = credit;
            work.await;
            credit.times.service.record(begun.elapsed());
            drop(credit);
        };
        actix::spawn(work.instrument(span));
    }
}

/// One place in a lane.
#[derive(Debug)]
pub struct Credit {
    #[expect(dead_code, reason = "held for its drop")]
    permit: OwnedSemaphorePermit,
    times: Arc<Times>,
    /// When it was taken, then when its message was sent.
    since: Instant,
}

/// Where a lane's times are written; nowhere, unless the process has a recorder.
#[derive(Debug)]
struct Times {
    blocked: Histogram,
    wait: Histogram,
    service: Histogram,
}

/// A lane as seen from outside, without its messages' type.
#[derive(Debug, Clone)]
pub struct LaneGauge {
    /// Name of the lane.
    pub name: &'static str,
    /// Most messages that can exist.
    pub size: usize,
    credits: Arc<Semaphore>,
}

impl LaneGauge {
    /// Messages that exist now, queued and being worked on.
    pub fn in_use(&self) -> usize {
        self.size - self.credits.available_permits()
    }
}

/// A lane to one actor. Clones share the bound.
pub struct Lane<M: Send + 'static> {
    to: Recipient<Credited<M>>,
    gauge: LaneGauge,
    times: Arc<Times>,
}

impl<M: Send + 'static> Clone for Lane<M> {
    fn clone(&self) -> Self {
        Self { to: self.to.clone(), gauge: self.gauge.clone(), times: self.times.clone() }
    }
}

/// A credit that has been taken and not used yet.
pub struct Slot<M: Send + 'static> {
    to: Recipient<Credited<M>>,
    credit: Credit,
}

impl<M: Send + 'static> Lane<M> {
    /// A lane of `size` messages to `to`.
    pub fn new(name: &'static str, size: usize, to: Recipient<Credited<M>>) -> Self {
        let times = Times {
            blocked: histogram!("satellite_lane_blocked_seconds", "lane" => name),
            wait: histogram!("satellite_lane_wait_seconds", "lane" => name),
            service: histogram!("satellite_lane_service_seconds", "lane" => name),
        };
        let gauge = LaneGauge { name, size, credits: Arc::new(Semaphore::new(size)) };
        Self { to, gauge, times: Arc::new(times) }
    }

    /// Waits for a credit.
    pub async fn reserve(&self) -> Slot<M> {
        let asked = Instant::now();
        match self.gauge.credits.clone().acquire_owned().await {
            Ok(permit) => {
                let since = Instant::now();
                self.times.blocked.record(since.duration_since(asked));
                Slot { to: self.to.clone(), credit: Credit { permit, times: self.times.clone(), since } }
            }
            // Nobody closes the semaphore: this lane holds it.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits for a credit, then sends.
    pub async fn send(&self, message: M) {
        self.reserve().await.send(message);
    }

    /// Messages that exist now.
    pub fn in_use(&self) -> usize {
        self.gauge.in_use()
    }

    /// What others may know of it.
    pub fn gauge(&self) -> LaneGauge {
        self.gauge.clone()
    }
}

impl<M: Send + 'static> Slot<M> {
    /// Sends on the credit taken; never waits.
    #[expect(clippy::disallowed_methods, reason = "the credit is the bound")]
    pub fn send(self, message: M) {
        self.to.do_send(Credited { message, credit: Credit { since: Instant::now(), ..self.credit } });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use actix::{Actor, Context, Handler};

    use super::*;

    #[derive(Default)]
    struct Slow {
        now: Arc<AtomicUsize>,
        peak: Arc<AtomicUsize>,
        seen: Arc<AtomicUsize>,
    }

    impl Actor for Slow {
        type Context = Context<Self>;
    }

    impl Handler<Credited<u32>> for Slow {
        type Result = ();
        fn handle(&mut self, message: Credited<u32>, _: &mut Self::Context) {
            let (now, peak, seen) = (self.now.clone(), self.peak.clone(), self.seen.clone());
            message.work(Span::none(), |_| async move {
                peak.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
                now.fetch_sub(1, SeqCst);
                seen.fetch_add(1, SeqCst);
            });
        }
    }

    #[test]
    fn never_more_than_its_size_are_queued_or_running() {
        actix::System::new().block_on(async {
            let actor = Slow::default();
            let (peak, seen) = (actor.peak.clone(), actor.seen.clone());
            let lane: Lane<u32> = Lane::new("test", 4, actor.start().recipient());
            for i in 0..200 {
                lane.send(i).await;
                assert!(lane.in_use() <= 4);
            }
            while lane.in_use() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!((peak.load(SeqCst), seen.load(SeqCst)), (4, 200));
        });
    }

    #[test]
    fn a_message_to_a_stopped_actor_gives_its_credit_back() {
        actix::System::new().block_on(async {
            let address = Slow::default().start();
            let lane: Lane<u32> = Lane::new("test", 1, address.clone().recipient());
            let (tell, hear) = tokio::sync::oneshot::channel::<()>();
            drop(tell);
            let _ = hear.await;
            struct Stop;
            impl Message for Stop {
                type Result = ();
            }
            impl Handler<Stop> for Slow {
                type Result = ();
                fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
                    actix::ActorContext::stop(ctx);
                }
            }
            #[allow(clippy::disallowed_methods)]
            let _ = address.send(Stop).await;
            for i in 0..3 {
                lane.send(i).await;
            }
            assert_eq!(lane.in_use(), 0);
        });
    }
}
