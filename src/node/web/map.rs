//! The cells of a run as a map: SVG in degrees of longitude and latitude, with a graticule.
//!
//! Contract: pure. Cells of one state that lie side by side are drawn as one, so a map of 20,000 cells stays small. The
//! states differ by pattern as well as by colour (the colours are the style sheet's). Failed cells are links, and where
//! there are few cells all are; only failed ones are stops of the tab key. Units: a drawing is [`WIDTH`] wide, heights
//! follow; degrees of longitude are shortened by the cosine of the middle latitude.
//! Trap: a region across the antimeridian is drawn around the whole globe.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

use crate::domain::cell::{Cell, CellState};

const WIDTH: f64 = 1000.0;
/// Room for the graticule's numbers.
const LEFT: f64 = 112.0;
const BELOW: f64 = 44.0;
const ABOVE: f64 = 18.0;
const RIGHT: f64 = 44.0;
/// Height over width is kept between these, whatever the region.
const FLATTEST: f64 = 0.3;
const TALLEST: f64 = 1.4;
/// Most cells that are links one by one, and most failed ones.
const LINKED: usize = 400;
const FAILED_LINKED: usize = 300;
/// Distances of the graticule, degrees.
const STEPS: [f64; 11] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// Where cells lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// To the page of their task.
    Tasks,
    /// Nowhere.
    None,
}

/// From degrees to the drawing.
struct Projection {
    west: f64,
    north: f64,
    east: f64,
    south: f64,
    x: f64,
    y: f64,
    left: f64,
    top: f64,
    height: f64,
}

impl Projection {
    fn of(cells: &[Cell]) -> Option<Self> {
        let places = cells.iter().filter_map(|cell| cell.bbox);
        let [w, s, e, n] = places.reduce(|a, b| [a[0].min(b[0]), a[1].min(b[1]), a[2].max(b[2]), a[3].max(b[3])])?;
        let cos = ((s + n) / 2.0).to_radians().cos().max(0.05);
        let (wide, high) = ((e - w) * cos, n - s);
        let room = WIDTH - LEFT - RIGHT;
        let ratio = (high / wide).clamp(FLATTEST, TALLEST);
        let height = room * ratio;
        // Degrees to drawing units, the same both ways: the region fills the room in one of them.
        let scale = (room / wide).min(height / high);
        let left = LEFT + (room - wide * scale) / 2.0;
        let top = ABOVE + (height - high * scale) / 2.0;
        Some(Self { west: w, north: n, east: e, south: s, x: cos * scale, y: scale, left, top, height })
    }

    fn x(&self, lon: f64) -> f64 {
        self.left + (lon - self.west) * self.x
    }

    fn y(&self, lat: f64) -> f64 {
        self.top + (self.north - lat) * self.y
    }

    /// A rectangle as part of a path.
    fn rect(&self, path: &mut String, [w, s, e, n]: [f64; 4]) {
        let (x, y, right, bottom) = (self.x(w), self.y(n), self.x(e), self.y(s));
        // Writing to a String cannot fail.
        let _ = write!(path, "M{x:.1} {y:.1}H{right:.1}V{bottom:.1}H{x:.1}z");
    }
}

/// A sample of a state's pattern, for legends.
pub(crate) fn swatch(state: CellState) -> Markup {
    html! {
        svg.swatch viewBox="0 0 40 40" aria-hidden="true" {
            (patterns(state.as_str()))
            rect class=(state.as_str()) x="2" y="2" width="36" height="36" {}
            (PreEscaped(hatching(state, "M2 2H38V38H2z", state.as_str())))
        }
    }
}

