//! The number of a class, as masks hold it.
//!
//! Contract: never 0 (background) nor 255 (unlabelled), so a mask's three meanings cannot be mixed up. The rules
//! that give a parcel its class are in [`super::class_table`].
//! Trap: as a JSON object key it arrives as a string (`{"1": 12}`); serde reads it back.
use serde::{Deserialize, Serialize};

/// A class as written into masks: 1 to 254; 0 is background, 255 is kept for "unlabelled".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct ClassId(u8);

/// Why a number is not a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("class {0} is not one of 1 to 254 (0 is background, 255 unlabelled)")]
pub struct NotAClass(u8);

impl TryFrom<u8> for ClassId {
    type Error = NotAClass;
    fn try_from(n: u8) -> Result<Self, NotAClass> {
        if n == 0 || n == 255 { Err(NotAClass(n)) } else { Ok(Self(n)) }
    }
}

impl From<ClassId> for u8 {
    fn from(c: ClassId) -> Self {
        c.0
    }
}

impl ClassId {
    /// The mask value.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl std::fmt::Display for ClassId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
