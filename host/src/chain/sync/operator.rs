//! What the operator does with peers.

use std::net::SocketAddr;

use super::addresses::NamedBy;
use super::bans::Subnet;
use super::book::NetAddress;
use super::{DropReason, PeerId, Sync};
use crate::wire::Moment;

/// The most peers that are connected to beside those of the book (Core's `MAX_ADDNODE_CONNECTIONS`).
pub const MAX_ADDED: usize = 8;

/// A change that the operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerChange {
    /// Nobody of this range is connected to or may connect, for so many seconds; none is for good.
    Ban {
        /// Whom.
        subnet: Subnet,
        /// For how long.
        seconds: Option<u64>,
        /// Why, for people.
        reason: String,
    },
    /// Lifts the ban of just this range.
    Unban {
        /// Whose.
        subnet: Subnet,
    },
    /// Connects to a peer, and again when it is lost, until the host ends.
    Add {
        /// Where.
        address: NetAddress,
    },
    /// Closes a connection; a peer that was added is not connected to again.
    Drop {
        /// Which.
        peer: PeerRef,
    },
}

/// Names a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerRef {
    /// By its number.
    Id(PeerId),
    /// By the peer's address.
    Address(NetAddress),
}

/// Why a change was not made. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerChangeError {
    /// Nobody of this name is connected or added.
    #[error("no peer {0} is connected")]
    NoSuchPeer(String),
    /// The range holds a peer that the configuration names.
    #[error(
        "{peer} is a peer of the configuration (peers.connect, peers.add): take it out there first"
    )]
    Configured {
        /// Which.
        peer: String,
    },
    /// The range is not banned.
    #[error("{0} is not banned")]
    NotBanned(Subnet),
    /// The address is banned.
    #[error("{address} is banned by {subnet}: lift that first, with `peers unban {subnet}`")]
    Banned {
        /// Which.
        address: String,
        /// By which range.
        subnet: Subnet,
    },
    /// The peer is one of those that are connected to already.
    #[error("{0} is connected to already")]
    AlreadyThere(String),
    /// There is no way to the address.
    #[error("{0} cannot be reached from here: hidden services take a proxy")]
    Unreachable(String),
    /// There are enough.
    #[error("{MAX_ADDED} peers are added already: drop one first")]
    TooManyAdded,
}

impl Sync {
    /// Makes a change. Says what was done, for people.
    ///
    /// # Errors
    ///
    /// Why it was not made.
    pub fn change_peers(
        &mut self,
        change: PeerChange,
        now: Moment,
    ) -> Result<String, PeerChangeError> {
        let done = match change {
            PeerChange::Ban {
                subnet,
                seconds,
                reason,
            } => self.ban(subnet, seconds, &reason, now),
            PeerChange::Unban { subnet } => {
                if self.connections.bans.lift(&subnet, now.secs()) {
                    Ok(format!("the ban of {subnet} is lifted"))
                } else {
                    Err(PeerChangeError::NotBanned(subnet))
                }
            }
            PeerChange::Add { address } => self.add_by_operator(address, now),
            PeerChange::Drop { peer } => self.drop_by_operator(peer, now),
        };
        if let Ok(done) = &done {
            tracing::info!(done, "peers changed by the operator");
        }
        self.pump(now);
        done
    }

