//! A run on a virtual clock: events in order of time, then of their making.
//!
//! Contract: a function of its arguments; nothing sleeps, nothing is drawn. A task goes the road of a real one, stage by
//! stage: drawn, searched, looked at scene by scene, opened, its blocks fetched within the bound of windows, its chips cut
//! one after the other, encoded, written, its manifest published; and holds the credits a real one holds meanwhile.
//! Units: nanoseconds. Trap: servers here make wait and never refuse, so the throttle of a real worker has nothing to do.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::crew::Worker;
use super::ground::{Group, groups};
use super::load::Todo;
use super::model::Model;
use super::outcome::{Outcome, Shares};
use super::pipe::Pipe;
use super::requests::{OFFSET_READS, OVERVIEW, Request, file_key};

/// What happens next to a task or a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Drawn(u32),
    Found(u32),
    Answers(u32),
    Received(u32),
    Here(u32),
    Cut(u32),
    Encoded(u32),
    Written(u32),
    Settled(u32),
}

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Draw,
    Search {
        group: usize,
        search: u8,
    },
    /// The header of a scene's classification, then its blocks.
    Look {
        group: usize,
        rank: u64,
        opened: bool,
    },
    /// Headers of the bands, four reads for the offset, memory, blocks.
    Open {
        group: usize,
    },
    Offset {
        group: usize,
        read: u8,
    },
    Memory {
        group: usize,
    },
    Fetch {
        group: usize,
    },
    Chips {
        group: usize,
        left: u32,
    },
    Over,
}

/// Messages of a task: read, result, commit, and its share of heartbeats.
const MESSAGES: f64 = 4.0;

/// A task under way.
pub(super) struct Job {
    pub(super) worker: u32,
    stage: Stage,
    pub(super) groups: Vec<Group>,
    pub(super) bbox: [f64; 4],
    /// Requests waited for.
    pub(super) pending: u32,
    /// Chips not written yet.
    unwritten: u32,
    windows: u32,
}

/// The run.
pub(super) struct Engine<'a> {
    pub(super) model: &'a Model,
    tasks: &'a [Todo],
    pub(super) now: u64,
    made: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    pub(super) workers: Vec<Worker>,
    pub(super) jobs: Vec<Job>,
    spare_jobs: Vec<u32>,
    pub(super) requests: Vec<Request>,
    pub(super) spare: Vec<u32>,
    pub(super) image_rate: Pipe,
    image_bytes: Pipe,
    pub(super) stac: Pipe,
    store_bytes: Pipe,
    store_ops: Pipe,
    broker: Pipe,
    pub(super) out: Outcome,
    settled: usize,
}

/// A whole run of `tasks` by so many workers.
pub(super) fn run(model: &Model, tasks: &[Todo], workers: u32) -> Outcome {
    let mut partitions: Vec<VecDeque<u32>> = vec![VecDeque::new(); model.partitions as usize];
    for (i, todo) in tasks.iter().enumerate() {
        partitions[(todo.partition as usize).min(model.partitions as usize - 1)].push_back(i as u32);
    }
    let mut hands: Vec<VecDeque<VecDeque<u32>>> = vec![VecDeque::new(); workers as usize];
    for (partition, owner) in partitions.into_iter().zip(owners(model.partitions, workers)) {
        hands[owner as usize].push_back(partition);
    }
    let rates = &model.rates;
    let engine = Engine {
        model,
        tasks,
        now: 0,
        made: 0,
        events: BinaryHeap::new(),
        workers: hands.into_iter().map(|hand| Worker::new(model, hand)).collect(),
        jobs: Vec::new(),
        spare_jobs: Vec::new(),
        requests: Vec::new(),
        spare: Vec::new(),
        image_rate: Pipe::new(rates.image_requests),
        image_bytes: Pipe::new(rates.image_bytes),
        stac: Pipe::new(rates.stac),
        store_bytes: Pipe::new(rates.store_bytes),
        store_ops: Pipe::new(rates.store_ops),
        broker: Pipe::new(rates.broker),
        out: Outcome { workers, ..Outcome::default() },
        settled: 0,
    };
    engine.run()
}

