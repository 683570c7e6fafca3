//! Collections of scripts that are watched, in blocks and in the memory pool.
//!
//! A collection names scripts by address, in hexadecimal or by regular expression, and transactions by txid. With
//! `descendants` it goes on with the outputs of every transaction that spends a watched output, up to `max_depth` transactions
//! away and `max_followed` unspent outputs at once. Collections stand in the settings, and queries of the host's owner
//! change them while the host runs (see [`blockmill_sdk::runtime`]). One is always there, `broadcast`, for the txids of what
//! is sent through the host; until the host can send, whoever sends adds them (`add?collection=broadcast&txid=`).
//!
//! ```text
//! rows      watch_match   what blocks had                   watch_pool   what the pool has
//! state     'F' txid vout collection  → depth sat script    watched outputs that are not spent
//!           'M' collection number     → Record              the last matches of each collection, newest first
//!           'N' collection            → number of matches so far
//! volatile  collection                → matches in the pool, a JSON text
//! query     collections    matches?collection=&limit=&after=    unconfirmed?collection=
//! change    add?collection=&address=|script=|pattern=|txid=|descendants=    remove?collection=[&address=|…]
//! ```

pub mod definition;
pub mod follow;
pub mod query;
pub mod tables;

use blockmill_sdk::prelude::*;
use blockmill_sdk::record;
use blockmill_sdk::rows::Column;
use blockmill_sdk::{Object, Pieces};

use definition::Collections;
use follow::{Coin, Coins, Match, Seen};
use tables::{Confirmed, ConfirmedRow, Unconfirmed, UnconfirmedRow};

/// Matches in the pool that are kept, all collections together: those after them are counted and not kept.
pub const MAX_POOL_MATCHES: usize = 5_000;
/// Matches in the pool of one collection that an answer has.
pub const MAX_LISTED: usize = 200;

/// A collection's name in a key.
pub type Name = [u8; definition::MAX_NAME];

record! {
    /// A watched output, and who watches it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FollowedKey: Key {
        pub txid: [u8; 32],
        pub vout: u32,
        pub collection: Name,
    }
}

record! {
    /// What is known of a watched output.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Followed: Value {
        pub depth: u8,
        pub value: u64,
        pub script: Vec<u8>,
    }
}

record! {
    /// Place of a match among those of its collection; the newest comes first.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MatchKey: Key {
        pub collection: Name,
        pub before_last: u32,
    }
}

record! {
    /// A match in a block.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Record: Value {
        pub height: u32,
        pub position: u32,
        pub txid: [u8; 32],
        /// As a number: in, out, transaction.
        pub direction: u8,
        pub place: u32,
        pub depth: u8,
        pub value: u64,
        pub script: Vec<u8>,
    }
}

/// Watched outputs that are not spent.
pub const FOLLOWED: Map<FollowedKey, Followed> = Map::new(b"F");
/// The last matches.
pub const MATCHES: Map<MatchKey, Record> = Map::new(b"M");
/// How many matches there were.
pub const COUNTS: Map<Name, u32> = Map::new(b"N");

/// A name as it stands in keys: padded with zeros.
pub fn name_key(name: &str) -> Name {
    let mut key = [0; definition::MAX_NAME];
    for (to, from) in key.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    key
}

/// What bounds the plugin.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Transactions between an output that is followed and one that a collection names.
    pub max_depth: u8,
    /// Unspent outputs that one collection follows at once.
    pub max_followed: u32,
    /// Matches of each collection that queries can show.
    pub keep_matches: u32,
}

/// A transaction of the pool that has matches.
struct PoolTransaction {
    matches: Vec<Match>,
    outputs: Vec<u32>,
    first_seen: u64,
}

/// The plugin.
pub struct Watch {
    collections: Collections,
    bounds: Bounds,
    network: String,
    height: Option<u32>,
    confirmed: Confirmed,
    unconfirmed: Unconfirmed,
    /// Watched outputs of blocks; read with the first block or pool, not for queries.
    coins: Option<Coins>,
    /// How many of them each collection has.
    followed: Vec<u32>,
    /// Watched outputs of the pool's transactions.
    pool_coins: Coins,
    /// In the order of the txids.
    pool: Vec<([u8; 32], PoolTransaction)>,
    pool_matches: usize,
    /// Matches of the pool that there was no room for.
    left_out: u64,
}

