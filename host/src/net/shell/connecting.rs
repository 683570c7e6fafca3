//! Names, seeds and sockets: what comes to be connected, and what arrives.

use super::super::connection::{SocketEvent, open};
use super::{Net, now};
use crate::chain::sync::PeerId;
use crate::chain::sync::book::NetAddress;
use std::time::Duration;

/// Addresses that are taken from one name.
const MAX_ADDRESSES: usize = 32;
/// Addresses that are taken from one DNS seed.
const MAX_SEEDED: usize = 256;

impl Net {
    /// Turns names into addresses, in the background; with a proxy, into addresses that stand for them.
    pub(super) fn resolve(&mut self) {
        let connect = self.config.connect.iter().map(|name| (name, false));
        let add = self.config.add.iter().map(|name| (name, true));
        let named: Vec<(String, u16, bool)> = connect
            .chain(add)
            .map(|((name, port), added)| (name.clone(), *port, added))
            .collect();
        if self.config.proxy.is_some() {
            for (name, port, added) in named {
                let address = NetAddress::ip(self.names.address(&name, port));
                match added {
                    false => self.machine.add_connect(address, now()),
                    true => self.machine.add_peer(address, now()),
                }
            }
            return;
        }
        for (name, port, added) in named {
            let sockets = self.sockets.clone();
            if name.ends_with(".onion") || name.ends_with(".i2p") {
                // Such a name never goes to a DNS server.
                let address = format!("{name}:{port}").parse::<NetAddress>();
                let reach = &self.config.sync.reach;
                match address.ok().filter(|address| address.is_usable(reach)) {
                    Some(address) => {
                        let event = SocketEvent::Resolved { address, added };
                        tokio::spawn(async move { sockets.send(event).await });
                    }
                    None => tracing::warn!(name, "the peer cannot be reached from here"),
                }
                continue;
            }
            tokio::spawn(async move {
                loop {
                    match tokio::net::lookup_host((name.as_str(), port)).await {
                        Ok(found) => {
                            for addr in found.take(MAX_ADDRESSES) {
                                let address = NetAddress::ip(addr);
                                let event = SocketEvent::Resolved { address, added };
                                let _ = sockets.send(event).await;
                            }
                            return;
                        }
                        Err(error) => {
                            tracing::warn!(name, %error, "the peer's name cannot be resolved")
                        }
                    }
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
            });
        }
    }

    /// Asks a DNS seed, in the background.
    pub(super) fn ask_seed(&mut self, name: String, port: u16) {
        if self.config.proxy.is_some() {
            // Nothing is looked up here.
            let addr = self.names.address(&name, port);
            self.machine.ask_seed_by_proxy(&name, addr, now());
            return;
        }
        let sockets = self.sockets.clone();
        tokio::spawn(async move {
            let found = tokio::net::lookup_host((name.as_str(), port)).await;
            match found.map(|found| found.take(MAX_SEEDED).collect()) {
                Ok(addrs) => {
                    let _ = sockets.send(SocketEvent::Seeded { name, addrs }).await;
                }
                Err(error) => tracing::warn!(name, %error, "the DNS seed does not answer"),
            }
        });
    }

    pub(super) fn socket(&mut self, event: SocketEvent) {
        let now = now();
        match event {
            SocketEvent::Resolved { address, added } => match added {
                false => self.machine.add_connect(address, now),
                true => self.machine.add_peer(address, now),
            },
            SocketEvent::Seeded { name, addrs } => self.machine.seeded(&name, &addrs, now),
            SocketEvent::Accepted { stream, addr } => {
                let peer = PeerId(self.next_peer);
                self.next_peer += 1;
                let connection = open(peer, addr, stream, self.sockets.clone());
                self.connections.insert(peer, connection);
                self.machine.connected(peer, addr, false, now);
            }
            SocketEvent::Connected { peer, addr, stream } => {
                let connection = open(peer, addr, stream, self.sockets.clone());
                self.connections.insert(peer, connection);
                self.machine.connected(peer, addr, true, now);
            }
            SocketEvent::ConnectFailed { addr, error } => {
                tracing::debug!(%addr, error, "no connection");
                self.machine.connect_failed(addr, now);
            }
            SocketEvent::Received { peer, bytes } => {
                if self.connections.contains_key(&peer) {
                    self.gone.0 += bytes.len() as u64;
                    self.machine.received(peer, &bytes, now);
                }
            }
            SocketEvent::Closed { peer } => {
                // Nothing the second time: reading and writing fail each for itself.
                if self.connections.remove(&peer).is_some() {
                    self.machine.disconnected(peer, now);
                }
            }
        }
    }
}
