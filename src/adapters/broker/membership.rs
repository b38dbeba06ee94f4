//! What one member holds: its partitions, their ledgers, and the credit for new deliveries.
//!
//! Shared by both brokers: an engine (the Kafka poll thread, or the in-process pump) assigns, begins, collects commits
//! and revokes; the handle settles. Contract: at most `max_in_flight` unsettled deliveries over the partitions held.
//! Trap: locks here are held for a map operation and never across a call into a client library.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{BrokerError, DeliveryId, GroupStatus, TopicPartition};
use crate::domain::ledger::Ledger;

/// One partition while it is ours.
struct Slot {
    epoch: u64,
    ledger: Ledger,
    cancel: CancellationToken,
    /// Commit point that the engine has not collected yet.
    commit: Option<i64>,
}

#[derive(Default)]
struct State {
    slots: BTreeMap<TopicPartition, Slot>,
    epochs: u64,
    in_flight: usize,
    /// Set by every change the engine may be waiting for.
    changed: bool,
}

impl State {
    fn fresh_slot(&mut self) -> Slot {
        self.epochs += 1;
        Slot { epoch: self.epochs, ledger: Ledger::new(), cancel: CancellationToken::new(), commit: None }
    }

    fn drop_slot(&mut self, tp: &TopicPartition) -> Option<Slot> {
        let slot = self.slots.remove(tp)?;
        self.in_flight -= slot.ledger.in_flight();
        slot.cancel.cancel();
        Some(slot)
    }
}

/// A member's state, between its engine and its handle.
pub(super) struct Membership {
    state: Mutex<State>,
    max_in_flight: usize,
    wake_thread: Condvar,
    wake_task: Notify,
    stopped: AtomicBool,
    leaving: AtomicBool,
    status: watch::Sender<GroupStatus>,
}

