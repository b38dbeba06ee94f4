//! The full screen on a real (pseudo-)terminal: what a node leaves behind when it ends, however it ends.
//!
//! Contract: Python's `pty` is the terminal, as nothing in the standard library is; what the node wrote to it is looked at
//! byte by byte. Between taking and giving back the screen no line of the log may stand in it. Afterwards `stty` says
//! whether the terminal is as it was. The panic needs the feature `failpoints` (`scripts/faults` runs it).
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/node.rs"]
mod node;

use std::process::Command;

use node::{Node, World};

const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";

/// Runs the words after it on a terminal of 80 x 24, and says then how the terminal is set.
const ON_A_TERMINAL: [&str; 3] = [
    "python3",
    "-c",
    "import pty,sys,os; run='stty rows 24 cols 80; \"$@\"; code=$?; stty -a; exit $code'; \
     s=pty.spawn(['sh','-c',run,'sh']+sys.argv[1:]); sys.exit(os.waitstatus_to_exitcode(s))",
];

fn start(world: &World, more: &[&str]) -> Node {
    let args = [&["--role", "all"], more].concat();
    world.start_under(&ON_A_TERMINAL, &args, &[("TERM", "xterm-256color"), ("LANG", "C.UTF-8")])
}

/// Sends a signal to the node below the terminal.
fn signal(world: &World, name: &str) {
    let config = world.at("node.toml").display().to_string();
    let found = Command::new("pgrep").args(["-f", &format!("^[^ ]*/node --role all.*{config}")]).output().unwrap();
    let pids = String::from_utf8(found.stdout).unwrap();
    let pid = pids.lines().next().expect("a node is running");
    assert!(Command::new("kill").args([&format!("-{name}"), pid]).status().unwrap().success());
}

/// What stood on the screen, and what came after it was given back.
fn parts(said: &str) -> (String, String) {
    let (_, rest) = said.split_once(ENTER).expect("the screen was taken");
    let (screen, after) = rest.rsplit_once(LEAVE).expect("the screen was given back");
    let (after, settings) = after.rsplit_once("speed ").expect("stty speaks last");
    for setting in ["icanon", "echo", "isig", "icrnl", "opost"] {
        assert!(settings.split_whitespace().any(|s| s == setting), "the terminal is not as it was: {settings}");
    }
    (screen.to_owned(), after.to_owned())
}

#[test]
fn a_run_to_its_end_leaves_its_summary() {
    let world = World::new();
    let ended = start(&world, &["--exit-when-done"]).ends(0);
    let (screen, after) = parts(&ended.out);
    assert!(screen.contains("overview") && screen.contains("chips"), "{screen}");
    assert!(!screen.contains("\u{1b}[2m20"), "a line of the log in colours: {screen}");
    assert!(!screen.contains("\r\n20"), "a line of the log tears the screen: {screen}");
    assert!(after.contains("is complete") && after.contains("INFO"), "the summary, and what was logged: {after}");
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let world = World::new();
    let mut node = start(&world, &[]);
    node.until("the screen shows a result", |n| n.printed().contains("done"));
    signal(&world, "TERM");
    let ended = node.ends(0);
    let (_, after) = parts(&ended.out);
    assert!(after.contains("finishing what is in flight"), "{after}");
}

#[test]
fn a_second_signal_gives_the_terminal_back_at_once() {
    let world = World::new();
    world.server.configure(satellite_pipeline::demo::server::Knobs { latency_ms: 30_000, mbit: 0 });
    let mut node = start(&world, &[]);
    node.until("something is in flight", |_| world.server.stats().total().requests > 0);
    signal(&world, "TERM");
    node.until("it knows", |n| n.printed().contains("finishing what is in flight"));
    let since = std::time::Instant::now();
    signal(&world, "INT");
    let ended = node.ends(1);
    assert!(since.elapsed() < std::time::Duration::from_secs(5), "{:?}", since.elapsed());
    let (_, after) = parts(&ended.out);
    assert!(after.contains("second signal (SIGINT): stopping now"), "and what was logged: {after}");
}

#[cfg(feature = "failpoints")]
#[test]
fn a_panic_gives_the_terminal_back_and_is_seen() {
    let world = World::new();
    let args = ["--role", "all", "--exit-when-done"];
    let env = [("TERM", "xterm-256color"), ("LANG", "C.UTF-8"), ("FAILPOINTS", "rasteriser.before=3*off->1*panic")];
    let ended = world.start_under(&ON_A_TERMINAL, &args, &env).ends(1);
    let (screen, after) = parts(&ended.out);
    assert!(screen.contains("overview"), "the screen was there before: {screen}");
    assert!(after.contains("panicked at") && after.contains("rasteriser.before"), "{after}");
    assert!(after.contains("was lost inside the node"), "and the node says what it means: {after}");
}

#[test]
fn no_full_screen_where_there_is_no_terminal() {
    let world = World::new();
    let ended = world.run(&["--role", "all", "--ui", "tui", "--exit-when-done"], 0);
    assert!(!ended.out.contains('\u{1b}') && ended.out.contains("is complete"), "{}", ended.out);
}
