//! The peer's end of the transport: version 1, version 2 (BIP324) with the host's own machinery, and handshakes that fail.

use blockmill::wire::transport::Secret;
use blockmill::wire::{Opening, Transport};
use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Act, MAGIC, Node};
use crate::kind::Kind;

/// What one that babbles says in a second.
const BABBLE: usize = 6_000;

impl Node {
    /// The transport of a new connection. Who speaks version 2 takes version 1 from others.
    pub(super) fn opening(&self, chance: &mut ChaCha8Rng) -> Transport {
        let mut secret = || Secret::new(chance.random());
        let opening = match (self.v2, self.caller) {
            (false, _) => Opening::V1,
            (true, true) => Opening::Initiator(secret()),
            (true, false) => Opening::Responder(secret()),
        };
        Transport::new(MAGIC, opening)
    }

    /// Bytes for the host, of one that lets the handshake fail. What comes first is a key and garbage, what comes second
    /// ends them.
    pub(super) fn put_handshake(&self, bytes: Bytes, chance: &mut ChaCha8Rng) -> Option<Act> {
        match (self.kind, self.sent) {
            (Kind::Hush | Kind::Babbler, 1) => Some(Act::Send(bytes)),
            (Kind::Babbler, _) => Some(Act::Send(babble(chance))),
            (Kind::Quitter, 1) if chance.random_range(0..2) == 0 => Some(Act::Send(bytes)),
            (Kind::Quitter, 1 | 2) => {
                let length = chance.random_range(0..bytes.len());
                Some(Act::SendAndClose(bytes.slice(..length)))
            }
            _ => None,
        }
    }
}

/// Garbage that does not end.
pub(super) fn babble(chance: &mut ChaCha8Rng) -> Bytes {
    let mut garbage = vec![0; BABBLE];
    chance.fill(&mut garbage[..]);
    garbage.into()
}
