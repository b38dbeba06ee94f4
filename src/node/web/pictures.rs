//! `/pictures/RUN/TASK/CHIP/image.png|mask.png`: chips as pictures.
//!
//! Contract: run, task and chip are looked up in the dataset's manifests; nothing else of the address is used. Pictures are
//! made on a thread of their own, because the dataset may be on a share that hangs, and kept up to [`CACHE_BYTES`].
//! Trap: a dataset on another machine has no pictures here; the page says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use quick_cache::{Weighter, sync::Cache};

use super::{Site, problem};
use crate::actors::cpu::CpuPool;
use crate::adapters::dataset::gallery::{Gallery, GalleryError, Kind};
use crate::domain::manifest::Manifest;
use crate::domain::task::{TaskKey, is_safe_run_id};

/// Pictures kept, bytes.
const CACHE_BYTES: u64 = 16 << 20;
/// A typical picture, for the cache's tables.
const TYPICAL: u64 = 16 << 10;

type Key = (TaskKey, usize, Kind);

#[derive(Clone)]
struct Size;

impl Weighter<Key, Bytes> for Size {
    fn weight(&self, _: &Key, png: &Bytes) -> u64 {
        png.len() as u64 + 200
    }
}

/// See the head of this file.
pub(super) struct Pictures {
    gallery: Arc<Gallery>,
    pool: CpuPool,
    kept: Cache<Key, Bytes, Size>,
    there: Arc<AtomicBool>,
    looking: Arc<AtomicBool>,
}

impl Pictures {
    pub(super) fn new(gallery: Gallery, pool: CpuPool) -> Self {
        let kept = Cache::with_weighter((CACHE_BYTES / TYPICAL) as usize, CACHE_BYTES, Size);
        let pictures = Self { gallery: Arc::new(gallery), pool, kept, there: Arc::default(), looking: Arc::default() };
        pictures.look();
        pictures
    }

    /// Whether the dataset could be seen from here when it was last looked for; looks again meanwhile.
    pub(super) fn is_there(&self) -> bool {
        self.look();
        self.there.load(Relaxed)
    }

    fn look(&self) {
        if self.looking.swap(true, Relaxed) {
            return;
        }
        let (gallery, there, looking) = (self.gallery.clone(), self.there.clone(), self.looking.clone());
        self.pool.pool().spawn(move || {
            there.store(gallery.is_there(), Relaxed);
            looking.store(false, Relaxed);
        });
    }

    /// The record of a task's chips; `None`: there is none, or it cannot be read.
    pub(super) async fn manifest(&self, key: TaskKey) -> Option<Manifest> {
        let gallery = self.gallery.clone();
        let read = self.pool.run(move || gallery.manifest(&key)).await?;
        read.inspect_err(|error| tracing::debug!(%error, "no manifest for the web page")).ok().flatten()
    }

    async fn picture(&self, key: Key) -> Result<Bytes, GalleryError> {
        let make = async {
            let (gallery, (task, chip, kind)) = (self.gallery.clone(), key.clone());
            let none = GalleryError::NoChip { dir: gallery.root().display().to_string(), task: task.clone(), chip };
            let made = self.pool.run(move || gallery.picture(&task, chip, kind)).await;
            made.unwrap_or(Err(none)).map(Bytes::from)
        };
        self.kept.get_or_insert_async(&key, make).await
    }
}

pub(super) async fn picture(
    State(site): State<Arc<Site>>,
    Path((run, task, chip, kind)): Path<(String, String, String, String)>,
) -> Response {
    let kind = match kind.as_str() {
        "image.png" => Some(Kind::Image),
        "mask.png" => Some(Kind::Mask),
        _ => None,
    };
    let (Some(kind), Ok(task), Ok(chip), true) = (kind, task.parse(), chip.parse(), is_safe_run_id(&run)) else {
        return problem(StatusCode::NOT_FOUND, "there is no such picture");
    };
    match site.pictures.picture((TaskKey { run, task }, chip, kind)).await {
        Ok(png) => {
            // A chip never changes under its name.
            let headers = [(header::CONTENT_TYPE, "image/png"), (header::CACHE_CONTROL, "private, max-age=86400")];
            (headers, png).into_response()
        }
        Err(error) => {
            tracing::debug!(%error, "no picture for the web page");
            problem(StatusCode::NOT_FOUND, "there is no such picture")
        }
    }
}
