//! A run that stops by itself, on the embedded broker: classes with enough chips are sampled no more.
//!
//! Contract: what is made with the loop is a part of what is made without it, byte for byte; no class that could reach its
//! target misses it; tasks with nothing left to sample cost no request. Trap: which tasks come before the stop depends on
//! timing, so tests state bounds.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/node.rs"]
mod node;
#[path = "support/quota.rs"]
mod quota;

use node::World;
use quota::{Outcome, assert_part, loop_settings};
use satellite_pipeline::demo::server::Knobs;

/// A world in which classes fill early and tasks take long enough for the loop to be heard.
fn world() -> World {
    let mut world = World::new();
    loop_settings(&mut world);
    world.set("worker.tasks_in_flight", "1");
    world.server.configure(Knobs { latency_ms: 60, mbit: 0 });
    world
}

const ALL: [&str; 5] = ["--role", "all", "--exit-when-done", "--log", "json"];

#[test]
fn filled_classes_are_left_alone_and_a_second_run_asks_nothing() {
    let mut plain = world();
    plain.set("sampling.stop_when_filled", "false");
    let undisturbed = Outcome::of(&plain.run(&ALL, 0));
    assert!(!undisturbed.statuses.contains_key("skipped_quota"));

    let world = world();
    let stopped = Outcome::of(&world.run(&ALL, 0));
    eprintln!("without {undisturbed:?}, {} requests", plain.server.stats().total().requests);
    eprintln!("with    {stopped:?}, {} requests", world.server.stats().total().requests);
    assert_part(&world.dataset(), &plain.dataset());
    world.verify();
    stopped.assert_reached(&undisturbed);
    assert!(stopped.statuses["skipped_quota"] >= 1);
    assert!(world.server.stats().total().requests < plain.server.stats().total().requests);

    // The broker has forgotten everything; the dataset has not.
    let made = world.dataset();
    world.server.reset();
    let again = Outcome::of(&world.run(&ALL, 0));
    assert_eq!((again.chips, again.statuses), (stopped.chips, stopped.statuses));
    assert_eq!(world.server.stats().total().requests, 0);
    node::assert_same(&world.dataset(), &made);
}

#[test]
fn raised_targets_go_on_where_the_run_stopped() {
    let mut world = world();
    world.set("run.id", "\"raised\"");
    let stopped = Outcome::of(&world.run(&ALL, 0));
    assert!(stopped.statuses["skipped_quota"] >= 1);
    let before = world.dataset();
    world.set("sampling.conversion_rate", "1.0");
    let raised = Outcome::of(&world.run(&ALL, 0));
    eprintln!("before {stopped:?}\nraised {raised:?}");
    world.verify();
    assert_part(&before, &world.dataset());
    assert!(raised.chips.values().sum::<u64>() > stopped.chips.values().sum());
    assert!(!raised.statuses.contains_key("skipped_quota"), "now every parcel drawn is wanted");
}
