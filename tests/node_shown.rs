//! A finished dataset as people see it: the report in one file, and the page's pictures.
//!
//! Contract: the dataset is a real run's; PNGs are decoded and compared with what GDAL reads from the chips.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/node.rs"]
mod node;

use std::collections::BTreeMap;

use node::World;
use satellite_pipeline::adapters::dataset::gallery::{EDGE, Gallery, GalleryError, Kind};
use satellite_pipeline::domain::task::TaskKey;
use satellite_pipeline::node::config::Config;
use satellite_pipeline::node::web::Web;

fn decode(png: &[u8]) -> (usize, usize, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
    (info.width as usize, info.height as usize, pixels)
}

#[test]
fn a_run_is_reported_in_one_file_and_its_chips_are_pictures() {
    let world = World::new();
    world.run_all();
    let gallery = Gallery::new(world.output());
    let run = gallery.runs().unwrap().remove(0);
    let tasks = gallery.tasks(&run).unwrap();
    assert_eq!(tasks.len(), world.manifests());
    let manifests: Vec<_> =
        tasks.iter().map(|t| gallery.manifest(&TaskKey { run: run.clone(), task: *t }).unwrap().unwrap()).collect();
    pictures_show_the_chips(&world, &gallery, &manifests);
    the_page_has_them(&world, &run, &manifests);

    let write = |name: &str| {
        let out = world.at(name).display().to_string();
        let dir = world.output().display().to_string();
        let said = world.run(&["report", &dir, "--out", &out], 0).out;
        assert!(said.contains(name), "{said}");
        std::fs::read_to_string(out).unwrap()
    };
    let html = write("first.html");
    let chips: usize = manifests.iter().map(|m| m.chips.len()).sum();
    assert!(html.contains(&format!("<b>{chips}</b>")) && html.contains(&run), "chips and run");
    let mut classes: BTreeMap<u8, usize> = BTreeMap::new();
    manifests.iter().flat_map(|m| &m.chips).for_each(|c| *classes.entry(c.class.get()).or_default() += 1);
    for (class, n) in &classes {
        assert!(html.contains(&format!("<td class=\"n\">{n}</td>")), "class {class} has {n} chips");
    }
    let shown = html.matches("src=\"data:image/png;base64,").count();
    assert_eq!(shown, 2 * classes.values().map(|n| (*n).min(6)).sum::<usize>().min(48));
    for foreign in ["<script", "http://", "https://", "<link", "url(http", "@import"] {
        let found = html.matches(foreign).count();
        assert_eq!(found, 0, "{foreign} in a file that is to need nothing else");
    }
    assert!(html.len() < 6_000_000, "{} bytes", html.len());
    assert_eq!(html, write("second.html"), "the same dataset, the same report");

    world.run(&["report", &world.at("nowhere").display().to_string()], 2).says(&["does not exist"]);
    std::fs::create_dir(world.at("empty")).unwrap();
    world.run(&["report", &world.at("empty").display().to_string()], 1).says(&["nothing to report"]);
}

fn pictures_show_the_chips(
    world: &World,
    gallery: &Gallery,
    manifests: &[satellite_pipeline::domain::manifest::Manifest],
) {
    let manifest = manifests.iter().find(|m| !m.chips.is_empty()).unwrap();
    let (name, key) = (&manifest.chips[0].name, &manifest.key);
    let (width, height, image) = decode(&gallery.picture(key, 0, Kind::Image).unwrap());
    assert_eq!((width, height), (EDGE, EDGE));
    let tif = gdal::Dataset::open(world.output().join(format!("images/{name}.tif"))).unwrap();
    // Band 3 is B04. Red of a picture's pixel is the mean of 2 x 2 under a rising curve, so order must be kept.
    let red = tif.rasterband(3).unwrap().read_as::<u16>((0, 0), (256, 256), (256, 256), None).unwrap();
    let mean = |i: usize| {
        let (x, y) = (i % EDGE * 2, i / EDGE * 2);
        [(x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)]
            .iter()
            .map(|(x, y)| u32::from(red.data()[y * 256 + x]))
            .sum::<u32>()
    };
    let (dark, bright) = (0..EDGE * EDGE).fold((0, 0), |(low, high), i| {
        (if mean(i) < mean(low) { i } else { low }, if mean(i) > mean(high) { i } else { high })
    });
    assert!(image[3 * dark] < image[3 * bright], "dark land is darker than bright land");
    let (_, _, mask) = decode(&gallery.picture(key, 0, Kind::Mask).unwrap());
    let tif = gdal::Dataset::open(world.output().join(format!("masks/{name}.tif"))).unwrap();
    let band = tif.rasterband(1).unwrap();
    let values =
        band.read_as::<u8>((0, 0), (256, 256), (EDGE, EDGE), Some(gdal::raster::ResampleAlg::NearestNeighbour));
    let values = values.unwrap();
    let colour =
        band.color_table().unwrap().entry_as_rgb(usize::from(values.data()[EDGE * EDGE / 2 + EDGE / 2])).unwrap();
    let centre = 3 * (EDGE * EDGE / 2 + EDGE / 2);
    assert_eq!(mask[centre..centre + 3], [colour.r as u8, colour.g as u8, colour.b as u8]);
    let none = gallery.picture(key, 9999, Kind::Image);
    assert!(matches!(none, Err(GalleryError::NoChip { chip: 9999, .. })), "{none:?}");
}

fn the_page_has_them(world: &World, run: &str, manifests: &[satellite_pipeline::domain::manifest::Manifest]) {
    let text =
        format!("[monitor]\nlisten = \"127.0.0.1:0\"\n[output]\ndir = {:?}\n", world.output().display().to_string());
    let config = Config::from_toml("test", &text).unwrap();
    world.runtime.block_on(async {
        let web = Web::start(&config, axum::Router::new()).await.unwrap();
        let task = manifests.iter().find(|m| !m.chips.is_empty()).unwrap().key.task;
        let url = |kind: &str, n: u32| format!("http://{}/pictures/{run}/{task}/{n}/{kind}", web.address().unwrap());
        for kind in ["image.png", "mask.png"] {
            let answer = reqwest::get(url(kind, 0)).await.unwrap();
            assert_eq!(answer.headers()["content-type"], "image/png");
            let first = answer.bytes().await.unwrap();
            assert_eq!(decode(&first).0, EDGE);
            assert_eq!(reqwest::get(url(kind, 0)).await.unwrap().bytes().await.unwrap(), first, "and once more, kept");
        }
        assert_eq!(reqwest::get(url("image.png", 9999)).await.unwrap().status(), 404);
    });
}
