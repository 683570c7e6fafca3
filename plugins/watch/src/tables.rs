//! The tables.

use blockmill_sdk::rows::{Amount, Bytes, Hash, Integer, Nullable, Text, Time};
use blockmill_sdk::table;

table! {
    /// One row for each input, output or transaction of a block that a collection watches.
    pub table Confirmed of ConfirmedRow: Anchored "watch_match" {
        collection: Text,
        /// The transaction's place in its block.
        position: Integer,
        txid: Hash,
        /// `in`: paid to; `out`: spent; `tx`: the transaction itself is watched.
        direction: Text,
        /// Place of the output or the input; 0 for a transaction.
        place: Integer,
        value: Amount,
        /// Null for a transaction.
        script: Nullable<Bytes>,
        /// Null for scripts without an address.
        address: Nullable<Text>,
        /// Transactions between this output and one that the collection names.
        depth: Integer,
    }
    key [collection, position, direction, place];
    indexes [[txid], [collection, address]];
}

table! {
    /// The same of the pool's transactions.
    pub table Unconfirmed of UnconfirmedRow: Volatile "watch_pool" {
        collection: Text,
        txid: Hash,
        direction: Text,
        place: Integer,
        value: Amount,
        script: Nullable<Bytes>,
        address: Nullable<Text>,
        depth: Integer,
        first_seen: Time,
    }
    key [collection, txid, direction, place];
    indexes [];
}
