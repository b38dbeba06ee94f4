//! The intake: what is no task is poison, what is finished is settled at once, what comes late is left to others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use actix::Actor;
use satellite_pipeline::actors::intake::Intake;
use satellite_pipeline::actors::lane::{Credited, Lane};
use satellite_pipeline::actors::messages::{SampleParcels, TaskArrived};
use satellite_pipeline::actors::quotas::Quotas;
use satellite_pipeline::actors::ticket::Outcome;
use satellite_pipeline::adapters::broker::Delivery;
use satellite_pipeline::adapters::dataset::memory::MemoryStore;
use satellite_pipeline::adapters::dataset::{Attempt, Committed, DatasetStore, StoreError};
use satellite_pipeline::domain::failure::Severity;
use satellite_pipeline::domain::manifest::{Manifest, SCHEMA};
use satellite_pipeline::domain::result::{Status, TaskResult};
use satellite_pipeline::domain::task::TaskKey;
use tokio_util::sync::CancellationToken;

use super::stage::{Out, QUICK, Stage, class, lane, on_stage, task};

const CELL: [f64; 4] = [0.0, 40.0, 0.05, 40.05];

/// An intake over `store`.
fn intake(
    stage: &Stage,
    store: Arc<dyn DatasetStore>,
) -> (Lane<TaskArrived>, Out<Credited<SampleParcels>>, CancellationToken) {
    intake_with(stage, store, &Quotas::default())
}

fn intake_with(
    stage: &Stage,
    store: Arc<dyn DatasetStore>,
    quotas: &Quotas,
) -> (Lane<TaskArrived>, Out<Credited<SampleParcels>>, CancellationToken) {
    let (sampler, out) = lane(4);
    let drain = CancellationToken::new();
    let intake = Intake {
        worker: "w".into(),
        seed: 7,
        store,
        retry: QUICK,
        max_attempts: 3,
        quotas: quotas.clone(),
        drain: drain.clone(),
        settler: stage.settler.clone(),
        sampler,
    };
    (Lane::new("intake", 4, intake.start().recipient()), out, drain)
}

#[test]
fn a_task_goes_on_with_its_seed_or_the_worker_s() {
    on_stage(async || {
        let mut stage = Stage::new().await;
        let (lane, mut out, _) = intake(&stage, Arc::new(MemoryStore::default()));
        for (seed, want) in [(Some(3), 3), (None, 7)] {
            let mut task = task(1, CELL);
            task.seed = seed;
            let delivery = stage.delivery(serde_json::to_vec(&task).unwrap()).await;
            lane.send(TaskArrived { delivery }).await;
            let passed = out.next().await;
            assert_eq!((passed.message.job.seed, passed.message.job.task.task_id), (want, 1));
            assert_eq!(passed.message.job.key, TaskKey { run: "run1".into(), task: 1 });
            drop(passed);
            assert_eq!(stage.outcome().await, Outcome::Lost, "a job that is dropped is lost, not forgotten");
        }
    });
}

