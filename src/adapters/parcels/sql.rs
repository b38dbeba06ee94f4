//! Opening the file: read-only, checked to be a GeoPackage.
//!
//! Contract: nothing is ever written, not even a lock or journal file when `assume_immutable` is set. The file is
//! not memory-mapped: that gained 0.05 ms per cell and nothing in a scan, counts as resident memory, and turns a
//! file truncated by another machine into a SIGBUS.
//! Trap: `immutable=1` makes SQLite ignore locks and a write-ahead log, so it is right only for a file that
//! nobody changes; over NFS it also avoids the lock daemon. Without it a file in WAL mode needs a writable
//! directory. rusqlite already waits 5 s for a busy file;
//! its `Connection::busy_timeout` needs SQLite 3.44, newer than Debian 12's, and does not link without.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::error::ParcelError;

/// SQLite's page cache per connection, KiB.
const CACHE_KIB: i64 = 8 * 1024;

/// Opens `path` for reading.
///
/// # Errors
/// When it is missing, not SQLite, not a GeoPackage, or not as immutable as promised.
pub(super) fn open(path: &Path, assume_immutable: bool) -> Result<Connection, ParcelError> {
    let missing = |reason: String| ParcelError::Missing { path: path.to_owned(), reason };
    let meta = std::fs::metadata(path).map_err(|e| missing(e.to_string()))?;
    if !meta.is_file() {
        return Err(missing("not a file".into()));
    }
    if assume_immutable && has_log(path) {
        return Err(ParcelError::WriteAheadLog { path: path.to_owned() });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(uri(path, assume_immutable), flags).map_err(|e| from_sqlite(path, e))?;
    check(&connection, path)?;
    Ok(connection)
}

fn check(connection: &Connection, path: &Path) -> Result<(), ParcelError> {
    let settings = || -> rusqlite::Result<u32> {
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.query_row(
            "SELECT count(*) FROM sqlite_master WHERE lower(name) IN \
             ('gpkg_contents', 'gpkg_geometry_columns', 'gpkg_spatial_ref_sys')",
            [],
            |row| row.get(0),
        )
    };
    match settings().map_err(|e| from_sqlite(path, e))? {
        3 => Ok(()),
        _ => Err(ParcelError::NotGeoPackage {
            path: path.to_owned(),
            reason: "an SQLite file without the tables gpkg_contents, gpkg_geometry_columns, gpkg_spatial_ref_sys"
                .into(),
        }),
    }
}

/// Whether the file is in WAL mode, where every transaction sees the state of its own beginning.
pub(super) fn has_write_ahead_log(connection: &Connection) -> rusqlite::Result<bool> {
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    Ok(mode.eq_ignore_ascii_case("wal"))
}

/// Wraps SQLite's errors; "not a database" gets its own message.
pub(super) fn from_sqlite(path: &Path, source: rusqlite::Error) -> ParcelError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => {
            ParcelError::NotGeoPackage { path, reason: "it is not an SQLite file".into() }
        }
        _ => ParcelError::Sqlite { path, source },
    }
}

/// An identifier in double quotes; layers are called all sorts of things.
pub(super) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|m| m.len() > 0)
}

/// `file:` URI with everything but plain characters escaped.
fn uri(path: &Path, assume_immutable: bool) -> String {
    let mut uri = String::from("file:");
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for &byte in absolute.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' => uri.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str(if assume_immutable { "?immutable=1" } else { "?mode=ro" });
    uri
}
