//! What stands in the panes, line by line.
//!
//! Contract: pure; lines are cut to the width they are given, numbers stand to the right. Units are named in the headings.

use ratatui::style::{Modifier, Style as Paint};
use ratatui::text::{Line, Span};

use super::draw::{Scene, paint};
use crate::domain::cell::CellState;
use crate::domain::crew::crew;
use crate::domain::progress::{ClassProgress, Reason};
use crate::domain::roster::Presence;
use crate::domain::view::View;
use crate::node::monitor_view::{Lag, Style, bar, fit, lag_words, of, span};

const DIM: Paint = Paint::new().add_modifier(Modifier::DIM);

/// Tasks, chips, classes, and what went wrong most often.
pub(super) fn overview<'a>(scene: &Scene<'a>, width: usize) -> Vec<Line<'a>> {
    let (view, p) = (scene.view, &scene.view.progress);
    let label = |text: &'static str| Span::styled(format!("{text:<8}"), DIM);
    let mut lines = Vec::new();
    let tasks = of(p.tasks_done, p.tasks_planned);
    let room = width.saturating_sub(8 + 26).min(44);
    let tasks_bar = p.tasks_planned.map(|all| bar(p.tasks_done, all, room, scene.style)).unwrap_or_default();
    lines.push(Line::from(vec![label("tasks"), Span::raw(format!("{tasks:<24}  ")), Span::raw(tasks_bar)]));
    let states = CellState::ALL.map(|state| format!("{} {}", view.count(state), state.as_str())).join("  ");
    lines.push(Line::from(vec![label(""), Span::raw(states)]));
    let percent = p.percent.map(|percent| format!("  {percent:.1} %")).unwrap_or_default();
    let eta = p.eta_s.filter(|s| *s > 0).map(|s| format!("  ETA {}", span(s))).unwrap_or_default();
    let rate = format!("{:.1} chips/s{eta}", p.chips_per_s);
    let chips = format!("{}{percent}  {rate}", of(p.chips, p.chips_target));
    lines.push(Line::from(vec![label("chips"), Span::raw(chips)]));
    if let Some(lag) = scene.lag {
        lines.push(Line::from(vec![label("lag"), Span::raw(fit(&lag_words(lag), width.saturating_sub(8)))]));
    }
    lines.push(Line::default());
    lines.extend(classes(&p.classes, scene.style, width));
    if !p.failures.is_empty() {
        lines.push(Line::default());
        lines.extend(reasons("failed", &p.failures, 3, width));
    }
    if !p.rejected.is_empty() {
        lines.extend(reasons("no chip", &p.rejected, 2, width));
    }
    lines
}

fn classes<'a>(classes: &[ClassProgress], style: Style, width: usize) -> Vec<Line<'a>> {
    if classes.is_empty() {
        return vec![Line::styled("no class yet", DIM)];
    }
    // Name 18, chips 8, target 8, per second 7, to go 8, and blanks between them; the rest is the bar's.
    let room = width.saturating_sub(18 + 9 + 9 + 8 + 9 + 2);
    let head = format!("{:<18} {:>8} {:>8} {:>7} {:>8}", "class", "chips", "target", "per s", "to go");
    let mut lines = vec![Line::styled(fit(&head, width), DIM)];
    for c in classes {
        let name = fit(&format!("{:>3} {}", c.class, c.name), 18);
        let target = c.target.map_or_else(|| "-".to_owned(), |t| t.to_string());
        let to_go = match c.eta_s {
            Some(0) => "filled".to_owned(),
            Some(s) => span(s),
            None => "-".to_owned(),
        };
        let text = format!("{name:<18} {:>8} {target:>8} {:>7.1} {to_go:>8}  ", c.chips, c.chips_per_s);
        let drawn = c.target.filter(|_| room >= 5).map(|t| bar(c.chips, t, room, style)).unwrap_or_default();
        lines.push(Line::from(vec![Span::raw(text), Span::styled(drawn, paint(&c.colour, style))]));
    }
    lines
}

