//! Options of `node simulate`: parsing and types, no work.
//!
//! Contract: as [`super::cli`]. Units are in the names: milliseconds, megabits and requests per second; a rate of 0 has no
//! bound. Defaults of service times were measured on two cores of an EPYC server with ZSTD output (docs/operations.md).

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  node simulate --config my.toml --workers 1,4,15           the plan of these parcels
  node simulate --tasks 20000 --chips-per-task 20           a country, made up
  node simulate --tasks 20000 --workers 60 --set kafka.partitions=120 --set imagery.requests_per_host=32
  node simulate --tasks 20000 --latency 150 --link-mbit 200 far from the images
  node simulate --tasks 400000 --workers 100,400 --set kafka.partitions=800 --latency 20 --image-rate 5500
  node simulate --tasks 20000 --log json                    one JSON object per number of workers

Everything that is not an option here comes from the configuration: grid, seasons, partitions, lanes, requests per host,
cache. Each worker is a machine of worker.cores cores (0: two). Nothing sleeps and nothing is asked: the same command gives
the same answer.";

/// Options of `node simulate`.
#[derive(Debug, Clone, PartialEq, Args)]
#[group(skip)]
#[command(after_help = EXAMPLES)]
pub struct Simulate {
    /// Numbers of workers to try
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "1,4,15", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub workers: Vec<u32>,
    /// So many made-up cells in a square instead of the plan of parcels.path
    #[arg(long, value_name = "T", visible_alias = "cells", value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    pub tasks: Option<u32>,
    /// Parcels drawn in a made-up cell, on average
    #[arg(long, value_name = "N", default_value_t = 20.0, value_parser = positive, requires = "tasks")]
    pub chips_per_task: f64,
    /// Middle of the made-up square, degrees: longitude,latitude
    #[arg(long, value_name = "LON,LAT", allow_hyphen_values = true, default_value = "-4,40", value_parser = place)]
    pub around: [f64; 2],
    /// Chips for each parcel drawn
    #[arg(long = "yield", value_name = "SHARE", default_value_t = 1.0, value_parser = share)]
    pub yields: f64,
    /// Share of a scene's cells that turn out to be cloudy and go to the next scene
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    pub cloudy: f64,
    /// Share of scenes whose offset only their overviews tell (chips.harmonise = "auto"), four reads each
    #[arg(long, value_name = "SHARE", default_value_t = 0.3, value_parser = share)]
    pub unsettled: f64,
    /// Time to the first byte of the image host, ms
    #[arg(long, value_name = "MS", default_value_t = 40.0, value_parser = positive)]
    pub latency: f64,
    /// Requests the image host answers for all workers together, per s
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = positive)]
    pub image_rate: f64,
    /// What the image host sends to all workers together, Mbit/s
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = positive)]
    pub image_mbit: f64,
    /// What one worker's link brings, Mbit/s
    #[arg(long, value_name = "N", default_value_t = 1000.0, value_parser = positive)]
    pub link_mbit: f64,
    /// Edge of a block of the images, pixels
    #[arg(long, value_name = "PX", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=10_980))]
    pub block: u32,
    /// Compressed size of a block, share of its decoded size
    #[arg(long, value_name = "SHARE", default_value_t = 0.71, value_parser = share)]
    pub ratio: f64,
    /// Time of one STAC search, ms
    #[arg(long, value_name = "MS", default_value_t = 400.0, value_parser = positive)]
    pub stac_latency: f64,
    /// Searches the STAC API answers for all workers together, per s
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = positive)]
    pub stac_rate: f64,
    /// Searches for each neighbourhood and season (pages, wider steps)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub searches: u8,
    /// What the output takes from all workers together, Mbit/s
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = positive)]
    pub store_mbit: f64,
    /// Operations the output does for all workers together, per s
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = positive)]
    pub store_rate: f64,
    /// Operations for a chip, a third of it for a task's manifest (12: two files over NFS; 7: a bucket)
    #[arg(long, value_name = "N", default_value_t = 12.0, value_parser = positive)]
    pub store_ops: f64,
    /// Messages the broker takes, per s; a task costs four
    #[arg(long, value_name = "N", default_value_t = 20_000.0, value_parser = positive)]
    pub broker_rate: f64,
    /// Bytes of a chip, both files, kB
    #[arg(long, value_name = "KB", default_value_t = 860.0, value_parser = positive)]
    pub chip_kb: f64,
    /// Core time to read and draw a cell's parcels, ms
    #[arg(long, value_name = "MS", default_value_t = 5.0, value_parser = positive)]
    pub draw_ms: f64,
    /// Core time to decode 1 MiB of a block, ms
    #[arg(long, value_name = "MS", default_value_t = 2.4, value_parser = positive)]
    pub decode_ms: f64,
    /// Core time to cut a chip, ms
    #[arg(long, value_name = "MS", default_value_t = 0.3, value_parser = positive)]
    pub cut_ms: f64,
    /// Core time for a chip's mask, encoding, checksums and system calls, ms
    #[arg(long, value_name = "MS", default_value_t = 2.1, value_parser = positive)]
    pub encode_ms: f64,
    /// Time to write and sync a chip on an idle output, ms
    #[arg(long, value_name = "MS", default_value_t = 4.0, value_parser = positive)]
    pub write_ms: f64,
    /// Time to publish a task: manifest, links, result, ms
    #[arg(long, value_name = "MS", default_value_t = 20.0, value_parser = positive)]
    pub commit_ms: f64,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1e9).contains(&value) => Ok(value),
        _ => Err("a number from 0 to 1e9".into()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => Err("a number from 0 to 1".into()),
    }
}

fn place(text: &str) -> Result<[f64; 2], String> {
    let wrong = || "longitude and latitude in degrees, for instance -4,40".to_owned();
    let (lon, lat) = text.split_once(',').ok_or_else(wrong)?;
    let number = |text: &str, most: f64| text.trim().parse().ok().filter(|n: &f64| n.abs() <= most).ok_or_else(wrong);
    Ok([number(lon, 179.0)?, number(lat, 84.0)?])
}
