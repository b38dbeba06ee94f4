//! Which hosts and files a request may go to.
//!
//! Contract: what an operator wrote is trusted, what an item says is not. A host named in configuration may be anywhere;
//! any other must be on the public internet, unless `imagery.allow_private_hosts` says otherwise. Checked three times:
//! the address in a URL, every address a name resolves to (so a name cannot be turned to a private address later), and
//! every hop of a redirect. Trap: behind a proxy the proxy resolves names, and only written addresses are checked here.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::error::Fault;

/// What is allowed.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    hosts: BTreeSet<String>,
    folders: Vec<Url>,
    allow_private_hosts: bool,
    allow_file_hrefs: bool,
}

/// Why a URL is not asked for. All of these are decisions of the operator's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Neither http nor https.
    #[error("scheme `{0}` is not served: only http and https are, and file with imagery.allow_file_hrefs = true")]
    Scheme(String),
    /// A local file.
    #[error("local files are refused; imagery.allow_file_hrefs = true allows them")]
    File,
    /// No host.
    #[error("the URL names no host")]
    NoHost,
    /// An address that is not public.
    #[error(
        "host `{host}` is at {address}, which is not a public address; imagery.allow_private_hosts = true allows it"
    )]
    Private {
        /// Name or address in the URL.
        host: String,
        /// Where it leads.
        address: IpAddr,
    },
}

impl Trust {
    /// Nothing but public hosts, and these: the URLs the operator wrote. A `file:` URL means that folder.
    pub fn new(written: impl IntoIterator<Item = Url>) -> Self {
        let mut trust = Self::default();
        for mut url in written {
            if url.scheme() == "file" {
                let folder = format!("{}/", url.path().trim_end_matches('/'));
                url.set_path(&folder);
                trust.folders.push(url);
            } else if let Some(host) = url.host_str() {
                trust.hosts.insert(plain(host));
            }
        }
        trust
    }

    /// Whether hosts of any address may be asked (`imagery.allow_private_hosts`).
    pub fn private_hosts(mut self, allowed: bool) -> Self {
        self.allow_private_hosts = allowed;
        self
    }

    /// Whether any local file may be read (`imagery.allow_file_hrefs`).
    pub fn file_hrefs(mut self, allowed: bool) -> Self {
        self.allow_file_hrefs = allowed;
        self
    }

    /// Judges a URL as far as its text goes.
    ///
    /// # Errors
    /// [`Fault::Refused`].
    pub fn check(&self, url: &Url) -> Result<(), Fault> {
        match url.scheme() {
            "http" | "https" => self.check_host(url).map_err(Fault::from),
            "file" if self.allow_file_hrefs || self.folders.iter().any(|f| is_below(url, f)) => Ok(()),
            "file" => Err(Refused::File.into()),
            other => Err(Refused::Scheme(other.to_owned()).into()),
        }
    }

    fn check_host(&self, url: &Url) -> Result<(), Refused> {
        let address = match url.host().ok_or(Refused::NoHost)? {
            Host::Domain(_) => return Ok(()),
            Host::Ipv4(v4) => IpAddr::V4(v4),
            Host::Ipv6(v6) => IpAddr::V6(v6),
        };
        let host = url.host_str().unwrap_or_default();
        if self.may_be_private(host) || is_public(address) {
            return Ok(());
        }
        Err(Refused::Private { host: host.to_owned(), address })
    }

    fn may_be_private(&self, host: &str) -> bool {
        self.allow_private_hosts || self.hosts.contains(&plain(host))
    }
}

/// A host as it is compared: lower case, without the root's dot.
fn plain(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

/// Whether a `file:` URL lies below a folder's. The parser has resolved `..`, but not `%2F`, which no honest path has.
fn is_below(url: &Url, folder: &Url) -> bool {
    let path = url.path();
    path.starts_with(folder.path()) && !path.to_ascii_lowercase().contains("%2f")
}

/// Whether an address is on the public internet. The list follows the IANA special-purpose registries; IPv6 addresses
/// that carry an IPv4 address are judged by it.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match embedded_v4(v6) {
            Some(v4) => is_public_v4(v4),
            None => is_public_v6(v6),
        },
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let shared = a == 100 && (64..128).contains(&b); // carrier-grade NAT; some clouds' metadata live here
    let protocol = a == 192 && b == 0 && c == 0;
    let benchmark = a == 198 && (b == 18 || b == 19);
    !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || ip.is_documentation())
        && a != 0
        && a < 240
        && !(shared || protocol || benchmark)
}

