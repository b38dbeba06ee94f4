//! In which order cells fill the classes' targets with the fewest tasks.
//!
//! Units: drawn parcels, each of which may become a chip. Contract: greedy; the next cell is always the one that
//! brings the largest share of what is still wanted, summed over the classes, so a parcel of a class that wants
//! ten weighs a thousand times one of a class that wants ten thousand, and a class that has enough weighs
//! nothing. Ties, and cells that bring nothing any more, keep the order in which they were given. Trap: what a
//! cell brings only shrinks while others are chosen, which is why looking again at the best one is enough.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};

use super::classes::ClassId;

/// A cell and what it brought when it was looked at last.
struct Offer {
    gain: f64,
    cell: Reverse<usize>,
}

impl PartialEq for Offer {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Offer {}

impl PartialOrd for Offer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Offer {
    fn cmp(&self, other: &Self) -> Ordering {
        self.gain.total_cmp(&other.gain).then(self.cell.cmp(&other.cell))
    }
}

/// The order of the cells, as places in `cells`. `cells`: drawn parcels by class; `wanted`: how many parcels of
/// each class have to be drawn to reach its target.
pub fn order(cells: &[Vec<(ClassId, u64)>], wanted: &BTreeMap<ClassId, f64>) -> Vec<usize> {
    let mut left = wanted.clone();
    let gain = |cell: &[(ClassId, u64)], left: &BTreeMap<ClassId, f64>| -> f64 {
        let share = |(class, n): &(ClassId, u64)| {
            let (left, all) = (left.get(class)?, wanted.get(class).filter(|all| **all > 0.0)?);
            Some((*n as f64).min(*left) / all)
        };
        cell.iter().filter_map(share).sum()
    };
    let mut offers: BinaryHeap<Offer> =
        cells.iter().enumerate().map(|(i, cell)| Offer { gain: gain(cell, &left), cell: Reverse(i) }).collect();
    let mut chosen = Vec::with_capacity(cells.len());
    while let Some(best) = offers.pop() {
        let Reverse(i) = best.cell;
        let now = Offer { gain: gain(&cells[i], &left), ..best };
        if offers.peek().is_some_and(|next| now < *next) {
            offers.push(now);
            continue;
        }
        for (class, n) in &cells[i] {
            if let Some(left) = left.get_mut(class) {
                *left = (*left - *n as f64).max(0.0);
            }
        }
        chosen.push(i);
    }
    chosen
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class(n: u8) -> ClassId {
        ClassId::try_from(n).unwrap()
    }

    fn cell(drawn: &[(u8, u64)]) -> Vec<(ClassId, u64)> {
        drawn.iter().map(|(c, n)| (class(*c), *n)).collect()
    }

    fn wanted(all: &[(u8, f64)]) -> BTreeMap<ClassId, f64> {
        all.iter().map(|(c, n)| (class(*c), *n)).collect()
    }

    #[test]
    fn a_few_of_the_rare_class_come_before_many_of_the_frequent_one() {
        let cells = [cell(&[(1, 90)]), cell(&[(1, 10)]), cell(&[(2, 3)]), cell(&[(1, 40), (2, 1)]), cell(&[])];
        assert_eq!(order(&cells, &wanted(&[(1, 1000.0), (2, 4.0)])), [2, 3, 0, 1, 4]);
        assert_eq!(order(&cells, &wanted(&[])), [0, 1, 2, 3, 4], "nothing is wanted: the order given");
    }

    #[test]
    fn a_class_that_has_enough_weighs_nothing() {
        let cells = [cell(&[(1, 5)]), cell(&[(1, 9)]), cell(&[(1, 10), (2, 1)]), cell(&[(2, 2)])];
        assert_eq!(
            order(&cells, &wanted(&[(1, 10.0), (2, 4.0)])),
            [2, 3, 0, 1],
            "after the third cell class 1 is done"
        );
    }

    proptest! {
        /// Every step takes a best one: what the lazy heap does is what looking at all cells every time would do.
        #[test]
        fn every_cell_once_and_always_the_best(
            drawn in prop::collection::vec(prop::collection::btree_map(1..4u8, 1..20u64, 0..4), 0..30),
            targets in prop::collection::btree_map(1..4u8, 0..60u32, 0..4),
        ) {
            let cells: Vec<_> = drawn.iter().map(|d| cell(&d.iter().map(|(c, n)| (*c, *n)).collect::<Vec<_>>())).collect();
            let all: BTreeMap<ClassId, f64> = targets.iter().map(|(c, n)| (class(*c), f64::from(*n))).collect();
            let mut left = all.clone();
            let mut open: Vec<usize> = (0..cells.len()).collect();
            for chosen in order(&cells, &all) {
                let gain = |i: usize| -> f64 {
                    let open = cells[i].iter().filter(|(c, _)| all.get(c).is_some_and(|n| *n > 0.0));
                    open.map(|(c, n)| (*n as f64).min(left[c]) / all[c]).sum()
                };
                let best = open.iter().copied().max_by(|a, b| gain(*a).total_cmp(&gain(*b)).then(b.cmp(a)));
                prop_assert_eq!(Some(chosen), best);
                cells[chosen].iter().for_each(|(c, n)| {
                    left.entry(*c).and_modify(|l| *l = (*l - *n as f64).max(0.0));
                });
                open.retain(|i| *i != chosen);
            }
            prop_assert!(open.is_empty());
        }
    }
}
