//! Names that are never looked up, and the addresses that stand for them.
//!
//! The network machine knows peers by their address. A name that only the proxy may look up gets one: from a block of
//! unique local addresses (RFC 4193) that no router carries.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use bitcoin::hashes::{Hash, sha256};

use super::proxy::Target;

/// The first bytes of a stand-in: `fd`, and `bmill` in ASCII.
const PREFIX: [u8; 6] = *b"\xfdbmill";

/// The names behind stand-ins. As many as the configuration has.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: HashMap<SocketAddr, String>,
}

impl Names {
    /// The address of a peer: its own, if `name` is one, and else a stand-in.
    pub(super) fn address(&mut self, name: &str, port: u16) -> SocketAddr {
        let literal = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = literal.parse::<IpAddr>() {
            return SocketAddr::new(ip, port);
        }
        let hash = sha256::Hash::hash(name.as_bytes()).to_byte_array();
        let mut ip = [0; 16];
        for (slot, byte) in ip.iter_mut().zip(PREFIX.iter().chain(&hash)) {
            *slot = *byte;
        }
        let addr = SocketAddr::new(Ipv6Addr::from(ip).into(), port);
        self.names.insert(addr, name.to_owned());
        addr
    }

    /// What to connect to for an address.
    pub(super) fn target(&self, addr: SocketAddr) -> Target {
        match self.names.get(&addr) {
            Some(name) => Target::Name(name.clone(), addr.port()),
            None => Target::Addr(addr),
        }
    }

    /// The name that an address stands for, with its port.
    pub(super) fn name(&self, addr: SocketAddr) -> Option<String> {
        let name = self.names.get(&addr)?;
        Some(format!("{name}:{}", addr.port()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_name_has_one_stand_in_that_no_router_carries_and_an_address_is_itself() {
        let mut names = Names::default();
        let onion = names.address("abcdef.onion", 8333);
        assert_eq!(names.address("abcdef.onion", 8333), onion);
        assert_ne!(names.address("other.onion", 8333), onion);
        assert!(matches!(onion.ip(), IpAddr::V6(ip) if ip.is_unique_local()));
        assert_eq!(names.name(onion).unwrap(), "abcdef.onion:8333");
        let target = Target::Name("abcdef.onion".to_owned(), 8333);
        assert_eq!(names.target(onion), target);
        for (text, addr) in [
            ("127.0.0.1", "127.0.0.1:1"),
            ("::1", "[::1]:1"),
            ("[::1]", "[::1]:1"),
        ] {
            let addr: SocketAddr = addr.parse().unwrap();
            assert_eq!(names.address(text, 1), addr);
            assert_eq!(
                (names.target(addr), names.name(addr)),
                (Target::Addr(addr), None)
            );
        }
    }
}
