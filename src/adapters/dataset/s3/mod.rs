//! The dataset in a bucket of an S3-compatible store.
//!
//! Contract: the same names and the same promises as on a file system ([`super::disk`]); `objects` holds the protocol.
//! The store must know conditional writes (`If-None-Match: *`), which is tried before anything is done, and be
//! consistent: what was written is listed. Credentials come from the variables AWS_* or from the machine's role, and are
//! never printed. Nothing is tried again here. Trap: calls wait for the network on threads of the store's own, so they may
//! be made from anywhere, and block.

mod door;
mod objects;
mod place;
mod refusal;
mod signing;
mod verify;

use std::collections::HashSet;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use tokio::runtime::{Builder, Runtime};
use tracing::Instrument as _;

pub use self::place::S3Place;

use self::door::{Door, judge};
use self::objects::Objects;
use super::verify::Report;
use super::{Attempt, Committed, DatasetStore, StoreError, safe_key};
use crate::domain::chip_name::is_safe_stem;
use crate::domain::failure::Severity;
use crate::domain::manifest::Manifest;
use crate::domain::task::TaskKey;

/// Threads that wait for the network, sign and hash.
const THREADS: usize = 2;
/// Manifests held at the same time when all are read.
const AT_A_TIME: usize = 32;
/// Longest time to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a connection without work is kept: less than servers keep it, so that none is found closed.
const IDLE: Duration = Duration::from_secs(8);
/// Longest silence while a request is answered.
const READ: Duration = Duration::from_secs(60);

/// How a bucket is reached.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// Which bucket.
    pub place: S3Place,
    /// URL of the service; `None`: what AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or AWS_ENDPOINT says, else Amazon's.
    pub endpoint: Option<String>,
    /// Whether the service may be asked without TLS.
    pub allow_http: bool,
    /// Whether to refuse a prefix without a marker.
    pub require_marker: bool,
    /// Whether names of chips hold the run, so that several runs may share the prefix.
    pub names_the_run: bool,
}

/// A dataset in a bucket.
#[derive(Debug)]
pub struct S3Store {
    objects: Arc<Objects>,
    require_marker: bool,
    names_the_run: bool,
    /// Whether the store was seen to keep the first of two writers.
    fences: AtomicBool,
    bound: Mutex<HashSet<String>>,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl S3Settings {
    /// The bucket, with credentials from the environment and one try at each request. Asks nobody yet.
    ///
    /// # Errors
    /// [`StoreError::Unusable`].
    pub fn connect(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        let unusable = |why: String| StoreError::Unusable { place: self.place.to_string(), why };
        let mut builder = AmazonS3Builder::from_env();
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
        }
        let endpoint = builder.get_config_value(&AmazonS3ConfigKey::S3Endpoint);
        let endpoint = endpoint.or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
        if !self.allow_http && endpoint.is_some_and(|url| !url.to_ascii_lowercase().starts_with("https://")) {
            let why = "its endpoint is not https, and chips would travel in the clear: use https, or set \
                       output.s3_allow_http = true";
            return Err(unusable(why.into()));
        }
        let options = ClientOptions::new()
            .with_allow_http(self.allow_http)
            .with_connect_timeout(CONNECT)
            .with_timeout_disabled()
            .with_pool_idle_timeout(IDLE)
            .with_read_timeout(READ);
        let once = RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, backoff: BackoffConfig::default() };
        let store = builder
            .with_bucket_name(&self.place.bucket)
            .with_client_options(options)
            .with_retry(once)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_crypto_provider(Arc::new(signing::Signing))
            .with_http_connector(refusal::Telling)
            .build()
            .map_err(|e| unusable(judge(&e).0))?;
        Ok(Arc::new(store))
    }
}

impl S3Store {
    /// The store of these settings. Asks nobody yet.
    ///
    /// # Errors
    /// [`StoreError::Unusable`].
    pub fn new(settings: &S3Settings) -> Result<Self, StoreError> {
        Self::over(settings.connect()?, &settings.place, settings.require_marker, settings.names_the_run)
    }

    /// The same over any other object store.
    ///
    /// # Errors
    /// [`StoreError::Unusable`].
    pub fn over(
        store: Arc<dyn ObjectStore>,
        place: &S3Place,
        require_marker: bool,
        names_the_run: bool,
    ) -> Result<Self, StoreError> {
        let unusable = |why: String| StoreError::Unusable { place: place.to_string(), why };
        let prefix = Path::parse(&place.prefix).map_err(|e| unusable(e.to_string()))?;
        let threads = Builder::new_multi_thread().worker_threads(THREADS).thread_name("s3").enable_all().build();
        let runtime = threads.map_err(|e| unusable(format!("starting its threads: {e}")))?;
        Ok(Self {
            objects: Arc::new(Objects::new(Door::new(store, prefix, &place.to_string()))),
            require_marker,
            names_the_run,
            fences: AtomicBool::new(false),
            bound: Mutex::default(),
            runtime: Some(runtime),
        })
    }

