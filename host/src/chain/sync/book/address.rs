//! Addresses of peers on every network that BIP155 names, and the groups they are spread over.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::{AddrV2, AddrV2Message, Address};
use sha3::{Digest, Sha3_256};

/// What begins the stand-in for a Tor address among socket addresses; from the range that Core uses inside itself.
const TOR_PREFIX: [u8; 6] = [0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x24];
/// The same for I2P.
const I2P_PREFIX: [u8; 6] = [0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x25];
/// The alphabet of RFC 4648, lower case.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// The version byte of an onion address.
const ONION_VERSION: u8 = 3;

/// Where a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetAddress {
    /// On the Internet. IPv4 is never dressed as IPv6 here.
    Ip(SocketAddr),
    /// A Tor service of version 3: its public key and port.
    Tor([u8; 32], u16),
    /// An I2P destination: its hash and port.
    I2p([u8; 32], u16),
    /// In CJDNS, an IPv6 in `fc00::/8`.
    Cjdns(Ipv6Addr, u16),
}

/// The networks that we can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The Internet with IPv4.
    pub ipv4: bool,
    /// The Internet with IPv6.
    pub ipv6: bool,
    /// Tor: through a proxy only.
    pub tor: bool,
    /// CJDNS: where the machine has an interface of it.
    pub cjdns: bool,
    /// Loopback and private networks too: for networks of one's own (regtest).
    pub local: bool,
}

impl Reach {
    /// The Internet and nothing else.
    pub const INTERNET: Reach = Reach {
        ipv4: true,
        ipv6: true,
        tor: false,
        cjdns: false,
        local: false,
    };
}

/// Two outgoing connections should not go to the same one: /16 of IPv4, /32 of IPv6, as in Core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group([u8; 5]);

