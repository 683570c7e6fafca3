//! What honest peers agree on: the blocks, in one chain or, while the network is split, in two.

use std::collections::HashMap;
use std::sync::OnceLock;

use bitcoin::block::Header;
use bitcoin::p2p::address::Address;
use bitcoin::{BlockHash, Transaction};
use blockmill::network::Network;
use bytes::Bytes;
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::mining;

/// Blocks that are there when a simulation begins; more than fit in one message of headers.
pub const BASE: u32 = 2_600;

/// Peers that a peer tells of.
const TOLD: usize = 20;

/// A block.
#[derive(Clone, Debug)]
pub struct Mined {
    /// Its header.
    pub header: Header,
    /// All of it, serialised.
    pub raw: Bytes,
    /// Its height.
    pub height: u32,
}

/// One side of a split network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where everybody is while there is no split.
    Main,
    /// The other.
    Other,
}

/// All blocks.
#[derive(Debug)]
pub struct World {
    blocks: Vec<Mined>,
    index: HashMap<BlockHash, usize>,
    main: Vec<usize>,
    other: Option<Vec<usize>>,
    listeners: Vec<Address>,
}

impl World {
    /// A world of [`BASE`] blocks.
    pub fn new() -> World {
        static FIRST: OnceLock<Vec<Mined>> = OnceLock::new();
        World::of(FIRST.get_or_init(first).clone())
    }

    /// A world of so many blocks, each with so many bytes of data.
    pub fn even(blocks: u32, padding: usize) -> World {
        World::of(chain(blocks, |_| padding))
    }

    fn of(blocks: Vec<Mined>) -> World {
        let index = blocks
            .iter()
            .enumerate()
            .map(|(place, block)| (block.header.block_hash(), place))
            .collect();
        World {
            main: (0..blocks.len()).collect(),
            index,
            blocks,
            other: None,
            listeners: Vec::new(),
        }
    }

    /// The peers that can be connected to.
    pub fn set_listeners(&mut self, listeners: Vec<Address>) {
        self.listeners = listeners;
    }

    /// Some of them, each with when it was last seen: now.
    pub fn listeners(&self, now: u64, chance: &mut ChaCha8Rng) -> Vec<(u32, Address)> {
        let now = u32::try_from(now).unwrap_or(u32::MAX);
        let some = self.listeners.sample(chance, TOLD);
        some.map(|address| (now, address.clone())).collect()
    }

    /// The network is in two parts from here on.
    pub fn split(&mut self) {
        self.other = Some(self.main.clone());
    }

    /// The parts meet: the longer chain is everybody's. Blocks of regtest have all the same work.
    pub fn heal(&mut self) {
        if let Some(other) = self.other.take()
            && other.len() > self.main.len()
        {
            self.main = other;
        }
    }

    /// Whether there are two parts.
    pub fn is_split(&self) -> bool {
        self.other.is_some()
    }

    /// Height of a part's chain.
    pub fn height(&self, side: Side) -> u32 {
        self.chain(side).len() as u32 - 1
    }

    /// The last block of a part's chain.
    pub fn tip(&self, side: Side) -> Option<&Mined> {
        self.at(side, self.height(side))
    }

    /// The block at a height of a part's chain; the genesis at 0.
    pub fn at(&self, side: Side, height: u32) -> Option<&Mined> {
        self.chain(side)
            .get(height as usize)
            .and_then(|place| self.blocks.get(*place))
    }

    /// A block that a peer at this height of this part has.
    pub fn find(&self, side: Side, height: u32, hash: &BlockHash) -> Option<&Mined> {
        let place = *self.index.get(hash)?;
        let block = self.blocks.get(place)?;
        let known = block.height <= height;
        (known && self.chain(side).get(block.height as usize) == Some(&place)).then_some(block)
    }

    /// One more block on a part's chain, at this unix time, with these transactions.
    pub fn mine(
        &mut self,
        side: Side,
        time: u64,
        transactions: &[Transaction],
        chance: &mut ChaCha8Rng,
    ) {
        let Some(parent) = self.tip(side) else { return };
        let (height, parent) = (parent.height + 1, parent.header);
        let time = u32::try_from(time).unwrap_or(u32::MAX).max(parent.time + 1);
        let padding = chance.random_range(0..300_000);
        let (header, raw) = mining::block(
            &parent,
            height,
            time,
            chance.random(),
            padding,
            transactions,
        );
        let place = self.blocks.len();
        self.index.insert(header.block_hash(), place);
        self.blocks.push(Mined {
            header,
            raw: raw.into(),
            height,
        });
        match (side, &mut self.other) {
            (Side::Other, Some(other)) => other.push(place),
            _ => self.main.push(place),
        }
    }

    fn chain(&self, side: Side) -> &[usize] {
        match (side, &self.other) {
            (Side::Other, Some(other)) => other,
            _ => &self.main,
        }
    }
}

impl Default for World {
    fn default() -> World {
        World::new()
    }
}

fn first() -> Vec<Mined> {
    // A few that take a while to send.
    chain(BASE, |height| if height % 50 == 0 { 200_000 } else { 0 })
}

fn chain(count: u32, padding: impl Fn(u32) -> usize) -> Vec<Mined> {
    let params = Network::Regtest.params();
    let mut blocks = vec![Mined {
        header: params.genesis_header,
        raw: params.genesis_block.clone().into(),
        height: 0,
    }];
    let mut parent = params.genesis_header;
    for height in 1..=count {
        let time = parent.time + mining::SPACING;
        let (header, raw) = mining::block(&parent, height, time, 0, padding(height), &[]);
        blocks.push(Mined {
            header,
            raw: raw.into(),
            height,
        });
        parent = header;
    }
    blocks
}