    /// Is the bucket what its manifests say, no more and no less? Every object is read and hashed unless `quick`, which
    /// compares lengths from listings. Changes nothing.
    ///
    /// # Errors
    /// Only when the bucket itself cannot be read; what is wrong inside is a [`super::verify::Finding`].
    pub fn verify(&self, quick: bool) -> Result<Report, StoreError> {
        self.wait(|objects| async move { verify::verify(&objects.door, quick).await })
    }

    /// Waits for what the store's own threads do.
    fn wait<T, F>(&self, work: impl FnOnce(Arc<Objects>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (tell, told) = mpsc::sync_channel(1);
        let work = work(self.objects.clone());
        let told_of = async move {
            // Nobody listens any more: the caller has panicked.
            let _ = tell.send(work.await);
        };
        if let Some(runtime) = &self.runtime {
            runtime.spawn(told_of.in_current_span());
        }
        told.recv().unwrap_or_else(|_| {
            Err(StoreError::Object {
                action: "using",
                url: self.objects.place().to_owned(),
                why: "the work panicked (see the log)".into(),
                remedy: "",
                severity: Severity::Fatal,
            })
        })
    }
}

impl Drop for S3Store {
    fn drop(&mut self) {
        // Not by waiting, which a reactor's thread must not do. All calls have returned.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl DatasetStore for S3Store {
    fn check(&self) -> Result<(), StoreError> {
        let (marked, fences) = (self.require_marker, !self.fences.load(Relaxed));
        self.wait(|objects| async move { objects.check(marked, fences).await })?;
        self.fences.store(true, Relaxed);
        Ok(())
    }

    fn bind(&self, run: &str) -> Result<(), StoreError> {
        if self.names_the_run || self.bound.lock().is_ok_and(|b| b.contains(run)) {
            return Ok(());
        }
        let wanted = run.to_owned();
        self.wait(|objects| async move { objects.bind(&wanted).await })?;
        if let Ok(mut bound) = self.bound.lock() {
            bound.insert(run.to_owned());
        }
        Ok(())
    }

    fn finished(&self, key: &TaskKey) -> Result<Option<Manifest>, StoreError> {
        safe_key(key)?;
        let key = key.clone();
        self.wait(|objects| async move { objects.finished(&key).await })
    }

    fn begin(&self, key: &TaskKey) -> Result<Attempt, StoreError> {
        safe_key(key)?;
        let key = key.clone();
        self.wait(|objects| async move { objects.begin(&key).await })
    }

    fn stage(&self, attempt: &Attempt, name: &str, image: &[u8], mask: &[u8]) -> Result<(), StoreError> {
        if !is_safe_stem(name) {
            return Err(StoreError::UnsafeName(name.to_owned()));
        }
        let (attempt, name, both) = (attempt.clone(), name.to_owned(), Bytes::from([image, mask].concat()));
        self.wait(|objects| async move { objects.stage(&attempt, &name, both).await })
    }

    fn commit(&self, attempt: &Attempt, manifest: &Manifest) -> Result<Committed, StoreError> {
        let (attempt, manifest) = (attempt.clone(), manifest.clone());
        self.wait(|objects| async move { objects.commit(&attempt, &manifest).await })
    }

    fn clear(&self, key: &TaskKey) {
        let given_up = key.clone();
        if let Err(error) = self.wait(|objects| async move { objects.clear(&given_up).await }) {
            tracing::warn!(task = %key, %error, "staging places could not be removed");
        }
    }

    fn abandon(&self, attempt: &Attempt) {
        let given_up = attempt.clone();
        if let Err(error) = self.wait(|objects| async move { objects.abandon(&given_up).await }) {
            tracing::warn!(task = %attempt.key, %error, "staging place could not be removed");
        }
    }

    fn tidy(&self) {
        if let Err(error) = self.wait(|objects| async move { objects.tidy().await }) {
            tracing::warn!(%error, "leftovers in .staging could not be removed");
        }
    }

    fn manifests(&self, each: &mut dyn FnMut(&[u8])) -> Result<(), StoreError> {
        let keys = self.wait(|objects| async move { objects.manifest_keys().await })?;
        for some in keys.chunks(AT_A_TIME) {
            let some = some.to_vec();
            let read = self.wait(|objects| async move { objects.manifests(some).await })?;
            read.iter().for_each(|raw| each(raw));
        }
        Ok(())
    }
}
