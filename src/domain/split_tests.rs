//! The split against a definition that looks at every pair.

use proptest::prelude::*;

use super::*;
use crate::domain::block::Blocks;

const SETTINGS: SplitSettings =
    SplitSettings { seed: 1, block_km: 5.0, val_share: 0.2, test_share: 0.2, buffer_m: 300.0 };

/// A chip of about 2560 m around a point.
fn chip([lon, lat]: [f64; 2]) -> Quad {
    let (x, y) = (1280.0 / 83_378.8, 1280.0 / 111_070.4);
    Quad::new([[lon - x, lat - y], [lon + x, lat - y], [lon + x, lat + y], [lon - x, lat + y]])
}

fn places(n: usize) -> impl Strategy<Value = Vec<[f64; 2]>> {
    prop::collection::vec([-0.3..0.3f64, 41.4..41.9f64], 1..n)
}

fn made(at: &[[f64; 2]], settings: &SplitSettings) -> (Vec<Quad>, Vec<Split>, Vec<Split>) {
    let quads: Vec<Quad> = at.iter().map(|p| chip(*p)).collect();
    let drawn: Vec<Split> = at.iter().map(|p| settings.draw(Blocks::new(settings.block_km).at(*p))).collect();
    let splits = separate(&quads, &drawn, settings);
    (quads, drawn, splits)
}

#[test]
fn shares_are_of_blocks() {
    let blocks = (0..10_000).map(|i| Block { row: 230 + i / 100, column: i % 100 });
    let mut counts: HashMap<Split, usize> = HashMap::new();
    for block in blocks {
        *counts.entry(SETTINGS.draw(block)).or_default() += 1;
    }
    assert!((1800..2200).contains(&counts[&Split::Val]), "{counts:?}");
    assert!((1800..2200).contains(&counts[&Split::Test]), "{counts:?}");
}

#[test]
fn without_a_buffer_chips_may_touch_but_not_overlap() {
    let settings = SplitSettings { buffer_m: 0.0, ..SETTINGS };
    assert!(!settings.too_near(0.0) && !settings.too_near(-0.01) && settings.too_near(-10.0));
    assert!(SETTINGS.too_near(299.9) && !SETTINGS.too_near(300.0));
}

#[test]
fn a_shared_parcel_sends_the_plentiful_side_to_the_buffer() {
    let mut parcels = SharedParcels::default();
    parcels.see(Split::Train, &[1, 2]);
    parcels.see(Split::Val, &[2, 3]);
    parcels.see(Split::Test, &[3, 4]);
    let splits = [(Split::Train, [1, 2]), (Split::Val, [2, 3]), (Split::Test, [3, 4]), (Split::Train, [1, 5])];
    let resolved = splits.map(|(split, ids)| parcels.resolve(split, &ids));
    assert_eq!(resolved, [Split::Buffer, Split::Buffer, Split::Test, Split::Train]);
    for (split, (_, ids)) in resolved.iter().zip(splits) {
        parcels.settle(*split, &ids);
    }
    assert_eq!((parcels.shared(), parcels.len()), (0, 3));
    parcels.settle(Split::Train, &[4]);
    assert_eq!(parcels.shared(), 1, "the certificate counts what there is, not what was meant");
}

proptest! {
    #[test]
    fn it_is_what_the_definition_says_for_every_pair(at in places(60)) {
        let (quads, drawn, splits) = made(&at, &SETTINGS);
        let near = |i: usize, of: Split, splits: &[Split]| {
            (0..quads.len()).any(|j| splits[j] == of && SETTINGS.too_near(quads[i].gap(&quads[j])))
        };
        let mut wanted = drawn.clone();
        for (i, split) in drawn.iter().enumerate() {
            if matches!(split, Split::Val | Split::Train) && near(i, Split::Test, &drawn) {
                wanted[i] = Split::Buffer;
            }
        }
        let vals = wanted.clone();
        for (i, split) in vals.iter().enumerate() {
            if *split == Split::Train && near(i, Split::Val, &vals) {
                wanted[i] = Split::Buffer;
            }
        }
        prop_assert_eq!(splits, wanted);
    }

    #[test]
    fn the_nearest_pair_is_the_nearest_of_all_and_keeps_the_buffer(at in places(60)) {
        let (quads, _, splits) = made(&at, &SETTINGS);
        for (a, b) in [(Split::Train, Split::Test), (Split::Train, Split::Val), (Split::Val, Split::Test)] {
            let pairs = (0..quads.len()).flat_map(|i| (0..quads.len()).map(move |j| (i, j)));
            let gaps = pairs.filter(|(i, j)| splits[*i] == a && splits[*j] == b).map(|(i, j)| quads[i].gap(&quads[j]));
            let least = gaps.fold(f64::INFINITY, f64::min);
            match nearest(&quads, &splits, a, b) {
                None => prop_assert!(least.is_infinite()),
                Some(found) => {
                    prop_assert!((found.metres - least).abs() < 1e-6);
                    prop_assert!(found.metres >= SETTINGS.buffer_m);
                }
            }
        }
    }

    #[test]
    fn overlaps_are_counted_by_pair(at in places(40)) {
        let (quads, drawn, splits) = made(&at, &SETTINGS);
        prop_assert_eq!(overlapping(&quads, &splits), 0);
        let pairs = (0..quads.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
        let wanted = pairs.filter(|(i, j)| drawn[*i] != drawn[*j] && quads[*i].gap(&quads[*j]) < -TOUCH_M).count();
        prop_assert_eq!(overlapping(&quads, &drawn), wanted as u64);
    }

    #[test]
    fn the_order_of_the_chips_does_not_matter(at in places(40), turn in 0usize..40) {
        let (_, _, straight) = made(&at, &SETTINGS);
        let mut turned = at.clone();
        turned.rotate_left(turn % at.len());
        let (_, _, mut other) = made(&turned, &SETTINGS);
        other.rotate_right(turn % at.len());
        prop_assert_eq!(straight, other);
    }
}
