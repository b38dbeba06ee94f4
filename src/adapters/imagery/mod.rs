//! Pixels out of COGs: headers and decoded blocks, each fetched and decoded once.
//!
//! Contract: [`Imagery::blocks`] gives every wanted block or the reason it cannot; whatever has been
//! fetched and decoded stays in a cache bounded in bytes, and two tasks that want the same block at
//! the same time share one fetch. Decoding runs on the CPU pool, never on the reactor. No retries
//! here: transient failures are reported as such, and asking again fetches only what is missing.
//! Trap: blocks given out stay in memory while somebody holds them, beyond the cache's bound; the
//! caller bounds that part (`worker.window_mb`).

pub mod block;
pub mod cut;
pub mod header;
pub mod overview;
pub mod ranges;
pub mod source;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use quick_cache::sync::{Cache, DefaultLifecycle, GuardResult, PlaceholderGuard};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use tokio::task::JoinSet;

use self::block::{BlockError, Samples};
use self::header::Cog;
use self::source::RangeSource;
use crate::adapters::http::{MAX_HOSTS, host_of};
use crate::domain::failure::{Failure, Severity};

/// Why pixels could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageryError {
    /// The bytes could not be fetched.
    #[error("{0}")]
    Source(#[from] Failure),
    /// The file is not one we read.
    #[error("{href}: {why}")]
    NotUsable {
        /// The file.
        href: String,
        /// What is wrong with it.
        why: String,
    },
    /// A block is damaged.
    #[error("{href}: block {index}: {error}")]
    Block {
        /// The file.
        href: String,
        /// Block number, row-major.
        index: u32,
        /// What is wrong with it.
        error: BlockError,
    },
    /// The CPU pool or a fetch was torn down; only while the node stops.
    #[error("{0}: the node is stopping")]
    Stopping(String),
}

impl ImageryError {
    /// What to do about it.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Source(failure) => failure.severity,
            Self::NotUsable { .. } | Self::Block { .. } => Severity::Permanent,
            Self::Stopping(_) => Severity::Transient,
        }
    }

    /// The failure of the stage that asked.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Source(failure) => failure.clone(),
            other => {
                Failure { severity: other.severity(), stage: "pixels", reason: other.to_string(), retry_after_s: None }
            }
        }
    }
}

/// What has been done so far; all counters only grow.
#[derive(Debug, Default)]
pub struct ImageryStats {
    /// Headers parsed.
    pub headers: AtomicU64,
    /// Blocks found decoded.
    pub hits: AtomicU64,
    /// Blocks fetched and decoded.
    pub decoded: AtomicU64,
    /// Decoded bytes.
    pub decoded_bytes: AtomicU64,
    /// Range requests for blocks.
    pub requests: AtomicU64,
    /// Bytes those requests brought.
    pub fetched_bytes: AtomicU64,
    /// Time spent decoding, microseconds, summed over cores.
    pub decode_us: AtomicU64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct BlockKey {
    href: Arc<str>,
    index: u32,
}

#[derive(Clone)]
struct BlockWeight;

impl Weighter<BlockKey, Arc<Samples>> for BlockWeight {
    fn weight(&self, key: &BlockKey, value: &Arc<Samples>) -> u64 {
        (value.bytes() + key.href.len() + 128) as u64
    }
}

type Blocks = Cache<BlockKey, Arc<Samples>, BlockWeight>;
type Guard<'a> = PlaceholderGuard<
    'a,
    BlockKey,
    Arc<Samples>,
    BlockWeight,
    DefaultHashBuilder,
    DefaultLifecycle<BlockKey, Arc<Samples>>,
>;

/// How the cache of decoded blocks is set up for `bytes` of them.
///
/// One shard: blocks are few and large, and shards would each hold a part of the bound only. Hardly any hot part and no
/// ghosts: a block is wanted by neighbouring cells for a while and never again, and a larger hot part keeps blocks that are
/// finished with (with 384 MiB, 1.55 fetches per block at 0.9 instead of 1.20, `cargo bench --bench affinity`).
pub fn cache_options(bytes: u64) -> OptionsBuilder {
    let mut options = OptionsBuilder::new();
    options
        .shards(1)
        .hot_allocation(0.1)
        .ghost_allocation(0.0)
        .estimated_items_capacity((bytes / (1 << 20)).max(16) as usize)
        .weight_capacity(bytes);
    options
}

/// Other hosts that are asked in place of one that never answered.
const OTHERS_ASKED: usize = 4;

/// Outcome of one block.
pub type BlockResult = Result<Arc<Samples>, ImageryError>;

/// Reader of COGs with shared caches; one per node.
pub struct Imagery {
    source: Arc<dyn RangeSource>,
    cpu: Arc<rayon::ThreadPool>,
    headers: Cache<String, Arc<Cog>>,
    blocks: Blocks,
    stats: Arc<ImageryStats>,
    /// By host, the file that was opened last.
    last_good: Mutex<BTreeMap<String, String>>,
}

impl Imagery {
    /// A reader over `source` that decodes on `cpu` and keeps up to `cache_bytes` of decoded blocks.
    pub fn new(source: Arc<dyn RangeSource>, cpu: Arc<rayon::ThreadPool>, cache_bytes: u64) -> Self {
        let options = cache_options(cache_bytes).build();
        let blocks = match options {
            Ok(options) => {
                Cache::with_options(options, BlockWeight, DefaultHashBuilder::default(), DefaultLifecycle::default())
            }
            Err(_) => Cache::with_weighter(16, cache_bytes, BlockWeight),
        };
        Self { source, cpu, headers: Cache::new(4096), blocks, stats: Arc::default(), last_good: Mutex::default() }
    }

