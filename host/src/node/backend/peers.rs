//! Peers, as they are shown and as the owner changes them.

use std::net::ToSocketAddrs;

use bitcoin::hex::DisplayHex;

use super::services;
use crate::api::{PeerOrder, QueryFailure};
use crate::chain::sync::book::NetAddress;
use crate::chain::sync::{PeerChange, PeerChangeError, PeerId, PeerInfo, PeerRef};
use crate::config::Config;
use crate::net::{NetHandle, NetView};
use crate::status::{Ban, Peer, PeerBook, Peers};

/// A peer as it is shown.
pub(super) fn shown(peer: &PeerInfo) -> Peer {
    Peer {
        addr: peer.name.clone(),
        user_agent: peer.user_agent.clone(),
        services: services(peer.services),
        height: peer.height,
        start_height: peer.start_height,
        since: peer.since.0 / 1_000,
        version: peer.version,
        bytes_in: peer.bytes_in,
        bytes_out: peer.bytes_out,
        ping_ms: peer.latency.map(|latency| latency.as_millis() as u64),
        id: peer.id.0,
        direction: if peer.outbound { "outbound" } else { "inbound" }.to_owned(),
        kind: peer.kind.name().to_owned(),
        transport: peer
            .transport
            .map_or_else(String::new, |kind| kind.name().to_owned()),
        session_id: peer.session_id.map(|id| id.to_lower_hex_string()),
        blocks: peer.blocks,
        in_flight: peer.inflight as u64,
        misbehaviour: peer.misbehaviour,
    }
}

/// Everything about peers.
pub(super) fn all(net: &NetView) -> Peers {
    let bans = net.bans.iter().map(|(subnet, ban)| Ban {
        subnet: subnet.to_string(),
        since: ban.since,
        until: ban.until,
        offences: ban.offences,
        by: if ban.by_operator { "operator" } else { "host" }.to_owned(),
        reason: ban.reason.clone(),
    });
    Peers {
        peers: net.peers.iter().map(shown).collect(),
        bans: bans.collect(),
        book: PeerBook {
            new: net.book.new as u64,
            tried: net.book.tried as u64,
        },
    }
}

/// Does what the owner says.
pub(super) fn change(
    net: &NetHandle,
    config: &Config,
    order: PeerOrder,
) -> Result<String, QueryFailure> {
    let change = match order {
        PeerOrder::Ban {
            subnet,
            time,
            reason,
        } => PeerChange::Ban {
            subnet,
            seconds: time.map(|time| time.as_secs()),
            reason,
        },
        PeerOrder::Unban { subnet } => PeerChange::Unban { subnet },
        PeerOrder::Add { address } => PeerChange::Add {
            address: find(config, &address)?,
        },
        PeerOrder::Drop { peer } => PeerChange::Drop {
            peer: which(config, &peer)?,
        },
    };
    net.change(change)
        .map_err(|why| QueryFailure::Busy(why.to_string()))?
        .map_err(|why| match &why {
            PeerChangeError::NoSuchPeer(_) | PeerChangeError::NotBanned(_) => {
                QueryFailure::NotFound(why.to_string())
            }
            _ => QueryFailure::BadRequest(why.to_string()),
        })
}

/// A connection by its number or by the peer's address.
fn which(config: &Config, text: &str) -> Result<PeerRef, QueryFailure> {
    match text.parse() {
        Ok(number) => Ok(PeerRef::Id(PeerId(number))),
        Err(_) => find(config, text).map(PeerRef::Address),
    }
}

/// The address that a text names. Names are looked up, but for those of hidden services.
fn find(config: &Config, text: &str) -> Result<NetAddress, QueryFailure> {
    let wrong = |why: String| QueryFailure::BadRequest(why);
    let (host, port) = config.peer_address(text).map_err(|why| {
        wrong(format!(
            "{why}: write it like 192.0.2.7:8333, [2001:db8::7]:8333 or example.org"
        ))
    })?;
    let bare = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    if let Ok(address) = bare.parse() {
        return Ok(address);
    }
    if host.ends_with(".onion") || host.ends_with(".i2p") {
        return Err(wrong(format!("\"{host}\" is no name of a hidden service")));
    }
    let found = (host.as_str(), port)
        .to_socket_addrs()
        .map_err(|why| wrong(format!("\"{host}\" cannot be looked up ({why})")))?
        .next();
    found
        .map(NetAddress::ip)
        .ok_or_else(|| wrong(format!("\"{host}\" has no address")))
}
