//! Ranged reads of local files, for `file:` hrefs that [`super::Trust`] allows.
//!
//! Contract: as over HTTP: exactly the range, or up to the end of the file where that is enough. Trap: opening a pipe or
//! a device would block or never end, so only regular files are read.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;
use url::Url;

use super::Extent;
use super::error::Fault;

pub(super) async fn read(url: &Url, range: Range<u64>, extent: Extent) -> Result<Bytes, Fault> {
    let path = url.to_file_path().map_err(|()| Fault::BadUrl("not the path of a file on this machine".into()))?;
    let done = tokio::task::spawn_blocking(move || read_blocking(path, range, extent)).await;
    done.unwrap_or_else(|e| Err(Fault::File(std::io::Error::other(e))))
}

fn read_blocking(path: PathBuf, range: Range<u64>, extent: Extent) -> Result<Bytes, Fault> {
    if !std::fs::metadata(&path).map_err(Fault::File)?.is_file() {
        return Err(Fault::NotAFile);
    }
    let file = File::open(&path).map_err(Fault::File)?;
    let size = file.metadata().map_err(Fault::File)?.len();
    if range.start >= size {
        return Err(Fault::OutOfRange(range.start));
    }
    let len = range.end.min(size) - range.start;
    if extent == Extent::Exact && range.end > size {
        return Err(Fault::ShortFile { asked: range, total: size });
    }
    let mut body = vec![0; len as usize];
    file.read_exact_at(&mut body, range.start).map_err(Fault::File)?;
    Ok(body.into())
}