impl Group {
    /// Its bytes, for hashing.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads what [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Group> {
        if text.len() != 10 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 5];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Group(bytes))
    }

    /// That of a DNS seed.
    pub fn of_name(name: &str) -> Group {
        let hash = bitcoin::hashes::siphash24::Hash::hash_to_u64_with_keys(0, 0, name.as_bytes());
        let [a, b, c, d, ..] = hash.to_le_bytes();
        Group([6, a, b, c, d])
    }

    /// That of peers that nobody told: from the configuration or the operator.
    pub const OURS: Group = Group([0xff; 5]);
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl NetAddress {
    /// An address of the Internet, IPv4 unwrapped.
    pub fn ip(addr: SocketAddr) -> NetAddress {
        NetAddress::Ip(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
    }

    /// That of an `addr` message. None for what is not understood there.
    pub fn from_v1(address: &Address) -> Option<NetAddress> {
        address.socket_addr().ok().map(NetAddress::ip)
    }

    /// That of an `addrv2` message. None for what is not understood, and for what BIP155 wants passed over.
    pub fn from_v2(message: &AddrV2Message) -> Option<NetAddress> {
        let port = message.port;
        match message.addr {
            AddrV2::Ipv4(ip) => Some(NetAddress::Ip((ip, port).into())),
            AddrV2::Ipv6(ip) if ip.to_ipv4_mapped().is_some() => None,
            AddrV2::Ipv6(ip) => Some(NetAddress::Ip((ip, port).into())),
            AddrV2::TorV3(key) => Some(NetAddress::Tor(key, port)),
            AddrV2::I2p(hash) => Some(NetAddress::I2p(hash, port)),
            AddrV2::Cjdns(ip) if ip.octets().first() == Some(&0xfc) => {
                Some(NetAddress::Cjdns(ip, port))
            }
            AddrV2::Cjdns(_) | AddrV2::TorV2(_) | AddrV2::Unknown(..) => None,
        }
    }

    /// For an `addrv2` message.
    pub fn to_v2(self, time: u32, services: ServiceFlags) -> AddrV2Message {
        let addr = match self {
            NetAddress::Ip(SocketAddr::V4(addr)) => AddrV2::Ipv4(*addr.ip()),
            NetAddress::Ip(SocketAddr::V6(addr)) => AddrV2::Ipv6(*addr.ip()),
            NetAddress::Tor(key, _) => AddrV2::TorV3(key),
            NetAddress::I2p(hash, _) => AddrV2::I2p(hash),
            NetAddress::Cjdns(ip, _) => AddrV2::Cjdns(ip),
        };
        AddrV2Message {
            time,
            services,
            addr,
            port: self.port(),
        }
    }

    /// For an `addr` message, where only the Internet can be named.
    pub fn to_v1(self, services: ServiceFlags) -> Option<Address> {
        match self {
            NetAddress::Ip(addr) => Some(Address::new(&addr, services)),
            _ => None,
        }
    }

    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            NetAddress::Ip(addr) => addr.port(),
            NetAddress::Tor(_, port) | NetAddress::I2p(_, port) | NetAddress::Cjdns(_, port) => {
                *port
            }
        }
    }

    /// The socket address that stands for it everywhere but in front of a proxy: its own, or for a hidden service
    /// one that no machine has.
    pub fn handle(&self) -> SocketAddr {
        match self {
            NetAddress::Ip(addr) => *addr,
            NetAddress::Cjdns(ip, port) => SocketAddr::V6(SocketAddrV6::new(*ip, *port, 0, 0)),
            NetAddress::Tor(key, port) => stand_in(TOR_PREFIX, key, *port),
            NetAddress::I2p(hash, port) => stand_in(I2P_PREFIX, hash, *port),
        }
    }

    /// The name that a proxy is told, where no socket address can be connected to.
    pub fn host_name(&self) -> Option<String> {
        match self {
            NetAddress::Tor(key, _) => Some(onion(key)),
            NetAddress::I2p(hash, _) => Some(format!("{}.b32.i2p", base32(hash))),
            NetAddress::Ip(_) | NetAddress::Cjdns(..) => None,
        }
    }

    /// Whether somebody could be there, and we can reach it.
    pub fn is_usable(&self, reach: &Reach) -> bool {
        if self.port() == 0 {
            return false;
        }
        match self {
            NetAddress::Ip(addr) => match addr.ip() {
                IpAddr::V4(ip) => {
                    reach.ipv4
                        && (is_public_v4(ip)
                            || reach.local && (ip.is_loopback() || ip.is_private()))
                }
                IpAddr::V6(ip) => {
                    reach.ipv6 && (is_public_v6(&ip) || reach.local && ip.is_loopback())
                }
            },
            NetAddress::Tor(..) => reach.tor,
            NetAddress::Cjdns(..) => reach.cjdns,
            // No proxy of ours speaks to it.
            NetAddress::I2p(..) => false,
        }
    }

    /// Whether it is on this machine or in a private network, where groups mean nothing.
    pub fn is_local(&self) -> bool {
        match self {
            NetAddress::Ip(addr) => is_local(addr.ip()),
            _ => false,
        }
    }

    /// Its group.
    pub fn group(&self) -> Group {
        match self {
            NetAddress::Ip(addr) => group_of_ip(addr.ip()),
            // One group for a sixteenth of each, as in Core: anybody makes as many addresses there as he likes.
            NetAddress::Tor(key, _) => sixteenth(3, key),
            NetAddress::I2p(hash, _) => sixteenth(4, hash),
            NetAddress::Cjdns(ip, _) => {
                // All begin with fc.
                let [_, second, ..] = ip.octets();
                Group([5, second & 0xf0, 0, 0, 0])
            }
        }
    }
}

/// Whether an address is on this machine or in a private network.
pub fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

/// The group of an IP address.
pub fn group_of_ip(ip: IpAddr) -> Group {
    match ip.to_canonical() {
        IpAddr::V4(ip) => group_of_v4(ip),
        IpAddr::V6(ip) => match tunnelled(&ip) {
            Some(inner) => group_of_v4(inner),
            None => {
                let [a, b, c, d, ..] = ip.octets();
                Group([2, a, b, c, d])
            }
        },
    }
}

fn group_of_v4(ip: Ipv4Addr) -> Group {
    let [a, b, ..] = ip.octets();
    Group([1, a, b, 0, 0])
}

fn sixteenth(network: u8, bytes: &[u8; 32]) -> Group {
    let [first, ..] = bytes;
    Group([network, first & 0xf0, 0, 0, 0])
}

