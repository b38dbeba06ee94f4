//! A place of a test's own on a real S3 server, looked at without asking the dataset store.
//!
//! Contract: the server is the one that `S3_ENDPOINT` names, with the credentials in AWS_ACCESS_KEY_ID and
//! AWS_SECRET_ACCESS_KEY, as `eval "$(scripts/s3 start)"` sets them; a test without them fails and says so. Each
//! [`Bucket`] is another prefix of the bucket `satellite`. Trap: what a test wrote stays until `scripts/s3 clean`.
#![allow(dead_code, unreachable_pub)] // each test crate uses its part of it

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use satellite_pipeline::adapters::dataset::s3::{S3Place, S3Settings};
use tokio::runtime::{Builder, Runtime};

/// The server, or the end of the test.
pub fn endpoint() -> String {
    let remedy = "this test needs an S3 server: eval \"$(scripts/s3 start)\"";
    assert!(std::env::var_os("AWS_SECRET_ACCESS_KEY").is_some(), "{remedy}");
    std::env::var("S3_ENDPOINT").expect(remedy)
}

/// A prefix of its own.
pub struct Bucket {
    pub place: S3Place,
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
}

impl Bucket {
    pub fn new() -> Self {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let place = S3Place::parse(&format!("s3://satellite/tests/{}-{now}-{call}", std::process::id())).unwrap();
        let store = settings(place.clone()).connect().unwrap();
        Self { place, store, runtime: Builder::new_current_thread().enable_all().build().unwrap() }
    }

    /// How a store reaches it.
    pub fn settings(&self) -> S3Settings {
        settings(self.place.clone())
    }

    fn path(&self, inside: &str) -> Path {
        Path::parse(format!("{}/{inside}", self.place.prefix).trim_end_matches('/')).unwrap()
    }

    /// All objects below a directory-like key, by what follows it.
    pub fn files(&self, dir: &str) -> BTreeMap<String, Vec<u8>> {
        let dir = self.path(dir);
        self.runtime.block_on(async {
            let mut files = BTreeMap::new();
            let found: Vec<_> = self.store.list(Some(&dir)).try_collect().await.unwrap();
            for object in found {
                let inside = object.location.as_ref().strip_prefix(&format!("{dir}/")).unwrap().to_owned();
                match self.store.get(&object.location).await {
                    Ok(found) => files.insert(inside, found.bytes().await.unwrap().to_vec()),
                    // Removed since it was listed.
                    Err(object_store::Error::NotFound { .. }) => None,
                    Err(error) => panic!("{error}"),
                };
            }
            files
        })
    }

    pub fn put(&self, inside: &str, bytes: &[u8]) {
        let payload = PutPayload::from(bytes.to_vec());
        self.runtime.block_on(self.store.put(&self.path(inside), payload)).unwrap();
    }

    pub fn remove(&self, inside: &str) {
        self.runtime.block_on(self.store.delete(&self.path(inside))).unwrap();
    }
}

/// A door before the server that can be closed: a port that hands connections on, or takes none.
pub struct Gateway {
    port: u16,
    refuses: Arc<AtomicBool>,
}

impl Gateway {
    pub fn start() -> Self {
        let server = endpoint().trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, refuses) = (listener.local_addr().unwrap().port(), Arc::new(AtomicBool::new(false)));
        let closed = refuses.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, closed) = (client.unwrap(), closed.clone());
                if closed.load(Ordering::SeqCst) {
                    // Dropped: the client reads the end of the connection instead of an answer.
                    continue;
                }
                let server = TcpStream::connect(&server).unwrap();
                hand_on(client.try_clone().unwrap(), server.try_clone().unwrap(), closed.clone());
                hand_on(server, client, closed);
            }
        });
        Self { port, refuses }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Whether it cuts connections off, those that are open with the next byte.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }
}

fn hand_on(mut from: TcpStream, mut to: TcpStream, closed: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut piece = [0; 1 << 14];
        while let Ok(n) = from.read(&mut piece)
            && n > 0
            && !closed.load(Ordering::SeqCst)
            && to.write_all(&piece[..n]).is_ok()
        {}
        // Err: the other side was faster.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}

fn settings(place: S3Place) -> S3Settings {
    S3Settings { place, endpoint: Some(endpoint()), allow_http: true, require_marker: false, names_the_run: false }
}
