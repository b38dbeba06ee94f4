//! Whole nodes as processes, on a tiny region that a server in the test process serves.
//!
//! Contract: a [`World`] is one directory, one server of scenes and one configuration; nothing of it is shared with other
//! tests but the region's files, which are generated once (below `target/tmp`) and never written to. What a node says goes
//! to files; a node that ends otherwise than expected, or not at all, fails the test with the tail of its log. A node still
//! running when its handle is dropped is killed. Units: seconds. Trap: nodes get none of this process's `NODE__*`
//! variables, so a developer's own settings cannot change a test.
#![allow(dead_code, unreachable_pub)] // each test crate uses its part of it

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use satellite_pipeline::demo::server::DemoServer;
use satellite_pipeline::demo::{DemoInputs, Size, prepare};
use satellite_pipeline::domain::checksum::{Algorithm, Checksum};
use tempfile::TempDir;

/// Longest a node may take, in a dev build on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The tiny region, made by whichever test process comes first.
pub fn region() -> &'static DemoInputs {
    static MADE: OnceLock<DemoInputs> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node-region");
        fs::create_dir_all(&dir).unwrap();
        let turn = File::create(dir.join("lock")).unwrap();
        turn.lock().unwrap();
        prepare(&dir, Size::Tiny, 42).unwrap()
    })
}

/// A copy of the region's scenes whose files may be replaced: directories are new, files are links.
pub fn scenes_to_spoil(to: &Path) {
    fn link(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let (there, here) = (entry.path(), to.join(entry.file_name()));
            if entry.file_type().unwrap().is_dir() { link(&there, &here) } else { fs::hard_link(there, here).unwrap() }
        }
    }
    link(&region().scenes_root, to);
}

/// Every file below a directory.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|e| e.unwrap().path());
    let mut all: Vec<PathBuf> = paths.flat_map(|p| if p.is_dir() { files_below(&p) } else { vec![p] }).collect();
    all.sort();
    all
}

/// Replaces a file without touching what other names of it hold.
pub fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// One test's surroundings.
pub struct World {
    dir: TempDir,
    pub server: DemoServer,
    pub runtime: tokio::runtime::Runtime,
    settings: BTreeMap<String, String>,
    started: AtomicU32,
}

impl World {
    /// The tiny region as it is.
    pub fn new() -> Self {
        Self::serving(&region().scenes_root)
    }

    /// The tiny region's parcels, and the scenes below `root`.
    pub fn serving(root: &Path) -> Self {
        Self::serving_at(root, [127, 0, 0, 1].into())
    }

    /// The same from another address of this machine.
    pub fn serving_at(root: &Path, address: std::net::IpAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let server = runtime.block_on(DemoServer::start(root, (address, 0).into())).unwrap();
        let dir = TempDir::with_prefix("node-").unwrap();
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        let output = dir.path().join("output");
        let settings = [
            ("parcels.path", quoted(&region().gpkg)),
            ("stac.url", format!("{:?}", server.url())),
            ("stac.retries", "1".into()),
            ("imagery.retries", "1".into()),
            ("output.dir", quoted(&output)),
            ("output.name_template", "\"task{task}_class{class}_chip{chip}\"".into()),
            // 24 cells and about 70 chips.
            ("grid.step", "0.01".into()),
            ("grid.min_parcels", "2".into()),
            (
                "sampling.probabilities",
                "{ 1 = 0.4, 2 = 0.4, 3 = 0.4, 4 = 0.4, 5 = 0.2, 6 = 0.4, 7 = 1.0, 8 = 0.4 }".into(),
            ),
            ("worker.cache_mb", "64".into()),
            ("worker.cores", "2".into()),
            ("monitor.listen", "\"\"".into()),
            ("monitor.interval_s", "1".into()),
            ("metrics.listen", "\"\"".into()),
        ];
        let settings = settings.map(|(key, value)| (key.to_owned(), value)).into();
        Self { dir, server, runtime, settings, started: AtomicU32::new(0) }
    }

    /// Changes a setting, `value` as in TOML.
    pub fn set(&mut self, key: &str, value: impl Into<String>) -> &mut Self {
        self.settings.insert(key.into(), value.into());
        self
    }

    /// A path in this test's directory.
    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The dataset's directory, unless a test sets another one.
    pub fn output(&self) -> PathBuf {
        self.at("output")
    }

    /// Starts a node with this world's settings, then `args`.
    pub fn start(&self, args: &[&str]) -> Node {
        self.start_with(args, &[])
    }

    /// The same, with environment variables.
    pub fn start_with(&self, args: &[&str], env: &[(&str, &str)]) -> Node {
        self.start_under(&[], args, env)
    }

