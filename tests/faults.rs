//! Pull any plug, get the same dataset: whole nodes on a real Kafka, killed at every named point of the
//! road, stopped and woken as zombies, fed by a server in every kind of trouble.
//!
//! Each run ends with `node verify`, one counted result for every planned task, and the comparison, byte by
//! byte, with the dataset of an undisturbed run. `FAULTS_KILLS` (default 34: each point twice) is the number
//! of kills; `scripts/faults` asks for more. Built with the feature `failpoints`; needs `KAFKA_BOOTSTRAP`.
#![cfg(feature = "failpoints")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/node.rs"]
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use cluster::Cluster;
use node::{Node, Pairs, World};
use satellite_pipeline::adapters::dataset::disk::DiskStore;
use satellite_pipeline::adapters::dataset::verify::{Finding, verify};
use satellite_pipeline::adapters::failpoint::POINTS;
use satellite_pipeline::demo::server::{Fault, FaultKind};
use satellite_pipeline::domain::band::Band;
use serde_json::Value;

/// The dataset nobody disturbed.
fn undisturbed() -> &'static Pairs {
    static MADE: OnceLock<Pairs> = OnceLock::new();
    MADE.get_or_init(|| {
        let world = World::new();
        world.run_all();
        world.verify();
        world.dataset()
    })
}

/// What the disturbed runs came to.
#[derive(Debug, Default)]
struct Account {
    runs: usize,
    kills: usize,
    tasks: usize,
    chips: usize,
    /// Planned tasks without a result, and results in the dead-letter topic.
    lost: usize,
    /// Tasks with more than one result, and what `node verify` calls duplicate.
    duplicated: usize,
    /// Everything else that `node verify` finds.
    orphaned: usize,
    /// Files that are not in both datasets with the same bytes.
    differing: usize,
    /// Kills by point.
    points: BTreeMap<&'static str, usize>,
}

impl Account {
    /// Adds up a finished run.
    fn close(&mut self, cluster: &Cluster) {
        let report = verify(&DiskStore::new(cluster.output(), false, true), false).unwrap();
        let (double, other): (Vec<_>, Vec<_>) =
            report.findings.iter().partition(|f| matches!(f, Finding::Duplicate(..)));
        let dataset = cluster.dataset();
        let names: BTreeSet<&String> = dataset.keys().chain(undisturbed().keys()).collect();
        self.differing += names.into_iter().filter(|n| dataset.get(*n) != undisturbed().get(*n)).count();
        let planned = cluster.task_ids();
        let mut said: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
        for record in cluster.read("results") {
            let result: Value = serde_json::from_slice(&record.payload).unwrap();
            let what = format!("{} {}", result["status"], result["chips_per_class"]);
            said.entry(result["task_id"].as_u64().unwrap()).or_default().insert(what);
        }
        self.lost += planned.keys().filter(|id| !said.contains_key(id)).count() + cluster.read("dlq").len();
        self.duplicated += double.len() + said.values().filter(|s| s.len() > 1).count();
        for finding in &other {
            println!("{finding}");
        }
        self.orphaned += other.len();
        self.runs += 1;
        self.tasks += planned.len();
        self.chips += dataset.len() / 2;
        assert_eq!(cluster.lag(), 0, "the group must have finished");
    }

    /// Says what came of it, and insists on nothing having gone wrong.
    #[track_caller]
    fn show(&self, what: &str) {
        println!("{what}: {self:?}");
        let wrong = (self.lost, self.duplicated, self.orphaned, self.differing);
        assert_eq!(wrong, (0, 0, 0, 0), "lost, duplicated, orphaned, differing");
        assert!(self.chips > 0 && self.tasks > 0);
    }
}

/// How often a point is passed before the kill: different tasks and chips are hit in different rounds. Few times, so
/// that there is work left for the next one to die in.
fn failpoints(point: &str, round: usize) -> String {
    // Points that each chip passes come more often than those of a task.
    let per_chip = ["rasteriser", "writer", "commit.half"].iter().any(|p| point.starts_with(p));
    let passes = if per_chip { round * 5 % 8 } else { round % 3 };
    if passes == 0 { format!("{point}=1*return") } else { format!("{point}={passes}*off->1*return") }
}

fn doomed(cluster: &Cluster, id: &str, point: &str, round: usize) -> Node {
    let args = ["--role", "worker", "--worker-id", id, "--exit-when-done"];
    cluster.start_with(&args, &[("FAILPOINTS", &failpoints(point, round))])
}

