//! Files below the root, with HEAD, single ranges and ETags.
//!
//! Contract: no path, encoded or linked, reaches a file outside the root; such a path is a 404 like any other unknown
//! one. A body holds one piece of [`PIECE`] bytes in memory at a time, whatever the file's size.
//! Units: bytes. Trap: a file that shrinks while it is sent ends the connection early, it is never padded.

use super::Shared;
use super::range::{self, Asked};
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Bytes read and sent at a time.
const PIECE: u64 = 256 * 1024;

pub(super) async fn serve(
    State(shared): State<Arc<Shared>>,
    UrlPath(path): UrlPath<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")]).into_response();
    }
    let asked = headers.get(header::RANGE).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let head_only = method == Method::HEAD;
    let opened =
        tokio::task::spawn_blocking(move || Opened::at(&shared.root, &path, asked.as_deref(), head_only)).await;
    match opened {
        Ok(Ok(opened)) => opened.answer(head_only),
        Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => (StatusCode::NOT_FOUND, "no such file\n").into_response(),
        Ok(Err(e)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A file, what was asked of it, and its first piece: one trip to the blocking threads answers a small range.
struct Opened {
    file: Arc<File>,
    name: String,
    size: u64,
    etag: String,
    asked: Asked,
    first: Bytes,
}

impl Opened {
    fn at(root: &Path, path: &str, range_header: Option<&str>, head_only: bool) -> io::Result<Self> {
        let real = resolve(root, path)?;
        let file = File::open(&real)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let size = meta.len();
        let etag = format!("\"{size:x}-{:x}-{:x}\"", meta.mtime(), meta.mtime_nsec());
        let asked = range::parse(range_header, size);
        let wanted = span(&asked, size);
        let first = if head_only { Bytes::new() } else { piece(&file, &wanted)? };
        let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { file: Arc::new(file), name, size, etag, asked, first })
    }

    fn answer(self, head_only: bool) -> Response {
        let wanted = span(&self.asked, self.size);
        let length = wanted.end - wanted.start;
        let answer = Response::builder()
            .header(header::ACCEPT_RANGES, "bytes")
            .header(header::CONTENT_TYPE, content_type(&self.name))
            .header(header::ETAG, &self.etag)
            .header(header::CONTENT_LENGTH, length);
        let answer = match &self.asked {
            Asked::Whole => answer.status(StatusCode::OK),
            Asked::Part(part) => answer
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, format!("bytes {}-{}/{}", part.start, part.end - 1, self.size)),
            Asked::Unsatisfiable => answer
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{}", self.size)),
        };
        let body = if head_only || length == 0 {
            Body::empty()
        } else if self.first.len() as u64 == length {
            Body::from(self.first)
        } else {
            Body::from_stream(pieces(self.file, wanted, self.first))
        };
        answer.body(body).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }
}

/// The bytes an answer carries; none for an unsatisfiable range.
fn span(asked: &Asked, size: u64) -> Range<u64> {
    match asked {
        Asked::Whole => 0..size,
        Asked::Part(part) => part.clone(),
        Asked::Unsatisfiable => 0..0,
    }
}

/// The real path of a decoded URL path, or `NotFound` if it is not plainly below the root.
fn resolve(root: &Path, path: &str) -> io::Result<PathBuf> {
    let relative = Path::new(path);
    let plain = relative.components().all(|c| matches!(c, Component::Normal(_)));
    if !plain || path.contains(['\0', '\\']) {
        return Err(io::ErrorKind::NotFound.into());
    }
    // Symbolic links are followed first and judged afterwards.
    let real = root.join(relative).canonicalize().map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    if real.starts_with(root) { Ok(real) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Reads the first [`PIECE`] bytes of a span. By way of the file's own position, because that fills a buffer that nobody
/// has to clear first; the pieces of an answer are read one after the other.
fn piece(mut file: &File, span: &Range<u64>) -> io::Result<Bytes> {
    let length = (span.end - span.start).min(PIECE);
    let mut buffer = Vec::with_capacity(length as usize);
    file.seek(io::SeekFrom::Start(span.start))?;
    match file.take(length).read_to_end(&mut buffer)? as u64 == length {
        true => Ok(buffer.into()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The rest of a span, piece by piece; `first` has been read already.
fn pieces(file: Arc<File>, span: Range<u64>, first: Bytes) -> impl stream::Stream<Item = io::Result<Bytes>> {
    stream::unfold((file, span, Some(first)), |(file, span, first)| async move {
        if span.is_empty() {
            return None;
        }
        let read = match first {
            Some(first) => Ok(first),
            None => {
                let (file, span) = (file.clone(), span.clone());
                let task = tokio::task::spawn_blocking(move || piece(&file, &span));
                task.await.unwrap_or_else(|e| Err(io::Error::other(e)))
            }
        };
        // After an error hyper drops the body, so the unchanged start is never read again.
        let start = span.start + read.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Some((read, (file, start..span.end, None)))
    })
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("tif" | "tiff") => "image/tiff",
        Some("json") => "application/json",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    }
}
