//! What a file's bytes must be: a checksum that the record of a task keeps of each file it names.
//!
//! Contract: [`Algorithm::Xxh128`] is XXH3 with 128 bits and seed 0, in the order of its specification (most significant
//! byte first), as `xxhsum -H2` prints it; it notices every damage and is no protection against forgery.
//! [`Algorithm::Sha256`] is that too, for some thirty times the time. A record says which one it has, so datasets may hold
//! both. Units: lower-case hex. Trap: nothing here compares lengths; [`super::manifest::FileRecord`] does.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use twox_hash::XxHash3_128;

/// How a checksum is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// XXH3, 128 bits.
    Xxh128,
    /// SHA-256.
    Sha256,
}

/// A checksum, lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// XXH3, 128 bits.
    Xxh128(String),
    /// SHA-256.
    Sha256(String),
}

impl Checksum {
    /// The checksum of `bytes`.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        match algorithm {
            Algorithm::Xxh128 => Self::Xxh128(hex(&XxHash3_128::oneshot(bytes).to_be_bytes())),
            Algorithm::Sha256 => Self::Sha256(hex(&Sha256::digest(bytes))),
        }
    }

    /// How it was computed.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Xxh128(_) => Algorithm::Xxh128,
            Self::Sha256(_) => Algorithm::Sha256,
        }
    }

    /// Name of the algorithm, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Xxh128(_) => "XXH128",
            Self::Sha256(_) => "SHA-256",
        }
    }

    /// As a multihash in hex: the code of the algorithm and the length of the digest, as varints, then the digest.
    /// Codes are those of the multicodec table: 0xb3e4 is xxh3-128, 0x12 sha2-256.
    pub fn multihash(&self) -> String {
        match self {
            Self::Xxh128(digest) => format!("e4e70210{digest}"),
            Self::Sha256(digest) => format!("1220{digest}"),
        }
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)] as char, DIGITS[usize::from(b & 15)] as char]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `xxhsum -H2` and `sha256sum`.
    #[test]
    fn digests_are_those_of_other_programs() {
        let digest = |bytes: &[u8]| match Checksum::of(Algorithm::Xxh128, bytes) {
            Checksum::Xxh128(digest) | Checksum::Sha256(digest) => digest,
        };
        assert_eq!(digest(b""), "99aa06d3014798d86001c324468d497f");
        assert_eq!(digest(b"chip"), "f598a4bf32f0ed021962100d937e9299");
        let sha = Checksum::of(Algorithm::Sha256, b"abc");
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha, Checksum::Sha256(known.to_owned()));
        assert_eq!(sha.multihash(), format!("1220{known}"));
    }
}
