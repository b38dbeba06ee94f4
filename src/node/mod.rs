//! node
pub mod group;
pub mod table;
pub mod topics;
