//! What a simulated task asks for, and what comes of it.
//!
//! Contract: as in a real worker, what is known or cached is not asked for, what another task is fetching is waited for,
//! and neighbouring blocks share a request (`adapters::imagery::ranges`, the real one). Units: bytes. Trap: offsets of
//! blocks in a file are made up: all blocks of a file are of one size, in the order of their numbers.

use super::engine::{Engine, Event};
use super::model::HEADER;
use crate::adapters::imagery::ranges;

/// A request under way.
#[derive(Default)]
pub(super) struct Request {
    pub(super) worker: u32,
    pub(super) bytes: u64,
    /// Core time for each block it brings; 0: it brings no blocks.
    pub(super) decode_ns: u64,
    /// What it brings: a key, and its decoded bytes if it is a block.
    pub(super) brings: Vec<(u64, u64)>,
    waiting: Vec<u32>,
}

/// Number of the file that stands for the first read of a scene's overviews; the others are below it.
pub(super) const OVERVIEW: u64 = 31;
/// Reads of two overviews: a header and pixels of each.
pub(super) const OFFSET_READS: u8 = 4;

/// Kinds of what a worker knows or holds, in the top bits of a key.
const SEARCH: u64 = 1 << 60;
const FILE: u64 = 2 << 60;
const BLOCK: u64 = 3 << 60;

/// The header of a file. A scene's number has 29 bits, a file's 5.
pub(super) fn file_key(scene: u64, file: u64) -> u64 {
    FILE | scene << 5 | file
}

/// A block of a file; a block's number has 15 bits.
fn block_key(scene: u64, file: usize, block: u32) -> u64 {
    BLOCK | scene << 20 | (file as u64) << 15 | u64::from(block)
}

impl Engine<'_> {
    /// A task needs a search of its neighbourhood.
    pub(super) fn want_search(&mut self, job: u32, group: usize, search: u8) {
        let here = &self.jobs[job as usize];
        let block = |degrees: f64| ((degrees + 180.0 + 1e-9) / self.model.neighbourhood) as u64;
        let season = here.groups[group].season as u64;
        let key = SEARCH | block(here.bbox[0]) << 36 | block(here.bbox[1]) << 16 | season << 8 | u64::from(search);
        if self.knows_or_waits(job, key) {
            return;
        }
        self.out.searches += 1;
        let (now, worker) = (self.now, here_worker(self, job));
        let request = self.request(job, Request { worker, brings: vec![(key, 0)], ..Request::default() });
        if self.workers[worker as usize].searches.take(now, request, 1) {
            self.search(request);
        }
    }

    /// A task needs a small read of a file: its header, or a part of its overview.
    pub(super) fn want(&mut self, job: u32, key: u64) {
        if self.knows_or_waits(job, key) {
            return;
        }
        let worker = here_worker(self, job);
        self.fetch(job, Request { worker, bytes: HEADER, brings: vec![(key, 0)], ..Request::default() });
    }

    /// A task needs the blocks that its chips have in a file.
    pub(super) fn want_blocks(&mut self, job: u32, group: usize, rank: u64, file: usize) {
        let here = &self.jobs[job as usize].groups[group];
        let (scene, packed) = (here.base + rank, self.model.packed(file).max(1));
        let wanted: Vec<u32> = here.blocks(self.model.files[file]).iter().copied().collect();
        let worker = here_worker(self, job);
        let mut own = Vec::new();
        for block in wanted {
            let key = block_key(scene, file, block);
            if !self.workers[worker as usize].holds(key) && !self.knows_or_waits(job, key) {
                let start = u64::from(block) * packed;
                own.push((block, start..start + packed));
            }
        }
        for asked in ranges::coalesce(own) {
            let decoded = self.model.decoded(file);
            let brings: Vec<(u64, u64)> =
                asked.blocks.iter().map(|(block, _)| (block_key(scene, file, *block), decoded)).collect();
            self.out.blocks += brings.len() as u64;
            let (bytes, decode_ns) = (asked.range.end - asked.range.start, self.model.decode_ns(file));
            self.fetch(job, Request { worker, bytes, decode_ns, brings, ..Request::default() });
        }
    }

    /// Whether the task's worker knows it, or is told of it already; then the task waits with those who asked.
    fn knows_or_waits(&mut self, job: u32, key: u64) -> bool {
        let worker = &self.workers[here_worker(self, job) as usize];
        if worker.known.contains(&key) {
            return true;
        }
        let Some(request) = worker.coming.get(&key).copied() else { return false };
        let waiting = &mut self.requests[request as usize].waiting;
        if !waiting.contains(&job) {
            waiting.push(job);
            self.jobs[job as usize].pending += 1;
        }
        true
    }

    /// Makes a request that a task waits for.
    fn request(&mut self, job: u32, mut request: Request) -> u32 {
        request.waiting.push(job);
        self.jobs[job as usize].pending += 1;
        let id = self.spare.pop().unwrap_or_else(|| {
            self.requests.push(Request::default());
            self.requests.len() as u32 - 1
        });
        let worker = &mut self.workers[request.worker as usize];
        worker.coming.extend(request.brings.iter().map(|(key, _)| (*key, id)));
        self.requests[id as usize] = request;
        id
    }

    /// Makes a request to the image host, and sends it as soon as the worker may.
    fn fetch(&mut self, job: u32, request: Request) {
        let (now, worker) = (self.now, request.worker as usize);
        self.out.requests += 1;
        self.out.bytes_in += request.bytes as f64;
        let request = self.request(job, request);
        if self.workers[worker].requests.take(now, request, 1) {
            self.ask(request);
        }
    }

    /// A search has its place.
    pub(super) fn search(&mut self, request: u32) {
        let at = self.stac.push(self.now, 1.0) + self.model.times.stac;
        self.after(at, Event::Found(request));
    }

    /// A request has its place.
    pub(super) fn ask(&mut self, request: u32) {
        let at = self.image_rate.push(self.now, 1.0) + self.model.times.image;
        self.after(at, Event::Answers(request));
    }

    /// A request has brought what it was for.
    pub(super) fn here(&mut self, request: u32) {
        let Request { worker, brings, waiting, .. } = std::mem::take(&mut self.requests[request as usize]);
        self.spare.push(request);
        let worker = &mut self.workers[worker as usize];
        for (key, decoded) in brings {
            worker.coming.remove(&key);
            if decoded > 0 {
                worker.keep(key, decoded);
            } else {
                worker.known.insert(key);
            }
        }
        for job in waiting {
            self.jobs[job as usize].pending -= 1;
            self.advance(job);
        }
    }
}

/// The worker of a task.
fn here_worker(engine: &Engine<'_>, job: u32) -> u32 {
    engine.jobs[job as usize].worker
}
