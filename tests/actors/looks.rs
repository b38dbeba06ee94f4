//! What the pixels stage makes of clouds, offsets, impossible numbers and several scenes of one overpass.

use std::sync::Arc;

use satellite_pipeline::actors::messages::{Fan, ReadWindows};
use satellite_pipeline::domain::band::Band;
use satellite_pipeline::domain::scene::Scene;

use super::pixel_bed::{Bed, SIZE, plan, two};
use super::scene_kit::{CELL, CENTRE, EDGE, clouded, dn, files, scene};
use super::stage::{on_stage, rejections, task};

/// Bare soil, but cloud in the first 100 columns (of 20 m).
fn western_cloud(_: u32, col: u32) -> u8 {
    if col < 100 { 9 } else { 5 }
}

#[test]
fn a_cloudy_scene_costs_one_look_and_not_one_read_of_a_band() {
    on_stage(async || {
        let [first, second] = two();
        let mut all = clouded(&first, dn, western_cloud);
        all.extend(files(&second, dn));
        let mut bed = Bed::new(all, "", 0).await;
        // Three chips under the cloud, and one at its edge with 4 of 64 columns of cloud, which is more than 5 %.
        bed.read(&[first.clone(), second.clone()], &[(10, 10), (100, 20), (300, 30), (10, 196)]).await;
        let (from, done) = bed.finish(4).await;
        assert!(from.values().all(|id| id == "second") && rejections(&done).is_empty());
        let reads = bed.source.reads.lock().unwrap().clone();
        let of = |item: &str| reads.iter().filter(|(href, _)| href.starts_with(item)).collect::<Vec<_>>();
        // One read opens the classification, one brings the blocks of all four windows; the bands stay shut.
        assert_eq!(of("mem:first"), [(&"mem:first/SCL".to_owned(), &2)]);
        assert_eq!(of("mem:second").len(), 3);

        // A column less is 4.7 %: the chip is taken, and its record says so.
        bed.read(&[first], &[(10, 197)]).await;
        let chip = bed.rasteriser.next().await;
        assert_eq!(chip.provenance.bad_fraction, Some(3.0 / 64.0));
        assert_eq!((chip.provenance.nodata_fraction, chip.provenance.offset_rule.as_str()), (0.0, "flag"));
    });
}

#[test]
fn a_chip_whose_scenes_are_all_cloudy_is_searched_for_again_and_then_rejected() {
    on_stage(async || {
        let here = |id: &str, day, cloud| scene(id, 32631, CENTRE, day, cloud);
        let (bad, late, worse) = (here("bad", 200, 3.0), here("late", 220, 25.0), here("worse", 240, 80.0));
        let mut all = clouded(&bad, dn, |_, _| 8);
        all.extend(clouded(&late, dn, western_cloud));
        all.extend(clouded(&worse, dn, |_, _| 3));
        let further = vec![bad.clone(), late.clone(), worse.clone()];
        let mut bed = Bed::with(all, "", 0, further).await;
        bed.read(&[Arc::new(bad)], &[(268, 268)]).await;
        let chip = bed.rasteriser.next().await;
        assert_eq!((chip.from.scene.id.as_str(), chip.provenance.widened.as_str()), ("late", "cloud"));
        drop(chip);
        let mut western = plan(0, (268, 10), &[]);
        western.drawn.lonlat = [CENTRE[0] - 0.029, CENTRE[1]];
        western.drawn.point = western.drawn.lonlat;
        let job = bed.stage.job(task(2, CELL)).await;
        let fan = Arc::new(Fan::new(job, 1, Arc::default()));
        bed.lane.send(ReadWindows { fan, chips: vec![western] }).await;
        let done = bed.done().await;
        let why: Vec<_> = rejections(&done).iter().map(|r| (r.reason.as_str(), r.detail.as_str())).collect();
        assert_eq!(why, [("cloud", "100.0 % of the window is cloud, shadow or snow in worse")]);
    });
}