impl Processor for Watch {
    fn describe() -> Descriptor {
        Descriptor::new(
            "watch",
            env!("CARGO_PKG_VERSION"),
            "Collections of scripts that are watched, confirmed and unconfirmed",
        )
        .wants(WantedColumns::INPUTS | WantedColumns::OUTPUTS | WantedColumns::SPENT)
        .wants_mempool()
        .table::<Confirmed>()
        .table::<Unconfirmed>()
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        let mut settings = info.settings()?;
        let mut bounded = |key, default, most: u64| match settings.number(key, default)? {
            number if number <= most => Ok(number as u32),
            _ => Err(format!("the setting `{key}` must be at most {most}")),
        };
        let bounds = Bounds {
            max_depth: bounded("max_depth", 10, 255)? as u8,
            max_followed: bounded("max_followed", 10_000, 100_000)?,
            keep_matches: bounded("keep_matches", 1_000, 100_000)?,
        };
        let configured = match settings.json("collections") {
            None => Object::new(),
            Some(Json::Object(collections)) => collections,
            Some(_) => return Err("the setting `collections` must be a table".into()),
        };
        let runtime = settings.runtime()?;
        settings.finish()?;
        let network = chain::network();
        let collections = Collections::new(&configured, &runtime, &network)?;
        Ok(Watch {
            followed: vec![0; collections.all.len()],
            collections,
            bounds,
            network,
            height: info.height,
            confirmed: Confirmed::of::<Self>(),
            unconfirmed: Unconfirmed::of::<Self>(),
            coins: None,
            pool_coins: Coins::default(),
            pool: Vec::new(),
            pool_matches: 0,
            left_out: 0,
        })
    }

    fn on_block(&mut self, block: &Block) -> Result<BlockAnswer, BlockError> {
        self.on_part(block, &Part::whole(block))
    }

    const TAKES_PARTS: bool = true;

    fn on_part(&mut self, part: &Block, place: &Part) -> Result<BlockAnswer, BlockError> {
        self.confirmed.clear();
        let mut coins = self.take_coins()?;
        for tx in part.transactions() {
            let mut spent = Vec::new();
            let seen = follow::look(&self.collections, self.bounds.max_depth, &tx, |place| {
                let coin = coins.remove(&place)?;
                spent.push((place, coin.clone()));
                Some(coin)
            });
            for (place, coin) in &spent {
                self.forget(place, coin);
            }
            self.keep_coins(&tx, seen.coins, &mut coins);
            let position = place.first + tx.position() as u32;
            self.keep_matches(part.height(), position, &tx, &seen.matches)?;
        }
        self.coins = Some(coins);
        self.confirmed.flush();
        if place.last {
            self.height = Some(part.height());
            values::set("followed_outputs", self.followed.iter().sum::<u32>().into());
        }
        Ok(BlockAnswer::none())
    }

    fn on_mempool(&mut self, changes: &MempoolChanges) -> Result<(), String> {
        let coins = self.take_coins()?;
        let mut touched = vec![false; self.collections.all.len()];
        if changes.reset() {
            self.pool.clear();
            self.pool_coins.clear();
            (self.pool_matches, self.left_out) = (0, 0);
            // Queries are to tell an empty pool from one that was not heard of.
            touched.fill(true);
        }
        for (txid, _) in changes.removed() {
            self.remove(txid, &mut touched);
        }
        for entry in changes.added() {
            let seen = follow::look(&self.collections, self.bounds.max_depth, &entry, |place| {
                self.pool_coins
                    .get(&place)
                    .or_else(|| coins.get(&place))
                    .cloned()
            });
            self.add(&entry, entry.first_seen(), seen, &mut touched);
        }
        self.unconfirmed.flush();
        self.coins = Some(coins);
        for (place, _) in touched.iter().enumerate().filter(|(_, touched)| **touched) {
            self.publish(place as u16);
        }
        Ok(())
    }

    fn query(&self, path: &str, params: &Params) -> Result<Json, QueryError> {
        query::answer(self, path, params)
    }
}

