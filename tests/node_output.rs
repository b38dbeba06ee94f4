//! Output directories that are missing, not mounted, read-only, or full: the node stops, says what to do, and loses nothing.
//!
//! Contract: exit code 2 when the configuration names a place that is not one, 1 when the place refuses to be written.
//! What is finished stays whole, and a later run with a usable place completes. Trap: these tests mount tmpfs.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/mount.rs"]
mod mount;
#[path = "support/node.rs"]
mod node;

use std::time::{Duration, Instant};

use mount::Tmpfs;
use node::{World, assert_same, files_below, pairs};

const ALL: [&str; 3] = ["--role", "all", "--exit-when-done"];

#[test]
fn a_place_that_is_none_is_refused_before_anything_is_done() {
    let mut world = World::new();
    let nowhere = world.at("no/such/place");
    world.set("output.dir", format!("{nowhere:?}"));
    world.run(&ALL, 2).says(&[&format!(
        "node: output.dir {} does not exist: create it, mount it, or set output.dir",
        nowhere.display()
    )]);

    let file = world.at("file");
    std::fs::write(&file, "x").unwrap();
    world.set("output.dir", format!("{file:?}"));
    world.run(&ALL, 2).says(&["(it is a file) does not exist: create it"]);

    let unmounted = world.at("mnt");
    std::fs::create_dir(&unmounted).unwrap();
    world.set("output.dir", format!("{unmounted:?}")).set("output.require_marker", "true");
    world.run(&ALL, 2).says(&["holds no file `.satellite-output`: is the share mounted? (`touch "]);
    assert!(files_below(&unmounted).is_empty() && world.server.stats().total().requests == 0);

    std::fs::write(unmounted.join(".satellite-output"), "").unwrap();
    world.run(&ALL, 0);
    world.run(&["verify", &unmounted.display().to_string()], 0);
    world.run(&["verify", &nowhere.display().to_string()], 2).says(&["does not exist"]);
}

#[test]
fn a_read_only_place_stops_the_node() {
    let world = World::new();
    let output = Tmpfs::mount(world.output(), "ro");
    world.run(&ALL, 1).says(&[
        "Read-only file system",
        "make output.dir writable for the user that runs the node",
        &output.path().display().to_string(),
    ]);
    assert_eq!(world.server.stats().total().requests, 0);
    output.change("rw");
    world.run_all();
    world.verify();
}

#[test]
fn a_full_place_stops_the_node_and_the_next_run_completes() {
    let world = World::new();
    let output = Tmpfs::mount(world.output(), "size=8m");
    for _ in 0..2 {
        let since = Instant::now();
        let ended = world.run(&ALL, 1);
        ended.says(&["No space left on device", "free space or enlarge the quota, then start the node again"]);
        ended.says(&["node: writer: writing "]);
        assert!(since.elapsed() < Duration::from_secs(30), "a full disk is no reason to wait: {:?}", since.elapsed());
        let finished = world.manifests();
        assert!(finished < 17, "8 MiB hold no whole dataset");
        world.verify();
    }
    output.change("size=512m");
    world.run_all();
    world.verify();
    let undisturbed = World::new();
    undisturbed.run_all();
    assert_same(&pairs(output.path()), &undisturbed.dataset());
}

#[test]
fn two_runs_in_one_place_need_names_that_tell_them_apart() {
    let mut world = World::new();
    world.set("output.name_template", "\"{run}_task{task}_chip{chip}\"");
    world.run_all();
    let first = world.dataset();
    world.set("run.seed", "43");
    world.run_all();
    let both = world.dataset();
    assert!(first.iter().all(|(k, v)| both.get(k) == Some(v)) && both.len() > first.len());
    world.verify();
}
