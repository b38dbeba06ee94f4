//! A bucket in memory whose requests are counted, and stopped, failed or left without an answer at a given one.
//!
//! Contract: the objects are `object_store`'s own [`InMemory`], shared by all who are given it; each [`Gated`] counts its
//! own requests from 0. Trap: of a request for several deletions, one that dies does the first.
#![allow(unreachable_pub, dead_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What becomes of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its process dies: neither this request nor any later one is made.
    DiesBefore,
    /// Its process dies when this request has been done, of which it never hears.
    DiesAfter,
    /// It is done, and the answer is lost; later ones are answered.
    LosesAnswer,
}

/// A place at which an attempt waits.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<(bool, bool)>, Condvar)>);

impl Gate {
    /// Waits until somebody stands at the gate, or `over`; says which.
    pub fn wait(&self, over: impl Fn() -> bool) -> bool {
        let (state, changed) = &*self.0;
        let mut held = state.lock().unwrap();
        while !held.0 && !over() {
            held = changed.wait_timeout(held, Duration::from_millis(1)).unwrap().0;
        }
        held.0
    }

    /// Opens it, for good.
    pub fn release(&self) {
        self.0.0.lock().unwrap().1 = true;
        self.0.1.notify_all();
    }

    fn stand(&self) {
        let (state, changed) = &*self.0;
        let mut held = state.lock().unwrap();
        held.0 = true;
        changed.notify_all();
        drop(changed.wait_while(held, |held| !held.1).unwrap());
    }
}

/// See the head of this file.
#[derive(Debug)]
pub struct Gated {
    bucket: Arc<InMemory>,
    made: AtomicUsize,
    at: usize,
    fault: Option<Fault>,
    gate: Option<Gate>,
    struck: Arc<AtomicBool>,
}

/// Whether to do a request, and what to answer instead.
enum Fate {
    Goes,
    DoneUnheard(Error),
    NotDone(Error),
}

impl Gated {
    fn new(bucket: Arc<InMemory>, at: usize, fault: Option<Fault>, gate: Option<Gate>) -> Self {
        Self { bucket, made: AtomicUsize::new(0), at, fault, gate, struck: Arc::default() }
    }

    /// Lets everything pass.
    pub fn open(bucket: Arc<InMemory>) -> Self {
        Self::new(bucket, 0, None, None)
    }

    /// Has this fault at this request.
    pub fn with_fault(bucket: Arc<InMemory>, at: usize, fault: Fault) -> Self {
        Self::new(bucket, at, Some(fault), None)
    }

    /// Stops before this request until the gate is released.
    pub fn stopping(bucket: Arc<InMemory>, at: usize) -> (Self, Gate) {
        let gate = Gate::default();
        (Self::new(bucket, at, None, Some(gate.clone())), gate)
    }

    /// Whether the fault has happened.
    pub fn has_struck(&self) -> Arc<AtomicBool> {
        self.struck.clone()
    }

    fn fate(&self) -> Fate {
        let request = self.made.fetch_add(1, SeqCst);
        if request == self.at
            && let Some(gate) = &self.gate
        {
            gate.stand();
        }
        let Some(fault) = self.fault.filter(|_| request >= self.at) else { return Fate::Goes };
        self.struck.store(true, SeqCst);
        let dead = || Error::Generic { store: "model", source: "the process is dead".into() };
        match fault {
            Fault::DiesBefore => Fate::NotDone(dead()),
            Fault::DiesAfter if request == self.at => Fate::DoneUnheard(dead()),
            Fault::DiesAfter => Fate::NotDone(dead()),
            Fault::LosesAnswer if request == self.at => {
                let reset = HttpError::new(HttpErrorKind::Interrupted, io::Error::from(io::ErrorKind::ConnectionReset));
                Fate::DoneUnheard(Error::Generic { store: "model", source: Box::new(reset) })
            }
            Fault::LosesAnswer => Fate::Goes,
        }
    }
}

impl fmt::Display for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "model")
    }
}

#[async_trait]
impl ObjectStore for Gated {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match self.fate() {
            Fate::Goes => self.bucket.put_opts(location, payload, options).await,
            Fate::NotDone(error) => Err(error),
            Fate::DoneUnheard(error) => {
                // Err: refused, of which nobody hears either.
                let _ = self.bucket.put_opts(location, payload, options).await;
                Err(error)
            }
        }
    }

    async fn put_multipart_opts(&self, location: &Path, o: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.bucket.put_multipart_opts(location, o).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.fate() {
            Fate::Goes => self.bucket.get_opts(location, options).await,
            Fate::NotDone(error) | Fate::DoneUnheard(error) => Err(error),
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let all = self.fault == Some(Fault::LosesAnswer);
        match self.fate() {
            Fate::Goes => self.bucket.delete_stream(locations),
            Fate::NotDone(error) => stream::once(async { Err(error) }).boxed(),
            Fate::DoneUnheard(error) => {
                let some = if all { locations } else { locations.take(1).boxed() };
                let done = self.bucket.delete_stream(some).collect::<Vec<_>>();
                stream::once(done.map(|_| Err(error))).boxed()
            }
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fate() {
            Fate::Goes => self.bucket.list(prefix),
            Fate::NotDone(error) | Fate::DoneUnheard(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        match self.fate() {
            Fate::Goes => self.bucket.list_with_delimiter(prefix).await,
            Fate::NotDone(error) | Fate::DoneUnheard(error) => Err(error),
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.bucket.copy_opts(from, to, options).await
    }
}

/// The objects whose keys begin so, by the rest of their keys.
pub fn contents(bucket: &InMemory, begin: &str) -> BTreeMap<String, Vec<u8>> {
    let read = async {
        let all: Vec<ObjectMeta> = bucket.list(None).try_collect().await.unwrap();
        let mut found = BTreeMap::new();
        for object in all {
            if let Some(rest) = object.location.as_ref().strip_prefix(begin) {
                let bytes = bucket.get(&object.location).await.unwrap().bytes().await.unwrap();
                found.insert(rest.to_owned(), bytes.to_vec());
            }
        }
        found
    };
    read.now_or_never().expect("memory does not wait")
}

/// Makes or replaces an object behind everybody's back.
pub fn put(bucket: &InMemory, key: &str, bytes: &[u8]) {
    let (path, payload) = (Path::parse(key).unwrap(), PutPayload::from(bytes.to_vec()));
    bucket.put(&path, payload).now_or_never().expect("memory does not wait").unwrap();
}

/// Removes an object behind everybody's back.
pub fn remove(bucket: &InMemory, key: &str) {
    bucket.delete(&Path::parse(key).unwrap()).now_or_never().expect("memory does not wait").unwrap();
}
