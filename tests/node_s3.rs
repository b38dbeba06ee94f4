//! Whole nodes that write into a bucket: the dataset is the one on a disk, whatever dies on the way, and what cannot work is
//! said at once, without secrets.
//!
//! Contract: all tests need an S3 server (`eval "$(scripts/s3 start)"`), the one named `kafka_` also `KAFKA_BOOTSTRAP`;
//! they fail with the remedy without it. Trap: what is compared are bytes of objects, not what a store says of itself.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "support/node.rs"]
mod node;
#[path = "support/s3.rs"]
mod s3_server;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cluster::Cluster;
use node::{Node, Pairs, World, assert_same};
use s3_server::{Bucket, Gateway};
use satellite_pipeline::domain::checksum::{Algorithm, Checksum};

const ALL: [&str; 3] = ["--role", "all", "--exit-when-done"];

/// Makes a world's nodes write into the bucket.
fn into_bucket(world: &mut World, bucket: &Bucket) {
    world.set("output.dir", format!("\"{}\"", bucket.place));
    world.set("output.s3_endpoint", format!("{:?}", s3_server::endpoint()));
    world.set("output.s3_allow_http", "true");
}

/// Images and masks of the bucket, as [`node::pairs`] gives those of a directory.
fn pairs(bucket: &Bucket) -> Pairs {
    let hashes = |dir: &'static str| {
        let files = bucket.files(dir).into_iter();
        files.map(move |(file, bytes)| (format!("{dir}/{file}"), Checksum::of(Algorithm::Sha256, &bytes)))
    };
    hashes("images").chain(hashes("masks")).collect()
}

fn manifests(bucket: &Bucket) -> usize {
    bucket.files(".manifests").len()
}

/// All tasks are done, nothing is left over, and the chips are those of an undisturbed run on a disk.
#[track_caller]
fn assert_whole(bucket: &Bucket) {
    let staged = bucket.files(".staging");
    assert!(staged.is_empty(), "{:?}", staged.keys());
    assert_eq!(manifests(bucket), 17);
    static UNDISTURBED: OnceLock<Pairs> = OnceLock::new();
    let undisturbed = UNDISTURBED.get_or_init(|| {
        let world = World::new();
        world.run_all();
        world.dataset()
    });
    assert_same(&pairs(bucket), undisturbed);
}

#[test]
fn s3_a_run_that_is_killed_and_started_again_gives_the_dataset_of_a_disk() {
    let bucket = Bucket::new();
    let mut world = World::new();
    into_bucket(&mut world, &bucket);
    for some in [2, 6, 11] {
        let mut node = world.start(&ALL);
        node.until("some tasks are finished", |_| manifests(&bucket) >= some);
        node.kill();
    }
    assert!(manifests(&bucket) < 17, "the kills came too late to be any");
    let ended = world.run(&ALL, 0);
    ended.says(&[&format!("aws s3 sync {} DIR && node dataset finish DIR", bucket.place)]);
    assert_whole(&bucket);
    // Once more: everything is settled from the manifests, and nothing is written.
    let before = bucket.files("");
    world.run_all();
    assert_eq!(bucket.files(""), before);
    let (place, endpoint) = (bucket.place.to_string(), format!("output.s3_endpoint={}", s3_server::endpoint()));
    let at = ["--set", endpoint.as_str(), "--set", "output.s3_allow_http=true"];
    let verify = |place: &str, code| world.run(&[&["verify", place], &at[..]].concat(), code);
    let said = verify(&place, 0).out;
    assert!(said.starts_with("17 tasks, ") && said.contains(": nothing wrong"), "{said}");
    verify("s3://satellite/nothing/here", 1).says(&["s3://satellite/nothing/here: there is no dataset"]);
    bucket.put("images/stray.tif", b"x");
    let said = verify(&place, 1).out;
    assert!(said.starts_with(&format!("orphan: {place}/images/stray.tif belongs to no task\n")), "{said}");
    for command in [vec!["verify", "--repair"], vec!["dataset", "finish"], vec!["report"]] {
        let command: Vec<&str> = command.into_iter().chain([place.as_str()]).collect();
        world.run(&command, 2).says(&[&format!("copy it first, for instance by `aws s3 sync {place} DIR`")]);
    }
}

