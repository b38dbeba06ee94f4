//! A file system of its own for an output directory: small, full or read-only.
//!
//! Contract: unmounted when dropped. A machine that cannot mount a tmpfs fails the test and says why: nothing passes by
//! being skipped. Trap: needs root, or `unshare -rm` around `cargo test`.
#![allow(dead_code, unreachable_pub)] // each test crate uses its part of it

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one on `dir`, which is made. `options` as for mount: `size=4m`, `ro`, …
    pub fn mount(dir: PathBuf, options: &str) -> Self {
        std::fs::create_dir_all(&dir).unwrap();
        mount(&["-t", "tmpfs", "-o", options, "tmpfs"], &dir);
        Self(dir)
    }

    /// Mounts it anew with other options; what it holds stays.
    pub fn change(&self, options: &str) {
        mount(&["-o", &format!("remount,{options}")], &self.0);
    }

    /// Makes it read-only under those who write to it. The system refuses while a file is open for writing, so this
    /// waits for a moment between two files.
    pub fn make_read_only(&self) {
        let since = std::time::Instant::now();
        let remount = || Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).output().unwrap();
        loop {
            let said = remount();
            if said.status.success() {
                return;
            }
            assert!(since.elapsed().as_secs() < 30, "{}", String::from_utf8_lossy(&said.stderr));
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

fn mount(args: &[&str], dir: &Path) {
    let done = Command::new("mount").args(args).arg(dir).output().expect("this test needs the command `mount`");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "this test mounts a tmpfs for a disk that fills up, and mount said: {said}run it as root, or as \
         `unshare -rm cargo test`"
    );
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A test that fails leaves by the same door; a mount that is still busy is detached when it no longer is.
        let _ = Command::new("umount").args(["-l"]).arg(&self.0).status();
    }
}