fn reasons<'a>(title: &str, reasons: &[Reason], most: usize, width: usize) -> Vec<Line<'a>> {
    let line = |(i, r): (usize, &Reason)| {
        let title = if i == 0 { title } else { "" };
        Line::raw(fit(&format!("{title:<8}{:>5} x {}", r.count, r.reason), width))
    };
    reasons.iter().take(most).enumerate().map(line).collect()
}

/// One line for each worker; what it has in flight below it.
pub(super) fn workers<'a>(view: &View, width: usize) -> Vec<Line<'a>> {
    let hands = crew(&view.progress);
    let room = width.saturating_sub(10 + 7 + 7 + 8 + 8 + 7 + 6 + 9).clamp(8, 40);
    let head = format!(
        "{:<room$} {:<8} {:>6} {:>6} {:>7} {:>7} {:>6} {:>5} {:>8}",
        "worker", "is", "tasks", "failed", "chips", "chips/s", "MB/s", "cache", "heard"
    );
    let mut lines = vec![Line::styled(fit(&head, width), DIM)];
    let dash = || "-".to_owned();
    for hand in &hands {
        let text = format!(
            "{:<room$} {:<8} {:>6} {:>6} {:>7} {:>7} {:>6} {:>5} {:>8}",
            fit(&hand.worker, room),
            hand.presence.map_or("-", Presence::as_str),
            hand.tasks,
            hand.failed,
            hand.chips,
            hand.chips_per_s.map_or_else(dash, |n| format!("{n:.1}")),
            hand.bytes_per_s.map_or_else(dash, |n| format!("{:.1}", n / 1e6)),
            hand.cache_share.map_or_else(dash, |n| format!("{:.0}%", n * 100.0)),
            span(view.at_ms.saturating_sub(hand.heard_ms) / 1000),
        );
        lines.push(Line::raw(fit(&text, width)));
        if !hand.stages.is_empty() {
            lines.push(Line::styled(fit(&format!("  in flight: {}", hand.stages), width), DIM));
        }
    }
    lines
}

/// Kinds of failures, then the latest ones with their reasons.
pub(super) fn failures<'a>(scene: &Scene<'a>, width: usize) -> Vec<Line<'a>> {
    let view = scene.view;
    if view.failed.is_empty() {
        return vec![Line::styled("none", DIM)];
    }
    let mut lines = reasons("", &view.progress.failures, usize::MAX, width);
    lines.push(Line::default());
    for cell in view.latest_failures() {
        let Some(o) = &cell.outcome else { continue };
        let ago = span(view.at_ms.saturating_sub(o.when_ms) / 1000);
        let head = format!("task {}  {}  worker {}  {ago} ago", cell.task, o.status.as_str(), o.worker);
        lines.push(Line::styled(fit(&head, width), Paint::new().add_modifier(Modifier::BOLD)));
        let reason = o.reason.as_deref().or(o.kind.as_deref()).unwrap_or("no reason was given");
        let letters: Vec<char> = reason.chars().collect();
        let rows = letters.chunks(width.saturating_sub(2).max(10));
        lines.extend(rows.map(|row| Line::raw(format!("  {}", row.iter().collect::<String>()))));
    }
    lines
}

/// One line for each partition.
pub(super) fn lag<'a>(lag: Option<&[Lag]>, width: usize) -> Vec<Line<'a>> {
    let Some(lag) = lag else { return vec![Line::styled("the broker did not say", DIM)] };
    let mut lines = vec![Line::raw(fit(&lag_words(lag), width)), Line::default()];
    lines.push(Line::styled(format!("{:>9} {:>9}", "partition", "behind"), DIM));
    lines.extend(lag.iter().map(|l| Line::raw(format!("{:>9} {:>9}", l.partition, l.behind))));
    lines
}
