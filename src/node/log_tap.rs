//! Where log lines go while the terminal shows something else.
//!
//! Contract: lines go to standard error; while the tap is open and standard error is the terminal, they are kept for the
//! screen instead, the last [`KEPT`] of them, and written out when it is closed. Standard error that is a file or a pipe
//! gets every line at once, whatever the screen shows. Trap: what is kept is lost when the process is killed.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// Lines kept for the screen.
pub const KEPT: usize = 200;
/// Longest line kept, bytes.
const LONGEST: usize = 1000;

#[derive(Debug, Default)]
struct Tapped {
    open: bool,
    lines: VecDeque<String>,
    dropped: u64,
}

/// See the head of this file. Clones are the same tap.
#[derive(Debug, Clone, Default)]
pub struct LogTap(Arc<Mutex<Tapped>>);

impl LogTap {
    fn lock(&self) -> MutexGuard<'_, Tapped> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps lines from now on.
    pub fn open(&self) {
        self.lock().open = true;
    }

    /// Writes to standard error again, beginning with what was kept.
    pub fn close(&self) {
        let mut tapped = self.lock();
        if !std::mem::take(&mut tapped.open) {
            return;
        }
        let (lines, dropped) = (std::mem::take(&mut tapped.lines), std::mem::take(&mut tapped.dropped));
        if !io::stderr().is_terminal() {
            return;
        }
        let mut out = io::stderr().lock();
        // Err: standard error is closed, and nobody is left to tell.
        if dropped > 0 {
            let _ = writeln!(out, "({dropped} earlier lines of the log are not kept)");
        }
        for line in lines {
            let _ = writeln!(out, "{line}");
        }
    }

    /// The lines kept, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.iter().cloned().collect()
    }

    fn keep(&self, text: &str) {
        let mut tapped = self.lock();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if tapped.lines.len() == KEPT {
                tapped.lines.pop_front();
                tapped.dropped += 1;
            }
            tapped.lines.push_back(plain(line));
        }
    }
}

/// Without colour codes and other things that steer a terminal, and not too long.
fn plain(line: &str) -> String {
    let mut out = String::with_capacity(line.len().min(LONGEST));
    let mut chars = line.chars();
    while let Some(c) = chars.next().filter(|_| out.len() < LONGEST) {
        match c {
            '\u{1b}' => {
                // ESC [ … letter
                let _ = chars.by_ref().skip_while(|c| *c == '[').find(|c| c.is_ascii_alphabetic());
            }
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

impl<'w> MakeWriter<'w> for LogTap {
    type Writer = TapWriter;

    fn make_writer(&'w self) -> TapWriter {
        TapWriter(self.clone())
    }
}

/// Writes one event.
pub struct TapWriter(LogTap);

impl Write for TapWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let open = self.0.lock().open;
        if open {
            self.0.keep(&String::from_utf8_lossy(bytes));
        }
        if !open || !io::stderr().is_terminal() {
            io::stderr().write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_without_colours() {
        let tap = LogTap::default();
        tap.open();
        for n in 0..KEPT + 5 {
            let mut writer = tap.make_writer();
            writer.write_all(format!("\u{1b}[32m INFO\u{1b}[0m line {n}\u{7}\n").as_bytes()).unwrap();
        }
        let lines = tap.lines();
        assert_eq!((lines.len(), lines[0].as_str()), (KEPT, " INFO line 5?"));
        tap.close();
        assert!(tap.lines().is_empty());
    }
}