/// Who has each partition after the workers came one by one: the sticky assignor goes through the partitions and moves to
/// the newcomer what others have too many of, so that nobody has two more than another.
fn owners(partitions: u32, workers: u32) -> Vec<u32> {
    let mut owners = vec![0; partitions as usize];
    let mut counts = vec![0u32; workers as usize];
    counts[0] = partitions;
    for new in 1..workers {
        let share = partitions / (new + 1);
        for most in [partitions.div_ceil(new + 1), share] {
            for owner in &mut owners {
                if counts[*owner as usize] > most && counts[new as usize] < share {
                    counts[*owner as usize] -= 1;
                    counts[new as usize] += 1;
                    *owner = new;
                }
            }
        }
    }
    owners
}

impl Engine<'_> {
    fn run(mut self) -> Outcome {
        // In turn, as tasks reach workers that are all there.
        for _ in 0..self.model.tasks_in_flight {
            (0..self.workers.len()).for_each(|worker| self.begin(worker));
        }
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = at;
            self.happen(event);
        }
        self.out.wall_ns = self.now;
        let last = self.workers.iter().map(|w| w.last as f64).sum::<f64>();
        self.out.even = last / (self.workers.len() as f64 * self.now.max(1) as f64);
        self.out
    }

    pub(super) fn after(&mut self, at: u64, event: Event) {
        self.made += 1;
        self.events.push(Reverse((at, self.made, event)));
    }

    /// Takes a task, if there is one.
    fn begin(&mut self, worker: usize) {
        let Some(task) = self.workers[worker].next() else { return };
        let todo = &self.tasks[task as usize];
        let groups = groups(self.model, todo);
        let unwritten = groups.iter().map(|g| g.chips).sum();
        let job = Job {
            worker: worker as u32,
            stage: Stage::Draw,
            groups,
            bbox: todo.bbox,
            pending: 0,
            unwritten,
            windows: 0,
        };
        let id = match self.spare_jobs.pop() {
            Some(id) => {
                self.jobs[id as usize] = job;
                id
            }
            None => {
                self.jobs.push(job);
                self.jobs.len() as u32 - 1
            }
        };
        if self.workers[worker].draw.take(self.now, id, 1) {
            self.draw(id);
        }
    }

    fn draw(&mut self, job: u32) {
        let done = self.work(job, self.model.times.draw);
        self.after(done, Event::Drawn(job));
    }

    fn crew(&mut self, job: u32) -> &mut Worker {
        &mut self.workers[self.jobs[job as usize].worker as usize]
    }

    /// When core work for a task that comes now is done.
    fn work(&mut self, job: u32, ns: u64) -> u64 {
        let now = self.now;
        self.crew(job).cores.run(now, ns)
    }

    fn happen(&mut self, event: Event) {
        let (now, times) = (self.now, &self.model.times);
        let mut served = Vec::new();
        match event {
            Event::Drawn(job) => {
                self.crew(job).draw.give(now, 1, &mut served);
                served.into_iter().for_each(|job| self.draw(job));
                self.jobs[job as usize].stage = Stage::Search { group: 0, search: 0 };
                self.advance(job);
            }
            Event::Found(request) => {
                let worker = self.requests[request as usize].worker as usize;
                self.workers[worker].searches.give(now, 1, &mut served);
                served.into_iter().for_each(|request| self.search(request));
                self.here(request);
            }
            Event::Answers(request) => {
                let Request { worker, bytes, .. } = self.requests[request as usize];
                let through = self.image_bytes.push(now, bytes as f64);
                let here = self.workers[worker as usize].link.push(now, bytes as f64);
                self.after(through.max(here), Event::Received(request));
            }
            Event::Received(request) => {
                let Request { worker, decode_ns, ref brings, .. } = self.requests[request as usize];
                let blocks = if decode_ns > 0 { brings.len() } else { 0 };
                let worker = &mut self.workers[worker as usize];
                worker.requests.give(now, 1, &mut served);
                // Blocks are decoded side by side.
                let done = (0..blocks).map(|_| worker.cores.run(now, decode_ns)).max().unwrap_or(now);
                self.after(done, Event::Here(request));
                served.into_iter().for_each(|request| self.ask(request));
            }
            Event::Here(request) => self.here(request),
            Event::Cut(job) => {
                let done = self.work(job, times.encode);
                self.after(done, Event::Encoded(job));
                if let Stage::Chips { group, left } = self.jobs[job as usize].stage {
                    self.jobs[job as usize].stage = Stage::Chips { group, left: left - 1 };
                }
                self.advance(job);
            }
            Event::Encoded(job) => {
                if self.crew(job).write.take(now, job, 1) {
                    self.write(job);
                }
            }
            Event::Written(job) => {
                self.crew(job).write.give(now, 1, &mut served);
                served.into_iter().for_each(|job| self.write(job));
                self.out.chips += 1;
                self.jobs[job as usize].unwritten -= 1;
                self.conclude(job);
            }
            Event::Settled(job) => self.settle(job),
        }
    }

    /// Goes as far as possible without waiting.
    pub(super) fn advance(&mut self, id: u32) {
        loop {
            let job = &self.jobs[id as usize];
            if job.pending > 0 {
                return;
            }
            let Some(next) = self.step(id, job.stage) else { return };
            self.jobs[id as usize].stage = next;
        }
    }

    /// One stage; `None` while it waits for something that is not a request.
    fn step(&mut self, id: u32, stage: Stage) -> Option<Stage> {
        let groups = self.jobs[id as usize].groups.len();
        let rank = |this: &Self, group: usize| this.jobs[id as usize].groups[group].rank;
        Some(match stage {
            Stage::Draw => return None,
            Stage::Search { group, .. } if group == groups => Stage::Look { group: 0, rank: 0, opened: false },
            Stage::Search { group, search } if search == self.model.searches => {
                Stage::Search { group: group + 1, search: 0 }
            }
            Stage::Search { group, search } => {
                self.want_search(id, group, search);
                Stage::Search { group, search: search + 1 }
            }
            Stage::Look { group, .. } if group == groups || !self.model.looks => Stage::Open { group: 0 },
            Stage::Look { group, rank: at, .. } if at > rank(self, group) => {
                Stage::Look { group: group + 1, rank: 0, opened: false }
            }
            Stage::Look { group, rank, opened: false } => {
                let scene = self.jobs[id as usize].groups[group].base + rank;
                self.want(id, file_key(scene, self.model.scl() as u64));
                Stage::Look { group, rank, opened: true }
            }
            Stage::Look { group, rank, opened: true } => {
                self.want_blocks(id, group, rank, self.model.scl());
                Stage::Look { group, rank: rank + 1, opened: false }
            }
            Stage::Open { group } if group == groups => {
                self.jobs[id as usize].stage = Stage::Over;
                self.conclude(id);
                return None;
            }
            Stage::Open { group } => {
                let scene = self.jobs[id as usize].groups[group].base + rank(self, group);
                (0..self.model.scl()).for_each(|file| self.want(id, file_key(scene, file as u64)));
                Stage::Offset { group, read: 0 }
            }
            Stage::Offset { group, read } => {
                let scene = self.jobs[id as usize].groups[group].base + rank(self, group);
                if read == OFFSET_READS || !self.model.asks_offset(scene) {
                    return Some(Stage::Memory { group });
                }
                self.want(id, file_key(scene, OVERVIEW - u64::from(read)));
                Stage::Offset { group, read: read + 1 }
            }
            Stage::Memory { group } => {
                self.jobs[id as usize].stage = Stage::Fetch { group };
                let windows = self.window_mb(id, group);
                self.jobs[id as usize].windows = windows;
                let now = self.now;
                if !self.crew(id).windows.take(now, id, windows) {
                    return None;
                }
                Stage::Fetch { group }
            }
            Stage::Fetch { group } => {
                let rank = rank(self, group);
                (0..self.model.scl()).for_each(|file| self.want_blocks(id, group, rank, file));
                Stage::Chips { group, left: self.jobs[id as usize].groups[group].chips }
            }
            Stage::Chips { group, left: 0 } => {
                let (now, windows) = (self.now, self.jobs[id as usize].windows);
                let mut served = Vec::new();
                self.crew(id).windows.give(now, windows, &mut served);
                self.jobs[id as usize].stage = Stage::Open { group: group + 1 };
                served.into_iter().for_each(|job| self.advance(job));
                Stage::Open { group: group + 1 }
            }
            Stage::Chips { .. } => {
                let now = self.now;
                if self.crew(id).cut.take(now, id, 1) {
                    self.cut(id);
                }
                return None;
            }
            Stage::Over => return None,
        })
    }

    fn cut(&mut self, job: u32) {
        let done = self.work(job, self.model.times.cut);
        self.after(done, Event::Cut(job));
    }

    /// Decoded blocks of a group, MiB, as far as a batch may go.
    fn window_mb(&self, id: u32, group: usize) -> u32 {
        let job = &self.jobs[id as usize];
        let bytes =
            |file: usize| job.groups[group].blocks(self.model.files[file]).len() as u64 * self.model.decoded(file);
        let mb = (0..self.model.scl()).map(bytes).sum::<u64>().div_ceil(1 << 20) as u32;
        self.workers[job.worker as usize].windows.clamp(mb.min(self.model.window_mb / 2))
    }

    /// A chip has its credit to be written, and gives back that of its encoding.
    fn write(&mut self, job: u32) {
        let (now, model) = (self.now, self.model);
        let mut served = Vec::new();
        self.crew(job).cut.give(now, 1, &mut served);
        served.into_iter().for_each(|job| self.cut(job));
        self.out.bytes_out += model.chip_bytes;
        let done = self.store_bytes.push(now, model.chip_bytes).max(self.store_ops.push(now, model.store_ops));
        self.after(done + model.times.write, Event::Written(job));
    }

    /// Publishes a task whose chips are all written.
    fn conclude(&mut self, id: u32) {
        let job = &self.jobs[id as usize];
        if job.stage != Stage::Over || job.unwritten > 0 {
            return;
        }
        let done = self.store_ops.push(self.now, self.model.store_ops / 3.0);
        let done = done.max(self.broker.push(self.now, MESSAGES));
        self.after(done + self.model.times.commit, Event::Settled(id));
    }

    fn settle(&mut self, id: u32) {
        let worker = self.jobs[id as usize].worker as usize;
        self.workers[worker].last = self.now;
        self.spare_jobs.push(id);
        self.out.tasks += 1;
        self.settled += 1;
        // The end of a run, when some have nothing left to do, says nothing about what limits the rest.
        if self.settled == (self.tasks.len() * 4).div_ceil(5) {
            self.out.shares = self.shares();
        }
        self.begin(worker);
    }

    fn shares(&self) -> Shares {
        let (now, count) = (self.now, self.workers.len() as f64);
        let mean = |of: &dyn Fn(&Worker) -> f64| self.workers.iter().map(of).sum::<f64>() / count;
        let cores = |w: &Worker| w.cores.busy() as f64 / (now.max(1) as f64 * self.model.cores as f64);
        Shares {
            cores: mean(&cores).min(1.0),
            requests: mean(&|w| w.requests.share(now)),
            windows: mean(&|w| w.windows.share(now)),
            chips: mean(&|w| w.write.share(now)),
            searches: mean(&|w| w.searches.share(now)),
            link: (self.model.rates.link_bytes > 0.0).then(|| mean(&|w| w.link.share(now).unwrap_or(0.0))),
            image_requests: self.image_rate.share(now),
            image_bytes: self.image_bytes.share(now),
            stac: self.stac.share(now),
            store_bytes: self.store_bytes.share(now),
            store_ops: self.store_ops.share(now),
            broker: self.broker.share(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_shared_evenly_and_move_in_stretches() {
        assert_eq!(owners(5, 1), [0; 5]);
        assert_eq!(owners(6, 2), [1, 1, 1, 0, 0, 0]);
        assert_eq!(owners(2, 4), [1, 0]);
        for (partitions, workers) in [(15, 4), (60, 7), (800, 100)] {
            let owners = owners(partitions, workers);
            let count = |w| owners.iter().filter(|o| **o == w).count();
            let counts: Vec<usize> = (0..workers).map(count).collect();
            assert!(counts.iter().max() <= counts.iter().min().map(|n| n + 1).as_ref(), "{counts:?}");
        }
    }
}