/// The IPv4 address that an IPv6 address of a tunnel belongs to: NAT64 (RFC 6052), 6to4 (RFC 3964), Teredo (RFC 4380).
fn tunnelled(ip: &Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = ip.octets();
    let four = |at: usize| -> Option<Ipv4Addr> {
        let four: [u8; 4] = octets.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(four))
    };
    match ip.segments() {
        [0x0064, 0xff9b, 0, 0, 0, 0, _, _] => four(12),
        [0x2002, ..] => four(2),
        [0x2001, 0, ..] => four(12).map(|ip| Ipv4Addr::from(!u32::from(ip))),
        _ => None,
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_documentation()
        || a == 0
        // From here on multicast and reserved.
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (b == 18 || b == 19))
        || (a == 192 && b == 0 && c == 0);
    !special
}

fn is_public_v6(ip: &Ipv6Addr) -> bool {
    let [first, second, ..] = ip.segments();
    let special = ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_multicast()
        || ip.is_unicast_link_local()
        || first & 0xfe00 == 0xfc00
        || (first == 0x2001 && second == 0x0db8)
        // ORCHID: keys, not places.
        || (first == 0x2001 && (second & 0xfff0 == 0x0010 || second & 0xfff0 == 0x0020))
        || (first == 0 && tunnelled(ip).is_none());
    !special && tunnelled(ip).is_none_or(is_public_v4)
}

fn stand_in(prefix: [u8; 6], bytes: &[u8; 32], port: u16) -> SocketAddr {
    let mut octets = [0; 16];
    for (octet, byte) in octets.iter_mut().zip(prefix.iter().chain(bytes)) {
        *octet = *byte;
    }
    SocketAddr::from((octets, port))
}

fn onion(key: &[u8; 32]) -> String {
    let [first, second] = onion_checksum(key);
    let mut bytes = key.to_vec();
    bytes.extend([first, second, ONION_VERSION]);
    format!("{}.onion", base32(&bytes))
}

fn onion_checksum(key: &[u8; 32]) -> [u8; 2] {
    let hash = Sha3_256::new()
        .chain_update(b".onion checksum")
        .chain_update(key)
        .chain_update([ONION_VERSION])
        .finalize();
    let mut first = [0; 2];
    for (to, from) in first.iter_mut().zip(hash) {
        *to = from;
    }
    first
}

/// Without padding.
fn base32(bytes: &[u8]) -> String {
    let (mut bits, mut count, mut text) = (0_u32, 0, String::new());
    let mut push = |bits: u32| {
        let digit = BASE32.get((bits & 31) as usize).copied();
        text.push(char::from(digit.unwrap_or(b'a')));
    };
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            push(bits >> count);
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        push(bits << (5 - count));
    }
    text
}

