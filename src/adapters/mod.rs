//! One door per outer world, each a small trait with its real implementation.
pub mod broker;
