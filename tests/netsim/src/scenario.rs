//! What a seed makes: who is there, how the network splits, how long it goes on.

use std::time::Duration;

use blockmill::chain::sync::TransportPreference;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::kind::Kind;
use crate::node::Node;

mod callers;

pub use callers::HONEST;

/// A network and what happens to it.
pub struct Scenario {
    /// What it was made of.
    pub seed: u64,
    /// The peers: first those that the host connects to, then those that connect to it.
    pub nodes: Vec<Node>,
    /// When the network splits and when it meets again, if it does.
    pub split: Option<(Duration, Duration)>,
    /// Whether the host is in one part alone, and cannot reach the other.
    pub host_is_split: bool,
    /// The mean time from one block to the next.
    pub spacing: Duration,
    /// How long blocks are mined and trouble is made.
    pub trouble: Duration,
    /// How long the host has from then on to be at the tip.
    pub patience: Duration,
    /// When the machine sleeps for an hour, if it does.
    pub sleeps_at: Option<Duration>,
    /// Which transport the host speaks.
    pub transport: TransportPreference,
    /// How much larger than they are blocks count on the lines: see [`Link`](crate::Link).
    pub padding: u64,
    /// All chance from here on.
    pub chance: ChaCha8Rng,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Scenario {
    /// The scenario of a seed.
    pub fn new(seed: u64) -> Scenario {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let honest = chance.random_range(30..120);
        let slow = chance.random_range(0..15);
        let bad = chance.random_range(20..120);
        // A few kinds at a time, so that each has a say; some by turns, so that few seeds meet all.
        let kinds: Vec<Kind> = (0..chance.random_range(0..5))
            .map(|_| chance.random())
            .chain([seed * 2, seed * 2 + 1])
            .map(Kind::by_turn)
            .collect();
        let mut all = vec![Kind::Honest; honest];
        all.extend(vec![Kind::Slow; slow]);
        all.extend(
            (0..bad).filter_map(|_| kinds.get(chance.random_range(0..kinds.len())).copied()),
        );
        all.shuffle(&mut chance);
        let trouble = MINUTE * 45;
        let mut nodes: Vec<Node> = all
            .into_iter()
            .zip(0u16..)
            .map(|(kind, number)| Node::new(number, kind, &mut chance))
            .collect();
        nodes.extend(callers::callers(seed, trouble, &mut chance));
        let splits = chance.random_range(0..3) > 0;
        let begins = MINUTE * chance.random_range(3..12);
        let split = splits.then(|| (begins, begins + MINUTE * chance.random_range(5..25)));
        Scenario {
            seed,
            nodes,
            split,
            host_is_split: chance.random_range(0..2) == 0,
            spacing: Duration::from_secs(chance.random_range(40..240)),
            trouble,
            patience: MINUTE * 45,
            sleeps_at: (chance.random_range(0..4) == 0)
                .then(|| MINUTE * chance.random_range(4..40)),
            // As most would have it, or what is the default of this chain.
            transport: match chance.random_range(0..3) {
                0 => TransportPreference::Auto,
                _ => TransportPreference::PreferV2,
            },
            padding: 1,
            chance,
        }
    }

    /// Nothing but these peers, and a chain to fetch of them.
    pub fn download(nodes: Vec<Node>, padding: u64, chance: ChaCha8Rng) -> Scenario {
        Scenario {
            seed: 0,
            nodes,
            split: None,
            host_is_split: false,
            spacing: MINUTE,
            trouble: Duration::ZERO,
            patience: MINUTE * 600,
            sleeps_at: None,
            // Lines know blocks by their name.
            transport: TransportPreference::V1,
            padding,
            chance,
        }
    }
}