/// Runs with kills that go on at the same time; two cores are kept busy by three, because much is waiting.
const AT_ONCE: usize = 3;

#[test]
fn kafka_killed_at_every_point_of_the_road() {
    let kills: usize = std::env::var("FAULTS_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(2 * POINTS.len());
    undisturbed();
    let plan: Vec<(&'static str, usize)> = (0..kills).map(|i| (POINTS[i % POINTS.len()], i / POINTS.len())).collect();
    // A handful of deaths in each run, one worker after the other; then one that is left alone.
    // In every second run the server is in trouble meanwhile.
    let runs: Mutex<Vec<_>> = Mutex::new(plan.chunks(6).enumerate().collect());
    let accounts = [Mutex::new(Account::default()), Mutex::new(Account::default())];
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((run, deaths)) = { runs.lock().unwrap().pop() } {
                    let trouble = run % 2 == 1;
                    let (cluster, died) = run_with_deaths(deaths, trouble);
                    let mut account = accounts[usize::from(trouble)].lock().unwrap();
                    account.close(&cluster);
                    for point in died {
                        *account.points.entry(point).or_default() += 1;
                        account.kills += 1;
                    }
                }
            });
        }
    });
    let [calm, troubled] = accounts.map(|a| a.into_inner().unwrap());
    calm.show("killed at every point");
    troubled.show("killed, server in trouble");
    let points: BTreeSet<_> = calm.points.keys().chain(troubled.points.keys()).collect();
    assert_eq!(points.len(), POINTS.len(), "every point must have killed");
    assert!((calm.kills + troubled.kills) * 4 >= kills * 3, "{calm:?} {troubled:?}: too few points were reached");
}

