//! The tables.

use blockmill_sdk::rows::{Amount, Bytes, Hash, Integer, Nullable, Real, Text, Time};
use blockmill_sdk::table;

table! {
    /// One row a block: its header, written once, and sums over its transactions.
    pub table Blocks of BlockRow: Anchored "block" {
        hash: Hash,
        previous: Hash,
        merkle_root: Hash,
        version: Integer,
        /// The header's own time.
        time: Time,
        median_time: Time,
        bits: Integer,
        nonce: Integer,
        tx_count: Integer,
        size: Integer,
        weight: Integer,
        /// What the transactions pay, which is at least what the miner took. Null when what they spend is not known.
        total_fees: Nullable<Amount>,
        /// Sum of all outputs, the coinbase's too.
        total_out: Amount,
    }
    key [];
    indexes [[hash]];
}

table! {
    /// One row a transaction of a block.
    pub table Transactions of TransactionRow: Anchored "tx" {
        /// Place in the block; the coinbase is 0.
        position: Integer,
        txid: Hash,
        size: Integer,
        weight: Integer,
        /// Null for a coinbase, and when what the transaction spends is not known.
        fee: Nullable<Amount>,
        /// Number of inputs.
        inputs: Integer,
        /// Number of outputs.
        outputs: Integer,
        total_out: Amount,
    }
    key [position];
    indexes [[txid]];
}

table! {
    /// One row an output of a transaction of a block.
    pub table Outputs of OutputRow: Anchored "output" {
        tx_position: Integer,
        vout: Integer,
        value: Amount,
        script: Bytes,
        /// Null for scripts without an address.
        address: Nullable<Text>,
    }
    key [tx_position, vout];
    indexes [[address]];
}

table! {
    /// One row an input of a transaction of a block, with the output that it spends.
    pub table Inputs of InputRow: Anchored "input" {
        tx_position: Integer,
        /// Place in its transaction.
        position: Integer,
        /// Null for a coinbase, as is all that follows but the sequence.
        previous_txid: Nullable<Hash>,
        previous_vout: Nullable<Integer>,
        sequence: Integer,
        value: Nullable<Amount>,
        script: Nullable<Bytes>,
        created_height: Nullable<Integer>,
    }
    key [tx_position, position];
    indexes [[previous_txid, previous_vout]];
}

table! {
    /// One row a transaction of the pool.
    pub table MempoolTable of MempoolRow: Volatile "mempool" {
        txid: Hash,
        first_seen: Time,
        fee: Amount,
        vsize: Integer,
        /// sat per vbyte.
        fee_rate: Real,
        /// txids of unconfirmed parents as explorers show them, with commas between.
        depends: Text,
    }
    key [txid];
    indexes [];
}
