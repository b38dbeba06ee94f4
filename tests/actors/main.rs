//! Each actor of the worker's road alone, between twins: what it sends on, what it settles, and what it never does.
//!
//! Contract: real messages, real lanes, real tickets (deliveries of the embedded broker), real COGs (written by GDAL, read
//! from memory); the neighbours are probes. One file per actor, two for the pixels. Trap: an actor's outcome is awaited, never slept for; only
//! "nothing comes" is waited for, and shortly.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod hosts;
mod intake;
mod looks;
mod pixel_bed;
mod pixels;
mod rasteriser;
mod sampler;
mod scene_kit;
mod scenes;
mod settler;
mod stage;
mod writer;
