//! Doors to the outer worlds: each a small interface, its real implementation, and a scripted twin.
pub mod catalog;
pub mod http;