/// Only 2000::/3 is handed out; documentation addresses in it are not.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.segments();
    (first & 0xe000) == 0x2000 && !(first == 0x2001 && (second == 0x0db8 || second == 0))
}

/// The IPv4 address inside a mapped, compatible, NAT64 or 6to4 address.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |hi: u16, lo: u16| Ipv4Addr::from_bits(u32::from(hi) << 16 | u32::from(lo));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) | (0x0064, 0xff9b, 0, 0, 0, 0) => Some(v4(g, h)),
        (0x2002, ..) => Some(v4(b, c)),
        _ => None,
    }
}

/// Resolves names and leaves out addresses they may not lead to.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    trust: Trust,
}

impl Resolver {
    pub(super) fn new(mut trust: Trust, proxy: Option<&Url>) -> Self {
        trust.hosts.extend(proxy.and_then(Url::host_str).map(plain));
        Self { trust }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let trusted = self.trust.may_be_private(name.as_str());
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            if trusted {
                return Ok(Box::new(found.into_iter()) as Addrs);
            }
            let (public, private): (Vec<_>, Vec<_>) = found.into_iter().partition(|a| is_public(a.ip()));
            match private.first() {
                Some(a) if public.is_empty() => Err(Refused::Private { host: host.to_owned(), address: a.ip() }.into()),
                _ => Ok(Box::new(public.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn public_and_private_addresses() {
        for private in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.100.100.200",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "::7f00:1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in ["8.8.8.8", "52.218.0.1", "100.63.0.1", "172.32.0.1", "2600:1f14::1", "::ffff:8.8.8.8"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn written_addresses_in_any_spelling() {
        let trust = Trust::default();
        for url in ["http://127.0.0.1/a", "http://2130706433/a", "http://0x7f.1/a", "http://[::1]:80/a", "http://0/a"] {
            let refused = trust.check(&url.parse().unwrap()).unwrap_err();
            assert!(matches!(refused, Fault::Refused(Refused::Private { .. })), "{url}: {refused}");
            assert!(refused.to_string().contains("imagery.allow_private_hosts"));
            assert!(Trust::default().private_hosts(true).check(&url.parse().unwrap()).is_ok());
        }
        let written = Trust::new(["http://127.0.0.1:8080/stac".parse().unwrap()]);
        assert!(written.check(&"http://127.0.0.1:9000/x.tif".parse().unwrap()).is_ok(), "the host is trusted");
        assert!(written.check(&"http://127.0.0.2/x.tif".parse().unwrap()).is_err());
    }

    #[test]
    fn schemes_and_files() {
        let refused = |t: &Trust, u: &str| t.check(&u.parse().unwrap()).unwrap_err().to_string();
        assert!(refused(&Trust::default(), "s3://bucket/key").contains("scheme `s3`"));
        assert!(refused(&Trust::default(), "file:///etc/passwd").contains("imagery.allow_file_hrefs"));
        assert!(Trust::default().file_hrefs(true).check(&"file:///data/a.tif".parse().unwrap()).is_ok());
        let base = Trust::new(["file:///data/scenes".parse().unwrap()]);
        assert!(base.check(&"file:///data/scenes/x/B02.tif".parse().unwrap()).is_ok());
        for outside in [
            "file:///data/other/B02.tif",
            "file:///data/scenes/../secret",
            "file:///data/scenes/%2e%2e/secret",
            "file:///data/scenes/..%2fsecret",
        ] {
            assert!(base.check(&outside.parse().unwrap()).is_err(), "{outside}");
        }
    }
}