/// The map, or a word when no cell has a place yet.
pub(crate) fn map(cells: &[Cell], links: Links) -> Markup {
    let Some(to) = Projection::of(cells) else { return html! { p.faint { "No cell is known yet." } } };
    let height = ABOVE + to.height + BELOW;
    let single = cells.len() <= LINKED;
    let count = |state| cells.iter().filter(|c| c.state() == state).count();
    let words: Vec<String> = CellState::ALL.map(|s| format!("{} {}", count(s), s.as_str())).into();
    html! {
        svg.map viewBox={ "0 0 " (WIDTH) " " (height.round()) } role="group" aria-label={ "Cells of the run: " (words.join(", ")) } {
            (patterns("map"))
            (graticule(&to))
            @for state in [CellState::Waiting, CellState::Skipped, CellState::Done, CellState::Failed] {
                @let failed = state == CellState::Failed && links == Links::Tasks;
                @let (alone, together) = split(cells, state, if single { LINKED } else if failed { FAILED_LINKED } else { 0 });
                @let path = runs(&to, &together);
                @if !path.is_empty() { path class=(state.as_str()) d=(path) {} (PreEscaped(hatching(state, &path, "map"))) }
                @for cell in alone { (apart_cell(&to, cell, state, links)) }
            }
        }
    }
}

/// The first `most` cells of a state one by one, and the others.
fn split(cells: &[Cell], state: CellState, most: usize) -> (Vec<&Cell>, Vec<[f64; 4]>) {
    let placed: Vec<&Cell> = cells.iter().filter(|c| c.state() == state && c.bbox.is_some()).collect();
    let at = most.min(placed.len());
    (placed[..at].to_vec(), placed[at..].iter().filter_map(|c| c.bbox).collect())
}

/// One cell by itself, with its words, and as a link where links are wanted.
fn apart_cell(to: &Projection, cell: &Cell, state: CellState, links: Links) -> Markup {
    let mut path = String::new();
    if let Some(bbox) = cell.bbox {
        to.rect(&mut path, bbox);
    }
    let chips = cell.outcome.as_ref().filter(|o| o.chips > 0).map(|o| format!(", {} chips", o.chips));
    let tabindex = if state == CellState::Failed { "0" } else { "-1" };
    let drawn = html! {
        title { "task " (cell.task) ": " (state.as_str()) (chips.unwrap_or_default()) }
        path class=(state.as_str()) d=(path) {}
        (PreEscaped(hatching(state, &path, "map")))
    };
    match links {
        Links::Tasks => html! { a href={ "/tasks/" (cell.task) } tabindex=(tabindex) { (drawn) } },
        Links::None => html! { g { (drawn) } },
    }
}

/// The same shape once more, filled with the state's pattern; nothing for states that are plain.
fn hatching(state: CellState, path: &str, id: &str) -> String {
    match state {
        CellState::Failed | CellState::Skipped => {
            format!(r#"<path class="hatch" fill="url(#{id}-{})" d="{path}"/>"#, state.as_str())
        }
        CellState::Done | CellState::Waiting => String::new(),
    }
}

/// Patterns: failed cells are crossed, skipped ones striped. `id` keeps the names of two drawings apart.
fn patterns(id: &str) -> Markup {
    html! {
        defs {
            pattern id={ (id) "-failed" } width="14" height="14" patternUnits="userSpaceOnUse" {
                path.line d="M0 0L14 14M14 0L0 14" {}
            }
            pattern id={ (id) "-skipped" } width="12" height="12" patternUnits="userSpaceOnUse" {
                path.line d="M-3 9L3 15M0 0L12 12M9 -3L15 3" {}
            }
        }
    }
}

/// Cells as one path: neighbours in a row become one rectangle, then equal rectangles of neighbouring rows.
fn runs(to: &Projection, cells: &[[f64; 4]]) -> String {
    let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
    let mut rows = cells.to_vec();
    rows.sort_by(|a, b| b[1].total_cmp(&a[1]).then(b[3].total_cmp(&a[3])).then(a[0].total_cmp(&b[0])));
    rows.dedup_by(|next, run| {
        let joins = near(next[0], run[2]) && near(next[1], run[1]) && near(next[3], run[3]);
        if joins {
            run[2] = next[2];
        }
        joins
    });
    rows.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[2].total_cmp(&b[2])).then(b[1].total_cmp(&a[1])));
    rows.dedup_by(|below, run| {
        let joins = near(below[3], run[1]) && near(below[0], run[0]) && near(below[2], run[2]);
        if joins {
            run[1] = below[1];
        }
        joins
    });
    let mut path = String::with_capacity(rows.len() * 32);
    rows.into_iter().for_each(|cell| to.rect(&mut path, cell));
    path
}

