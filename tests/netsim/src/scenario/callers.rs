//! Who connects to the host: a few that are honest and stay, and a flood of those that want all its places.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::MINUTE;
use crate::kind::Kind;
use crate::node::{Calls, Node};

/// Honest ones, at most: so many cannot be driven out, whatever the others are good at. See the simulation's `calls`.
pub const HONEST: usize = 11;

/// Of so many in a flood two do more than to take a place.
const TROUBLEMAKERS_IN: usize = 16;

/// The callers of a seed.
pub(super) fn callers(seed: u64, trouble: Duration, chance: &mut ChaCha8Rng) -> Vec<Node> {
    let mut callers: Vec<Node> = Vec::new();
    for number in 0..chance.random_range(2..=HONEST as u8) {
        // Each in a network of its own.
        let addr = address([150, number, 1, 1], 50_000);
        let kind = match chance.random_range(0..5) {
            0 => Kind::Slow,
            _ => Kind::Honest,
        };
        let early = chance.random_range(0..4) > 0;
        let first = chance.random_range(0..if early { 60 } else { 2_400 });
        let mut node = Node::at(addr, kind, chance);
        node.calls = Some(Calls {
            first: Duration::from_secs(first),
            pause: (20_000, 60_000),
            last: Duration::MAX,
        });
        callers.push(node);
    }
    callers.extend(flood(seed, trouble, chance));
    callers
}

/// Many addresses of few groups, which come back at once.
fn flood(seed: u64, trouble: Duration, chance: &mut ChaCha8Rng) -> Vec<Node> {
    // Most are there for nothing but the places; some make trouble besides, by turns, as those that are connected to.
    let troublemakers: Vec<Kind> = [seed, chance.random()].map(Kind::by_turn).to_vec();
    // Some are there before anybody else.
    let begins = match chance.random_range(0..3) {
        0 => Duration::ZERO,
        _ => MINUTE * chance.random_range(1..30),
    };
    // So that those who were driven out are back at the end.
    let last = (begins + MINUTE * chance.random_range(3..10)).min(trouble - MINUTE);
    let groups = chance.random_range(1..=4);
    let count = chance.random_range(40..80u16);
    (0..count)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            // Now and then two or three of one address.
            let host = low - low % chance.random_range(1..4);
            let group = (number % groups) as u8;
            let addr = address([170, group, high, host], 40_000 + number);
            let kind = match troublemakers.get(usize::from(number) % TROUBLEMAKERS_IN) {
                Some(kind) => *kind,
                None if chance.random_range(0..2) == 0 => Kind::Mute,
                None => Kind::Idler,
            };
            let mut node = Node::at(addr, kind, chance);
            // The nearest are hard to beat in latency.
            node.latency = Duration::from_millis(chance.random_range(1..100));
            node.calls = Some(Calls {
                first: begins + Duration::from_millis(chance.random_range(0..5_000)),
                pause: (100, 5_000),
                last,
            });
            node
        })
        .collect()
}

fn address(ip: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port)
}
