//! Is the cluster there? What the client library says about it, gathered, throttled and judged.
//!
//! Contract: one log line per outage and one every [`EVERY`] while it lasts, however often the library complains; a
//! refused login is reported at once and never retried.
//! Trap: the library may report "all brokers down" once, often or never, and does not say that they are back. So its
//! complaints only make a link suspect; the owner of the client then asks for metadata, and calls [`Link::up`] or
//! [`Link::down`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::membership::Membership;
use super::{BrokerError, TopicPartition};
use crate::domain::failure::Severity;

/// Time between two log lines about the same outage.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// State of the connection of one client, or of several that share a fate.
pub(super) struct Link {
    servers: String,
    give_up_after: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    down: Option<(Instant, SystemTime)>,
    last: String,
    denied: Option<BrokerError>,
    said: Option<Instant>,
    suspect: bool,
    heard: Option<Instant>,
}

impl Link {
    pub(super) fn new(servers: &str, give_up_after: Duration) -> Arc<Self> {
        Arc::new(Self { servers: servers.into(), give_up_after, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A broker was heard from.
    pub(super) fn up(&self) {
        let mut state = self.lock();
        state.suspect = false;
        state.heard = Some(Instant::now());
        if let Some((since, _)) = state.down.take() {
            tracing::info!(servers = self.servers, seconds = since.elapsed().as_secs(), "a Kafka broker answers again");
            state.said = None;
        }
    }

    /// No broker answers.
    pub(super) fn down(&self, why: &str) {
        let mut state = self.lock();
        if !why.is_empty() {
            state.last = why.to_owned();
        }
        let (since, _) = *state.down.get_or_insert_with(|| (Instant::now(), SystemTime::now()));
        if state.said.is_none_or(|at| at.elapsed() >= EVERY) {
            state.said = Some(Instant::now());
            tracing::warn!(
                servers = self.servers,
                since_s = since.elapsed().as_secs(),
                give_up_after_s = self.give_up_after.as_secs(),
                last = said_last(&state.last),
                "no Kafka broker answers: still trying"
            );
        }
    }

    /// Whether somebody should find out if a broker answers: one complained, or has been silent for long.
    pub(super) fn is_doubtful(&self) -> bool {
        let state = self.lock();
        state.suspect || state.down.is_some() || state.heard.is_some_and(|at| at.elapsed() >= EVERY)
    }

    pub(super) fn is_down(&self) -> bool {
        self.lock().down.is_some()
    }

    pub(super) fn down_since(&self) -> Option<SystemTime> {
        self.lock().down.map(|(_, at)| at)
    }

    fn suspect(&self, why: &str) {
        let mut state = self.lock();
        state.suspect = true;
        why.clone_into(&mut state.last);
    }

    /// Ends the trying. The first reason stays.
    fn deny(&self, error: BrokerError) {
        self.lock().denied.get_or_insert(error);
    }

    /// A handshake failed. A certificate that was never good is a wrong setting; one that was good before is an outage,
    /// as when brokers are given new ones.
    fn handshake_failed(&self, why: &str) {
        let never_heard = self.lock().heard.is_none();
        if never_heard && why.contains("certificate") && why.contains("verif") {
            self.deny(BrokerError::Untrusted { why: why.to_owned() });
        }
        self.suspect(why);
    }

    /// The error to end with, if it is time to.
    pub(super) fn verdict(&self) -> Result<(), BrokerError> {
        let state = self.lock();
        if let Some(error) = &state.denied {
            return Err(error.clone());
        }
        match state.down {
            Some((since, _)) if since.elapsed() >= self.give_up_after => {
                drop(state);
                Err(self.unreachable())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn unreachable(&self) -> BrokerError {
        let last = said_last(&self.lock().last).to_owned();
        BrokerError::Unreachable { servers: self.servers.clone(), seconds: self.give_up_after.as_secs(), last }
    }

    /// Turns an error of the library into ours. `what` names the request, `topic` the topic it was about.
    pub(super) fn error(&self, what: &str, topic: &str, error: &KafkaError) -> BrokerError {
        match error.rdkafka_error_code() {
            Some(code) => self.code(what, topic, code),
            None => BrokerError::Refused { what: what.into(), why: error.to_string(), severity: Severity::Fatal },
        }
    }

    /// The same for an error code.
    pub(super) fn code(&self, what: &str, topic: &str, code: Code) -> BrokerError {
        match code {
            Code::UnknownTopic | Code::UnknownTopicOrPartition => BrokerError::UnknownTopic { topic: topic.into() },
            Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
                BrokerError::TooLarge { topic: topic.into(), bytes: 0, limit: 0 }
            }
            Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::MessageTimedOut
            | Code::RequestTimedOut => self.verdict().err().unwrap_or_else(|| self.unreachable()),
            c if is_denial(c) => BrokerError::Denied { why: format!("{what}: {c}") },
            c => BrokerError::Refused { what: what.into(), why: c.to_string(), severity: Severity::Fatal },
        }
    }
}

/// A network that loses everything in silence leaves the library without words.
fn said_last(last: &str) -> &str {
    if last.is_empty() { "no answer" } else { last }
}

fn is_denial(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::UnsupportedSASLMechanism
    )
}

/// What a client library's client calls back into.
pub(super) struct KafkaContext {
    pub(super) link: Arc<Link>,
    /// Of a group member's client.
    pub(super) membership: Option<Arc<Membership>>,
    /// Partitions that changed hands since the poll thread looked last.
    pub(super) moved: Mutex<Vec<TopicPartition>>,
    /// A commit was not taken since the poll thread looked last.
    pub(super) commit_again: AtomicBool,
}

impl KafkaContext {
    pub(super) fn new(link: Arc<Link>, membership: Option<Arc<Membership>>) -> Self {
        Self { link, membership, moved: Mutex::default(), commit_again: AtomicBool::new(false) }
    }

    pub(super) fn take_moved(&self) -> Vec<TopicPartition> {
        std::mem::take(&mut *self.moved.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note_moved(&self, list: &TopicPartitionList) {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).extend(pairs(list));
    }

    /// Gives partitions up, and commits what is settled while they are still ours.
    fn give_up(&self, consumer: &BaseConsumer<Self>, membership: &Membership, lost: &TopicPartitionList) {
        let marks = pairs(lost).filter_map(|tp| Some((membership.revoke(&tp)?, tp)));
        let marks = offsets(marks.map(|(mark, tp)| (tp, mark)));
        if marks.count() == 0 || consumer.assignment_lost() || self.link.is_down() {
            return;
        }
        if let Err(error) = consumer.commit(&marks, CommitMode::Sync) {
            tracing::warn!(%error, "offsets of revoked partitions were not committed: their last tasks come again");
        }
    }
}

/// The partitions of a list.
pub(super) fn pairs(list: &TopicPartitionList) -> impl Iterator<Item = TopicPartition> {
    let pairs: Vec<TopicPartition> = list.elements().iter().map(|e| (Arc::from(e.topic()), e.partition())).collect();
    pairs.into_iter()
}

/// A list of partitions with the offsets to read next.
pub(super) fn offsets(marks: impl IntoIterator<Item = (TopicPartition, i64)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), mark) in marks {
        if let Err(error) = list.add_partition_offset(&topic, partition, Offset::Offset(mark)) {
            tracing::error!(%error, %topic, partition, mark, "an offset the client library cannot hold");
        }
    }
    list
}

impl ClientContext for KafkaContext {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        // Everything that matters comes as an error event, too; these lines repeat it for each broker and attempt.
        tracing::debug!(?level, fac, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(Code::PartitionEOF) => {}
            Some(code) if is_denial(code) => {
                tracing::debug!(reason, "the Kafka broker refuses access");
                self.link.deny(BrokerError::Denied { why: reason.to_owned() });
            }
            Some(Code::SSL) => {
                tracing::debug!(reason, "librdkafka");
                self.link.handshake_failed(reason);
            }
            Some(Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut) => {
                self.link.suspect(reason);
                tracing::debug!(reason, "librdkafka");
            }
            _ => tracing::warn!(%error, reason, "Kafka client"),
        }
    }
}

impl ConsumerContext for KafkaContext {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let (Some(membership), Rebalance::Revoke(lost)) = (&self.membership, rebalance) {
            self.note_moved(lost);
            self.give_up(consumer, membership, lost);
        }
    }

    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let (Some(membership), Rebalance::Assign(gained)) = (&self.membership, rebalance) {
            self.note_moved(gained);
            for tp in pairs(gained) {
                membership.assign(tp);
            }
            // A commit that was under way has been refused by the group's new generation, and nobody says so.
            self.commit_again.store(true, Ordering::SeqCst);
        }
    }