fn from_base32(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in text.bytes() {
        let value = BASE32.iter().position(|known| *known == digit)?;
        bits = bits << 5 | u32::try_from(value).ok()?;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    (bits == 0).then_some(bytes)
}

/// The text is no address of a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no address of a peer")]
pub struct NoAddress(pub String);

impl FromStr for NetAddress {
    type Err = NoAddress;

    /// Reads what [`Display`](fmt::Display) writes. Names are not looked up.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| NoAddress(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<NetAddress> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        if let IpAddr::V6(ip) = addr.ip()
            && ip.octets().first() == Some(&0xfc)
        {
            return Some(NetAddress::Cjdns(ip, addr.port()));
        }
        return Some(NetAddress::ip(addr));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = host.to_ascii_lowercase();
    if let Some(digits) = host.strip_suffix(".onion") {
        let bytes = from_base32(digits)?;
        let (key, rest) = bytes.split_first_chunk::<32>()?;
        let [first, second] = onion_checksum(key);
        return (rest == [first, second, ONION_VERSION]).then_some(NetAddress::Tor(*key, port));
    }
    let digits = host.strip_suffix(".b32.i2p")?;
    let hash = from_base32(digits)?.try_into().ok()?;
    Some(NetAddress::I2p(hash, port))
}

impl fmt::Display for NetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_name() {
            Some(name) => write!(f, "{name}:{}", self.port()),
            None => write!(f, "{}", self.handle()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    fn address(text: &str) -> NetAddress {
        text.parse().unwrap()
    }

    #[test]
    fn texts_are_read_back_as_they_were_written() {
        // An onion address of the Tor project, with its checksum.
        let onion = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion:8333";
        for text in [
            "1.2.3.4:8333",
            "[2a01:4f8::1]:18333",
            "[fc00:1234::7]:8333",
            onion,
        ] {
            assert_eq!(address(text).to_string(), text);
        }
        let i2p = NetAddress::I2p([0x5a; 32], 0);
        assert_eq!(address(&i2p.to_string()), i2p);
        assert_eq!(address("[::ffff:1.2.3.4]:8333"), address("1.2.3.4:8333"));
        for wrong in [
            "1.2.3.4",
            "example.org:8333",
            "",
            ":8333",
            "1.2.3.4:99999",
            &onion.replace("2gzy", "2gzx"),
            "abc.onion:8333",
            "é.b32.i2p:1",
        ] {
            assert!(wrong.parse::<NetAddress>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn groups_are_16_bits_of_ipv4_and_32_of_ipv6_also_inside_tunnels() {
        let group = |text: &str| address(text).group();
        assert_eq!(group("1.2.3.4:1"), group("1.2.250.9:2"));
        assert_ne!(group("1.2.3.4:1"), group("1.3.3.4:1"));
        assert_eq!(group("[2a01:4f8:1::1]:1"), group("[2a01:4f8:2::1]:1"));
        assert_ne!(group("[2a01:4f8::1]:1"), group("[2a01:4f9::1]:1"));
        // 6to4, Teredo (bits turned over) and NAT64 of 1.2.3.4.
        for tunnel in [
            "[2002:102:304::1]:1",
            "[2001:0:1::fefd:fcfb]:1",
            "[64:ff9b::102:304]:1",
        ] {
            assert_eq!(group(tunnel), group("1.2.9.9:1"), "{tunnel}");
        }
        let text = group("1.2.3.4:1").to_string();
        assert_eq!(Group::parse(&text), Some(group("1.2.3.4:1")));
        assert_eq!(Group::parse("zz"), None);
    }

    #[test]
    fn addresses_where_nobody_can_be_are_not_usable() {
        let usable = |text: &str| address(text).is_usable(&Reach::INTERNET);
        for good in ["8.8.8.8:8333", "[2a01:4f8::1]:8333", "[2002:808:808::1]:1"] {
            assert!(usable(good), "{good}");
        }
        for bad in [
            "127.0.0.1:8333",
            "10.1.2.3:8333",
            "192.168.1.1:1",
            "169.254.1.1:1",
            "100.64.0.1:1",
            "0.1.2.3:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "8.8.8.8:0",
            "203.0.113.7:1",
            "[::1]:8333",
            "[::]:8333",
            "[fe80::1]:1",
            "[fd00::1]:1",
            "[2001:db8::1]:1",
            "[2002:a01:203::1]:1",
        ] {
            assert!(!usable(bad), "{bad}");
        }
        let onion = NetAddress::Tor([7; 32], 8333);
        assert!(!onion.is_usable(&Reach::INTERNET));
        let reach = Reach {
            tor: true,
            local: true,
            cjdns: true,
            ..Reach::INTERNET
        };
        assert!(onion.is_usable(&reach) && address("127.0.0.1:1").is_usable(&reach));
        assert!(address("[fc00::1]:1").is_usable(&reach));
        assert!(!NetAddress::I2p([7; 32], 1).is_usable(&reach));
    }

    #[test]
    fn addresses_of_version_2_are_understood_or_passed_over() {
        let message = |addr| AddrV2Message {
            time: 5,
            services: ServiceFlags::NETWORK,
            addr,
            port: 8333,
        };
        for addr in [
            AddrV2::Ipv4([1, 2, 3, 4].into()),
            AddrV2::Ipv6("2a01::1".parse().unwrap()),
            AddrV2::TorV3([1; 32]),
            AddrV2::I2p([2; 32]),
            AddrV2::Cjdns("fc00::1".parse().unwrap()),
        ] {
            let understood = NetAddress::from_v2(&message(addr.clone())).unwrap();
            assert_eq!(understood.to_v2(5, ServiceFlags::NETWORK), message(addr));
        }
        for addr in [
            AddrV2::TorV2([1; 10]),
            AddrV2::Unknown(9, vec![1, 2]),
            AddrV2::Cjdns("fd00::1".parse().unwrap()),
            AddrV2::Ipv6("::ffff:1.2.3.4".parse().unwrap()),
        ] {
            assert_eq!(NetAddress::from_v2(&message(addr)), None);
        }
        let stand_ins = [NetAddress::Tor([1; 32], 1), NetAddress::I2p([1; 32], 1)]
            .map(|address| address.handle());
        assert_ne!(stand_ins[0], stand_ins[1]);
    }
}
