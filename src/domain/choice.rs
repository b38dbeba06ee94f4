//! Which of a chip's candidates is looked at next, and which is taken.
//!
//! Units: shares of the chip's pixels, 0 to 1. Contract: candidates come in steps, best scene first. Those of one
//! overpass (neighbouring tiles and zones, a product delivered twice) form a group: all of a group are looked at, then
//! the one with the fewest bad pixels is taken, of equals the one in whose middle the chip lies, then the smallest item
//! id. A group that gives nothing makes way for the next one. At most `limit` scenes are looked at, each once, so what
//! one chip may cost is bounded. No order of answers or work changes the outcome.
//! Trap: a refused candidate does not come back, even when a later step finds it again.

use std::cmp::Ordering;
use std::collections::{HashSet, VecDeque};

use super::candidate::Candidate;

/// What is to be done for a chip.
#[derive(Debug, Clone, Copy)]
pub enum Want<'a> {
    /// See how many of the chip's pixels are bad in this scene.
    Look(&'a Candidate),
    /// Take the pixels; with the share found bad, if it is known.
    Take(&'a Candidate, Option<f64>),
}

impl<'a> Want<'a> {
    /// The candidate, whatever is to be done with it.
    pub fn candidate(self) -> &'a Candidate {
        match self {
            Self::Look(candidate) | Self::Take(candidate, _) => candidate,
        }
    }

    /// Whether it is to be looked at.
    pub fn is_look(self) -> bool {
        matches!(self, Self::Look(_))
    }
}

/// The candidates of one chip.
#[derive(Debug, Clone)]
pub struct Choice {
    groups: VecDeque<Vec<Candidate>>,
    /// Of the present group: what has not been looked at, in order.
    unseen: VecDeque<Candidate>,
    /// Of the present group: what was looked at and can be taken, best first.
    seen: Vec<(Candidate, Option<f64>)>,
    known: HashSet<(String, String)>,
    left: usize,
}

impl Choice {
    /// A choice among at most `limit` scenes.
    pub fn new(limit: usize) -> Self {
        Self { groups: VecDeque::new(), unseen: VecDeque::new(), seen: Vec::new(), known: HashSet::new(), left: limit }
    }

    /// Adds what a search found, best first; what is known already, and what exceeds the limit, is left out.
    pub fn offer(&mut self, candidates: Vec<Candidate>) {
        let mut fresh: Vec<(Option<String>, Vec<Candidate>)> = Vec::new();
        for candidate in candidates {
            let scene = &candidate.scene;
            if self.left == 0 || !self.known.insert((scene.collection.clone(), scene.id.clone())) {
                continue;
            }
            self.left -= 1;
            let overpass = scene.overpass();
            match fresh.iter_mut().find(|(key, _)| key.is_some() && *key == overpass) {
                Some((_, group)) => group.push(candidate),
                None => fresh.push((overpass, vec![candidate])),
            }
        }
        self.groups.extend(fresh.into_iter().map(|(_, group)| group));
        self.advance();
    }

    /// What to do next; `None`: everything offered was refused.
    pub fn want(&self) -> Option<Want<'_>> {
        let taken = || self.seen.first().map(|(candidate, bad)| Want::Take(candidate, *bad));
        self.unseen.front().map(Want::Look).or_else(taken)
    }

    /// The candidate that was to be looked at has this share of bad pixels, or nobody can say.
    pub fn looked(&mut self, bad: Option<f64>) {
        if let Some(candidate) = self.unseen.pop_front() {
            self.seen.push((candidate, bad));
            self.seen.sort_by(better);
        }
    }

    /// The candidate that was wanted is no use.
    pub fn refused(&mut self) {
        if self.unseen.pop_front().is_none() && !self.seen.is_empty() {
            self.seen.remove(0);
        }
        self.advance();
    }

    /// Other candidates of the present group that were found usable, best first.
    pub fn others(&self) -> impl Iterator<Item = &Candidate> {
        self.seen.iter().skip(1).map(|(candidate, _)| candidate)
    }

    fn advance(&mut self) {
        if self.unseen.is_empty() && self.seen.is_empty() {
            self.unseen.extend(self.groups.pop_front().unwrap_or_default());
        }
    }
}

