//! The stages of a node: thin actors that receive, call a rule or a door, and pass on.

pub mod blocks;
pub mod cpu;
pub mod finder;
pub mod health;
pub mod hosts;
pub mod intake;
pub mod lane;
pub mod messages;
pub mod offsets;
pub mod pixels;
pub mod planner;
pub mod publisher;
pub mod quotas;
pub mod rasteriser;
pub mod retry;
pub mod sampler;
pub mod scenes;
pub mod settler;
pub mod tallier;
pub mod ticket;
pub mod uncut;
pub mod writer;
