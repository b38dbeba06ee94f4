//! Single requests to the bucket, with errors that say what was done to which object.
//!
//! Contract: each call is one request (a listing: one per 1000 names) and nothing is tried again; keys are relative to
//! the dataset's prefix. [`Door::put_new`] is the one request on which all fencing rests. Trap: after an error it is not
//! known whether a write happened.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::client::HttpError;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};

use super::refusal::Refusal;
use crate::adapters::dataset::StoreError;
use crate::domain::failure::Severity;

/// S3's words for troubles that pass, whatever status they come with.
const PASSING: [&str; 5] = ["RequestTimeout", "SlowDown", "InternalError", "BadDigest", "IncompleteBody"];

const CREDENTIALS: &str = ": check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and that they may \
                           get, put, delete and list objects there";
const NO_CREDENTIALS: &str = ": no credentials are set, and this machine is given none: set AWS_ACCESS_KEY_ID and \
                              AWS_SECRET_ACCESS_KEY";
const UNREACHED: &str = ": is it up, and is output.s3_endpoint right?";
const NO_BUCKET: &str = ": create the bucket, or set output.dir";
const REGION: &str = ": set AWS_REGION to the bucket's region";
const CLOCK: &str = ": set this machine's clock";
const FULL: &str = ": free space or enlarge the quota, then start the node again";
const UNKNOWN_TO_STORE: &str = ": the store must know conditional writes (If-None-Match)";

/// Where a cloud's machines ask for credentials.
const METADATA_HOST: &str = "169.254.169.254";

/// A bucket, seen from the dataset's prefix.
#[derive(Debug, Clone)]
pub(super) struct Door {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    place: Arc<str>,
}

impl Door {
    /// `place` is how it is called in messages.
    pub(super) fn new(store: Arc<dyn ObjectStore>, prefix: Path, place: &str) -> Self {
        Self { store, prefix, place: place.into() }
    }

    /// What the dataset is called in messages.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// What an object is called in messages.
    pub(super) fn url(&self, key: &str) -> String {
        format!("{}/{key}", self.place)
    }

    fn path(&self, key: &str) -> Result<Path, StoreError> {
        let whole = if self.prefix.as_ref().is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) };
        Path::parse(&whole).map_err(|_| StoreError::UnsafeName(key.to_owned()))
    }

    /// Makes or replaces an object.
    pub(super) async fn put(&self, key: &str, payload: PutPayload) -> Result<(), StoreError> {
        let done = self.store.put(&self.path(key)?, payload).await;
        done.map(drop).map_err(|e| self.fault("writing", key, &e))
    }

    /// Makes an object unless there is one of this name; says whether it did.
    pub(super) async fn put_new(&self, key: &str, payload: PutPayload) -> Result<bool, StoreError> {
        match self.store.put_opts(&self.path(key)?, payload, PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.fault("writing", key, &error)),
        }
    }

    /// The whole object; `None`: there is none of this name.
    pub(super) async fn get(&self, key: &str, most: u64) -> Result<Option<Bytes>, StoreError> {
        let answer = match self.store.get(&self.path(key)?).await {
            Err(Error::NotFound { .. }) => return Ok(None),
            other => other.map_err(|e| self.fault("reading", key, &e))?,
        };
        if answer.meta.size > most {
            let why = format!("{} bytes are too many", answer.meta.size);
            return Err(StoreError::Damaged { path: self.url(key), why });
        }
        answer.bytes().await.map(Some).map_err(|e| self.fault("reading", key, &e))
    }

    /// The object's length; `None`: there is none of this name.
    pub(super) async fn length(&self, key: &str) -> Result<Option<u64>, StoreError> {
        match self.store.head(&self.path(key)?).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.fault("looking at", key, &error)),
        }
    }

    /// Keys of all objects below a directory-like key, with their lengths, in order.
    pub(super) async fn below(&self, dir: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let found = self.store.list(Some(&self.path(dir)?)).try_collect::<Vec<_>>().await;
        let found = found.map_err(|e| self.fault("listing", dir, &e))?;
        let mut keys: Vec<_> = found.iter().filter_map(|o| Some((self.inside(&o.location)?, o.size))).collect();
        keys.sort();
        Ok(keys)
    }

    /// Whether there is any object below a directory-like key.
    pub(super) async fn any_below(&self, dir: &str) -> Result<bool, StoreError> {
        match self.store.list(Some(&self.path(dir)?)).next().await {
            None => Ok(false),
            Some(first) => first.map(|_| true).map_err(|e| self.fault("listing", dir, &e)),
        }
    }

    /// Removes objects; one that is not there need not be removed.
    pub(super) async fn remove(&self, keys: &[String]) -> Result<(), StoreError> {
        let paths = keys.iter().map(|key| self.path(key)).collect::<Result<Vec<_>, _>>()?;
        let mut removed = self.store.delete_stream(stream::iter(paths.into_iter().map(Ok)).boxed());
        while let Some(one) = removed.next().await {
            match one {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => {
                    return Err(self.fault("removing", keys.first().map_or("", String::as_str), &error));
                }
            }
        }
        Ok(())
    }

    fn inside(&self, whole: &Path) -> Option<String> {
        let prefix = self.prefix.as_ref();
        if prefix.is_empty() {
            return Some(whole.to_string());
        }
        whole.as_ref().strip_prefix(prefix)?.strip_prefix('/').map(str::to_owned)
    }

    fn fault(&self, action: &'static str, key: &str, error: &Error) -> StoreError {
        let (why, remedy, severity) = judge(error);
        StoreError::Object { action, url: self.url(key), why, remedy, severity }
    }
}