#[test]
fn kafka_s3_a_killed_worker_s_tasks_are_done_by_another() {
    let bucket = Bucket::new();
    let mut cluster = Cluster::new("bucket");
    into_bucket(&mut cluster.world, &bucket);
    cluster.run(&["--role", "master"], 0);
    let mut dying = cluster.worker("dying");
    dying.until("some tasks are finished", |_| manifests(&bucket) >= 3);
    let other = cluster.worker("other");
    dying.kill();
    other.ends(0);
    assert_eq!(cluster.lag(), 0);
    assert_whole(&bucket);
}

/// A node whose server goes away after it has finished some of its tasks.
fn cut_off(bucket: &Bucket) -> (World, Gateway, Node) {
    let mut world = World::new();
    let gate = Gateway::start();
    into_bucket(&mut world, bucket);
    world.set("output.s3_endpoint", format!("{:?}", gate.url()));
    let mut node = world.start(&ALL);
    node.until("some tasks are finished", |_| manifests(bucket) >= 3);
    gate.refuse(true);
    (world, gate, node)
}

#[test]
fn s3_a_server_that_is_away_is_waited_for() {
    let bucket = Bucket::new();
    let (_world, gate, mut node) = cut_off(&bucket);
    node.until("it tries again", |node| node.log().contains("trying again"));
    let finished = manifests(&bucket);
    assert!(finished < 17, "the outage came too late to be one");
    gate.refuse(false);
    node.ends(0);
    assert_whole(&bucket);
}

#[test]
fn s3_a_server_that_stays_away_stops_the_node_and_nothing_is_lost() {
    let bucket = Bucket::new();
    let (world, gate, node) = cut_off(&bucket);
    let ended = node.ends(1);
    ended.says(&[&bucket.place.to_string(), "is it up, and is output.s3_endpoint right?"]);
    gate.refuse(false);
    world.run(&ALL, 0);
    assert_whole(&bucket);
}

#[test]
fn s3_what_cannot_work_is_said_before_anything_is_done() {
    let bucket = Bucket::new();
    let mut world = World::new();
    into_bucket(&mut world, &bucket);
    let since = Instant::now();
    let place = bucket.place.to_string();

    let said = |world: &World, env: &[(&str, &str)], code: i32, texts: &[&str]| {
        let ended = world.start_with(&ALL, env).ends(code);
        ended.says(texts);
        ended
    };
    let wrong = "wrong-secret-0123456789";
    let ended = said(
        &world,
        &[("AWS_SECRET_ACCESS_KEY", wrong)],
        1,
        &[&format!("node: writing {place}/.staging/probe."), "the server answered 403", "check AWS_ACCESS_KEY_ID"],
    );
    let key = std::env::var("AWS_ACCESS_KEY_ID").unwrap();
    assert!(!ended.err.contains(wrong) && !ended.err.contains(&format!("Credential={key}")), "{}", ended.err);

    world.set("output.dir", "\"s3://no-such-bucket/x\"");
    said(&world, &[], 1, &["s3://no-such-bucket/x/", "create the bucket, or set output.dir"]);
    world.set("output.dir", "\"s3://No_Bucket/x\"");
    said(&world, &[], 2, &["output.dir", "a path, or s3://BUCKET/PREFIX"]);

    world.set("output.dir", format!("{place:?}")).set("output.s3_allow_http", "false");
    said(&world, &[], 2, &["output.s3_endpoint", "is not https", "set output.s3_allow_http = true"]);
    world.set("output.s3_endpoint", "\"\"");
    let env = s3_server::endpoint();
    said(&world, &[("AWS_ENDPOINT_URL", &env)], 2, &[&format!("output.dir {place}: its endpoint is not https")]);

    world.set("output.s3_allow_http", "true").set("output.s3_endpoint", "\"http://127.0.0.1:1\"");
    said(&world, &[], 1, &["Connection refused", "is it up, and is output.s3_endpoint right?"]);

    into_bucket(&mut world, &bucket);
    world.set("output.require_marker", "true");
    said(&world, &[], 2, &[&format!("output.dir {place} holds no object `.satellite-output`")]);
    bucket.put(".satellite-output", b"");
    bucket.put("dataset.json", br#"{"schema": 1, "run_id": "another"}"#);
    said(&world, &[], 2, &[&format!("output.dir {place} holds the dataset of run `another`, not of `")]);
    assert_eq!(bucket.files("").len(), 2, "nothing else was written");
    assert!(since.elapsed() < Duration::from_secs(60), "{:?}", since.elapsed());
}
