//! The monitor in plain text: one line, and the final summary as text and JSON.
//!
//! Contract: pure functions into text; a summary is at most [`WIDTH`] characters wide (colour codes not
//! counted) and ends with a line break. Texts of other machines were cleaned by the tally, and the plan's
//! are cleaned here: nothing from outside can steer the terminal.
//! Trap: bars count what is useful (at most the target), percents what is there (above 100 is possible).

use std::fmt::Write;

use serde::Serialize;

use crate::domain::progress::{ClassProgress, Progress, Reason, WorkerProgress};
use crate::domain::roster::Presence;

/// Widest line, characters.
pub const WIDTH: usize = 80;

/// Workers in the summary; the others are summed up in one line.
const MAX_WORKER_LINES: usize = 16;
/// Partitions named in the lag line.
const MAX_LAG: usize = 4;
const CLASS_BAR: usize = 26;
const TASK_BAR: usize = 30;

/// How a summary may be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// 24-bit colours.
    pub colour: bool,
    /// Block characters instead of `#` and `-`.
    pub blocks: bool,
}

impl Style {
    /// What a terminal can show: colours unless `NO_COLOR` is set to something, blocks when the locale
    /// (`LC_ALL`, else `LC_CTYPE`, else `LANG`) is UTF-8. `var` looks an environment variable up.
    pub fn of(terminal: bool, var: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| var(name).filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let utf8 = locale.to_ascii_lowercase().replace('-', "").contains("utf8");
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        Self { colour: terminal && !dumb && set("NO_COLOR").is_none(), blocks: utf8 }
    }
}

/// How far the worker group is behind on one partition of the tasks topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lag {
    /// The partition.
    pub partition: i32,
    /// Tasks published and not committed.
    pub behind: u64,
}

/// The essentials in one line, for logs; no line break.
pub fn one_line(progress: &Progress, lag: Option<&[Lag]>) -> String {
    let p = progress;
    let mut out = String::new();
    let _ = write!(out, "{} tasks", of(p.tasks_done, p.tasks_planned));
    if p.tasks_failed + p.tasks_skipped > 0 {
        let _ = write!(out, " ({} failed, {} skipped)", p.tasks_failed, p.tasks_skipped);
    }
    let _ = write!(out, ", {} chips", p.chips);
    if let Some(percent) = p.percent {
        let _ = write!(out, " ({percent:.1} % of target)");
    }
    let _ = write!(out, ", {:.1} chips/s", p.chips_per_s);
    if let Some(eta) = p.eta_s.filter(|s| *s > 0) {
        let _ = write!(out, ", ETA {}", span(eta));
    }
    // Those at work show in the numbers, and those that have gone are none of a line's business.
    let words = presence(p, |presence| !matches!(presence, Presence::Working | Presence::Gone));
    if !words.is_empty() {
        let _ = write!(out, ", workers: {words}");
    }
    if let Some(lag) = lag {
        let _ = write!(out, ", lag {}", lag.iter().map(|l| l.behind).sum::<u64>());
    }
    out
}

/// How many workers are at what; empty when none says anything.
pub fn presence(p: &Progress, which: fn(Presence) -> bool) -> String {
    let of = |presence| p.presence.iter().filter(|w| w.presence == presence).count();
    let words = Presence::ALL
        .into_iter()
        .filter(|presence| which(*presence))
        .map(|presence| (of(presence), presence.as_str()))
        .filter(|(n, _)| *n > 0);
    words.map(|(n, word)| format!("{n} {word}")).collect::<Vec<_>>().join(", ")
}

/// What is said at the end, for people.
pub fn summary(progress: &Progress, style: Style) -> String {
    let p = progress;
    let mut out = String::new();
    let run = p.run_id.as_deref().map(|run| format!("run {run} ")).unwrap_or_default();
    line(&mut out, &format!("{run}{}", if p.complete { "is complete" } else { "is not complete" }));
    tasks(&mut out, p, style);
    let took = p.first_ms.zip(p.last_ms).map_or(0, |(first, last)| (last - first) / 1000);
    let rate = format!("in {}, {:.1} chips/s", span(took), p.mean_chips_per_s);
    line(&mut out, &format!("chips     {}  {rate}", share(p.chips, p.chips_target, p.percent)));
    classes(&mut out, &p.classes, style);
    reasons(&mut out, "failed", &p.failures);
    reasons(&mut out, "no chip", &p.rejected);
    workers(&mut out, &p.workers, p.last_ms.unwrap_or(0));
    out
}

/// [`Progress`] and the lag as one JSON object in one line: the fields of `Progress`, and `lag`, a list of
/// `{partition, behind}` or null.
///
/// # Errors
/// None that is known: there is no value in it that JSON cannot hold.
pub fn json(progress: &Progress, lag: Option<&[Lag]>) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(flatten)]
        progress: &'a Progress,
        lag: Option<&'a [Lag]>,
    }
    serde_json::to_string(&Line { progress, lag })
}

fn tasks(out: &mut String, p: &Progress, style: Style) {
    let bar = match p.tasks_planned {
        Some(planned) => format!("  [{}]", bar(p.tasks_done, planned, TASK_BAR, style)),
        None => String::new(),
    };
    line(out, &format!("tasks     {}{bar}", of(p.tasks_done, p.tasks_planned)));
    let mut words = vec![format!("{} success", p.tasks_succeeded)];
    words.extend(p.statuses.iter().filter(|(s, _)| **s != "success").map(|(s, n)| format!("{n} {s}")));
    for text in wrap(&words, WIDTH - 10) {
        line(out, &format!("          {text}"));
    }
}