    /// Counters.
    pub fn stats(&self) -> &ImageryStats {
        &self.stats
    }

    /// The header of the COG at `href`, from the cache or by one small read; concurrent callers share
    /// the read.
    ///
    /// # Errors
    /// As [`Cog::open`]. Failures are not cached.
    pub async fn open(&self, href: &str) -> Result<Arc<Cog>, ImageryError> {
        let open = async {
            let cog = Cog::open(&*self.source, href).await?;
            self.stats.headers.fetch_add(1, Relaxed);
            self.remember(href);
            Ok(Arc::new(cog))
        };
        self.headers.get_or_insert_async(href, open).await
    }

    /// Whether a host still gives a byte of the file that was opened last there: asked when another file cannot be
    /// had, to tell a sick file from a sick host. A host that never gave anything is not told from a mistake in an item:
    /// for such a one others are asked, so false means that nobody answers. False before any file was opened.
    pub async fn answers(&self, host: &str) -> bool {
        let files: Vec<String> = {
            let known = self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
            match known.get(host) {
                Some(file) => vec![file.clone()],
                None => known.values().take(OTHERS_ASKED).cloned().collect(),
            }
        };
        let asked = files.iter().map(|href| self.source.range_upto(href, 0..1));
        join_all(asked).await.iter().any(Result::is_ok)
    }

    /// Remembers a file that works, for as many hosts as are worth telling apart.
    fn remember(&self, href: &str) {
        let mut known = self.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        let host = host_of(href);
        if known.len() < MAX_HOSTS || known.contains_key(&host) {
            known.insert(host, href.to_owned());
        }
    }

    /// The blocks `wanted` of `cog`, decoded.
    ///
    /// Own blocks are fetched first, in coalesced ranges and all at once (the source bounds requests
    /// per host); then those that other tasks are fetching are awaited. Nobody waits for others while
    /// holding what others wait for, so two tasks cannot block each other.
    pub async fn blocks(&self, cog: &Arc<Cog>, wanted: &[u32]) -> HashMap<u32, BlockResult> {
        let href: Arc<str> = cog.href.as_str().into();
        let key = |index| BlockKey { href: href.clone(), index };
        let mut done = HashMap::with_capacity(wanted.len());
        let mut own: HashMap<u32, Guard<'_>> = HashMap::new();
        let mut others = Vec::new();
        for &index in wanted {
            match self.blocks.get_value_or_guard(&key(index), Some(Duration::ZERO)) {
                GuardResult::Value(samples) => {
                    self.stats.hits.fetch_add(1, Relaxed);
                    done.insert(index, Ok(samples));
                }
                GuardResult::Guard(guard) => {
                    own.insert(index, guard);
                }
                GuardResult::Timeout => others.push(index),
            }
        }
        self.fetch(cog, own, &mut done).await;
        for index in others {
            let result = match self.blocks.get_value_or_guard_async(&key(index)).await {
                Ok(samples) => {
                    self.stats.hits.fetch_add(1, Relaxed);
                    Ok(samples)
                }
                // Whoever was fetching it failed: it is ours now.
                Err(guard) => {
                    let mut one = HashMap::new();
                    self.fetch(cog, HashMap::from([(index, guard)]), &mut one).await;
                    one.remove(&index).unwrap_or_else(|| Err(ImageryError::Stopping(cog.href.clone())))
                }
            };
            done.insert(index, result);
        }
        done
    }

