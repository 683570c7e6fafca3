//! A range of IP addresses.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// One IP address, or all that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    /// The first address of the range. IPv4 is never dressed as IPv6 here.
    first: IpAddr,
    /// How many bits all have in common.
    prefix: u8,
}

/// The text is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no IP address and no range of them: write it like 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32"
)]
pub struct NoSubnet(pub String);

impl Subnet {
    /// The range around an address. None when the prefix is longer than the address.
    pub fn new(ip: IpAddr, prefix: u8) -> Option<Subnet> {
        let ip = ip.to_canonical();
        let bits = bits_of(ip);
        (prefix <= bits).then(|| Subnet {
            first: masked(ip, prefix),
            prefix,
        })
    }

    /// An address alone.
    pub fn one(ip: IpAddr) -> Subnet {
        let first = ip.to_canonical();
        Subnet {
            first,
            prefix: bits_of(first),
        }
    }

    /// What one owner surely has: an IPv4 address, or the /64 of an IPv6 address.
    pub fn of_owner(ip: IpAddr) -> Subnet {
        match ip.to_canonical() {
            ip @ IpAddr::V4(_) => Subnet::one(ip),
            ip @ IpAddr::V6(_) => Subnet {
                first: masked(ip, 64),
                prefix: 64,
            },
        }
    }

    /// Whether an address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        Subnet::new(ip, self.prefix) == Some(*self)
    }

    /// Every range that an address is in, from the widest on.
    pub fn all_around(ip: IpAddr) -> impl Iterator<Item = Subnet> {
        let ip = ip.to_canonical();
        (0..=bits_of(ip)).map(move |prefix| Subnet {
            first: masked(ip, prefix),
            prefix,
        })
    }
}

fn bits_of(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn masked(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(ip) & mask))
        }
    }
}

impl FromStr for Subnet {
    type Err = NoSubnet;

    /// An address, one with `/prefix`, or one with a port, which says nothing here.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NoSubnet(text.to_owned());
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(Subnet::one(addr.ip()));
        }
        let bare = |text: &str| {
            let inner = text
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'));
            inner.unwrap_or(text).parse::<IpAddr>().ok()
        };
        match text.split_once('/') {
            None => bare(text).map(Subnet::one).ok_or_else(wrong),
            Some((ip, prefix)) => {
                let ip = bare(ip).ok_or_else(wrong)?;
                let digits = prefix.bytes().all(|digit| digit.is_ascii_digit());
                let prefix = prefix.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
                Subnet::new(ip, prefix).ok_or_else(wrong)
            }
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == bits_of(self.first) {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}/{}", self.first, self.prefix)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn ranges_are_read_shown_and_contain_what_begins_alike() {
        for (text, shown) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7:8333", "192.0.2.7"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("[2001:db8::1]:8333", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
        ] {
            let subnet: Subnet = text.parse().unwrap();
            assert_eq!(subnet.to_string(), shown);
            assert_eq!(shown.parse::<Subnet>().unwrap(), subnet);
        }
        for wrong in [
            "",
            "x",
            "1.2.3",
            "1.2.3.4/33",
            "1.2.3.4/",
            "1.2.3.4/+8",
            "::/129",
            "a.b:1",
        ] {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
        }
        let subnet: Subnet = "10.1.0.0/16".parse().unwrap();
        assert!(subnet.contains([10, 1, 255, 3].into()));
        assert!(!subnet.contains([10, 2, 0, 0].into()));
        assert!(!subnet.contains("::1".parse().unwrap()));
        let ip: IpAddr = "2001:db8:1:2:3::4".parse().unwrap();
        assert_eq!(Subnet::of_owner(ip).to_string(), "2001:db8:1:2::/64");
        assert_eq!(Subnet::all_around(ip).count(), 129);
        assert!(Subnet::all_around(ip).all(|subnet| subnet.contains(ip)));
    }
}