impl Watch {
    /// The watched outputs, read from the state where this instance has not done so yet.
    fn take_coins(&mut self) -> Result<Coins, String> {
        if let Some(coins) = self.coins.take() {
            return Ok(coins);
        }
        let mut coins = Coins::default();
        self.followed.fill(0);
        FOLLOWED.each(|key, followed| {
            let name = String::from_utf8_lossy(&key.collection);
            // A collection that is gone follows nothing.
            if let Some(place) = self.collections.place(name.trim_end_matches('\0')) {
                let coin = coins.entry((key.txid, key.vout)).or_insert_with(|| Coin {
                    value: followed.value,
                    script: followed.script,
                    holders: Vec::new(),
                });
                coin.holders.push((place, followed.depth));
                if let Some(count) = self.followed.get_mut(usize::from(place)) {
                    *count += 1;
                }
            }
            true
        })?;
        Ok(coins)
    }

    fn key(&self, (txid, vout): &follow::Place, collection: u16) -> Option<FollowedKey> {
        Some(FollowedKey {
            txid: *txid,
            vout: *vout,
            collection: name_key(&self.collections.get(collection)?.name),
        })
    }

    /// A watched output was spent by a block.
    fn forget(&mut self, place: &follow::Place, coin: &Coin) {
        for (collection, _) in &coin.holders {
            if let Some(key) = self.key(place, *collection) {
                FOLLOWED.delete(&key);
            }
            if let Some(count) = self.followed.get_mut(usize::from(*collection)) {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// Follows outputs of a block, as far as there is room for them.
    fn keep_coins(&mut self, tx: &Transaction<'_>, new: Vec<(u32, Coin)>, coins: &mut Coins) {
        for (vout, mut coin) in new {
            let place = (*tx.txid(), vout);
            coin.holders.retain(|(collection, _)| {
                let count = self.followed.get_mut(usize::from(*collection));
                let room = count.is_some_and(|count| {
                    let room = *count < self.bounds.max_followed;
                    *count += u32::from(room);
                    room
                });
                if !room {
                    log::warn(
                        "a collection follows as many outputs as it may: one more is not followed",
                    );
                }
                room
            });
            for (collection, depth) in &coin.holders {
                if let Some(key) = self.key(&place, *collection) {
                    let followed = Followed {
                        depth: *depth,
                        value: coin.value,
                        script: coin.script.clone(),
                    };
                    FOLLOWED.put(&key, &followed);
                }
            }
            if !coin.holders.is_empty() {
                coins.insert(place, coin);
            }
        }
    }

    fn keep_matches(
        &mut self,
        height: u32,
        position: u32,
        tx: &Transaction<'_>,
        matches: &[Match],
    ) -> Result<(), String> {
        for found in matches {
            let Some(collection) = self.collections.get(found.collection) else {
                continue;
            };
            let whole = found.script.is_empty();
            self.confirmed.push(ConfirmedRow {
                collection: &collection.name,
                position: i64::from(position),
                txid: tx.txid(),
                direction: found.direction.name(),
                place: i64::from(found.place),
                value: found.value,
                script: Some(found.script.as_slice()).filter(|_| !whole),
                address: address::from_script(&found.script, &self.network).as_deref(),
                depth: i64::from(found.depth),
            });
            let name = name_key(&collection.name);
            let number = COUNTS.get(&name)?.unwrap_or(0);
            COUNTS.put(&name, &number.saturating_add(1));
            let key = |number: u32| MatchKey {
                collection: name,
                before_last: u32::MAX - number,
            };
            if self.bounds.keep_matches > 0 {
                let record = Record {
                    height,
                    position,
                    txid: *tx.txid(),
                    direction: found.direction as u8,
                    place: found.place,
                    depth: found.depth,
                    value: found.value,
                    script: found.script.clone(),
                };
                MATCHES.put(&key(number), &record);
            }
            if let Some(old) = number.checked_sub(self.bounds.keep_matches) {
                MATCHES.delete(&key(old));
            }
        }
        Ok(())
    }

    /// A transaction came into the pool.
    fn add(&mut self, tx: &Transaction<'_>, first_seen: u64, seen: Seen, touched: &mut [bool]) {
        if seen.matches.is_empty() {
            return;
        }
        // It may be told twice.
        self.remove(tx.txid(), touched);
        if self.pool_matches + seen.matches.len() > MAX_POOL_MATCHES {
            self.left_out += seen.matches.len() as u64;
            return;
        }
        self.pool_matches += seen.matches.len();
        for found in &seen.matches {
            let Some(collection) = self.collections.get(found.collection) else {
                continue;
            };
            if let Some(touched) = touched.get_mut(usize::from(found.collection)) {
                *touched = true;
            }
            self.unconfirmed.push(UnconfirmedRow {
                collection: &collection.name,
                txid: tx.txid(),
                direction: found.direction.name(),
                place: i64::from(found.place),
                value: found.value,
                script: Some(found.script.as_slice()).filter(|script| !script.is_empty()),
                address: address::from_script(&found.script, &self.network).as_deref(),
                depth: i64::from(found.depth),
                first_seen,
            });
        }
        let outputs = seen.coins.iter().map(|(vout, _)| *vout).collect();
        for (vout, coin) in seen.coins {
            self.pool_coins.insert((*tx.txid(), vout), coin);
        }
        let entry = PoolTransaction {
            matches: seen.matches,
            outputs,
            first_seen,
        };
        if let Err(place) = self.pooled(tx.txid()) {
            self.pool.insert(place, (*tx.txid(), entry));
        }
    }

    /// A transaction left the pool.
    fn remove(&mut self, txid: &[u8; 32], touched: &mut [bool]) {
        let Ok(place) = self.pooled(txid) else {
            return;
        };
        let (_, entry) = self.pool.remove(place);
        self.pool_matches = self.pool_matches.saturating_sub(entry.matches.len());
        for vout in entry.outputs {
            self.pool_coins.remove(&(*txid, vout));
        }
        // Rows that were pushed and not handed over yet would come after their removal.
        self.unconfirmed.flush();
        let (mut names, mut directions) = (Pieces::new(), Pieces::new());
        let (mut txids, mut places) = (Vec::new(), Vec::new());
        for found in &entry.matches {
            let Some(collection) = self.collections.get(found.collection) else {
                continue;
            };
            if let Some(touched) = touched.get_mut(usize::from(found.collection)) {
                *touched = true;
            }
            names.push(collection.name.as_bytes());
            txids.extend_from_slice(txid);
            directions.push(found.direction.name().as_bytes());
            places.push(i64::from(found.place));
        }
        self.unconfirmed.delete(&[
            Column::texts(names),
            Column::hashes(txids),
            Column::texts(directions),
            Column::integers(places),
        ]);
    }

    /// The place of a transaction of the pool, or where it would be.
    fn pooled(&self, txid: &[u8; 32]) -> Result<usize, usize> {
        self.pool.binary_search_by(|(other, _)| other.cmp(txid))
    }

    /// Leaves the pool's matches of a collection to queries.
    fn publish(&self, place: u16) {
        let Some(collection) = self.collections.get(place) else {
            return;
        };
        let all = self.pool.iter().flat_map(|(txid, entry)| {
            let matches = entry.matches.iter();
            matches.map(move |found| (txid, entry.first_seen, found))
        });
        let (mut count, mut listed) = (0u64, Vec::new());
        for (txid, first_seen, found) in all.filter(|(_, _, found)| found.collection == place) {
            count += 1;
            if listed.len() < MAX_LISTED {
                let mut json = query::json(
                    txid,
                    found.direction.name(),
                    found.place,
                    found.depth,
                    found.value,
                    &found.script,
                    &self.network,
                );
                json.insert("first_seen".into(), first_seen.into());
                listed.push(json);
            }
        }
        let answer = json!({
            "collection": collection.name.as_str(),
            "count": count,
            // The first ones by txid.
            "matches": listed,
            // Of all collections, since the pool was heard of: there was no room for them.
            "left_out": self.left_out,
        });
        volatile::put(collection.name.as_bytes(), answer.to_string().as_bytes());
    }
}

export_plugin!(Watch);

#[cfg(test)]
mod tests;
