//! `s3://BUCKET/PREFIX`: where a dataset is kept that is no directory.
//!
//! Contract: pure text. What begins with `s3://` is meant as a bucket, so what is wrong with it is an error and never a
//! directory of that name. Trap: the prefix has no slash at either end, and may be empty.

use std::fmt;

/// What an address begins with.
const SCHEME: &str = "s3://";

/// Longest prefix; with the longest name of a chip a key stays below S3's 1024 bytes.
const MAX_PREFIX: usize = 512;

/// A bucket and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Place {
    /// Name of the bucket.
    pub bucket: String,
    /// What all keys begin with, without slashes at its ends; may be empty.
    pub prefix: String,
}

impl S3Place {
    /// Whether the text is meant as a bucket at all.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// The place; `None`: a name that no bucket has, or a prefix that is no path.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(SCHEME)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let whole = is_bucket(bucket) && prefix.len() <= MAX_PREFIX && (prefix.is_empty() || is_path(prefix));
        whole.then(|| Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

/// The letters that all kinds of stores agree on.
fn is_bucket(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (3..=63).contains(&name.len())
        && name.bytes().all(|b| plain(b) || matches!(b, b'-' | b'.'))
        && name.bytes().next().is_some_and(plain)
        && name.bytes().last().is_some_and(plain)
}

fn is_path(prefix: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'=' | b'+');
    prefix.split('/').all(|part| !matches!(part, "" | "." | "..") && part.bytes().all(plain))
}

impl fmt::Display for S3Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_and_a_prefix() {
        for (text, bucket, prefix) in [
            ("s3://chips", "chips", ""),
            ("s3://chips/", "chips", ""),
            ("s3://my.chips-2023/es/year=2023/", "my.chips-2023", "es/year=2023"),
        ] {
            let place = S3Place::parse(text).unwrap();
            assert_eq!((place.bucket.as_str(), place.prefix.as_str()), (bucket, prefix));
            assert_eq!(place.to_string(), text.trim_end_matches('/'));
        }
        let long = format!("s3://chips/{}", "x".repeat(600));
        for bad in [
            "s3://",
            "s3:///x",
            "s3://Chips",
            "s3://a_b",
            "s3://ab",
            "s3://chips//x",
            "s3://chips/../x",
            "s3://-ab",
            &long,
        ] {
            assert_eq!(S3Place::parse(bad), None, "{bad}");
            assert!(S3Place::is_meant(bad));
        }
        assert!(!S3Place::is_meant("/data/s3://x") && S3Place::parse("output").is_none());
    }
}
