//! Makes the demo's inputs once and finds them again.
//!
//! Contract: below `dir` appear `parcels.gpkg`, `scenes/` and, last of all, the stamp `inputs.json`. Inputs whose stamp
//! says the same size, seed and generation are used as they are; anything else is made anew.
//! Trap: raise [`GENERATION`] whenever the same seed would give other parcels or pixels.

use super::region::{Region, Size};
use super::{DemoError, scenes};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Version of what a seed means.
const GENERATION: u32 = 3;

/// The demo's inputs, complete on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoInputs {
    /// The parcels; layer [`super::region::LAYER`].
    pub gpkg: PathBuf,
    /// Root to serve with [`super::server::DemoServer`].
    pub scenes_root: PathBuf,
    /// Usable parcels in the file.
    pub parcels: usize,
    /// STAC items below the root.
    pub items: usize,
    /// Whether an earlier run had made them.
    pub reused: bool,
}

/// What the stamp says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    generation: u32,
    size: String,
    seed: u64,
    parcels: usize,
    items: usize,
}

/// Makes the parcels and scenes below `dir`, or finds them; says on stderr what it does. Blocks for some seconds
/// (small) or minutes (full). The small region has all the troubles that [`scenes::generate`] knows.
///
/// # Errors
/// [`DemoError::Io`] and [`DemoError::Gdal`] name the file; a half-made input is made anew by the next call.
pub fn prepare(dir: &Path, size: Size, seed: u64) -> Result<DemoInputs, DemoError> {
    let stamp_path = dir.join("inputs.json");
    let mut inputs = DemoInputs {
        gpkg: dir.join("parcels.gpkg"),
        scenes_root: dir.join("scenes"),
        parcels: 0,
        items: 0,
        reused: false,
    };
    if let Some(stamp) = read_stamp(&stamp_path)
        && (stamp.generation, stamp.size.as_str(), stamp.seed) == (GENERATION, size.to_string().as_str(), seed)
        && inputs.gpkg.is_file()
        && inputs.scenes_root.join(scenes::BUCKET).is_dir()
    {
        eprintln!("demo: using the {size} region of seed {seed} in {}", dir.display());
        (inputs.parcels, inputs.items, inputs.reused) = (stamp.parcels, stamp.items, true);
        return Ok(inputs);
    }
    let since = Instant::now();
    std::fs::create_dir_all(&inputs.scenes_root).map_err(|e| DemoError::io(&inputs.scenes_root, e))?;
    // Without its stamp a half-made input cannot be taken for a whole one.
    gone(&stamp_path, std::fs::remove_file(&stamp_path))?;
    let bucket = inputs.scenes_root.join(scenes::BUCKET);
    gone(&bucket, std::fs::remove_dir_all(&bucket))?;

    let region = Region::generate(size, seed);
    region.write_gpkg(&inputs.gpkg)?;
    eprintln!("demo: {} parcels in {}", region.parcels.len(), inputs.gpkg.display());
    let progress = |line: &str| eprintln!("demo: {line} ({:.1} s)", since.elapsed().as_secs_f64());
    inputs.items = scenes::generate(&region, size, &inputs.scenes_root, size == Size::Small, &progress)?;
    inputs.parcels = region.parcels.len();

    let stamp =
        Stamp { generation: GENERATION, size: size.to_string(), seed, parcels: inputs.parcels, items: inputs.items };
    write_stamp(&stamp_path, &stamp)?;
    Ok(inputs)
}

fn read_stamp(path: &Path) -> Option<Stamp> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The stamp appears whole or not at all.
fn write_stamp(path: &Path, stamp: &Stamp) -> Result<(), DemoError> {
    let text = serde_json::to_vec_pretty(stamp).map_err(|e| DemoError::content(path, e.to_string()))?;
    let partial = path.with_extension("json.partial");
    std::fs::write(&partial, text).map_err(|e| DemoError::io(&partial, e))?;
    std::fs::rename(&partial, path).map_err(|e| DemoError::io(path, e))
}

/// A removal that had nothing to remove is fine.
fn gone(path: &Path, removed: std::io::Result<()>) -> Result<(), DemoError> {
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(DemoError::io(path, e)),
        _ => Ok(()),
    }
}
