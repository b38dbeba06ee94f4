//! The full screen: what is on it, its keys, and the terminal given back as it was.
//!
//! Contract: the terminal is restored when [`Tui`] is dropped, when anything panics, and by [`restore`] before the process
//! ends otherwise; from then on nothing is drawn. Log lines go to a pane meanwhile. Keys are read on a thread of their own,
//! so a slow broker does not make the screen deaf. Trap: raw mode swallows Ctrl-C; it comes as a key.

mod draw;
mod keys;
mod panes;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::terminal::is_raw_mode_enabled;
use tokio::sync::mpsc;

pub use draw::{Scene, draw};
pub use keys::{Pane, State, Wish};

use super::log_tap::LogTap;

/// Keys that were pressed and not looked at yet; further ones are dropped.
const KEYS: usize = 64;
/// How often the thread of keys looks whether it is still wanted.
const TURN: Duration = Duration::from_millis(200);

/// Gives the terminal back, if it is taken.
pub fn restore() {
    if is_raw_mode_enabled().unwrap_or(false) {
        ratatui::restore();
    }
}

/// A terminal that shows the run.
pub struct Tui {
    terminal: DefaultTerminal,
    state: State,
    keys: mpsc::Receiver<Event>,
    gone: Arc<AtomicBool>,
    log: LogTap,
}

impl Tui {
    /// Takes the terminal. `alone`: whether leaving the screen stops nothing but the monitor.
    ///
    /// # Errors
    /// A terminal that cannot be steered.
    pub fn start(log: LogTap, alone: bool) -> io::Result<Self> {
        let terminal = ratatui::try_init().inspect_err(|_| restore())?;
        log.open();
        let (to, keys) = mpsc::channel(KEYS);
        let gone = Arc::new(AtomicBool::new(false));
        let wanted = gone.clone();
        let read = move || {
            while !wanted.load(Relaxed) && !to.is_closed() {
                match event::poll(TURN) {
                    Ok(true) => match event::read() {
                        // Full: somebody leans on the keyboard.
                        Ok(event) => drop(to.try_send(event)),
                        Err(_) => return,
                    },
                    Ok(false) => {}
                    Err(_) => return,
                }
            }
        };
        let tui = Self { terminal, state: State::new(alone), keys, gone, log };
        std::thread::Builder::new().name("keys".into()).spawn(read)?;
        Ok(tui)
    }

    /// The next key that wants something of the screen or the node; ends never.
    pub async fn wish(&mut self) -> Wish {
        loop {
            match self.keys.recv().await {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if let Some(wish) = self.state.press(key) {
                        return wish;
                    }
                }
                Some(Event::Resize(..)) => return Wish::Redraw,
                Some(_) => {}
                // The keyboard is gone; the screen may still be looked at.
                None => std::future::pending().await,
            }
        }
    }

    /// Draws, unless the terminal was given back meanwhile. A terminal that is gone is no reason to stop.
    pub fn draw(&mut self, scene: &Scene<'_>) {
        if is_raw_mode_enabled().unwrap_or(false) {
            let (lines, state) = (self.log.lines(), &mut self.state);
            let drawn = self.terminal.draw(|frame| draw(frame, scene, &lines, state));
            drop(drawn);
        }
    }

    /// Whether the picture stands still.
    pub fn is_paused(&self) -> bool {
        self.state.paused
    }
}

impl Drop for Tui {
    fn drop(&mut self) {
        self.gone.store(true, Relaxed);
        restore();
        self.log.close();
    }
}