impl Membership {
    pub(super) fn new(max_in_flight: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            max_in_flight: max_in_flight.max(1),
            wake_thread: Condvar::new(),
            wake_task: Notify::new(),
            stopped: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            status: watch::Sender::new(GroupStatus::default()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, state: &mut State) {
        state.changed = true;
        self.wake_thread.notify_all();
        self.wake_task.notify_one();
    }

    // --- the handle's side ---

    pub(super) fn settle(&self, id: &DeliveryId) -> bool {
        let mut state = self.lock();
        let tp = (id.topic.clone(), id.partition);
        let Some(slot) = state.slots.get_mut(&tp).filter(|s| s.epoch == id.epoch && s.ledger.holds(id.offset)) else {
            return false;
        };
        if let Some(mark) = slot.ledger.settle(id.offset) {
            slot.commit = Some(mark);
        }
        state.in_flight -= 1;
        self.wake(&mut state);
        true
    }

    pub(super) fn is_current(&self, id: &DeliveryId) -> bool {
        let tp = (id.topic.clone(), id.partition);
        self.lock().slots.get(&tp).is_some_and(|s| s.epoch == id.epoch && s.ledger.holds(id.offset))
    }

    pub(super) fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.wake(&mut self.lock());
    }

    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        self.stop();
    }

    pub(super) fn status(&self) -> watch::Receiver<GroupStatus> {
        self.status.subscribe()
    }

    // --- the engine's side ---

    /// Deliveries that may be begun now.
    pub(super) fn room(&self) -> usize {
        if self.stopped.load(Ordering::SeqCst) {
            return 0;
        }
        self.max_in_flight.saturating_sub(self.lock().in_flight)
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Wakes the engine: its client has something for it.
    pub(super) fn poke(&self) {
        self.wake(&mut self.lock());
    }

    /// Takes a partition over; one that is held already starts anew.
    pub(super) fn assign(&self, tp: TopicPartition) {
        let mut state = self.lock();
        state.drop_slot(&tp);
        let slot = state.fresh_slot();
        state.slots.insert(tp, slot);
        self.wake(&mut state);
        self.show_assigned(&state);
    }

    /// Gives a partition up: what is unsettled is cancelled. The answer is its last commit point.
    pub(super) fn revoke(&self, tp: &TopicPartition) -> Option<i64> {
        let mut state = self.lock();
        let slot = state.drop_slot(tp)?;
        self.wake(&mut state);
        self.show_assigned(&state);
        slot.ledger.mark()
    }

    pub(super) fn assigned(&self) -> Vec<TopicPartition> {
        self.lock().slots.keys().cloned().collect()
    }

    /// Takes note of a delivery. `None`: the partition is not ours.
    ///
    /// An offset at or below one that was delivered before means that the log began anew under us (topic deleted and
    /// made again): the old deliveries are cancelled and the message counts.
    pub(super) fn begin(&self, tp: &TopicPartition, offset: i64) -> Option<(DeliveryId, CancellationToken)> {
        let mut state = self.lock();
        if !state.slots.get_mut(tp)?.ledger.begin(offset) {
            tracing::warn!(topic = %tp.0, partition = tp.1, offset, "offsets went backwards: the partition starts anew");
            state.drop_slot(tp);
            let mut slot = state.fresh_slot();
            let begun = slot.ledger.begin(offset);
            debug_assert!(begun, "a fresh ledger takes any offset");
            state.slots.insert(tp.clone(), slot);
        }
        state.in_flight += 1;
        let slot = state.slots.get(tp)?;
        let id = DeliveryId { topic: tp.0.clone(), partition: tp.1, offset, epoch: slot.epoch };
        Some((id, slot.cancel.clone()))
    }

    /// Commit points that moved since the last call.
    pub(super) fn take_commits(&self) -> Vec<(TopicPartition, i64)> {
        let mut state = self.lock();
        state.slots.iter_mut().filter_map(|(tp, slot)| Some((tp.clone(), slot.commit.take()?))).collect()
    }

    /// The commit points of all partitions held, moved or not.
    pub(super) fn marks(&self) -> Vec<(TopicPartition, i64)> {
        let state = self.lock();
        state.slots.iter().filter_map(|(tp, slot)| Some((tp.clone(), slot.ledger.mark()?))).collect()
    }

    /// Blocks the engine's thread until something changed since the last call, at most so long.
    pub(super) fn wait(&self, timeout: Duration) {
        let state = self.lock();
        let (mut state, _timed_out) =
            self.wake_thread.wait_timeout_while(state, timeout, |s| !s.changed).unwrap_or_else(PoisonError::into_inner);
        state.changed = false;
    }

    /// The same for an engine that is a task, without a limit.
    pub(super) async fn changed(&self) {
        self.wake_task.notified().await;
    }

    fn show_assigned(&self, state: &State) {
        let assigned = state.slots.keys().cloned().collect();
        self.status.send_modify(|s| s.assigned = assigned);
    }

    /// Shows that no broker answers, or that one does again.
    pub(super) fn show_down(&self, since: Option<SystemTime>) {
        self.status.send_if_modified(|s| std::mem::replace(&mut s.down_since, since) != since);
    }

    /// The engine has ended: every partition is given up.
    pub(super) fn end(&self, failed: Option<BrokerError>) {
        let mut state = self.lock();
        for tp in state.slots.keys().cloned().collect::<Vec<_>>() {
            state.drop_slot(&tp);
        }
        self.leaving.store(true, Ordering::SeqCst);
        self.stopped.store(true, Ordering::SeqCst);
        self.status.send_modify(|s| {
            s.assigned.clear();
            s.failed = s.failed.take().or(failed);
            s.left = true;
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn tp(n: i32) -> TopicPartition {
        (Arc::from("t"), n)
    }

    #[test]
    fn credit_follows_deliveries_settlements_and_losses() {
        let m = Membership::new(3);
        m.assign(tp(0));
        m.assign(tp(1));
        let (a, _) = m.begin(&tp(0), 0).unwrap();
        let (b, cancel) = m.begin(&tp(1), 5).unwrap();
        assert_eq!((m.room(), m.in_flight()), (1, 2));
        assert!(m.settle(&a) && !m.settle(&a), "settles once");
        assert_eq!(m.take_commits(), [(tp(0), 1)]);
        assert!(m.take_commits().is_empty());
        assert!(m.is_current(&b));
        assert_eq!(m.revoke(&tp(1)), None);
        assert!(cancel.is_cancelled() && !m.is_current(&b) && !m.settle(&b));
        assert_eq!((m.room(), m.in_flight()), (3, 0));
    }

    #[test]
    fn a_settlement_of_an_earlier_assignment_is_ignored() {
        let m = Membership::new(3);
        m.assign(tp(0));
        let (old, _) = m.begin(&tp(0), 0).unwrap();
        m.revoke(&tp(0));
        m.assign(tp(0));
        let (new, _) = m.begin(&tp(0), 0).unwrap();
        assert!(!m.settle(&old));
        assert!(m.take_commits().is_empty());
        assert!(m.settle(&new));
    }

    #[test]
    fn a_log_that_began_anew_is_read_and_not_ignored() {
        let m = Membership::new(3);
        m.assign(tp(0));
        let (old, cancel) = m.begin(&tp(0), 10).unwrap();
        let (new, _) = m.begin(&tp(0), 0).unwrap();
        assert!(cancel.is_cancelled() && !m.settle(&old) && m.settle(&new));
        assert_eq!(m.take_commits(), [(tp(0), 1)]);
        assert_eq!(m.in_flight(), 0);
    }

    #[test]
    fn stopping_takes_the_room_away_but_not_the_right_to_settle() {
        let m = Membership::new(2);
        m.assign(tp(0));
        let (id, _) = m.begin(&tp(0), 0).unwrap();
        m.stop();
        assert_eq!(m.room(), 0);
        assert!(m.settle(&id));
    }
}