#[test]
fn of_two_scenes_of_one_overpass_the_clearer_one_gives_the_chip() {
    on_stage(async || {
        let [mut first, mut second] = two().map(|s| Scene::clone(&s));
        let name = |tile| Some(format!("S2A_MSIL2A_20230719T105629_N0509_R094_{tile}_20230719T165201.SAFE"));
        (first.product_uri, second.product_uri) = (name("T31TBG"), name("T30TYM"));
        let mut all = clouded(&first, dn, |_, col| if col < 1 { 10 } else { 4 });
        all.extend(clouded(&second, dn, |row, _| if row > 290 { 10 } else { 4 }));
        let mut bed = Bed::new(all, "", 0).await;
        let both = [Arc::new(first), Arc::new(second)];
        // The first chip loses two columns in the first scene; for the others both scenes are as clear, and as central.
        bed.read(&both, &[(100, 0), (100, 200), (EDGE - SIZE, 200)]).await;
        let (from, _) = bed.finish(3).await;
        assert_eq!(from, [(0, "second".into()), (1, "first".into()), (2, "first".into())].into());
    });
}

#[test]
fn an_offset_that_is_still_there_is_found_in_the_pixels_and_taken_out() {
    on_stage(async || {
        let raw = |id: &str| Scene { boa_offset_applied: Some(false), ..scene(id, 32631, CENTRE, 200, 3.0) };
        let (with, without) = (raw("with"), raw("without"));
        let ground = |row, col| dn(row, col) / 2 + 150;
        let mut all = files(&with, |row, col| ground(row, col) + 1000);
        // Its flag is as false as the other's, but its land is dark; the clouds above it are not asked.
        all.extend(clouded(
            &without,
            |row, col| if row < 200 { 8000 } else { ground(row, col) },
            |row, _| {
                if row < 100 { 9 } else { 4 }
            },
        ));
        let mut bed = Bed::new(all, "", 0).await;
        for (item, subtracted) in [(with, 1000), (without, 0)] {
            bed.read(&[Arc::new(item)], &[(300, 300), (420, 20)]).await;
            for _ in 0..2 {
                let chip = bed.rasteriser.next().await;
                let (row, col) = [(300, 300), (420, 20)][chip.drawn.chip as usize];
                assert_eq!((chip.provenance.offset, chip.provenance.offset_rule.as_str()), (subtracted, "pixels"));
                let want = (row..row + SIZE).flat_map(|r| (col..col + SIZE).map(move |c| ground(r, c)));
                let (ten, twenty) = chip.pixels.split_at((SIZE * SIZE) as usize);
                assert!(ten.iter().copied().eq(want));
                // B11 is 900 everywhere: with the offset taken out that is below zero, and not nodata.
                assert!(twenty.iter().all(|v| *v == if subtracted == 0 { 900 } else { 1 }));
            }
        }
        // Evidence costs an overview of the blue band and one of the classification, once per scene.
        assert_eq!(bed.source.reads.lock().unwrap()["mem:with/SCL"], 4);
    });
}

#[test]
fn numbers_that_cannot_be_reflectances_send_a_chip_elsewhere() {
    on_stage(async || {
        let [first, second] = two();
        let mut all = files(&first, |row, col| if row < 110 { 65_000 } else { dn(row, col) });
        all.extend(files(&second, dn));
        let mut bed = Bed::new(all, "", 0).await;
        bed.read(&[first.clone(), second], &[(100, 100), (110, 100)]).await;
        assert_eq!(bed.finish(2).await.0, [(0, "second".into()), (1, "first".into())].into());
        bed.read(&[first], &[(100, 100)]).await;
        let done = bed.done().await;
        assert_eq!(rejections(&done)[0].reason, "suspect_dn");
    });
}

#[test]
fn a_scene_without_a_classification_is_passed_over() {
    on_stage(async || {
        let [first, second] = two();
        let mut blind = Scene::clone(&first);
        blind.assets.remove(&Band::Scl);
        let mut all = files(&first, dn);
        all.extend(files(&second, dn));
        let mut bed = Bed::new(all, "", 0).await;
        let blind = Arc::new(blind);
        bed.read(&[blind.clone(), second], &[(100, 100)]).await;
        assert_eq!(bed.finish(1).await.0, [(0, "second".into())].into());
        bed.read(&[blind], &[(100, 100)]).await;
        let done = bed.done().await;
        assert_eq!(rejections(&done)[0].reason, "no_scl");
    });
}
