//! The peer book: every address that we heard of, and what happened to it.
//!
//! Built like Core's `addrman`. An address that was only heard of is in the table of the *new*, one that was connected to
//! in the table of the *tried*. Both are of buckets, and which bucket and which place in it an address may take follows
//! from a secret of ours, its group and, among the new, the group of whoever told it: so a source reaches 64 buckets of
//! the new at most, a group 8 of the tried, however many addresses they have, and nobody outside knows which. Nothing is
//! pushed out of the tried before it was tested and found gone.

mod address;
mod file;
mod record;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bitcoin::hashes::siphash24;
use bitcoin::p2p::ServiceFlags;

use super::chance::Chance;
use crate::wire::TransportKind;
pub use address::{Group, NetAddress, NoAddress, Reach, group_of_ip, is_local};
pub use file::{BookFile, BookFileError, MAX_FILE};
pub use record::{Place, Record};

/// Buckets of the new (Core's `ADDRMAN_NEW_BUCKET_COUNT`).
const NEW_BUCKETS: u64 = 1_024;
/// Buckets of the tried (Core's `ADDRMAN_TRIED_BUCKET_COUNT`).
const TRIED_BUCKETS: u64 = 256;
/// Places of a bucket (Core's `ADDRMAN_BUCKET_SIZE`).
const BUCKET: u64 = 64;
/// Buckets of the new that one source reaches.
const NEW_BUCKETS_PER_SOURCE: u64 = 64;
/// Buckets of the tried that one group reaches.
const TRIED_BUCKETS_PER_GROUP: u64 = 8;
/// Addresses that wait for the test of the one in their place (Core's `ADDRMAN_SET_TRIED_COLLISION_SIZE`).
const MAX_CONTESTS: usize = 10;
/// One that was good within this holds its place among the tried (Core's `ADDRMAN_REPLACEMENT`).
const HOLDS_PLACE: u64 = 4 * 60 * 60;
/// A test without an outcome for so long is lost (Core's `ADDRMAN_TEST_WINDOW`).
const TEST_WINDOW: u64 = 40 * 60;
/// Times heard are moved by this into the past, since they are hearsay.
pub const HEARSAY_PENALTY: u64 = 2 * 60 * 60;
/// The most records that are in no table.
const MAX_PINNED: usize = 256;
/// The most addresses in one answer (Core's `MAX_ADDR_TO_SEND`) and the part of the book, in hundredths.
const MAX_ANSWER: (usize, usize) = (1_000, 23);

/// How full the book is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BookCounts {
    /// Addresses that were only heard of.
    pub new: usize,
    /// Addresses that were connected to.
    pub tried: usize,
}

/// The book.
#[derive(Debug)]
pub struct Book {
    /// Which places addresses may take follows from it.
    key: [u64; 2],
    records: BTreeMap<SocketAddr, Record>,
    new: BTreeMap<u32, SocketAddr>,
    tried: BTreeMap<u32, SocketAddr>,
    /// Addresses that were good and found another in their place among the tried, and since when they wait.
    contests: BTreeMap<SocketAddr, u64>,
    /// When any address was last good: failures without a success meanwhile are our own line's.
    any_good: u64,
}

impl Book {
    /// An empty one with a secret of its own.
    pub fn new(key: [u64; 2]) -> Book {
        Book {
            key,
            records: BTreeMap::new(),
            new: BTreeMap::new(),
            tried: BTreeMap::new(),
            contests: BTreeMap::new(),
            // As Core: the first failures after a start count.
            any_good: 1,
        }
    }

    /// How full it is.
    pub fn counts(&self) -> BookCounts {
        BookCounts {
            new: self.new.len(),
            tried: self.tried.len(),
        }
    }