    fn commit_callback(&self, result: rdkafka::error::KafkaResult<()>, _offsets: &TopicPartitionList) {
        match result.as_ref().map_err(KafkaError::rdkafka_error_code) {
            Ok(()) | Err(Some(Code::NoOffset)) => {}
            // Refused during a rebalance, for instance: what is still ours then is committed anew.
            Err(code) => {
                tracing::debug!(?code, "an offset commit was not taken");
                self.commit_again.store(true, Ordering::SeqCst);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const DISTRUST: &str = "SSL handshake failed: certificate verify failed: broker certificate could not be verified";

    #[test]
    fn a_certificate_that_was_never_good_ends_the_trying() {
        let link = Link::new("b:1", Duration::from_secs(60));
        link.handshake_failed("SSL handshake failed: connection closed");
        assert_eq!(link.verdict(), Ok(()), "a broker that starts may close a connection");
        link.handshake_failed(DISTRUST);
        assert!(matches!(link.verdict(), Err(BrokerError::Untrusted { why }) if why == DISTRUST));
    }

    #[test]
    fn a_certificate_that_was_good_before_is_an_outage() {
        let link = Link::new("b:1", Duration::from_secs(60));
        link.up();
        link.handshake_failed(DISTRUST);
        assert!(link.is_doubtful());
        assert_eq!(link.verdict(), Ok(()));
    }
}
