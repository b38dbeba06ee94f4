//! What keys do to the screen.
//!
//! Contract: pure; a key changes the state and may be a wish that only the monitor can fulfil. Quitting asks first when it
//! would stop more than the monitor.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// The parts of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pane {
    /// Counts, classes, and as much of the others as there is room for.
    Overview,
    /// Who has done what.
    Workers,
    /// What failed, and why.
    Failures,
    /// How far each partition is.
    Lag,
    /// The log.
    Log,
}

impl Pane {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Overview, Self::Workers, Self::Failures, Self::Lag, Self::Log];

    /// Its name on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Workers => "workers",
            Self::Failures => "failures",
            Self::Lag => "lag",
            Self::Log => "log",
        }
    }

    fn step(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|p| *p == self).unwrap_or(0);
        Self::ALL[(at + by) % Self::ALL.len()]
    }
}

/// What a key asks of the monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Draw again.
    Redraw,
    /// End.
    Quit,
}

/// What the keys have chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The pane that is shown.
    pub pane: Pane,
    /// First line of the pane that is shown; the drawing keeps it in bounds.
    pub scroll: usize,
    /// Whether the picture stands still.
    pub paused: bool,
    /// Whether the keys are explained.
    pub help: bool,
    /// Whether it was asked if the node should stop.
    pub asking: bool,
    alone: bool,
}

impl State {
    /// The overview, moving.
    pub fn new(alone: bool) -> Self {
        Self { pane: Pane::Overview, scroll: 0, paused: false, help: false, asking: false, alone }
    }

    /// Does what the key says; `None`: it says nothing.
    pub fn press(&mut self, key: KeyEvent) -> Option<Wish> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return matches!(key.code, KeyCode::Char('c')).then_some(Wish::Quit);
        }
        if std::mem::take(&mut self.asking) {
            let yes = matches!(key.code, KeyCode::Char('y' | 'Y'));
            return Some(if yes { Wish::Quit } else { Wish::Redraw });
        }
        if std::mem::take(&mut self.help) {
            return Some(Wish::Redraw);
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc if self.alone => return Some(Wish::Quit),
            KeyCode::Char('q') => self.asking = true,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.turn_to(self.pane.step(1)),
            KeyCode::BackTab | KeyCode::Left => self.turn_to(self.pane.step(Pane::ALL.len() - 1)),
            KeyCode::Char(digit @ '1'..='5') => self.turn_to(Pane::ALL[digit as usize - '1' as usize]),
            KeyCode::Down | KeyCode::Char('j') => self.scroll += 1,
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown => self.scroll += 10,
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::Home => self.scroll = 0,
            _ => return None,
        }
        Some(Wish::Redraw)
    }

    fn turn_to(&mut self, pane: Pane) {
        (self.pane, self.scroll) = (pane, 0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn press(state: &mut State, code: KeyCode) -> Option<Wish> {
        state.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn keys_turn_pages_and_pause() {
        let mut state = State::new(true);
        press(&mut state, KeyCode::Tab);
        assert_eq!(state.pane, Pane::Workers);
        press(&mut state, KeyCode::BackTab);
        press(&mut state, KeyCode::Left);
        assert_eq!(state.pane, Pane::Log);
        press(&mut state, KeyCode::Down);
        assert_eq!(state.scroll, 1);
        press(&mut state, KeyCode::Char('3'));
        assert_eq!((state.pane, state.scroll), (Pane::Failures, 0));
        press(&mut state, KeyCode::Char(' '));
        assert!(state.paused);
        assert_eq!(press(&mut state, KeyCode::Char('x')), None);
    }

    #[test]
    fn leaving_asks_only_when_it_stops_more_than_the_screen() {
        assert_eq!(press(&mut State::new(true), KeyCode::Char('q')), Some(Wish::Quit));
        let mut state = State::new(false);
        assert_eq!(press(&mut state, KeyCode::Char('q')), Some(Wish::Redraw));
        assert!(state.asking);
        assert_eq!(press(&mut state, KeyCode::Char('n')), Some(Wish::Redraw));
        assert!(!state.asking);
        press(&mut state, KeyCode::Char('q'));
        assert_eq!(press(&mut state, KeyCode::Char('y')), Some(Wish::Quit));
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(State::new(false).press(control_c), Some(Wish::Quit));
    }
}