    /// How many addresses there are to choose from.
    pub fn len(&self) -> usize {
        self.new.len() + self.tried.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is known of the address with this handle.
    pub fn get(&self, handle: &SocketAddr) -> Option<&Record> {
        self.records.get(handle)
    }

    /// Every record.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// Somebody of the group `source` told of an address, last seen at `seen`. Returns whether it was taken in.
    pub fn add(
        &mut self,
        address: NetAddress,
        services: ServiceFlags,
        seen: u64,
        source: Group,
        penalty: u64,
        now: u64,
    ) -> bool {
        let handle = address.handle();
        // What a peer says about itself, and what we say, is no hearsay.
        let penalty = if source == address.group() {
            0
        } else {
            penalty
        };
        let seen = seen.min(now).saturating_sub(penalty);
        if let Some(record) = self.records.get_mut(&handle) {
            // Somebody saw it since: but hearsay moves the time by an hour or a day at least.
            let online = now.saturating_sub(seen) < 24 * 60 * 60;
            let step = if online { 60 * 60 } else { 24 * 60 * 60 };
            if seen > record.seen.saturating_add(step) {
                record.seen = seen;
            }
            record.services |= services;
            if record.place != Place::Pinned {
                return false;
            }
        }
        let place = self.new_place(&address, source);
        if let Some(other) = self.new.get(&place).copied() {
            let holds = self
                .records
                .get(&other)
                .is_some_and(|record| !record.is_worthless(now));
            if holds {
                return false;
            }
            self.remove(&other);
        }
        let record = self
            .records
            .entry(handle)
            .or_insert_with(|| Record::new(address, services, source, seen));
        record.place = Place::New(place);
        self.new.insert(place, handle);
        true
    }

    /// Keeps a record of an address that is in no table: from the configuration or the operator.
    pub fn pin(&mut self, address: NetAddress, now: u64) {
        let handle = address.handle();
        let pinned = self.records.len() - self.len();
        if pinned < MAX_PINNED {
            let record = Record::new(address, ServiceFlags::NONE, Group::OURS, now);
            self.records.entry(handle).or_insert(record);
        }
    }

    /// A connection is being tried.
    pub fn tried(&mut self, handle: &SocketAddr, now: u64) {
        if let Some(record) = self.records.get_mut(handle) {
            record.tried = now;
            // One failure a success elsewhere: while our own line is down nobody is to blame.
            if record.counted < self.any_good {
                record.counted = now;
                record.failures = record.failures.saturating_add(1);
            }
        }
    }

    /// A handshake was done. The address goes among the tried, or contests its place there.
    pub fn good(&mut self, handle: &SocketAddr, services: ServiceFlags, now: u64) {
        self.any_good = now;
        let Some(record) = self.records.get_mut(handle) else {
            return;
        };
        record.tried = now;
        record.good = now;
        record.seen = now;
        record.failures = 0;
        record.services = services;
        let contested = match record.place {
            Place::Tried(_) => return,
            Place::Pinned if record.address.is_local() => return,
            Place::New(_) | Place::Pinned => {
                let address = record.address;
                self.tried_place(&address)
            }
        };
        if self.tried.contains_key(&contested) {
            if self.contests.len() < MAX_CONTESTS {
                self.contests.entry(*handle).or_insert(now);
            }
            return;
        }
        self.move_to_tried(handle, contested);
    }

    /// It offers other services than was said.
    pub fn offers(&mut self, handle: &SocketAddr, services: ServiceFlags) {
        if let Some(record) = self.records.get_mut(handle) {
            record.services = services;
        }
    }

    /// It was there until now.
    pub fn was_there(&mut self, handle: &SocketAddr, now: u64) {
        if let Some(record) = self.records.get_mut(handle) {
            record.seen = record.seen.max(now);
        }
    }

    /// Why the connection ended.
    pub fn ended(&mut self, handle: &SocketAddr, why: &str, now: u64) {
        if let Some(record) = self.records.get_mut(handle) {
            record.ended(why, now);
        }
    }

    /// The transport that it took.
    pub fn took(&mut self, handle: &SocketAddr, transport: TransportKind) {
        if let Some(record) = self.records.get_mut(handle) {
            record.transport = Some(transport);
        }
    }

    /// The transport that it took last.
    pub fn transport(&self, handle: &SocketAddr) -> Option<TransportKind> {
        self.records.get(handle)?.transport
    }

    /// Takes an address out: it is ourselves.
    pub fn forget(&mut self, handle: &SocketAddr) {
        self.remove(handle);
    }

    /// An address to connect to: of the tried or of the new, bucket by bucket, so that who has many addresses in few
    /// buckets gains nothing by it.
    pub fn select(&self, new_only: bool, chance: &mut Chance, now: u64) -> Option<&Record> {
        let among_tried =
            !new_only && !self.tried.is_empty() && (self.new.is_empty() || chance.below(2) == 0);
        let (table, buckets) = match among_tried {
            true => (&self.tried, TRIED_BUCKETS),
            false => (&self.new, NEW_BUCKETS),
        };
        let mut factor = 1.0;
        loop {
            let record = self.draw(table, buckets, chance)?;
            if chance.happens(factor * record.chance(now)) {
                return Some(record);
            }
            // Ends: the factor outgrows every chance.
            factor *= 1.2;
        }
    }

    /// One among the tried whose place is contested, to be tested by a connection.
    pub fn next_test(&mut self, chance: &mut Chance, now: u64) -> Option<NetAddress> {
        self.settle_contests(now);
        let waiting: Vec<SocketAddr> = self.contests.keys().copied().collect();
        let handle = waiting.get(chance.below(waiting.len()))?;
        let address = self.records.get(handle)?.address;
        let holder = self.tried.get(&self.tried_place(&address))?;
        self.records.get(holder).map(|record| record.address)
    }

    /// Ends the contests that are decided: who was good lately stays, who failed its test goes.
    pub fn settle_contests(&mut self, now: u64) {
        let waiting: Vec<(SocketAddr, u64)> = self.contests.iter().map(|(a, b)| (*a, *b)).collect();
        for (handle, since) in waiting {
            let Some(record) = self.records.get(&handle) else {
                self.contests.remove(&handle);
                continue;
            };
            let place = self.tried_place(&record.address);
            let good = record.good;
            let holder = self
                .tried
                .get(&place)
                .and_then(|holder| self.records.get(holder));
            let replaced = match holder {
                None => true,
                Some(holder) if now.saturating_sub(holder.good) < HOLDS_PLACE => false,
                // Tried since, and more than a minute ago: it did not answer.
                Some(holder) if now.saturating_sub(holder.tried) < HOLDS_PLACE => {
                    if now.saturating_sub(holder.tried) <= 60 {
                        continue;
                    }
                    true
                }
                Some(_) if now.saturating_sub(since.max(good)) > TEST_WINDOW => true,
                Some(_) => continue,
            };
            self.contests.remove(&handle);
            if replaced {
                self.move_to_tried(&handle, place);
            }
        }
    }

    /// What a peer that asks is told: a part of the book at random.
    pub fn answer(&self, chance: &mut Chance, now: u64) -> Vec<&Record> {
        let (most, part) = MAX_ANSWER;
        let count = (self.len() * part / 100).clamp(self.len().min(1), most);
        let mut known: Vec<&Record> = self
            .records
            .values()
            .filter(|record| record.place != Place::Pinned && !record.is_worthless(now))
            .collect();
        let count = count.min(known.len());
        for at in 0..count {
            let other = at + chance.below(known.len() - at);
            known.swap(at, other);
        }
        known.truncate(count);
        known
    }

    fn draw(
        &self,
        table: &BTreeMap<u32, SocketAddr>,
        buckets: u64,
        chance: &mut Chance,
    ) -> Option<&Record> {
        let size = BUCKET as u32;
        let bucket = chance.below(buckets as usize) as u32 * size;
        // The first bucket from there on that has any.
        let (first, _) = table
            .range(bucket..)
            .next()
            .or_else(|| table.iter().next())?;
        let start = first - first % size;
        let inside: Vec<&SocketAddr> = table
            .range(start..start + size)
            .map(|(_, handle)| handle)
            .collect();
        let handle = inside.get(chance.below(inside.len()))?;
        self.records.get(handle)
    }

    fn move_to_tried(&mut self, handle: &SocketAddr, place: u32) {
        let Some(record) = self.records.get_mut(handle) else {
            return;
        };
        if let Place::New(old) = record.place {
            self.new.remove(&old);
        }
        record.place = Place::Tried(place);
        if let Some(other) = self.tried.insert(place, *handle) {
            self.back_to_new(other);
        }
    }

    /// Among the new again, in the place that it had; whoever is there now goes.
    fn back_to_new(&mut self, handle: SocketAddr) {
        let Some(record) = self.records.get(&handle) else {
            return;
        };
        let place = self.new_place(&record.address, record.source);
        if let Some(other) = self.new.get(&place).copied() {
            self.remove(&other);
        }
        if let Some(record) = self.records.get_mut(&handle) {
            record.place = Place::New(place);
            self.new.insert(place, handle);
        }
    }

    fn remove(&mut self, handle: &SocketAddr) {
        if let Some(record) = self.records.remove(handle) {
            match record.place {
                Place::New(place) => self.new.remove(&place),
                Place::Tried(place) => self.tried.remove(&place),
                Place::Pinned => None,
            };
        }
        self.contests.remove(handle);
    }

    fn new_place(&self, address: &NetAddress, source: Group) -> u32 {
        let (group, source) = (address.group(), source);
        let spread =
            self.hash(&[b"new spread", group.bytes(), source.bytes()]) % NEW_BUCKETS_PER_SOURCE;
        let bucket =
            self.hash(&[b"new bucket", source.bytes(), &spread.to_le_bytes()]) % NEW_BUCKETS;
        self.place(b"new place", bucket, address)
    }

    fn tried_place(&self, address: &NetAddress) -> u32 {
        let spread =
            self.hash(&[b"tried spread", address.to_string().as_bytes()]) % TRIED_BUCKETS_PER_GROUP;
        let group = address.group();
        let bucket =
            self.hash(&[b"tried bucket", group.bytes(), &spread.to_le_bytes()]) % TRIED_BUCKETS;
        self.place(b"tried place", bucket, address)
    }

    fn place(&self, table: &[u8], bucket: u64, address: &NetAddress) -> u32 {
        let name = address.to_string();
        let place = self.hash(&[table, &bucket.to_le_bytes(), name.as_bytes()]) % BUCKET;
        u32::try_from(bucket * BUCKET + place).unwrap_or(0)
    }

    fn hash(&self, parts: &[&[u8]]) -> u64 {
        let [key, other] = self.key;
        let mut bytes = Vec::new();
        for part in parts {
            bytes.push(part.len() as u8);
            bytes.extend_from_slice(part);
        }
        siphash24::Hash::hash_to_u64_with_keys(key, other, &bytes)
    }
}