/// What went wrong, what to do, and whether it may pass.
pub(super) fn judge(error: &Error) -> (String, &'static str, Severity) {
    let mut chain: Vec<&(dyn std::error::Error + 'static)> = vec![error];
    while let Some(cause) = chain.last().and_then(|e| e.source()) {
        chain.push(cause);
    }
    if let Some(refusal) = chain.iter().find_map(|e| e.downcast_ref::<Refusal>()) {
        let (remedy, severity) = refused(refusal);
        return (refusal.to_string(), remedy, severity);
    }
    let text = error.to_string();
    if chain.iter().any(|e| e.is::<HttpError>()) {
        let why = chain.last().map_or_else(|| text.clone(), ToString::to_string);
        let remedy = if text.contains(METADATA_HOST) { NO_CREDENTIALS } else { UNREACHED };
        return (why, remedy, Severity::Transient);
    }
    (text, "", Severity::Fatal)
}

fn refused(refusal: &Refusal) -> (&'static str, Severity) {
    let Refusal { status, code, .. } = refusal;
    match (*status, code.as_str()) {
        (_, code) if PASSING.contains(&code) => ("", Severity::Transient),
        (_, "NoSuchBucket") => (NO_BUCKET, Severity::Fatal),
        (_, "RequestTimeTooSkewed") => (CLOCK, Severity::Fatal),
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException")
        | (300..=399, _) => (REGION, Severity::Fatal),
        (_, "QuotaExceeded" | "XMinioStorageFull") | (507, _) => (FULL, Severity::Fatal),
        (_, "ExpiredToken" | "InvalidToken") | (401 | 403, _) => (CREDENTIALS, Severity::Fatal),
        (501, _) => (UNKNOWN_TO_STORE, Severity::Fatal),
        (408 | 409 | 429 | 500.., _) => ("", Severity::Transient),
        _ => ("", Severity::Fatal),
    }
}

#[cfg(test)]
mod tests {
    use object_store::client::HttpErrorKind;

    use super::*;

    fn judged(status: u16, code: &str) -> (String, &'static str, Severity) {
        let refusal = Refusal { status, code: code.into(), message: String::new() };
        let http = HttpError::new(HttpErrorKind::Unknown, refusal);
        judge(&Error::Generic { store: "S3", source: Box::new(http) })
    }

    #[test]
    fn what_may_pass_is_transient_and_what_needs_a_person_is_fatal() {
        for (status, code) in
            [(503, "SlowDown"), (500, "InternalError"), (400, "RequestTimeout"), (409, ""), (429, ""), (502, "")]
        {
            assert_eq!(judged(status, code).2, Severity::Transient, "{status} {code}");
        }
        for (status, code, remedy) in [
            (404, "NoSuchBucket", NO_BUCKET),
            (403, "AccessDenied", CREDENTIALS),
            (403, "RequestTimeTooSkewed", CLOCK),
            (400, "ExpiredToken", CREDENTIALS),
            (301, "PermanentRedirect", REGION),
            (501, "NotImplemented", UNKNOWN_TO_STORE),
            (507, "XMinioStorageFull", FULL),
            (405, "MethodNotAllowed", ""),
        ] {
            let (why, what_to_do, severity) = judged(status, code);
            assert_eq!((what_to_do, severity), (remedy, Severity::Fatal), "{status} {code}");
            assert!(why.contains(code), "{why}");
        }
        let reset = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset by peer");
        let http = HttpError::new(HttpErrorKind::Interrupted, reset);
        let (why, remedy, severity) = judge(&Error::Generic { store: "S3", source: Box::new(http) });
        assert_eq!((why.as_str(), remedy, severity), ("reset by peer", UNREACHED, Severity::Transient));
    }
}