#[test]
fn what_is_no_task_is_poison_and_goes_no_further() {
    on_stage(async || {
        let mut stage = Stage::new().await;
        let (lane, mut out, _) = intake(&stage, Arc::new(MemoryStore::default()));
        let mut poison = async |delivery: Delivery, reason: &str| {
            lane.send(TaskArrived { delivery }).await;
            match stage.settled.next().await.outcome {
                Outcome::Poison(said) => assert!(said.contains(reason), "{said}, not {reason}"),
                other => panic!("{other:?}"),
            }
        };
        let mut feed = Stage::new().await;
        poison(feed.delivery("nonsense").await, "task message is not a task").await;
        poison(feed.delivery(r#"{"task_id": 1, "bbox": [0, 0, 9, 9]}"#).await, "5 x 5").await;
        let large = Delivery { oversize: Some(70_000), ..feed.delivery("").await };
        poison(large, "task message of 70000 bytes is larger than the 65536 allowed").await;
        out.nothing().await;
    });
}

#[test]
fn a_finished_task_is_settled_with_the_result_it_had() {
    on_stage(async || {
        let mut stage = Stage::new().await;
        let store = Arc::new(MemoryStore::default());
        let task = task(5, CELL);
        let mut result = TaskResult::empty(&task, "somebody", Status::Success);
        result.chips_saved = 3;
        let attempt = store.begin(&task.key()).unwrap();
        let manifest = Manifest {
            schema: SCHEMA,
            key: task.key(),
            attempt: attempt.id.clone(),
            result: result.clone(),
            chips: Vec::new(),
            rejected: Vec::new(),
        };
        assert_eq!(store.commit(&attempt, &manifest).unwrap(), Committed::Ours);
        let (lane, mut out, _) = intake(&stage, store);
        let delivery = stage.delivery(serde_json::to_vec(&task).unwrap()).await;
        lane.send(TaskArrived { delivery }).await;
        assert_eq!(stage.outcome().await, Outcome::Finished(Box::new(result)));
        out.nothing().await;
        assert_eq!(lane.in_use(), 0);
    });
}

#[test]
fn a_task_of_filled_classes_ends_here_unless_it_was_finished_before() {
    on_stage(async || {
        let mut stage = Stage::new().await;
        let (store, quotas) = (Arc::new(MemoryStore::default()), Quotas::default());
        let wheat = class(5);
        let mut task = task(5, CELL);
        task.class_distribution = [(wheat, 12)].into();
        task.target_samples = [(wheat, 9)].into();
        let (lane, mut out, _) = intake_with(&stage, store.clone(), &quotas);
        let send = async |stage: &mut Stage| {
            let delivery = stage.delivery(serde_json::to_vec(&task).unwrap()).await;
            lane.send(TaskArrived { delivery }).await;
        };
        quotas.note("run1", &[(wheat, 8)].into());
        send(&mut stage).await;
        drop(out.next().await);
        assert_eq!(stage.outcome().await, Outcome::Lost, "one chip is still wanted");
        quotas.note("run1", &[(wheat, 9)].into());
        send(&mut stage).await;
        let settled = stage.settled.next().await;
        assert_eq!(settled.attempt, None, "it has no staging place");
        let Outcome::Unwanted(result) = settled.outcome else { panic!("{:?}", settled.outcome) };
        assert_eq!((result.status, result.task_id), (Status::SkippedQuota, 5));
        assert!(store.finished(&task.key()).unwrap().is_none(), "and no manifest: raised targets do it after all");

        let attempt = store.begin(&task.key()).unwrap();
        let (key, result) = (task.key(), TaskResult::empty(&task, "somebody", Status::Success));
        let (schema, chips, rejected) = (SCHEMA, Vec::new(), Vec::new());
        let manifest = Manifest { schema, key, attempt: attempt.id.clone(), result: result.clone(), chips, rejected };
        store.commit(&attempt, &manifest).unwrap();
        send(&mut stage).await;
        assert_eq!(stage.outcome().await, Outcome::Finished(Box::new(result)));
        out.nothing().await;
    });
}

#[test]
fn a_draining_node_and_a_lost_partition_leave_the_task_to_others() {
    on_stage(async || {
        let mut stage = Stage::new().await;
        let (lane, mut out, drain) = intake(&stage, Arc::new(MemoryStore::default()));
        let delivery = stage.delivery(serde_json::to_vec(&task(1, CELL)).unwrap()).await;
        delivery.cancel.cancel();
        lane.send(TaskArrived { delivery }).await;
        assert_eq!(stage.outcome().await, Outcome::Abandoned);
        drain.cancel();
        let delivery = stage.delivery(serde_json::to_vec(&task(2, CELL)).unwrap()).await;
        lane.send(TaskArrived { delivery }).await;
        assert_eq!(stage.outcome().await, Outcome::Abandoned);
        out.nothing().await;
    });
}

/// A staging place that nobody knows of would stay behind, and count as an attempt that died.
#[test]
fn a_partition_lost_while_the_staging_place_is_opened_leaves_none_unknown() {
    on_stage(async || {
        let mut stage = Stage::new().await;
        let delivery = stage.delivery(serde_json::to_vec(&task(1, CELL)).unwrap()).await;
        let (asleep, error, lost) = (AtomicU32::new(0), || system_error(0), delivery.cancel.clone());
        let store = Arc::new(Waking { store: MemoryStore::default(), asleep, error, lost });
        let (lane, mut out, _) = intake(&stage, store.clone());
        lane.send(TaskArrived { delivery }).await;
        let passed = out.next().await;
        assert!(passed.message.job.cancel.is_cancelled() && passed.message.job.ticket.attempt().is_some());
        drop(passed);
        let settled = stage.settled.next().await;
        store.abandon(&settled.attempt.unwrap());
        assert_eq!(store.store.staged(), 0);
    });
}

/// A store that does not answer at first.
struct Waking {
    store: MemoryStore,
    asleep: AtomicU32,
    error: fn() -> StoreError,
    /// Cancelled while a staging place is being opened.
    lost: CancellationToken,
}

impl DatasetStore for Waking {
    fn check(&self) -> Result<(), StoreError> {
        self.store.check()
    }
    fn bind(&self, run: &str) -> Result<(), StoreError> {
        self.store.bind(run)
    }
    fn finished(&self, key: &TaskKey) -> Result<Option<Manifest>, StoreError> {
        match self.asleep.try_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) {
            Ok(_) => Err((self.error)()),
            Err(_) => self.store.finished(key),
        }
    }
    fn begin(&self, key: &TaskKey) -> Result<Attempt, StoreError> {
        self.lost.cancel();
        self.store.begin(key)
    }
    fn stage(&self, a: &Attempt, n: &str, i: &[u8], m: &[u8]) -> Result<(), StoreError> {
        self.store.stage(a, n, i, m)
    }
    fn commit(&self, attempt: &Attempt, manifest: &Manifest) -> Result<Committed, StoreError> {
        self.store.commit(attempt, manifest)
    }
    fn abandon(&self, attempt: &Attempt) {
        self.store.abandon(attempt);
    }
    fn tidy(&self) {
        self.store.tidy();
    }
    fn clear(&self, key: &TaskKey) {
        self.store.clear(key);
    }
    fn manifests(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), StoreError> {
        self.store.manifests(each)
    }
}

fn system_error(number: i32) -> StoreError {
    let source = std::io::Error::from_raw_os_error(number);
    StoreError::Io { action: "reading", path: "/mnt/x".into(), source }
}

#[test]
fn a_store_that_wakes_up_is_waited_for_and_a_dead_one_stops_the_node() {
    on_stage(async || {
        let mut stage = Stage::new().await;
        // 116 is ESTALE, what NFS says of a file whose server restarted.
        for (error, asleep, passes) in [(116, 2, true), (116, 9, false), (28, 1, false)] {
            let make: fn() -> StoreError = if error == 116 { || system_error(116) } else { || system_error(28) };
            let lost = CancellationToken::new();
            let store = Waking { store: MemoryStore::default(), asleep: asleep.into(), error: make, lost };
            let (lane, mut out, _) = intake(&stage, Arc::new(store));
            let delivery = stage.delivery(serde_json::to_vec(&task(1, CELL)).unwrap()).await;
            lane.send(TaskArrived { delivery }).await;
            if passes {
                drop(out.next().await);
                assert_eq!(stage.outcome().await, Outcome::Lost);
                continue;
            }
            match stage.outcome().await {
                Outcome::Fatal(failure) => assert_eq!((failure.severity, failure.stage), (Severity::Fatal, "intake")),
                other => panic!("{error} x {asleep}: {other:?}"),
            }
        }
    });
}

#[test]
fn a_place_that_holds_another_run_stops_the_node() {
    on_stage(async || {
        let mut stage = Stage::new().await;
        let store = Arc::new(MemoryStore::default());
        store.bind("another").unwrap();
        let (lane, mut out, _) = intake(&stage, store);
        let delivery = stage.delivery(serde_json::to_vec(&task(1, CELL)).unwrap()).await;
        lane.send(TaskArrived { delivery }).await;
        match stage.outcome().await {
            Outcome::Fatal(f) => assert!(f.reason.contains("holds the dataset of run `another`, not of `run1`"), "{f}"),
            other => panic!("{other:?}"),
        }
        out.nothing().await;
    });
}

#[test]
fn a_task_whose_attempts_keep_dying_is_given_up() {
    on_stage(async || {
        let mut stage = Stage::new().await;
        let store = Arc::new(MemoryStore::default());
        let (lane, mut out, _) = intake(&stage, store.clone());
        for died in 0..4 {
            let delivery = stage.delivery(serde_json::to_vec(&task(1, CELL)).unwrap()).await;
            lane.send(TaskArrived { delivery }).await;
            if died < 3 {
                // The worker dies with it: nobody clears its staging place.
                assert_eq!(out.next().await.message.job.ticket.attempt().unwrap().earlier, died);
                assert_eq!(stage.outcome().await, Outcome::Lost);
                continue;
            }
            match stage.outcome().await {
                Outcome::Failed(result) => {
                    assert!(result.error.unwrap().contains("given up: 3 attempts died without a word"));
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(store.staged() <= 1, "what they had staged is thrown away");
    });
}