/// Lines at round degrees, with their numbers outside.
fn graticule(to: &Projection) -> Markup {
    let step = |span: f64| STEPS.into_iter().find(|step| span / step <= 6.0).unwrap_or(45.0);
    let lines = |low: f64, high: f64, step: f64| {
        let first = (low / step).ceil() as i64;
        (first..).map(move |i| (i as f64 * step, step)).take_while(move |(at, _)| *at <= high + 1e-9).take(40)
    };
    let number = |at: f64, step: f64| {
        let decimals = if step >= 1.0 {
            0
        } else if step >= 0.1 {
            1
        } else {
            2
        };
        format!("{at:.decimals$}°").replace("-0°", "0°")
    };
    let (top, bottom) = (ABOVE, ABOVE + to.height);
    let (meridians, parallels) = (step(to.east - to.west), step(to.north - to.south));
    html! {
        g.graticule aria-hidden="true" {
            @for (lon, step) in lines(to.west, to.east, meridians) {
                line x1=(place(to.x(lon))) x2=(place(to.x(lon))) y1=(place(top)) y2=(place(bottom)) {}
                text x=(place(to.x(lon))) y=(place(bottom + 34.0)) text-anchor="middle" { (number(lon, step)) }
            }
            @for (lat, step) in lines(to.south, to.north, parallels) {
                line x1=(place(LEFT)) x2=(place(WIDTH - RIGHT)) y1=(place(to.y(lat))) y2=(place(to.y(lat))) {}
                text x=(place(LEFT - 8.0)) y=(place(to.y(lat) + 10.0)) text-anchor="end" { (number(lat, step)) }
            }
        }
    }
}

fn place(at: f64) -> String {
    format!("{at:.1}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn grid(columns: u32, rows: u32) -> Vec<Cell> {
        let cell = |i: u32| {
            let (x, y) = (f64::from(i % columns) * 0.05, 40.0 + f64::from(i / columns) * 0.05);
            Cell { task: u64::from(i), bbox: Some([x, y, x + 0.05, y + 0.05]), outcome: None }
        };
        (0..columns * rows).map(cell).collect()
    }

    #[test]
    fn neighbours_are_drawn_as_one() {
        let cells = grid(200, 100);
        let drawn = map(&cells, Links::Tasks).into_string();
        assert_eq!(drawn.matches("class=\"waiting\"").count(), 1);
        assert!(drawn.len() < 5_000, "{} bytes for 20,000 cells of one state", drawn.len());
    }

    #[test]
    fn few_cells_are_links_and_nothing_is_drawn_of_nothing() {
        let drawn = map(&grid(3, 2), Links::Tasks).into_string();
        assert_eq!(drawn.matches("<a href=\"/tasks/").count(), 6);
        assert!(drawn.contains("40.04°") && drawn.contains("0.10°"), "{drawn}");
        assert!(!map(&grid(3, 2), Links::None).into_string().contains("<a "));
        assert!(map(&[], Links::Tasks).into_string().contains("No cell is known yet"));
    }

    #[test]
    fn odd_regions_stay_within_the_drawing() {
        for (columns, rows) in [(1, 1), (400, 1), (1, 400), (7, 3)] {
            let cells = grid(columns, rows);
            let to = Projection::of(&cells).unwrap();
            for [w, s, e, n] in cells.iter().filter_map(|c| c.bbox) {
                assert!(
                    to.x(w) >= LEFT - 0.01
                        && to.x(e) <= WIDTH
                        && to.y(n) >= ABOVE - 0.1
                        && to.y(s) <= ABOVE + 0.1 + to.height
                );
            }
        }
    }
}