    /// Fetches and decodes the blocks whose guards are given.
    async fn fetch(&self, cog: &Arc<Cog>, mut own: HashMap<u32, Guard<'_>>, done: &mut HashMap<u32, BlockResult>) {
        let wanted = own.keys().map(|i| (*i, cog.blocks.get(*i as usize).cloned().unwrap_or_default())).collect();
        let mut running: JoinSet<Vec<(u32, BlockResult)>> = JoinSet::new();
        for request in ranges::coalesce(wanted) {
            self.stats.requests.fetch_add(u64::from(request.range.end > request.range.start), Relaxed);
            self.stats.fetched_bytes.fetch_add(request.range.end - request.range.start, Relaxed);
            running.spawn(fetch_and_decode(
                self.source.clone(),
                self.cpu.clone(),
                self.stats.clone(),
                cog.clone(),
                request,
            ));
        }
        while let Some(joined) = running.join_next().await {
            for (index, result) in joined.unwrap_or_default() {
                if let (Ok(samples), Some(guard)) = (&result, own.remove(&index)) {
                    self.stats.decoded.fetch_add(1, Relaxed);
                    self.stats.decoded_bytes.fetch_add(samples.bytes() as u64, Relaxed);
                    // Err: the block was removed meanwhile; the caller has its own handle.
                    let _ = guard.insert(samples.clone());
                }
                done.insert(index, result);
            }
        }
        for index in own.into_keys() {
            done.entry(index).or_insert_with(|| Err(ImageryError::Stopping(cog.href.clone())));
        }
    }
}

/// One request and the decoding of what it brings.
async fn fetch_and_decode(
    source: Arc<dyn RangeSource>,
    cpu: Arc<rayon::ThreadPool>,
    stats: Arc<ImageryStats>,
    cog: Arc<Cog>,
    request: ranges::Request,
) -> Vec<(u32, BlockResult)> {
    let Range { start, end } = request.range;
    let bytes = if end > start { source.range(&cog.href, start..end).await } else { Ok(Bytes::new()) };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(failure) => return request.blocks.iter().map(|(i, _)| (*i, Err(failure.clone().into()))).collect(),
    };
    let mut decoding = Vec::with_capacity(request.blocks.len());
    for (index, range) in request.blocks {
        let raw = bytes.slice((range.start - start) as usize..(range.end - start) as usize);
        let (cog, stats, (tell, hear)) = (cog.clone(), stats.clone(), tokio::sync::oneshot::channel());
        cpu.spawn(move || {
            let started = Instant::now();
            let decoded = block::decode(&cog, index, &raw);
            stats.decode_us.fetch_add(started.elapsed().as_micros() as u64, Relaxed);
            // Nobody listens when the task was cancelled.
            let _ = tell.send(decoded);
        });
        decoding.push((index, hear));
    }
    let mut out = Vec::with_capacity(decoding.len());
    for (index, hear) in decoding {
        out.push((
            index,
            match hear.await {
                Ok(Ok(samples)) => Ok(Arc::new(samples)),
                Ok(Err(error)) => Err(ImageryError::Block { href: cog.href.clone(), index, error }),
                Err(_) => Err(ImageryError::Stopping(cog.href.clone())),
            },
        ));
    }
    out
}