/// Fewer bad pixels first, unknown last; then nearer to the middle of its scene; then the smaller id.
fn better((a, bad_a): &(Candidate, Option<f64>), (b, bad_b): &(Candidate, Option<f64>)) -> Ordering {
    let share = |bad: &Option<f64>| bad.unwrap_or(f64::INFINITY);
    share(bad_a)
        .total_cmp(&share(bad_b))
        .then(a.off_centre.total_cmp(&b.off_centre))
        .then_with(|| a.scene.id.cmp(&b.scene.id))
        .then_with(|| a.scene.collection.cmp(&b.scene.collection))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::sync::Arc;

    use super::super::candidate::Widened;
    use super::super::scene::{PixelGrid, Scene};
    use super::*;

    const WHOLE: PixelGrid = PixelGrid { x0: 0.0, y0: 0.0, res: 10.0, width: 1000, height: 1000 };

    /// A candidate of the overpass at `hour` whose chip begins at column `col`.
    fn candidate(id: &str, hour: u32, col: f64) -> Candidate {
        let scene = Scene {
            id: id.into(),
            product_uri: Some(format!("S2A_MSIL2A_20230501T{hour:02}5621_N0509_R094_T{id}_20230501T165201.SAFE")),
            ..Scene::bare()
        };
        let grid = PixelGrid { x0: col * 10.0, width: 256, height: 256, ..WHOLE };
        Candidate::new(Arc::new(scene), &WHOLE, grid, "spring".into(), Widened::No)
    }

    /// Plays a chip: `bad` says what is seen in each scene (`None`: unusable), `fails` whether its pixels fail.
    fn play(choice: &mut Choice, bad: impl Fn(&str) -> Option<f64>, fails: impl Fn(&str) -> bool) -> Vec<String> {
        let mut road = Vec::new();
        while let Some(want) = choice.want() {
            let id = want.candidate().scene.id.clone();
            if want.is_look() {
                road.push(format!("look {id}"));
                match bad(&id) {
                    Some(share) => choice.looked(Some(share)),
                    None => choice.refused(),
                }
            } else {
                road.push(format!("take {id}"));
                if !fails(&id) {
                    break;
                }
                choice.refused();
            }
        }
        road
    }

    #[test]
    fn of_one_overpass_the_clearest_is_taken_then_the_most_central_then_the_smallest_id() {
        let group = || vec![candidate("30TYM", 10, 0.0), candidate("30TYN", 10, 372.0), candidate("31TBG", 10, 0.0)];
        let taken = |bad: fn(&str) -> Option<f64>| {
            let mut choice = Choice::new(9);
            choice.offer(group());
            play(&mut choice, bad, |_| false).pop().unwrap()
        };
        assert_eq!(taken(|id| Some(if id == "31TBG" { 0.01 } else { 0.02 })), "take 31TBG");
        assert_eq!(taken(|_| Some(0.0)), "take 30TYN");
        assert_eq!(taken(|id| (id != "30TYN").then_some(0.0)), "take 30TYM");
    }

    #[test]
    fn a_group_that_gives_nothing_makes_way_and_nothing_is_tried_twice() {
        let mut choice = Choice::new(9);
        choice.offer(vec![candidate("a", 9, 0.0), candidate("b", 10, 0.0)]);
        assert_eq!(play(&mut choice, |id| (id == "b").then_some(0.0), |_| true), ["look a", "look b", "take b"]);
        choice.offer(vec![candidate("b", 10, 0.0), candidate("a", 9, 0.0), candidate("c", 11, 0.0)]);
        assert_eq!(play(&mut choice, |_| Some(0.0), |_| false), ["look c", "take c"]);
    }

    #[test]
    fn no_more_scenes_are_tried_than_allowed() {
        let mut choice = Choice::new(2);
        choice.offer((0..5).map(|i| candidate(&format!("s{i}"), i, 0.0)).collect());
        assert_eq!(play(&mut choice, |_| None, |_| true), ["look s0", "look s1"]);
        choice.offer(vec![candidate("late", 20, 0.0)]);
        assert!(choice.want().is_none());
    }
}
