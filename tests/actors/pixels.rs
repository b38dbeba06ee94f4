//! The pixels stage: the right pixels, the next candidate, and whose fault a bad file is.

use std::sync::Arc;

use satellite_pipeline::actors::cpu::CpuPool;
use satellite_pipeline::actors::messages::ChipOutcome;
use satellite_pipeline::adapters::imagery::Imagery;
use satellite_pipeline::adapters::imagery::source::MemorySource;
use satellite_pipeline::domain::failure::Severity;

use super::pixel_bed::{Bed, SIZE, two};
use super::scene_kit::{BANDS, CELL, dn, files};
use super::stage::{on_stage, rejections, task};

#[test]
fn every_window_holds_its_pixels_in_the_order_of_the_bands() {
    on_stage(async || {
        let [first, _] = two();
        let mut bed = Bed::new(files(&first, dn), "", 0).await;
        let places = [(0, 0), (250, 250), (536, 536), (100, 333)];
        bed.read(std::slice::from_ref(&first), &places).await;
        for _ in places {
            let chip = bed.rasteriser.next().await;
            let (row, col) = places[chip.drawn.chip as usize];
            let (ten, twenty) = chip.pixels.split_at((SIZE * SIZE) as usize);
            let want = (row..row + SIZE).flat_map(|r| (col..col + SIZE).map(move |c| dn(r, c)));
            assert!(ten.iter().copied().eq(want), "chip at {row}, {col}");
            assert!(twenty.len() == ten.len() && twenty.iter().all(|v| *v == 900));
            let grid = first.assets[&BANDS[0]].grid.unwrap();
            assert_eq!((chip.from.grid.x0, chip.from.grid.width), (grid.x0 + f64::from(col) * 10.0, SIZE));
        }
    });
}

#[test]
fn nodata_sends_a_chip_to_its_next_candidate_and_then_out() {
    on_stage(async || {
        let [first, second] = two();
        // The first scene ends at row 300, the second one at column 400.
        let mut all = files(&first, |row, col| if row < 300 { dn(row, col) } else { 0 });
        all.extend(files(&second, |row, col| if col < 400 { dn(row, col) + 1 } else { 0 }));
        let mut bed = Bed::new(all, "", 0).await;
        bed.read(&[first, second], &[(100, 100), (310, 100), (290, 100), (500, 500)]).await;
        let (from, done) = bed.finish(3).await;
        assert_eq!(from, [(0, "first".into()), (1, "second".into()), (2, "second".into())].into());
        let rejected = rejections(&done);
        assert_eq!((rejected.len(), rejected[0].parcel, rejected[0].reason.as_str()), (1, 103, "nodata"));
        assert_eq!(rejected[0].detail, "100.0 % of the window is nodata in second");
    });
}

#[test]
fn a_corrupt_block_costs_only_the_chips_that_need_it() {
    on_stage(async || {
        let [first, _] = two();
        let mut all = files(&first, dn);
        let plain = MemorySource::default().with("x", all[0].1.clone());
        let cpu = CpuPool::new(1).unwrap();
        let cog = Imagery::new(Arc::new(plain), cpu.pool(), 1 << 20).open("x").await.unwrap();
        // Block 4 is the middle one of 3 x 3.
        let at = cog.blocks[4].clone();
        all[0].1[at.start as usize..at.end as usize].fill(0xff);
        let mut bed = Bed::new(all, "", 0).await;
        bed.read(&[first], &[(10, 10), (300, 300), (240, 240), (530, 10)]).await;
        let (good, done) = bed.finish(2).await;
        assert!(good.into_keys().eq([0, 3]));
        let rejected = rejections(&done);
        let why: Vec<_> = rejected.iter().map(|r| (r.parcel, r.reason.as_str())).collect();
        assert_eq!(why, [(101, "unreadable"), (102, "unreadable")]);
        assert!(rejected.iter().all(|r| r.detail.contains("mem:first/B02: block 4")), "{rejected:?}");
    });
}

#[test]
fn a_file_that_is_gone_or_no_tiff_sends_its_chips_elsewhere() {
    on_stage(async || {
        let [first, second] = two();
        type Spoil = fn(&mut Vec<(String, Vec<u8>)>);
        let spoilt: [Spoil; 3] =
            [|all| drop(all.remove(0)), |all| all[0].1 = b"<html>no TIFF".to_vec(), |all| all[0].1.truncate(40)];
        for spoil in spoilt {
            let mut all = files(&first, dn);
            spoil(&mut all);
            all.extend(files(&second, dn));
            let mut bed = Bed::new(all, "", 0).await;
            bed.read(&[first.clone(), second.clone()], &[(10, 10)]).await;
            assert_eq!(bed.rasteriser.next().await.from.scene.id, "second");
            bed.read(std::slice::from_ref(&first), &[(10, 10)]).await;
            let done = bed.done().await;
            assert_eq!(rejections(&done)[0].reason, "unreadable");
        }
    });
}

#[test]
fn what_may_pass_is_tried_again_and_then_ends_the_task() {
    on_stage(async || {
        let [first, second] = two();
        let mut all = files(&first, dn);
        all.extend(files(&second, dn));
        for (failures, href) in [(1, "mem:first/B02"), (2, "mem:first/B11"), (2, "mem:first")] {
            let mut bed = Bed::new(all.clone(), href, failures).await;
            bed.read(std::slice::from_ref(&first), &[(10, 10)]).await;
            assert_eq!(bed.rasteriser.next().await.from.scene.id, "first", "{failures} failures of {href}");
        }
        // Another scene would do, but then the dataset would depend on a server's mood. One file that stays away fails
        // the task; a host that answers nobody stops the node.
        for (href, severity) in [("mem:first/B02", Severity::Transient), ("mem:", Severity::Fatal)] {
            let mut bed = Bed::new(all.clone(), href, u32::MAX).await;
            bed.read(&[first.clone(), second.clone()], &[(10, 10), (300, 300)]).await;
            let done = bed.done().await;
            for (_, outcome) in &done.outcomes {
                match outcome {
                    ChipOutcome::Broken(f) => assert_eq!((f.severity, f.stage), (severity, "pixels"), "{f}"),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(done.outcomes.len(), 2);
            bed.rasteriser.nothing().await;
        }
    });
}

#[test]
fn a_cancelled_task_ends_without_further_requests() {
    on_stage(async || {
        let [first, _] = two();
        let mut bed = Bed::new(files(&first, dn), "mem:", u32::MAX).await;
        let job = bed.stage.job(task(1, CELL)).await;
        job.cancel.cancel();
        bed.read_for(job, &[first], &[(10, 10), (300, 300)]).await;
        let done = bed.done().await;
        assert!(done.outcomes.iter().all(|(_, o)| matches!(o, ChipOutcome::Abandoned)), "{:?}", done.outcomes);
        assert!(bed.source.reads.lock().unwrap().is_empty());
    });
}
