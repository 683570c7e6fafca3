//! The addresses of `addrv2` (BIP155), as Core takes them.
//!
//! The `bitcoin` crate refuses the whole message for an address that BIP155 wants passed over, which would cost an honest peer its
//! connection for what somebody told it.

use std::net::{Ipv4Addr, Ipv6Addr};

use bitcoin::consensus::encode::{self, VarInt};
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::{AddrV2, AddrV2Message};

use super::{MAX_ADDRESSES, Payload, PayloadError};

/// The longest address (Core's `MAX_ADDRV2_SIZE`).
const MAX_LENGTH: u64 = 512;
/// What an IPv4 address begins with in the form of version 1.
const IPV4_IN_IPV6: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
/// What the name of a Tor service of version 2 began with there (OnionCat).
const TOR_V2_IN_IPV6: [u8; 6] = [0xfd, 0x87, 0xd8, 0x7e, 0xeb, 0x43];
/// What Core keeps names in that are no addresses, and takes from nobody.
const INTERNAL_IN_IPV6: [u8; 6] = [0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x24];
/// The first byte of every address of CJDNS.
const CJDNS: u8 = 0xfc;

/// Reads an `addrv2` message. Addresses of unknown networks, IPv6 addresses that stand for something else and CJDNS addresses out of their
/// range come as [`AddrV2::Unknown`]; a known network with another length than its addresses have is an error.
pub(super) fn read_list(payload: &mut Payload<'_>) -> Result<Vec<AddrV2Message>, PayloadError> {
    let count = payload.count(MAX_ADDRESSES)?;
    let mut list = Vec::with_capacity(count.min(payload.bytes.len() / 9 + 1));
    for _ in 0..count {
        let time = payload.read()?;
        let services = ServiceFlags::from(payload.read::<VarInt>()?.0);
        let addr = read_address(payload)?;
        let port = u16::from_be_bytes(payload.read()?);
        list.push(AddrV2Message {
            time,
            services,
            addr,
            port,
        });
    }
    Ok(list)
}

fn read_address(payload: &mut Payload<'_>) -> Result<AddrV2, PayloadError> {
    let network = payload.read::<u8>()?;
    let length = payload.read::<VarInt>()?.0;
    let expected = match network {
        1 => Some(4),
        2 | 6 => Some(16),
        4 | 5 => Some(32),
        // Tor's version 2, whose number is 3, is no network any more.
        _ => None,
    };
    if length > MAX_LENGTH || expected.is_some_and(|expected| length != expected) {
        return Err(PayloadError::Malformed {
            command: payload.command,
            error: encode::Error::ParseFailed("address of a wrong length"),
        });
    }
    Ok(match network {
        1 => AddrV2::Ipv4(Ipv4Addr::from(payload.read::<[u8; 4]>()?)),
        2 => {
            let bytes = payload.read::<[u8; 16]>()?;
            let embeds = bytes.starts_with(&IPV4_IN_IPV6)
                || bytes.starts_with(&TOR_V2_IN_IPV6)
                || bytes.starts_with(&INTERNAL_IN_IPV6);
            match embeds {
                true => AddrV2::Unknown(network, bytes.to_vec()),
                false => AddrV2::Ipv6(Ipv6Addr::from(bytes)),
            }
        }
        4 => AddrV2::TorV3(payload.read()?),
        5 => AddrV2::I2p(payload.read()?),
        6 => {
            let bytes = payload.read::<[u8; 16]>()?;
            match bytes {
                [CJDNS, ..] => AddrV2::Cjdns(Ipv6Addr::from(bytes)),
                _ => AddrV2::Unknown(network, bytes.to_vec()),
            }
        }
        _ => {
            let mut bytes = Vec::with_capacity(payload.bytes.len().min(length as usize));
            for _ in 0..length {
                bytes.push(payload.read::<u8>()?);
            }
            AddrV2::Unknown(network, bytes)
        }
    })
}

#[cfg(test)]
mod tests;
