//! A file system in memory that can lose its power, and that lets a test decide who makes the next step.
//!
//! It promises exactly what `adapters::dataset::fs::FileSystem` says and nothing more: bytes survive a power
//! cut when `write_synced` has returned, a directory's names when `sync_dir` on it has returned. Each call
//! of a member is one step; members wait for their turn, so every interleaving can be played.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use satellite_pipeline::adapters::dataset::fs::{FileSystem, Stat};

type Names = BTreeMap<String, u64>;

/// What the disk holds: file contents and directories by inode; inode 0 is the root directory.
#[derive(Debug, Clone, Default)]
struct Disk {
    files: HashMap<u64, Vec<u8>>,
    dirs: HashMap<u64, Names>,
}

#[derive(Debug, Default)]
struct State {
    now: Disk,
    safe: Disk,
    next: u64,
    steps: u64,
    /// Whose turn it is; `None`: nobody's.
    turn: Option<usize>,
    /// Members that wait for a turn, that have ended, and that were killed.
    waiting: Vec<bool>,
    ended: Vec<bool>,
    killed: Vec<bool>,
}

/// The disk; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Power {
    state: Arc<(Mutex<State>, Condvar)>,
}

/// The disk as one member sees it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    power: Power,
    /// `None`: steps need no turn.
    number: Option<usize>,
}

impl Power {
    pub(crate) fn new() -> Self {
        let mut state = State { next: 1, ..State::default() };
        state.now.dirs.insert(0, Names::new());
        state.safe = state.now.clone();
        Self { state: Arc::new((Mutex::new(state), Condvar::new())) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.0.lock().unwrap()
    }

    /// A new member, whose steps wait for their turn.
    pub(crate) fn join(&self) -> (usize, Member) {
        let mut state = self.lock();
        state.waiting.push(false);
        state.ended.push(false);
        state.killed.push(false);
        let number = state.waiting.len() - 1;
        (number, Member { power: self.clone(), number: Some(number) })
    }

    /// Somebody who needs no turn.
    pub(crate) fn observer(&self) -> Member {
        Member { power: self.clone(), number: None }
    }

    /// Lets a member make one step, and waits until it has come to its next one or ended.
    pub(crate) fn step(&self, number: usize) {
        let (lock, bell) = &*self.state;
        let settled = |s: &State| s.ended[number] || s.waiting[number];
        let mut state = bell.wait_while(lock.lock().unwrap(), |s| !settled(s)).unwrap();
        if state.ended[number] {
            return;
        }
        state.turn = Some(number);
        state.waiting[number] = false;
        bell.notify_all();
        drop(bell.wait_while(state, |s| !(s.ended[number] || s.turn.is_none() && s.waiting[number])).unwrap());
    }

    /// From now on everything this member tries fails, without a trace on the disk.
    pub(crate) fn kill(&self, number: usize) {
        self.lock().killed[number] = true;
    }

    /// Everything that was not safe is gone; all members are dead.
    pub(crate) fn cut(&self) {
        let mut state = self.lock();
        state.now = state.safe.clone();
        state.killed.iter_mut().for_each(|k| *k = true);
    }

    pub(crate) fn has_ended(&self, number: usize) -> bool {
        self.lock().ended[number]
    }

    /// All files below a directory, with their bytes.
    pub(crate) fn files(&self, dir: &str) -> BTreeMap<String, Vec<u8>> {
        let state = self.lock();
        let mut out = BTreeMap::new();
        if let Ok(inode) = state.now.find(Path::new(dir)) {
            state.now.walk(inode, "", &mut out);
        }
        out
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(number) = self.number
            && Arc::strong_count(&self.power.state) > 0
        {
            let (lock, bell) = &*self.power.state;
            let mut state = lock.lock().unwrap();
            state.ended[number] = true;
            if state.turn == Some(number) {
                state.turn = None;
            }
            bell.notify_all();
        }
    }
}

fn error(kind: ErrorKind) -> io::Error {
    io::Error::new(kind, "the model says so")
}

fn parts(path: &Path) -> Vec<String> {
    path.components()
        .filter(|c| !matches!(c, std::path::Component::RootDir))
        .map(|c| c.as_os_str().to_str().unwrap().to_owned())
        .collect()
}

impl Disk {
    fn find(&self, path: &Path) -> io::Result<u64> {
        parts(path).iter().try_fold(0, |dir, name| {
            let names = self.dirs.get(&dir).ok_or_else(|| error(ErrorKind::NotADirectory))?;
            names.get(name).copied().ok_or_else(|| error(ErrorKind::NotFound))
        })
    }

    /// Inode of the parent directory, and the last name.
    fn parent(&self, path: &Path) -> io::Result<(u64, String)> {
        let mut names = parts(path);
        let last = names.pop().ok_or_else(|| error(ErrorKind::InvalidInput))?;
        let dir = self.find(&names.iter().collect::<PathBuf>())?;
        if self.dirs.contains_key(&dir) { Ok((dir, last)) } else { Err(error(ErrorKind::NotADirectory)) }
    }

