//! The whole screen: head, the chosen pane, the line of keys.
//!
//! Contract: a function of the scene, the log and the keys' state; works from 20 x 6 characters on and shows more where
//! there is room. Without colours states are told by words alone; without UTF-8 everything is ASCII.
//! Trap: texts of other machines were cleaned by the tally; only they and numbers are drawn.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style as Paint};
use ratatui::symbols::border;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::keys::{Pane, State};
use super::panes;
use crate::domain::plan_record::PlanState;
use crate::domain::view::View;
use crate::node::monitor_view::{Lag, Style, span};

/// From this size on the overview shows everything side by side.
const WIDE: u16 = 110;
const HIGH: u16 = 30;

/// What is drawn.
pub struct Scene<'a> {
    /// The moment.
    pub view: &'a View,
    /// How far the workers are behind; `None`: the broker did not say.
    pub lag: Option<&'a [Lag]>,
    /// Whether everything that had happened when the monitor came up has been read.
    pub caught_up: bool,
    /// What the terminal can show.
    pub style: Style,
}

const ASCII: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// Draws the scene.
pub fn draw(frame: &mut Frame<'_>, scene: &Scene<'_>, log: &[String], state: &mut State) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
    frame.render_widget(title(scene, state), head);
    frame.render_widget(keys(scene, state, foot.width), foot);
    match state.pane {
        Pane::Overview if body.width >= WIDE && body.height >= HIGH => everything(frame, body, scene, log),
        Pane::Overview => narrow(frame, body, scene),
        pane => {
            let lines = lines_of(pane, scene, log, body.width.saturating_sub(2));
            scrolled(frame, body, scene, pane, lines, &mut state.scroll);
        }
    }
    if state.help {
        help(frame, scene);
    }
}

fn lines_of<'a>(pane: Pane, scene: &Scene<'a>, log: &[String], width: u16) -> Vec<Line<'a>> {
    let width = usize::from(width);
    match pane {
        Pane::Overview => panes::overview(scene, width),
        Pane::Workers => panes::workers(scene.view, width),
        Pane::Failures => panes::failures(scene, width),
        Pane::Lag => panes::lag(scene.lag, width),
        Pane::Log => log.iter().map(|line| Line::raw(line.clone())).collect(),
    }
}

fn title<'a>(scene: &Scene<'a>, state: &State) -> Line<'a> {
    let p = &scene.view.progress;
    let word = match p.plan {
        _ if state.paused => "paused",
        _ if !scene.caught_up => "catching up",
        Some(PlanState::Publishing) => "publishing",
        Some(PlanState::Published) if p.complete => "complete",
        Some(PlanState::Published) => "at work",
        None => "no plan",
    };
    let age = p.first_ms.map(|first| span(scene.view.at_ms.saturating_sub(first) / 1000)).unwrap_or_default();
    Line::from(vec![
        Span::styled(" run ", Paint::new().add_modifier(Modifier::DIM)),
        Span::styled(p.run_id.as_deref().unwrap_or("-"), Paint::new().add_modifier(Modifier::BOLD)),
        Span::raw("  "),
        Span::styled(word, Paint::new().add_modifier(Modifier::REVERSED)),
        Span::raw("  "),
        Span::raw(age),
    ])
}

fn keys<'a>(scene: &Scene<'a>, state: &State, width: u16) -> Line<'a> {
    if state.asking {
        return Line::styled(
            " stop the whole node? y = yes, any other key = no",
            Paint::new().add_modifier(Modifier::BOLD),
        );
    }
    let mut spans = Vec::new();
    for (i, pane) in Pane::ALL.into_iter().enumerate() {
        let mut paint = Paint::new();
        if pane == state.pane {
            paint = paint.add_modifier(Modifier::REVERSED);
        }
        let failed = if pane == Pane::Failures { scene.view.progress.tasks_failed } else { 0 };
        let count = if failed > 0 { format!(" ({failed})") } else { String::new() };
        spans.push(Span::styled(format!(" {} {}{count} ", i + 1, pane.name()), paint));
    }
    let used: usize = spans.iter().map(Span::width).sum();
    let more = if usize::from(width) >= used + 25 { "  p pause  ? keys  q quit" } else { "  ? keys" };
    spans.push(Span::styled(more, Paint::new().add_modifier(Modifier::DIM)));
    Line::from(spans)
}

fn boxed<'a>(scene: &Scene<'_>, name: &'a str) -> Block<'a> {
    let block = Block::bordered().title(format!(" {name} "));
    if scene.style.blocks { block } else { block.border_set(ASCII) }
}

/// The overview of a small terminal: one pane, as much as fits.
fn narrow(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>) {
    frame.render_widget(Paragraph::new(panes::overview(scene, usize::from(area.width))), area);
}

/// The overview of a large terminal: all panes at once.
fn everything(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>, log: &[String]) {
    let classes = u16::try_from(scene.view.progress.classes.len()).unwrap_or(8);
    let top = (classes + 9).clamp(14, area.height / 2);
    let [upper, lower] = Layout::vertical([Constraint::Length(top), Constraint::Min(8)]).areas(area);
    let [left, right] = Layout::horizontal([Constraint::Percentage(55), Constraint::Percentage(45)]).areas(upper);
    let [failures, lag] = Layout::horizontal([Constraint::Min(40), Constraint::Length(40)]).areas(lower);
    let [failures, logs] = Layout::vertical([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(failures);
    let mut none = 0;
    for (pane, area) in [(Pane::Overview, left), (Pane::Workers, right), (Pane::Failures, failures), (Pane::Lag, lag)] {
        scrolled(frame, area, scene, pane, lines_of(pane, scene, log, area.width.saturating_sub(2)), &mut none);
    }
    let room = usize::from(logs.height.saturating_sub(2));
    let last = log.iter().skip(log.len().saturating_sub(room)).map(|line| Line::raw(line.clone()));
    frame.render_widget(Paragraph::new(last.collect::<Vec<_>>()).block(boxed(scene, Pane::Log.name())), logs);
}

fn scrolled(frame: &mut Frame<'_>, area: Rect, scene: &Scene<'_>, pane: Pane, lines: Vec<Line<'_>>, from: &mut usize) {
    let room = usize::from(area.height.saturating_sub(2));
    *from = (*from).min(lines.len().saturating_sub(room));
    // A log is read from its end.
    let first = if pane == Pane::Log { lines.len().saturating_sub(room).saturating_sub(*from) } else { *from };
    let shown: Vec<Line<'_>> = lines.into_iter().skip(first).take(room).collect();
    frame.render_widget(Paragraph::new(shown).block(boxed(scene, pane.name())), area);
}

fn help(frame: &mut Frame<'_>, scene: &Scene<'_>) {
    let text = "1-5, Tab, arrows   another pane\nup, down, PgUp, PgDn   scroll\np, space   hold the picture, go on\nq   \
                quit\nCtrl-C   stop the node after the tasks in flight\n\nany key closes this";
    let (width, height) = (frame.area().width.min(60), frame.area().height.min(10));
    let (x, y) = ((frame.area().width - width) / 2, (frame.area().height - height) / 2);
    let area = Rect { x, y, width, height };
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }).block(boxed(scene, "keys")), area);
}

/// The colour `#rrggbb`, when colours are welcome and it is one.
pub(super) fn paint(colour: &str, style: Style) -> Paint {
    let part = |i: usize| colour.get(i..i + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
    match (style.colour && colour.len() == 7, part(1), part(3), part(5)) {
        (true, Some(r), Some(g), Some(b)) => Paint::new().fg(Color::Rgb(r, g, b)),
        _ => Paint::new(),
    }
}
