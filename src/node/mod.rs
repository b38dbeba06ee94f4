//! node
pub mod plan;