    fn walk(&self, inode: u64, prefix: &str, out: &mut BTreeMap<String, Vec<u8>>) {
        for (name, child) in self.dirs.get(&inode).into_iter().flatten() {
            let path = format!("{prefix}/{name}");
            match self.files.get(child) {
                Some(bytes) => {
                    out.insert(path, bytes.clone());
                }
                None => self.walk(*child, &path, out),
            }
        }
    }
}

impl Member {
    /// Makes one step of `work`, when it is this member's turn.
    fn act<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let (lock, bell) = &*self.power.state;
        let mut state = lock.lock().unwrap();
        let Some(number) = self.number else { return work(&mut state) };
        if !state.killed[number] {
            state.waiting[number] = true;
            bell.notify_all();
            state = bell.wait_while(state, |s| s.turn != Some(number)).unwrap();
        }
        let done = if state.killed[number] { Err(error(ErrorKind::BrokenPipe)) } else { work(&mut state) };
        state.steps += 1;
        if state.turn == Some(number) {
            state.turn = None;
        }
        bell.notify_all();
        done
    }
}

impl FileSystem for Member {
    fn stat(&self, path: &Path) -> io::Result<Stat> {
        self.act(|s| {
            let inode = s.now.find(path)?;
            let bytes = s.now.files.get(&inode).map(Vec::len);
            Ok(Stat { bytes: bytes.unwrap_or(0) as u64, is_dir: bytes.is_none(), identity: (0, inode) })
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.act(|s| {
            let inode = s.now.find(path)?;
            s.now.files.get(&inode).cloned().ok_or_else(|| error(ErrorKind::IsADirectory))
        })
    }

    fn write_synced(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.act(|s| {
            let (dir, name) = s.now.parent(path)?;
            let inode = match s.now.dirs[&dir].get(&name) {
                Some(inode) => *inode,
                None => {
                    s.next += 1;
                    s.next
                }
            };
            s.now.dirs.get_mut(&dir).unwrap().insert(name, inode);
            s.now.files.insert(inode, bytes.to_vec());
            s.safe.files.insert(inode, bytes.to_vec());
            Ok(())
        })
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.act(|s| {
            let inode = s.now.find(from)?;
            let (dir, name) = s.now.parent(to)?;
            let names = s.now.dirs.get_mut(&dir).unwrap();
            if names.contains_key(&name) {
                return Err(error(ErrorKind::AlreadyExists));
            }
            names.insert(name, inode);
            Ok(())
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.act(|s| {
            let (dir, name) = s.now.parent(path)?;
            if s.now.dirs[&dir].contains_key(&name) {
                return Err(error(ErrorKind::AlreadyExists));
            }
            s.next += 1;
            let inode = s.next;
            s.now.dirs.get_mut(&dir).unwrap().insert(name, inode);
            s.now.dirs.insert(inode, Names::new());
            Ok(())
        })
    }

    fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        self.act(|s| {
            let inode = s.now.find(path)?;
            let names = s.now.dirs.get(&inode).ok_or_else(|| error(ErrorKind::NotADirectory))?;
            Ok(names.keys().cloned().collect())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.act(|s| {
            let inode = s.now.find(path)?;
            let names = s.now.dirs.get(&inode).cloned().ok_or_else(|| error(ErrorKind::NotADirectory))?;
            // A name that is safe leads to something: an empty directory, if its own names are not safe yet.
            for child in names.values().filter(|c| s.now.dirs.contains_key(c)) {
                s.safe.dirs.entry(*child).or_default();
            }
            s.safe.dirs.insert(inode, names);
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.act(|s| {
            let (dir, name) = s.now.parent(path)?;
            let removed = s.now.dirs.get_mut(&dir).unwrap().remove(&name);
            removed.map(|_| ()).ok_or_else(|| error(ErrorKind::NotFound))
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.act(|s| {
            let (dir, name) = s.now.parent(path)?;
            let inode = s.now.find(path)?;
            match s.now.dirs.get(&inode) {
                Some(names) if names.is_empty() => {}
                Some(_) => return Err(error(ErrorKind::DirectoryNotEmpty)),
                None => return Err(error(ErrorKind::NotADirectory)),
            }
            s.now.dirs.get_mut(&dir).unwrap().remove(&name);
            Ok(())
        })
    }

    /// Not one step: entry by entry, as the real one, so that others may write in between.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let names: Vec<(String, bool)> = self.act(|s| {
            let inode = s.now.find(path)?;
            let names = s.now.dirs.get(&inode).ok_or_else(|| error(ErrorKind::NotADirectory))?;
            Ok(names.iter().map(|(n, i)| (n.clone(), s.now.dirs.contains_key(i))).collect())
        })?;
        for (name, is_dir) in names {
            let child = path.join(name);
            let gone = if is_dir { self.remove_dir_all(&child) } else { self.remove_file(&child) };
            match gone {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        self.remove_dir(path)
    }
}
