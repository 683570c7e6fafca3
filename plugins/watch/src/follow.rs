//! Which inputs and outputs of a transaction a collection watches, and what it goes on watching because of them.

use blockmill_sdk::HashTable;
use blockmill_sdk::prelude::*;

use crate::definition::Collections;

/// What a transaction does with what is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It pays to it.
    In,
    /// It spends it.
    Out,
    /// It is watched itself.
    Transaction,
}

impl Direction {
    /// As rows and answers have it.
    pub fn name(self) -> &'static str {
        match self {
            Direction::In => "in",
            Direction::Out => "out",
            Direction::Transaction => "tx",
        }
    }
}

/// Something that a collection watches was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// Place of the collection.
    pub collection: u16,
    /// What happened.
    pub direction: Direction,
    /// Place of the output or the input in its transaction.
    pub place: u32,
    /// Transactions between this output and one that a definition names: 0 for that one.
    pub depth: u8,
    /// sat; of a whole transaction the sum of its outputs.
    pub value: u64,
    /// Empty for a whole transaction.
    pub script: Vec<u8>,
}

/// An output that is watched until it is spent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coin {
    /// sat
    pub value: u64,
    /// scriptPubKey
    pub script: Vec<u8>,
    /// Collections and depths.
    pub holders: Vec<(u16, u8)>,
}

/// Txid in internal order, and place of the output.
pub type Place = ([u8; 32], u32);

/// Watched outputs that are not spent.
pub type Coins = HashTable<Place, Coin>;

/// What a transaction has to do with the collections.
#[derive(Debug, Default)]
pub struct Seen {
    /// Everything that is a row.
    pub matches: Vec<Match>,
    /// Outputs to watch from now on.
    pub coins: Vec<(u32, Coin)>,
}

/// Looks at a transaction. `spends` answers what is watched of the output that an input spends; it is asked once for each input.
pub fn look(
    collections: &Collections,
    max_depth: u8,
    tx: &Transaction<'_>,
    mut spends: impl FnMut(Place) -> Option<Coin>,
) -> Seen {
    let mut seen = Seen::default();
    // Collections that follow the outputs of this transaction, and how far they have come.
    let mut followers: Vec<(u16, u8)> = Vec::new();
    let follows = |collection| {
        let collection = collections.get(collection);
        collection.is_some_and(|collection| collection.definition.descendants)
    };
    collections.of_txid(tx.txid(), |collection| {
        seen.matches.push(Match {
            collection,
            direction: Direction::Transaction,
            place: 0,
            depth: 0,
            value: tx.output_value(),
            script: Vec::new(),
        });
        note(&mut followers, collection, 0);
    });
    for (place, input) in tx.inputs().enumerate() {
        let previous = input.previous();
        if previous.is_null() {
            continue;
        }
        let mut coin = spends((*previous.txid, previous.vout)).unwrap_or_default();
        // An output from before it was watched is known by its script.
        if let Some(spent) = input.spent() {
            collections.of_script(spent.script, |collection| {
                note(&mut coin.holders, collection, 0);
            });
            if !coin.holders.is_empty() {
                coin.value = spent.value;
                coin.script = spent.script.to_vec();
            }
        }
        for (collection, depth) in coin.holders {
            note(&mut followers, collection, depth);
            seen.matches.push(Match {
                collection,
                direction: Direction::Out,
                place: place as u32,
                depth,
                value: coin.value,
                script: coin.script.clone(),
            });
        }
    }
    followers.retain(|(collection, depth)| *depth < max_depth && follows(*collection));
    for output in tx.outputs() {
        let mut holders = Vec::new();
        collections.of_script(output.script(), |collection| {
            note(&mut holders, collection, 0)
        });
        for (collection, depth) in &followers {
            note(&mut holders, *collection, depth + 1);
        }
        if holders.is_empty() {
            continue;
        }
        for (collection, depth) in &holders {
            seen.matches.push(Match {
                collection: *collection,
                direction: Direction::In,
                place: output.vout(),
                depth: *depth,
                value: output.value(),
                script: output.script().to_vec(),
            });
        }
        if !script::is_unspendable(output.script()) {
            seen.coins.push((
                output.vout(),
                Coin {
                    value: output.value(),
                    script: output.script().to_vec(),
                    holders,
                },
            ));
        }
    }
    seen
}

/// Adds a collection with its depth; of two depths the smaller one counts.
fn note(to: &mut Vec<(u16, u8)>, collection: u16, depth: u8) {
    match to.iter_mut().find(|(there, _)| *there == collection) {
        Some((_, there)) => *there = depth.min(*there),
        None => to.push((collection, depth)),
    }
}
