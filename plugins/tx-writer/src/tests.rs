//! Rows against the blocks that they were made of.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use blockmill_sdk::testing::bitcoin::consensus::encode::deserialize_hex;
use blockmill_sdk::testing::bitcoin::hashes::Hash;
use blockmill_sdk::testing::bitcoin::{Block, Network, Transaction, address::Address};
use blockmill_sdk::testing::{Cell, Harness, PoolTransaction, blocks, chain};
use blockmill_sdk::{Json, json};
use utxo_tracker::UtxoTracker;

use crate::TxWriter;

/// Runs the blocks through utxo-tracker and, with the outputs that it says they spend, through tx-writer.
fn write(
    network: &str,
    settings: Json,
    blocks: &[Block],
) -> (Harness<UtxoTracker>, Harness<TxWriter>) {
    let mut coins = Harness::<UtxoTracker>::on(network, json!({}));
    let mut writer = Harness::<TxWriter>::on(network, settings);
    for block in blocks {
        follow(&mut coins, &mut writer, block);
    }
    (coins, writer)
}

fn follow(coins: &mut Harness<UtxoTracker>, writer: &mut Harness<TxWriter>, block: &Block) {
    let spent = coins.block(block).unwrap().spent;
    writer.block_with(block, spent).unwrap();
}

fn sum(cells: &[Cell]) -> i64 {
    cells
        .iter()
        .map(|cell| {
            if let Cell::Integer(number) = cell {
                *number
            } else {
                0
            }
        })
        .sum()
}

fn integer(number: impl TryInto<i64>) -> Cell {
    Cell::Integer(number.try_into().ok().unwrap())
}

#[test]
fn rows_are_the_blocks_and_transactions_with_the_fees_they_pay() {
    let Some(data) = blocks::data() else { return };
    let main = blocks::read_framed(&data.join("regtest/main.dat"));
    let (coins, writer) = write("regtest", json!({}), &main);

    assert_eq!(writer.rows("block").len(), 131);
    assert_eq!(sum(&writer.column("block", "total_fees")), 25_899_628);
    assert_eq!(sum(&writer.column("tx", "fee")), 25_899_628);
    assert_eq!(coins.plugin().totals().fees_sats, 25_899_628);
    assert_eq!(sum(&writer.column("block", "tx_count")), 7_573);
    assert_eq!(writer.rows("tx").len(), 7_573);
    assert_eq!(
        sum(&writer.column("tx", "total_out")),
        sum(&writer.column("block", "total_out"))
    );
    assert!(
        writer.rows("output").is_empty()
            && writer.rows("input").is_empty()
            && writer.rows("mempool").is_empty()
    );

    let mut rows = writer.rows("tx").iter();
    for (height, block) in main.iter().enumerate() {
        let row = &writer.rows("block")[height];
        let header = &block.header;
        let hash = |hash: [u8; 32]| Cell::Hash(hash);
        assert_eq!(
            row[..5],
            [
                integer(height),
                hash(block.block_hash().to_byte_array()),
                hash(header.prev_blockhash.to_byte_array()),
                hash(header.merkle_root.to_byte_array()),
                integer(header.version.to_consensus()),
            ]
        );
        let mut times: Vec<u32> = main[height.saturating_sub(10)..=height]
            .iter()
            .map(|block| block.header.time)
            .collect();
        times.sort_unstable();
        assert_eq!(
            row[5..12],
            [
                integer(header.time),
                integer(times[times.len() / 2]),
                integer(header.bits.to_consensus()),
                integer(header.nonce),
                integer(block.txdata.len()),
                integer(block.total_size()),
                integer(block.weight().to_wu()),
            ]
        );
        for (position, tx) in block.txdata.iter().enumerate() {
            let row = rows.next().unwrap();
            assert_eq!(
                row[..5],
                [
                    integer(height),
                    integer(position),
                    hash(tx.compute_txid().to_byte_array()),
                    integer(tx.total_size()),
                    integer(tx.weight().to_wu()),
                ]
            );
            assert_eq!(
                row[5] == Cell::Null,
                position == 0,
                "a fee for all but the coinbase"
            );
            let out: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
            assert_eq!(
                row[6..],
                [
                    integer(tx.input.len()),
                    integer(tx.output.len()),
                    integer(out)
                ]
            );
        }
    }
}

#[test]
fn inputs_and_outputs_are_written_when_asked_for() {
    let Some(data) = blocks::data() else { return };
    let main = blocks::read_framed(&data.join("regtest/main.dat"));
    let (_, writer) = write("regtest", json!({ "outputs": true, "inputs": true }), &main);

    let outputs = main
        .iter()
        .flat_map(|block| block.txdata.iter())
        .flat_map(|tx| tx.output.iter());
    assert_eq!(writer.rows("output").len(), outputs.clone().count());
    for (row, output) in writer.rows("output").iter().zip(outputs) {
        assert_eq!(row[3], integer(output.value.to_sat()));
        assert_eq!(row[4], Cell::Bytes(output.script_pubkey.to_bytes()));
        let address = Address::from_script(&output.script_pubkey, Network::Regtest).ok();
        assert_eq!(
            row[5],
            address.map_or(Cell::Null, |address| Cell::Text(address.to_string()))
        );
    }

    let inputs = main
        .iter()
        .flat_map(|block| block.txdata.iter())
        .flat_map(|tx| tx.input.iter());
    assert_eq!(writer.rows("input").len(), inputs.clone().count());
    // After height, tx_position and position: previous_txid, previous_vout, sequence, value, script, created_height.
    for (row, input) in writer.rows("input").iter().zip(inputs) {
        assert_eq!(row[5], integer(input.sequence.0));
        let previous = input.previous_output;
        if previous.is_null() {
            assert!(
                [3, 4, 6, 7, 8]
                    .iter()
                    .all(|column| row[*column] == Cell::Null)
            );
            continue;
        }
        assert_eq!(row[3], Cell::Hash(previous.txid.to_byte_array()));
        assert_eq!(row[4], integer(previous.vout));
        assert!(row[6] != Cell::Null && row[7] != Cell::Null && row[8] != Cell::Null);
    }
    // In and out of every block: what goes in is what comes out and the fees, but for the coinbases.
    let coinbases: i64 = main.iter().map(|block| sum_outputs(&block.txdata[0])).sum();
    assert_eq!(
        sum(&writer.column("input", "value")),
        sum(&writer.column("output", "value")) - coinbases + sum(&writer.column("tx", "fee"))
    );
}

