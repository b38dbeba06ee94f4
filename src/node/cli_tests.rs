//! What the command line takes, and what it refuses.

use super::*;

fn ok(line: &str) -> Invocation {
    Invocation::parse(line.split_whitespace()).unwrap()
}

fn code(line: &str) -> i32 {
    Invocation::parse(line.split_whitespace()).unwrap_err().exit_code()
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn roles_need_no_subcommand() {
    let all =
        ok("node --role worker --config a.toml --config b.toml --set grid.step=0.1 --worker-id 7 --exit-when-done");
    assert_eq!(all.files, [PathBuf::from("a.toml"), PathBuf::from("b.toml")]);
    assert_eq!(all.sets, ["grid.step=0.1", "worker.id=7"]);
    assert_eq!(ok("node --role monitor --ui tui").sets, ["monitor.ui=tui"]);
    assert_eq!(all.action, Action::Role { role: Role::Worker, exit_when_done: true });
    for role in ["master", "monitor", "all"] {
        ok(&format!("node --role {role}"));
    }
}

#[test]
fn common_options_add_up_over_both_places() {
    let plan = ok("node --config a --set grid.step=1 --log text plan --config b --set grid.step=2 --log json");
    assert_eq!(plan.files, [PathBuf::from("a"), PathBuf::from("b")]);
    assert_eq!(plan.sets, ["grid.step=1", "grid.step=2", "log.format=json"]);
    assert_eq!(plan.action, Action::Plan { json: false });
    assert_eq!(ok("node --log json group").sets, ["log.format=json"]);
}

#[test]
fn a_simulation_takes_numbers_that_make_sense() {
    let Action::Simulate(asked) = ok("node simulate --workers 1,8 --cells 10 --around -3.5,41 --log json").action
    else {
        panic!("not a simulation");
    };
    assert_eq!((asked.workers, asked.tasks, asked.around), (vec![1, 8], Some(10), [-3.5, 41.0]));
    for wrong in
        ["--workers 0", "--cloudy 2", "--latency -1", "--latency nan", "--chips-per-task 3", "--around 4", "--block 1"]
    {
        assert_eq!(code(&format!("node simulate {wrong}")), 2, "{wrong}");
    }
}

#[test]
fn subcommands_and_their_options() {
    let demo = Demo { out: "x".into(), size: DemoSize::Full, serve: true, kafka: Some("h:9092".into()) };
    assert_eq!(ok("node demo --out x --size full --serve --kafka h:9092").action, Action::Demo(demo));
    let demo = Demo { out: "demo-out".into(), size: DemoSize::Small, serve: false, kafka: None };
    assert_eq!(ok("node demo").action, Action::Demo(demo));
    for action in ["create", "list", "describe", "delete", "reset"] {
        assert!(matches!(ok(&format!("node topics {action}")).action, Action::Topics(Topics { yes: false, .. })));
    }
    assert!(matches!(ok("node topics reset --yes").action, Action::Topics(Topics { yes: true, .. })));
    assert_eq!(
        ok("node verify d --repair").action,
        Action::Verify(Verify { dir: "d".into(), repair: true, quick: false })
    );
    assert_eq!(ok("node config --explain").action, Action::Config { explain: true });
    assert_eq!(ok("node group").action, Action::Group);
    let report = Report { dir: "d".into(), out: "report.html".into(), run: Some("r".into()) };
    assert_eq!(ok("node report d --run r").action, Action::Report(report));
}

#[test]
fn dataset_actions_and_their_options() {
    let Action::Dataset(finish) = ok("node dataset finish d --set split.block_km=5").action else {
        panic!("not dataset")
    };
    assert_eq!((finish.action, finish.dir, finish.dead_letters), (DatasetAction::Finish, "d".into(), false));
    let Action::Dataset(export) = ok("node dataset export d --format webdataset --out o --shard-mb 64").action else {
        panic!("not dataset")
    };
    assert_eq!((export.out, export.shard_mb), (Some("o".into()), 64));
    for line in
        ["node dataset", "node dataset finish", "node dataset export d", "node dataset export d --out o --format zip"]
    {
        assert_eq!(code(line), 2, "{line}");
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    for line in [
        "node",
        "node --role",
        "node --role boss",
        "node --role all plan",
        "node --ui log plan",
        "node --role monitor --ui web",
        "node --worker-id 3",
        "node --worker-id 3 plan",
        "node --exit-when-done",
        "node --ui log plan",
        "node --role monitor --ui web",
        "node --log json",
        "node --log xml plan",
        "node --set seed=3 plan",
        "node --set run.seed plan",
        "node topics",
        "node topics burn",
        "node verify",
        "node demo --size huge",
        "node nonsense",
    ] {
        assert_eq!(code(line), 2, "{line}");
    }
    assert_eq!(code("node --help"), 0);
    assert_eq!(code("node --version"), 0);
}

#[test]
fn help_shows_examples() {
    let help = Invocation::parse(["node", "--help"]).unwrap_err().to_string();
    assert!(help.contains("node verify /data/output") && help.contains("Exit codes"), "{help}");
}