    fn ban(
        &mut self,
        subnet: Subnet,
        seconds: Option<u64>,
        reason: &str,
        now: Moment,
    ) -> Result<String, PeerChangeError> {
        let configured = self
            .addresses
            .configured()
            .find(|addr| subnet.contains(addr.ip()));
        if let Some(addr) = configured {
            let peer = self.shown(addr);
            return Err(PeerChangeError::Configured { peer });
        }
        let until = seconds.map(|seconds| now.secs().saturating_add(seconds));
        self.connections.bans.ban(subnet, until, reason, now.secs());
        self.addresses
            .remove_operators(|addr| subnet.contains(addr.ip()));
        // A connection that is being made is closed when it comes about.
        self.connections
            .pending
            .retain(|addr, _| !subnet.contains(addr.ip()));
        let connected: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, session)| subnet.contains(session.peer.addr().ip()))
            .map(|(id, _)| *id)
            .collect();
        let count = connected.len();
        for id in connected {
            self.drop_peer(id, DropReason::ByOperator, now);
        }
        let time = match seconds {
            Some(seconds) => {
                humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
            }
            None => "ever".to_owned(),
        };
        Ok(format!(
            "{subnet} is banned for {time}; {count} connections closed"
        ))
    }

    fn add_by_operator(
        &mut self,
        address: NetAddress,
        now: Moment,
    ) -> Result<String, PeerChangeError> {
        let (handle, shown) = (address.handle(), address.to_string());
        if self.addresses.contains(&handle) {
            return Err(PeerChangeError::AlreadyThere(shown));
        }
        if address.host_name().is_some() && !address.is_usable(&self.config.reach) {
            return Err(PeerChangeError::Unreachable(shown));
        }
        let ban = self.connections.bans.of(handle.ip(), now.secs());
        if let Some((subnet, _)) = ban {
            return Err(PeerChangeError::Banned {
                address: shown,
                subnet,
            });
        }
        if self.addresses.added() >= MAX_ADDED {
            return Err(PeerChangeError::TooManyAdded);
        }
        // A connection that is there for something else makes way.
        let there = self
            .peers
            .iter()
            .find(|(_, s)| s.peer.is_outbound() && s.peer.addr() == handle)
            .map(|(id, _)| *id);
        if let Some(id) = there {
            self.drop_peer(id, DropReason::NotNeeded, now);
        }
        self.connections.pending.remove(&handle);
        self.add_named(address, NamedBy::Operator, now);
        Ok(format!(
            "{shown} is connected to from now on; `peers.add` in the configuration keeps it over a restart"
        ))
    }

    fn drop_by_operator(&mut self, peer: PeerRef, now: Moment) -> Result<String, PeerChangeError> {
        let (id, handle, shown) = match peer {
            PeerRef::Id(id) => {
                let session = self.peers.get(&id);
                let addr = session.map(|session| session.peer.addr());
                let addr = addr.ok_or_else(|| PeerChangeError::NoSuchPeer(id.to_string()))?;
                (Some(id), addr, self.shown(addr))
            }
            PeerRef::Address(address) => {
                let handle = address.handle();
                let found = self.peers.iter().find(|(_, s)| s.peer.addr() == handle);
                (found.map(|(id, _)| *id), handle, address.to_string())
            }
        };
        let outbound = id
            .and_then(|id| self.peers.get(&id))
            .is_none_or(|session| session.peer.is_outbound());
        let was_added = outbound && self.addresses.remove_operators(|addr| *addr == handle);
        if id.is_none() && !was_added {
            return Err(PeerChangeError::NoSuchPeer(shown));
        }
        if let Some(id) = id {
            self.drop_peer(id, DropReason::ByOperator, now);
        }
        Ok(if was_added {
            format!("{shown} is dropped and no longer connected to")
        } else if outbound && self.addresses.contains(&handle) {
            format!(
                "{shown} is dropped; it is a peer of the configuration and connected to again after a pause"
            )
        } else {
            format!("{shown} is dropped")
        })
    }

    /// One of `connect`.
    pub fn add_connect(&mut self, address: NetAddress, now: Moment) {
        self.add_named(address, NamedBy::Connect, now);
    }

    /// One more peer to keep a connection to, beside those of the book or of `connect`.
    pub fn add_peer(&mut self, address: NetAddress, now: Moment) {
        self.add_named(address, NamedBy::Add, now);
    }

    fn add_named(&mut self, address: NetAddress, by: NamedBy, now: Moment) {
        let handle: SocketAddr = address.handle();
        self.connections.book.pin(address, now.secs());
        self.addresses.add_by(handle, by, now);
    }
}
