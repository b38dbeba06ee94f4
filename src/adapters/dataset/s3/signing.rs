//! Digests and keyed digests for the signatures of S3 requests, by the SHA-256 that manifests are made with.
//!
//! Contract: what `object_store` asks of a cryptography library and no more; without it, the crate would bring a second
//! TLS stack's. Trap: RSA signatures are Google's way to log in, not Amazon's: there are none.

use hmac::{Hmac, KeyInit as _, Mac as _};
use object_store::client::{CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, Signer, SigningAlgorithm};
use object_store::{Error, Result};
use sha2::{Digest as _, Sha256};

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Signing;

fn unknown(what: String) -> Error {
    Error::NotSupported { source: what.into() }
}

impl CryptoProvider for Signing {
    fn digest(&self, algorithm: DigestAlgorithm) -> Result<Box<dyn DigestContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Box::new(Plain(Sha256::new(), [0; 32]))),
            other => Err(unknown(format!("no digest {other:?}"))),
        }
    }

    fn hmac(&self, algorithm: DigestAlgorithm, secret: &[u8]) -> Result<Box<dyn HmacContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => {
                let keyed = Hmac::<Sha256>::new_from_slice(secret).map_err(|e| unknown(e.to_string()))?;
                Ok(Box::new(Keyed(keyed, [0; 32])))
            }
            other => Err(unknown(format!("no keyed digest {other:?}"))),
        }
    }

    fn sign(&self, algorithm: SigningAlgorithm, _: &[u8]) -> Result<Box<dyn Signer>> {
        Err(unknown(format!("no signatures by {algorithm:?}")))
    }
}

struct Plain(Sha256, [u8; 32]);

impl DigestContext for Plain {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finish(&mut self) -> Result<&[u8]> {
        self.1 = self.0.finalize_reset().into();
        Ok(&self.1)
    }
}

struct Keyed(Hmac<Sha256>, [u8; 32]);

impl HmacContext for Keyed {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn finish(&mut self) -> Result<&[u8]> {
        self.1 = self.0.clone().finalize().into_bytes().into();
        Ok(&self.1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::domain::checksum::hex;

    /// RFC 4231, test case 2, and FIPS 180-2's "abc".
    #[test]
    fn digests_are_those_of_the_standards() {
        let mut keyed = Signing.hmac(DigestAlgorithm::Sha256, b"Jefe").unwrap();
        keyed.update(b"what do ya want ");
        keyed.update(b"for nothing?");
        assert_eq!(hex(keyed.finish().unwrap()), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let mut plain = Signing.digest(DigestAlgorithm::Sha256).unwrap();
        plain.update(b"abc");
        assert_eq!(hex(plain.finish().unwrap()), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(Signing.sign(SigningAlgorithm::RS256, b"").is_err());
    }
}
