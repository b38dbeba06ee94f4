//! The configuration as its users meet it: layers, origins, messages, and printing that loads again.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use satellite_pipeline::domain::classes::ClassId;
use satellite_pipeline::node::config::{Compression, Config, Need, Resampling, SPAIN_TOML, SamplingMode, Ui};

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn sets(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn set(list: &[&str]) -> Result<Config, String> {
    Config::load(&[], [], &sets(list)).map_err(|e| e.to_string())
}

fn toml(text: &str) -> Result<Config, String> {
    Config::from_toml("my.toml", text).map_err(|e| e.to_string())
}

fn wrong(text: &str) -> String {
    toml(text).expect_err("must be refused")
}

fn printed(config: &Config) -> String {
    let mut out = Vec::new();
    config.print(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn explained(config: &Config) -> String {
    let mut out = Vec::new();
    config.explain(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn class(n: u8) -> ClassId {
    ClassId::try_from(n).unwrap()
}

#[test]
fn defaults_are_complete_and_possible() {
    let config = toml("").unwrap();
    assert!(config.kafka.is_embedded());
    assert_eq!((config.run.seed, config.run.id()), (42, None));
    assert_eq!((config.kafka.partitions, config.kafka.replication, config.focus()), (15, -1, Some(1)));
    assert_eq!(config.kafka.connect_timeout, Duration::from_secs(120));
    assert_eq!((config.grid.step, config.grid.min_parcels), (0.05, 3));
    assert_eq!(config.sampling.mode, SamplingMode::Balanced);
    assert_eq!((config.sampling.conversion_rate, config.sampling.max_target), (0.35, 15_000));
    assert_eq!(config.chips.bands, ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12"]);
    assert_eq!((config.chips.size, config.chips.resolution, config.chips.resampling), (256, 10, Resampling::Nearest));
    assert_eq!(config.output.compression, Compression::Zstd);
    assert_eq!(config.output.name_template, "worker{worker}_task{task}_class{class}_chip{chip}");
    assert_eq!((config.monitor.listen().unwrap().port(), config.monitor.ui), (8787, Ui::Auto));
    assert_eq!(config.stac.season(), None);
    assert_eq!(config.stac.seasons["winter"], ["2023-01-01", "2023-03-20"]);
    assert_eq!(config.parcels.classes(), None);
    assert_eq!((config.chips.max_bad_fraction, &config.chips.bad_scl[..]), (0.05, &[0, 1, 3, 8, 9, 10, 11][..]));
    assert_eq!((config.labels.unlabelled, config.stac.by_class[&class(5)].as_str()), (0, "spring"));
}

#[test]
fn the_files_in_the_repository_load() {
    let spain = Config::load(&[PathBuf::from("config/spain.toml")], [], &[]).unwrap();
    assert_eq!(spain, Config::from_toml("spain", SPAIN_TOML).unwrap());
    let probabilities: Vec<f64> = (1..=8).map(|c| spain.sampling.probabilities[&class(c)]).collect();
    assert_eq!(probabilities, [0.20, 0.80, 1.00, 0.20, 0.15, 1.00, 1.00, 0.40]);
    assert_eq!(spain.output.dir, Path::new("/mnt/mimmo/output"));
    assert!(spain.parcels.path.ends_with("es_2023_all.gpkg"));
    assert!(!spain.kafka.is_embedded());
    spain.require(&[Need::Parcels, Need::Broker]).unwrap();
    assert!(Config::load(&[PathBuf::from("config/demo.toml")], [], &[]).unwrap().kafka.is_embedded());
    assert_eq!(Config::load(&[PathBuf::from("config/default.toml")], [], &[]).unwrap(), toml("").unwrap());
}

#[test]
fn later_layers_win_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.toml"), dir.path().join("b.toml"));
    std::fs::write(&a, "[grid]\nstep = 0.1\nmin_parcels = 4\n[run]\nseed = 1\n[stac]\nretries = 1\n").unwrap();
    std::fs::write(&b, "[grid]\nmin_parcels = 5\n[run]\nseed = 2\n").unwrap();
    let vars = env(&[("NODE__RUN__SEED", "3"), ("NODE__WORKER__ID", "7"), ("PATH", "/bin")]);
    let config = Config::load(&[a.clone(), b.clone()], vars, &sets(&["run.seed=4"])).unwrap();
    assert_eq!((config.grid.step, config.grid.min_parcels, config.run.seed), (0.1, 5, 4));
    assert_eq!(config.worker.id("host", 1), "7");
    assert_eq!(config.origin("grid.step"), format!("{}:2", a.display()));
    assert_eq!(config.origin("grid.min_parcels"), format!("{}:2", b.display()));
    assert_eq!(config.origin("stac.retries"), format!("{}:7", a.display()));
    assert_eq!(config.origin("worker.id"), "environment variable NODE__WORKER__ID");
    assert_eq!(config.origin("run.seed"), "--set run.seed");
    assert_eq!(config.origin("stac.url"), "built-in default");
    let text = explained(&config);
    assert!(text.lines().any(|l| l.starts_with("seed = 4 ") && l.ends_with("# --set run.seed")), "{text}");
    assert!(text.lines().any(|l| l.starts_with("max_cloud = 20.0 ") && l.ends_with("# built-in default")), "{text}");
}

#[test]
fn text_from_outside_becomes_what_the_key_wants() {
    let config = set(&[
        "grid.step=1",
        "run.id=2023",
        "worker.id=\"3\"",
        "parcels.layer=true",
        "stac.collections=[\"a\",\"b\"]",
        "chips.bands=B04, B03",
        "stac.seasons.leaves=[\"2023-05-01\", \"2023-09-30\"]",
        "stac.season=leaves",
        "sampling.probabilities.7=0.5",
        "kafka.properties.security.protocol=SSL",
        "kafka.properties.\"socket.timeout.ms\"=5000",
        "monitor.listen=",
        "imagery.read_timeout_s=0.25",
        "output.dir=/data/a = b",
    ])
    .unwrap();
    assert_eq!((config.grid.step, config.run.id(), config.worker.id.as_str()), (1.0, Some("2023"), "3"));
    assert_eq!(config.parcels.layer(), Some("true"));
    assert_eq!(config.stac.collections, ["a", "b"]);
    assert_eq!(config.chips.bands, ["B04", "B03"]);
    assert_eq!((config.stac.season(), config.stac.seasons.len()), (Some("leaves"), 5));
    assert_eq!((config.sampling.probabilities[&class(7)], config.sampling.probabilities.len()), (0.5, 8));
    let properties = config.kafka.properties.as_map();
    assert_eq!((properties["security.protocol"].as_str(), properties["socket.timeout.ms"].as_str()), ("SSL", "5000"));
    assert_eq!(config.monitor.listen(), None);
    assert_eq!(config.imagery.read_timeout, Duration::from_millis(250));
    assert_eq!(config.output.dir, Path::new("/data/a = b"));

    let vars = env(&[
        ("NODE__KAFKA__BOOTSTRAP_SERVERS", "a:9092,[::1]:9093"),
        ("NODE__KAFKA__PROPERTIES__SASL_USERNAME", "me"),
        ("NODE__SAMPLING__PROBABILITIES__7", "0.25"),
        ("NODE__SAMPLING__MODE", "basic"),
        ("NODE__IMAGERY__ALLOW_PRIVATE_HOSTS", "true"),
        ("NODE__STAC__SEASONS__WINTER", "[\"2024-01-01\", \"2024-02-01\"]"),
    ]);
    let config = Config::load(&[], vars, &[]).unwrap();
    assert_eq!(config.kafka.bootstrap_servers, "a:9092,[::1]:9093");
    assert_eq!(config.kafka.properties.as_map()["sasl.username"], "me");
    assert_eq!(config.sampling.probabilities[&class(7)], 0.25);
    assert!(config.imagery.allow_private_hosts);
    assert_eq!(config.stac.seasons["winter"][0], "2024-01-01");
}

#[test]
fn whole_tables_replace_and_properties_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.toml"), dir.path().join("b.toml"));
    std::fs::write(&a, "[sampling.probabilities]\n1 = 0.5\n2 = 0.5\n[kafka.properties]\n\"a.b\" = 1\n").unwrap();
    std::fs::write(&b, "sampling.probabilities = { 3 = 1 }\nkafka.properties.\"c.d\" = false\nstac.seasons = { year = [2023-01-01, 2023-12-31] }\n")
        .unwrap();
    let config = Config::load(&[a, b], [], &sets(&["sampling.probabilities.8=0.1"])).unwrap();
    let classes: Vec<u8> = config.sampling.probabilities.keys().map(|c| c.get()).collect();
    assert_eq!(classes, [3, 8]);
    assert_eq!(config.stac.seasons.keys().collect::<Vec<_>>(), ["year"]);
    let properties = config.kafka.properties.as_map();
    assert_eq!((properties["a.b"].as_str(), properties["c.d"].as_str()), ("1", "false"));
}

#[test]
fn a_mistake_names_key_origin_and_what_is_allowed() {
    assert_eq!(wrong("[grid]\n\nstp = 0.1\n"), "grid.stp (my.toml:3): there is no such key; did you mean grid.step?");
    assert_eq!(
        wrong("[grid]\nstep = \"0.1\"\n"),
        "grid.step = \"0.1\" (my.toml:2): is text; allowed: degrees, 0.001 to 5"
    );
    assert_eq!(wrong("grid.step = 0\n"), "grid.step = 0 (my.toml:1): is not allowed; allowed: degrees, 0.001 to 5");
    assert_eq!(
        wrong("[sampling]\nseed = 3\n"),
        "sampling.seed (my.toml:2): there is no such key; did you mean run.seed?"
    );
    assert_eq!(wrong("seed = 3\n"), "seed (my.toml:1): there is no such key; did you mean run.seed?");
    assert_eq!(
        wrong("[zzz]\nqqqq = 3\n"),
        "zzz.qqqq (my.toml:2): there is no such key; `node config` prints the keys there are"
    );
    assert_eq!(wrong("grid = 3\n"), "grid = 3 (my.toml:1): is a section; allowed: [grid] with keys, or grid.key");
    assert_eq!(
        set(&["sampling.mode=balance"]).unwrap_err(),
        "sampling.mode = \"balance\" (--set sampling.mode): is not allowed; allowed: \"balanced\", \"auto\" or \"basic\""
    );
    assert_eq!(
        Config::load(&[], env(&[("NODE__KAFKA__PARTITONS", "3")]), &[]).unwrap_err().to_string(),
        "kafka.partitons (environment variable NODE__KAFKA__PARTITONS): there is no such key; did you mean kafka.partitions?"
    );
    assert_eq!(
        set(&["worker.cores=many"]).unwrap_err(),
        "worker.cores = \"many\" (--set worker.cores): is text; allowed: 0 (all), or a whole number from 1 to 1024"
    );
    assert!(set(&["grid.step"]).unwrap_err().contains("wants section.key=value"));
    let missing = Config::load(&[PathBuf::from("/no/such.toml")], [], &[]).unwrap_err().to_string();
    assert!(
        missing.starts_with("configuration file /no/such.toml: ") && missing.contains("--config wants"),
        "{missing}"
    );
    let broken = wrong("[grid]\nstep = = 3\n");
    assert!(broken.starts_with("my.toml:2: not valid TOML: "), "{broken}");
}

#[test]
fn all_mistakes_come_at_once() {
    let text = wrong("[grid]\nstep = -1\nstop = 2\n[stac]\nurl = \"ftp://x\"\nmax_cloud = 101\n");
    assert_eq!(text.lines().count(), 4, "{text}");
    let text = wrong("[kafka]\ndlq_topic = \"satellite-tasks\"\n[stac]\nseason = \"monsoon\"\n");
    assert_eq!(
        text,
        "kafka.dlq_topic (my.toml:2): is the same topic as kafka.tasks_topic; each needs its own\n\
         stac.season (my.toml:4): there is no season `monsoon`; allowed: random, all, by_class, autumn, spring, summer, winter"
    );
    let echo = set(&["sampling.probabilities={\"1\"=2}"]).unwrap_err();
    assert_eq!(echo.lines().count(), 1, "{echo}");
}

#[test]
fn impossible_values_are_refused() {
    for text in [
        "run.seed = -1",
        "run.seed = 9223372036854775808",
        "run.seed = 1.5",
        "run.id = \"../x\"",
        "worker.id = \"a/b\"",
        "kafka.bootstrap_servers = \"\"",
        "kafka.bootstrap_servers = \"host\"",
        "kafka.bootstrap_servers = \"a:1,,b:2\"",
        "kafka.bootstrap_servers = \"a:99999\"",
        "kafka.tasks_topic = \"a b\"",
        "kafka.partitions = 0",
        "kafka.replication = 0",
        "kafka.connect_timeout_s = 0",
        "kafka.properties.x = [1]",
        "kafka.properties.security.protocol = \"SSL\"",
        "parcels.assume_immutable = 1",
        "parcels.code_column = \"\"\nparcels.name_column = \"\"",
        "grid.step = nan",
        "grid.step = inf",
        "sampling.conversion_rate = 0",
        "sampling.probabilities.0 = 0.5",
        "sampling.probabilities.255 = 0.5",
        "sampling.probabilities.1 = 1.5",
        "sampling.probabilities.olives = 0.5",
        "sampling.probabilities = {}",
        "stac.url = \"earth-search\"",
        "stac.collections = []",
        "stac.collections = [1]",
        "stac.season = \"monsoon\"",
        "stac.seasons = {}",
        "stac.seasons.x = [\"2023-02-30\", \"2023-03-01\"]",
        "stac.seasons.x = [\"2023-03-02\", \"2023-03-01\"]",
        "stac.seasons.x = [\"2023-03-02\"]",
        "stac.seasons.random = [\"2023-03-01\", \"2023-03-02\"]",
        "stac.seasons.all = [\"2023-03-01\", \"2023-03-02\"]",
        "stac.season = \"by_class\"\nstac.by_class = { 5 = \"monsoon\" }",
        "stac.by_class.300 = \"summer\"",
        "stac.widen = \"everything\"",
        "stac.max_scenes = 0",
        "chips.bad_scl = [0, 12]",
        "chips.bad_scl = [8, 8]",
        "chips.bad_scl = [\"clouds\"]",
        "chips.max_bad_fraction = 1.5",
        "chips.harmonise = true",
        "labels.invalid = \"ignore\"",
        "labels.unlabelled = 254",
        "labels.erode_m = -1",
        "sampling.quota.5 = 0.5",
        "sampling.min_distance_m = 100000",
        "chips.size = 250",
        "chips.resolution = 15",
        "chips.resolution = 20",
        "chips.bands = [\"B05\", \"B12\"]",
        "chips.bands = [\"B02\", \"B02\"]",
        "chips.bands = [\"B99\"]",
        "chips.max_nodata_fraction = 1.1",
        "output.dir = \"\"",
        "output.dir = \"s3://\"",
        "output.dir = \"s3://No_Bucket/x\"",
        "output.dir = \"s3://bucket/../x\"",
        "output.s3_endpoint = \"minio:9000\"",
        "output.s3_endpoint = \"https://user:secret@minio:9000\"",
        "output.dir = \"s3://bucket/x\"\noutput.s3_endpoint = \"http://minio:9000\"",
        "output.name_template = \"chip{chip}\"",
        "output.name_template = \"../task{task}_{chip}\"",
        "output.name_template = \"task{task}_{chip}_{colour}\"",
        "output.name_template = \"task{task}_{chip\"",
        "output.compression = \"lzma\"",
        "output.compression = \"deflate\"\noutput.compression_level = 13",
        "worker.tasks_in_flight = 0",
        "worker.cache_mb = 1",
        "monitor.listen = \"8787\"",
        "log.filter = \"info,=,=\"",
    ] {
        assert!(toml(text).is_err(), "accepted: {text}");
    }
    for text in [
        "chips.bands = [\"B05\", \"B12\"]\nchips.resolution = 20",
        "output.dir = \"s3://bucket/es/2023\"\noutput.s3_endpoint = \"https://minio:9000\"",
        "output.dir = \"s3://bucket\"\noutput.s3_endpoint = \"http://[::1]:9000\"\noutput.s3_allow_http = true",
        "output.s3_endpoint = \"http://minio:9000\"",
        "output.name_template = \"class{class}_parcel{parcel}\"",
        "output.name_template = \"task{task}_class{class}_chip{chip}\"",
        "sampling.mode = \"basic\"\nsampling.probabilities = {}",
        "stac.by_class = { 5 = \"monsoon\" }",
        "stac.season = \"by_class\"\nstac.by_class = { 5 = \"spring\" }",
        "stac.season = \"all\"\noutput.name_template = \"{season}_{parcel}\"",
        "chips.bad_scl = []",
        "sampling.mode = \"auto\"\nsampling.quota = { 7 = 100 }",
        "kafka.bootstrap_servers = \"SASL_SSL://a.b:9093, c:1\"",
        "stac.relative_href_base = \"file:///data/\"",
    ] {
        toml(text).unwrap_or_else(|e| panic!("refused: {text}: {e}"));
    }
}

#[test]
fn needs_of_a_role_are_explained() {
    let text = toml("").unwrap().require(&[Need::Parcels, Need::Broker]).unwrap_err().to_string();
    assert_eq!(text.lines().count(), 2);
    assert!(text.contains("parcels.path (built-in default): no parcels are configured"), "{text}");
    assert!(text.contains("use --role all, or give a broker's host:port"), "{text}");
}

#[test]
fn secrets_are_never_shown() {
    let list = [
        "kafka.properties.sasl.password=hunter2",
        "kafka.properties.ssl.key.pem=hunter2",
        "kafka.properties.sasl.username=visible",
        "stac.url=https://me:hunter2@example.org/v1",
    ];
    let config = set(&list).unwrap();
    assert_eq!(config.stac.url.as_str(), "https://me:hunter2@example.org/v1");
    let everything = format!(
        "{}{}{config:?}{:?}{:?}{}",
        printed(&config),
        explained(&config),
        config.kafka,
        config.stac,
        config.stac.url
    );
    assert!(!everything.contains("hunter2") && everything.contains("visible"), "{everything}");
    assert!(
        everything
            .contains("# properties.\"sasl.password\" is set (--set kafka.properties.sasl.password) and not printed")
    );
    for bad in [
        "stac.url=https://me:hunter2@/",
        "stac.url=ftp://me:hunter2@host/x",
        "stac.url=http://me:p/hunter2@host:port",
        "kafka.properties.sasl.password=[\"hunter2\"]",
        "kafka.bootstrap_servers=x://me:hunter2@h",
    ] {
        match set(&[bad]) {
            Err(text) => assert!(!text.contains("hunter2"), "{text}"),
            Ok(config) => assert!(!printed(&config).contains("hunter2"), "{bad}"),
        }
    }
    assert!(!wrong("[kafka.properties]\n\"sasl.password\" = hunter2\n").contains("hunter2"));
}

#[test]
fn a_derived_worker_name_is_a_safe_file_name() {
    let worker = toml("").unwrap().worker;
    assert_eq!(worker.id("build-7.example.org\n", 12), "build-7-example-org-12");
    assert_eq!(worker.id("", 12), "node-12");
    assert_eq!(worker.id("../..", 1), "------1");
}

fn texts() -> impl Strategy<Value = String> {
    "[ -~\u{e9}\u{4e2d}]{0,20}".prop_map(|s| s.replace("://", "__"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is printed loads again to the same configuration, origins in comments or not.
    #[test]
    fn print_loads_again(
        seed in 0..=i64::MAX, step in 0.001..5.0f64, layer in texts(), path in texts(), cores in 0..=1024u32,
        timeout in 0.1..86_400.0f64, p in prop::collection::btree_map(1..=254u8, 0.0..=1.0f64, 1..5),
        property in "[a-z.]{1,20}", value in "[ -~\n\t\"']{0,30}", season in "[a-z]{1,8}_", basic in any::<bool>(),
    ) {
        prop_assume!(!["password", "secret", "key.pem", "token", "jaas"].iter().any(|s| property.contains(s)));
        prop_assume!(!value.contains("://"));
        let mut text = toml::Table::new();
        let mut put = |section: &str, key: &str, value: toml::Value| {
            let table = text.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            table.as_table_mut().unwrap().insert(key.into(), value);
        };
        put("run", "seed", seed.into());
        put("grid", "step", step.into());
        put("parcels", "layer", layer.into());
        put("parcels", "path", path.into());
        put("worker", "cores", i64::from(cores).into());
        put("stac", "timeout_s", timeout.into());
        put("sampling", "mode", if basic { "basic" } else { "balanced" }.into());
        let table: toml::Table = p.iter().map(|(c, p)| (c.to_string(), toml::Value::from(*p))).collect();
        put("sampling", "probabilities", table.into());
        put("kafka", "properties", toml::Table::from_iter([(property, toml::Value::from(value))]).into());
        let days = toml::Value::Array(vec!["2023-01-01".into(), "2023-02-01".into()]);
        put("stac", "seasons", toml::Table::from_iter([(season.clone(), days)]).into());
        put("stac", "season", season.into());
        let config = toml_config(&text.to_string());
        prop_assert_eq!(&toml_config(&printed(&config)), &config);
        prop_assert_eq!(&toml_config(&explained(&config)), &config);
        prop_assert_eq!(printed(&toml_config(&printed(&config))), printed(&config));
    }

    /// Nothing that is written in a file makes the program panic.
    #[test]
    fn any_text_is_answered(text in "[\\[\\]a-z.=\"' \n0-9{},-]{0,80}") {
        let _ = toml(&text);
        let _ = set(&[&text]);
    }
}

fn toml_config(text: &str) -> Config {
    toml(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}