fn sum_outputs(tx: &Transaction) -> i64 {
    tx.output
        .iter()
        .map(|output| output.value.to_sat() as i64)
        .sum()
}

#[test]
fn rows_after_a_reorg_are_those_of_a_fresh_run() {
    let Some(data) = blocks::data() else { return };
    let main = blocks::read_framed(&data.join("regtest/main.dat"));
    let branch = blocks::read_framed(&data.join("regtest/branch.dat"));
    let settings = json!({ "outputs": true, "inputs": true });
    let (mut coins, mut writer) = write("regtest", settings.clone(), &main);
    coins.rollback(124);
    writer.rollback(124);
    for block in &branch {
        follow(&mut coins, &mut writer, block);
    }
    let surviving: Vec<Block> = main[..=124].iter().chain(&branch).cloned().collect();
    let (_, fresh) = write("regtest", settings, &surviving);
    for table in ["block", "tx", "output", "input"] {
        assert_eq!(writer.rows(table), fresh.rows(table), "{table}");
    }
}

#[test]
fn without_the_coins_fees_are_null() {
    let mut writer = Harness::<TxWriter>::new(json!({}));
    let payment = chain::transaction(&[(Hash::from_byte_array([7; 32]), 0)], &[(5, &[0x51])]);
    writer
        .block(&chain::block(chain::hash(1), 1, 50, vec![payment]))
        .unwrap();
    assert_eq!(writer.column("block", "total_fees"), [Cell::Null]);
    assert_eq!(writer.column("block", "total_out"), [Cell::Integer(55)]);
    assert_eq!(writer.column("tx", "fee"), [Cell::Null, Cell::Null]);
}

#[test]
fn the_pool_is_a_table_that_follows_its_changes() {
    let Some(data) = blocks::data() else { return };
    let hex = std::fs::read_to_string(data.join("regtest/mempool.hex")).unwrap();
    let tsv = std::fs::read_to_string(data.join("regtest/mempool.tsv")).unwrap();
    let transactions: Vec<Transaction> = hex
        .split_whitespace()
        .map(|line| deserialize_hex(line).unwrap())
        .collect();
    let listed: Vec<Vec<&str>> = tsv
        .lines()
        .skip(1)
        .map(|line| line.split('\t').collect())
        .collect();
    let txids: Vec<_> = transactions.iter().map(Transaction::compute_txid).collect();
    let entries: Vec<PoolTransaction> = transactions
        .iter()
        .zip(&listed)
        .map(|(transaction, row)| PoolTransaction {
            transaction: transaction.clone(),
            fee: row[1].parse().unwrap(),
            parents: (transaction
                .input
                .iter()
                .map(|input| input.previous_output.txid))
            .filter(|txid| txids.contains(txid))
            .collect(),
        })
        .collect();

    let mut writer = Harness::<TxWriter>::new(json!({}));
    writer.time = 1_700_000_000;
    writer.mempool(&[], &entries).unwrap();
    assert_eq!(writer.rows("mempool").len(), 60);
    assert_eq!(sum(&writer.column("mempool", "fee")), 108_003);
    assert_eq!(sum(&writer.column("mempool", "vsize")), 12_548);
    for ((row, entry), listed) in writer.rows("mempool").iter().zip(&entries).zip(&listed) {
        assert_eq!(entry.transaction.compute_txid().to_string(), listed[0]);
        assert_eq!(
            row[..4],
            [
                Cell::Hash(entry.transaction.compute_txid().to_byte_array()),
                integer(1_700_000_000),
                integer(entry.fee),
                integer(listed[2].parse::<i64>().unwrap()),
            ]
        );
        assert_eq!(
            row[4],
            Cell::Real(entry.fee as f64 / listed[2].parse::<f64>().unwrap())
        );
        let parents: Vec<String> = entry.parents.iter().map(ToString::to_string).collect();
        assert_eq!(row[5], Cell::Text(parents.join(",")));
        assert_eq!(parents.is_empty(), listed[3] == "0");
    }

    writer
        .mempool(&[(txids[0], 0), (txids[1], 2)], &entries[1..2])
        .unwrap();
    assert_eq!(writer.rows("mempool").len(), 59);
    assert_eq!(
        writer.rows("mempool")[58][0],
        Cell::Hash(txids[1].to_byte_array()),
        "what left and came back is there"
    );
    // A fresh instance is given the whole pool again.
    writer.restart();
    writer.mempool(&[], &entries[..3]).unwrap();
    assert_eq!(writer.rows("mempool").len(), 3);
}

#[test]
fn unknown_settings_are_refused() {
    let refused = |settings| {
        Harness::<TxWriter>::try_on("regtest", settings)
            .map(|_| ())
            .unwrap_err()
    };
    assert_eq!(
        refused(json!({ "output": true })),
        "unknown setting `output`: there are outputs, inputs"
    );
    assert!(refused(json!({ "inputs": "yes" })).contains("true or false"));
}