fn classes(out: &mut String, classes: &[ClassProgress], style: Style) {
    if classes.is_empty() {
        return;
    }
    line(out, "");
    line(out, &format!("{:<20} {:>9} {:>9} {:>7}", "class", "chips", "target", "%"));
    for c in classes {
        let name = fit(&format!("{:>3} {}", c.class, clean(&c.name)), 20);
        let target = c.target.map_or_else(|| "-".to_owned(), |t| t.to_string());
        let percent = c.percent.map_or_else(|| "-".to_owned(), |p| format!("{p:.1}"));
        let bar = c.target.map(|t| paint(&bar(c.chips, t, CLASS_BAR, style), &c.colour, style));
        let bar = bar.map(|bar| format!("  [{bar}]")).unwrap_or_default();
        // Not through `line`: colour codes take no room on the screen.
        let _ = writeln!(out, "{name:<20} {:>9} {target:>9} {percent:>7}{bar}", c.chips);
    }
}

fn reasons(out: &mut String, title: &str, reasons: &[Reason]) {
    if reasons.is_empty() {
        return;
    }
    line(out, "");
    for (i, r) in reasons.iter().enumerate() {
        let title = if i == 0 { title } else { "" };
        line(out, &format!("{title:<9} {:>6} x {}", r.count, clean(&r.reason)));
    }
}

fn workers(out: &mut String, workers: &[WorkerProgress], now_ms: u64) {
    if workers.is_empty() {
        return;
    }
    line(out, "");
    line(out, &format!("{:<32} {:>8} {:>8} {:>10}   last seen", "worker", "tasks", "failed", "chips"));
    for w in workers.iter().take(MAX_WORKER_LINES) {
        let ago = span(now_ms.saturating_sub(w.last_ms) / 1000);
        let name = fit(&clean(&w.worker), 32);
        line(out, &format!("{name:<32} {:>8} {:>8} {:>10}   {ago} ago", w.tasks, w.failed, w.chips));
    }
    if workers.len() > MAX_WORKER_LINES {
        let rest = &workers[MAX_WORKER_LINES..];
        let sum = |of: fn(&WorkerProgress) -> u64| rest.iter().map(of).sum::<u64>();
        let (tasks, failed, chips) = (sum(|w| w.tasks), sum(|w| w.failed), sum(|w| w.chips));
        let name = format!("and {} more", rest.len());
        line(out, &format!("{name:<32} {tasks:>8} {failed:>8} {chips:>10}"));
    }
}

/// The lag in one line, the worst partitions named.
pub(crate) fn lag_words(lag: &[Lag]) -> String {
    let behind: Vec<&Lag> = lag.iter().filter(|l| l.behind > 0).collect();
    let total: u64 = behind.iter().map(|l| l.behind).sum();
    if behind.is_empty() {
        return format!("none in {} partitions", lag.len());
    }
    let mut worst = behind.clone();
    worst.sort_by(|a, b| b.behind.cmp(&a.behind).then_with(|| a.partition.cmp(&b.partition)));
    let named: Vec<_> = worst.iter().take(MAX_LAG).map(|l| format!("p{} {}", l.partition, l.behind)).collect();
    let most = if worst.len() > MAX_LAG { "; most: " } else { ": " };
    format!("{total} tasks in {} of {} partitions{most}{}", behind.len(), lag.len(), named.join(", "))
}

/// `12 of 40`, or `12` when the whole is not known.
pub(crate) fn of(part: u64, whole: Option<u64>) -> String {
    whole.map_or_else(|| part.to_string(), |whole| format!("{part} of {whole}"))
}

fn share(part: u64, whole: Option<u64>, percent: Option<f64>) -> String {
    let percent = percent.map(|p| format!("  {p:.1} %")).unwrap_or_default();
    format!("{}{percent}", of(part, whole))
}

pub(crate) fn bar(part: u64, whole: u64, width: usize, style: Style) -> String {
    let (full, empty) = if style.blocks { ('\u{2588}', '\u{2591}') } else { ('#', '-') };
    let steps = u64::try_from(width).unwrap_or(0);
    let filled = (u128::from(part.min(whole)) * u128::from(steps)).checked_div(u128::from(whole));
    let filled = filled.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    (0..steps).map(|i| if i < filled { full } else { empty }).collect()
}

/// In the colour `#rrggbb`, when colours are welcome and it is one.
fn paint(text: &str, colour: &str, style: Style) -> String {
    let part = |i: usize| colour.get(i..i + 2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
    match (style.colour && colour.len() == 7 && colour.starts_with('#'), part(1), part(3), part(5)) {
        (true, Some(r), Some(g), Some(b)) => format!("\u{1b}[38;2;{r};{g};{b}m{text}\u{1b}[0m"),
        _ => text.to_owned(),
    }
}

/// `2h 05m`, `3m 07s`, `9s`; days when it is long.
pub(crate) fn span(s: u64) -> String {
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m {:02}s", s / 60, s % 60),
        3600..172_800 => format!("{}h {:02}m", s / 3600, s / 60 % 60),
        _ => format!("{}d {}h", s / 86_400, s / 3600 % 24),
    }
}

/// Words joined by commas, broken into lines of at most `width` characters.
fn wrap(words: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 2 + word.chars().count() < width => {
                line.push_str(", ");
                line.push_str(word);
            }
            Some(line) => {
                line.push(',');
                lines.push(word.clone());
            }
            None => lines.push(word.clone()),
        }
    }
    lines
}

fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// At most `width` characters; what is cut is marked.
pub(crate) fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(2)).collect();
    cut.push_str("..");
    cut
}

fn line(out: &mut String, text: &str) {
    out.push_str(fit(text, WIDTH).trim_end());
    out.push('\n');
}