    /// The same by way of another program, which must become the node: `ip netns exec NAME`, `nice`, …
    pub fn start_under(&self, program: &[&str], args: &[&str], env: &[(&str, &str)]) -> Node {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let (out, err) = (self.at(&format!("node{number}.out")), self.at(&format!("node{number}.err")));
        let file = self.at("node.toml");
        let text: String = self.settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        // Nodes that were started a moment ago may be reading it: they find the old one or the new one, whole.
        let next = self.at(&format!("node{number}.toml"));
        fs::write(&next, text).unwrap();
        fs::rename(&next, &file).unwrap();
        let words: Vec<&str> = program.iter().copied().chain([env!("CARGO_BIN_EXE_node")]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        std::env::vars().filter(|(k, _)| k.starts_with("NODE__") || k == "RUST_LOG" || k == "NO_COLOR").for_each(
            |(k, _)| {
                command.env_remove(k);
            },
        );
        command.args(args);
        if !args.contains(&"verify") {
            command.arg("--config").arg(file);
        }
        command.envs(env.iter().copied()).stdin(Stdio::null()).current_dir(self.dir.path());
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let child = command.spawn().unwrap();
        Node { child, what: args.join(" "), out, err }
    }

    /// Runs a node to its end, which must be this exit code.
    pub fn run(&self, args: &[&str], code: i32) -> Ended {
        self.start(args).ends(code)
    }

    /// `--role all --exit-when-done`, to a good end.
    pub fn run_all(&self) -> Ended {
        self.run(&["--role", "all", "--exit-when-done"], 0)
    }

    /// `node verify` finds nothing wrong with the dataset.
    pub fn verify(&self) -> String {
        let said = self.run(&["verify", &self.output().display().to_string()], 0).out;
        assert!(said.contains("nothing wrong"), "{said}");
        said
    }

    /// The dataset: path below the output directory and hash of every image and mask.
    pub fn dataset(&self) -> Pairs {
        pairs(&self.output())
    }

    /// Everything that its nodes have said so far, on both outputs.
    pub fn said(&self) -> String {
        let spoken = |p: &PathBuf| p.extension().is_some_and(|e| e == "out" || e == "err");
        let files = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().path()).filter(spoken);
        files.map(|f| String::from_utf8_lossy(&fs::read(f).unwrap()).into_owned()).collect()
    }

    /// Finished tasks.
    pub fn manifests(&self) -> usize {
        files_below(&self.output().join(".manifests")).len()
    }
}

/// Hash of each image and mask by its path.
pub type Pairs = BTreeMap<String, Checksum>;

/// The images and masks below a dataset's directory.
pub fn pairs(output: &Path) -> Pairs {
    let files = ["images", "masks"].into_iter().flat_map(|d| files_below(&output.join(d)));
    let name = |p: &Path| p.strip_prefix(output).unwrap().display().to_string();
    files.map(|p| (name(&p), Checksum::of(Algorithm::Sha256, &fs::read(&p).unwrap()))).collect()
}

/// Two datasets are the same, file by file and byte by byte.
#[track_caller]
pub fn assert_same(left: &Pairs, right: &Pairs) {
    let missing = |a: &Pairs, b: &Pairs| a.keys().filter(|k| !b.contains_key(*k)).cloned().collect::<Vec<_>>();
    let differ: Vec<_> = left.iter().filter(|(k, v)| right.get(*k).is_some_and(|r| r != *v)).map(|(k, _)| k).collect();
    let (only_left, only_right) = (missing(left, right), missing(right, left));
    assert!(
        only_left.is_empty() && only_right.is_empty() && differ.is_empty(),
        "only left {only_left:?}, only right {only_right:?}, different {differ:?}"
    );
    assert!(!left.is_empty(), "both datasets are empty");
}

/// A node under way.
pub struct Node {
    child: Child,
    what: String,
    out: PathBuf,
    err: PathBuf,
}

/// A node that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Node {
    /// What it has said on standard error so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.err).unwrap()
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.out).unwrap()
    }

    /// Sends `TERM`, `INT`, `STOP`, …
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Kills it, as the system does when it runs out of memory or power.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until `holds`, while the node runs.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let since = Instant::now();
        while !holds(self) {
            assert!(self.is_running(), "`node {}` ended before {what}\n{}", self.what, self.tail());
            assert!(since.elapsed() < PATIENCE, "`node {}`: waited in vain until {what}\n{}", self.what, self.tail());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for its end, which must be this exit code.
    #[track_caller]
    pub fn ends(self, code: i32) -> Ended {
        let (what, tail) = (self.what.clone(), self.err.clone());
        let ended = self.end();
        let tail = || last_lines(&fs::read_to_string(&tail).unwrap());
        assert_eq!(ended.code, Some(code), "exit code of `node {what}`\n{}\n{}", tail(), last_lines(&ended.out));
        ended
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let since = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(since.elapsed() < PATIENCE, "`node {}` does not end\n{}", self.what, self.tail());
            std::thread::sleep(Duration::from_millis(10));
        };
        Ended { code: status.code(), out: self.printed(), err: self.log() }
    }

    fn tail(&self) -> String {
        last_lines(&self.log())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Err: it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Its log holds all these texts.
    #[track_caller]
    pub fn says(&self, texts: &[&str]) -> &Self {
        for text in texts {
            assert!(self.err.contains(text), "`{text}` is not in the log:\n{}", last_lines(&self.err));
        }
        self
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