/// One run in which workers die at these points.
fn run_with_deaths(deaths: &[(&'static str, usize)], trouble: bool) -> (Cluster, Vec<&'static str>) {
    let mut cluster = Cluster::new("kill");
    if trouble {
        make_trouble(&mut cluster);
    }
    // Many workers die here on purpose, often with the same task in hand.
    cluster.world.set("worker.max_attempts", "1000");
    cluster.run(&["--role", "master"], 0);
    let mut died = Vec::new();
    for (number, (point, round)) in deaths.iter().enumerate() {
        let ended = doomed(&cluster, &format!("w{number}"), point, *round).end();
        match ended.code {
            None => died.push(*point),
            // The point was not reached as often: the work was done before.
            Some(0) => {}
            other => panic!("{point}: exit code {other:?}\n{}", ended.err),
        }
    }
    cluster.worker("last").ends(0);
    (cluster, died)
}

#[test]
fn kafka_a_zombie_that_wakes_up_publishes_nothing_again() {
    let mut account = Account::default();
    let mut cluster = Cluster::new("zombie");
    cluster.world.set("worker.tasks_in_flight", "2");
    cluster.run(&["--role", "master"], 0);
    let mut zombie = cluster.worker("zombie");
    zombie.until("it has begun", |n| n.log().contains("task done"));
    zombie.signal("STOP");
    // Longer than the session: its partitions go to the other one, which does the zombie's tasks again.
    let other = cluster.worker("other");
    std::thread::sleep(Duration::from_secs(9));
    zombie.signal("CONT");
    other.ends(0);
    zombie.ends(0);
    account.close(&cluster);
    account.show("zombie");
}

#[test]
fn kafka_workers_killed_from_outside_at_random_while_others_go_on() {
    let mut account = Account::default();
    for round in 0..3u64 {
        let mut cluster = Cluster::new("random");
        cluster.world.set("worker.max_attempts", "1000");
        cluster.run(&["--role", "master"], 0);
        let survivor = cluster.worker("survivor");
        for i in 0..3 {
            let victim = cluster.worker(&format!("victim{i}"));
            std::thread::sleep(Duration::from_millis(300 + (round * 7 + i * 13) % 10 * 130));
            victim.kill();
            account.kills += 1;
        }
        survivor.ends(0);
        account.close(&cluster);
    }
    account.show("killed from outside");
}

/// Every trouble a server can make, for nodes that try often enough: no file and no search meets more of it than it is
/// tried again, however the requests of tasks fall together. The kinds take turns over the bands.
fn make_trouble(cluster: &mut Cluster) {
    let anywhere = [FaultKind::Status(503, Some(1)), FaultKind::Status(429, Some(1)), FaultKind::Status(500, None)];
    let of_images = [FaultKind::Reset, FaultKind::Truncate, FaultKind::WrongRange, FaultKind::Drip(100)];
    let kinds: Vec<FaultKind> = anywhere.into_iter().chain(of_images).collect();
    let fault = |path: String, kind| cluster.server.fault(Fault { path, kind, times: 1 });
    for kind in anywhere.into_iter().chain([FaultKind::Reset]) {
        fault("*search*".into(), kind);
    }
    for (i, band) in Band::ALL.iter().enumerate() {
        for kind in kinds.iter().cycle().skip(i).take(4) {
            fault(format!("*/{}.tif", band.name()), *kind);
        }
    }
    cluster.server.fault(Fault { path: "*".into(), kind: FaultKind::Slow(400), times: 12 });
    cluster.world.set("imagery.retries", "6").set("stac.retries", "6").set("imagery.read_timeout_s", "2");
}

#[test]
fn kafka_a_server_in_trouble_delays_the_dataset_and_does_not_change_it() {
    let mut account = Account::default();
    let mut cluster = Cluster::new("trouble");
    make_trouble(&mut cluster);
    cluster.run(&["--role", "master"], 0);
    cluster.worker("w").ends(0);
    account.close(&cluster);
    account.show("server in trouble");
}

#[test]
fn kafka_workers_told_to_stop_at_any_instant_leave_in_order() {
    let mut account = Account::default();
    let mut cluster = Cluster::new("drain");
    cluster.world.set("worker.drain_timeout_s", "4");
    cluster.run(&["--role", "master"], 0);
    // In trouble, so that the signal also meets pauses and requests that hang.
    make_trouble(&mut cluster);
    for round in 0..12u64 {
        let worker = cluster.worker(&format!("w{round}"));
        std::thread::sleep(Duration::from_millis(200 + round * 170));
        let told = std::time::Instant::now();
        worker.signal("TERM");
        let ended = worker.end();
        let (code, took) = (ended.code, told.elapsed());
        assert!(took < Duration::from_secs(12), "{took:?} for a patience of 4 s");
        match code {
            // Drained, or stopped while it was starting.
            Some(0) => {}
            Some(1) => assert!(ended.err.contains("worker.drain_timeout_s"), "{}", ended.err),
            // Before it listened to signals; it cannot have taken anything.
            None => assert!(!ended.err.contains("worker is up"), "{}", ended.err),
            other => panic!("exit code {other:?}\n{}", ended.err),
        }
    }
    cluster.worker("last").ends(0);
    account.close(&cluster);
    account.show("told to stop");
}

/// A task that kills whoever takes it: here the first one, because each doomed worker dies in its first task.
#[test]
fn kafka_a_task_that_kills_its_workers_goes_to_the_dead_letters_and_can_be_replayed() {
    let mut cluster = Cluster::new("poison");
    cluster.world.set("kafka.partitions", "1").set("worker.tasks_in_flight", "1").set("worker.max_attempts", "3");
    cluster.run(&["--role", "master"], 0);
    for victim in ["v1", "v2", "v3"] {
        assert_eq!(doomed(&cluster, victim, "sampler.before", 0).end().code, None, "{victim} is killed");
    }
    let survivor = cluster.worker("survivor").ends(1);
    assert!(survivor.err.contains("given up: 3 attempts died without a word"), "{}", survivor.err);
    assert_eq!(cluster.read("dlq").len(), 1);
    let listed = cluster.run(&["dlq", "list"], 0).out;
    assert!(listed.contains("given up: 3 attempts died"), "{listed}");
    let planned = cluster.task_ids().len();
    let failed = |cluster: &Cluster| {
        let results = cluster.read("results");
        let values = results.iter().map(|r| serde_json::from_slice::<Value>(&r.payload).unwrap());
        values.filter(|v| v["status"] == "failed").count()
    };
    assert_eq!((cluster.read("results").len(), failed(&cluster)), (planned, 1), "one result for every task");
    assert_eq!(cluster.lag(), 0);

    cluster.run(&["dlq", "replay"], 0);
    cluster.worker("later").ends(0);
    assert!(cluster.run(&["dlq", "list"], 0).out.contains("no dead letters"));
    cluster.verify();
    node::assert_same(&cluster.dataset(), undisturbed());
}
