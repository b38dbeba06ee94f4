//! The stages of a node: thin actors that receive, call a rule or a door, and pass on.

pub mod lane;
pub mod retry;
pub mod ticket;
