//! Every way in which columns can contradict each other is refused.

use super::*;
use crate::WantedColumns;
use crate::testing::{blocks, chain};

fn sound() -> wire::Columns {
    let mut payment = chain::transaction(
        &[(chain_txid(1), 0), (chain_txid(2), 7)],
        &[(5, &[0x51, 0x52]), (6, &[])],
    );
    payment.input[0].witness.push([1, 2, 3]);
    payment.input[0].witness.push([]);
    let block = chain::block(chain::hash(9), 5, 50, vec![payment]);
    let coins = [
        (0, vec![], 0, false),
        (7, vec![1], 2, true),
        (8, vec![1, 2], 3, false),
    ];
    blocks::columns(
        &block.txdata,
        WantedColumns::all(),
        Some(blocks::spent(&coins)),
    )
}

fn chain_txid(byte: u8) -> bitcoin::Txid {
    bitcoin::hashes::Hash::from_byte_array([byte; 32])
}

#[test]
fn sound_columns_are_taken() {
    let columns = Columns::new(sound(), true).unwrap();
    assert_eq!(
        (columns.len(), columns.input_count(), columns.output_count()),
        (2, 3, 3)
    );
    assert_eq!(columns.txids().len(), 2);
    assert!(!columns.is_empty());
}

#[test]
fn columns_of_other_lengths_are_refused_and_named() {
    type Spoil = fn(&mut wire::Columns);
    let spoilt: &[(&str, Spoil)] = &[
        ("transactions.txids", |c| _ = c.transactions.txids.pop()),
        ("transactions.lock-times", |c| {
            c.transactions.lock_times.push(1)
        }),
        ("transactions.sizes and weights", |c| {
            _ = c.transactions.sizes.pop()
        }),
        ("transactions.sizes and weights", |c| {
            _ = c.transactions.weights.pop()
        }),
        ("transactions.input-ends", |c| {
            _ = c.transactions.input_ends.pop()
        }),
        ("transactions.input-ends", |c| {
            c.transactions.input_ends[0] = 4
        }),
        ("transactions.output-ends", |c| {
            _ = c.transactions.output_ends.pop()
        }),
        ("transactions.output-ends", |c| {
            c.transactions.output_ends[0] = 4
        }),
        ("inputs.prev-txids", |c| {
            _ = c.inputs.as_mut().unwrap().prev_txids.pop()
        }),
        ("inputs.prev-vouts and sequences", |c| {
            _ = c.inputs.as_mut().unwrap().prev_vouts.pop()
        }),
        ("inputs.prev-vouts and sequences", |c| {
            _ = c.inputs.as_mut().unwrap().sequences.pop()
        }),
        ("inputs.script-ends", |c| {
            _ = c.inputs.as_mut().unwrap().script_ends.pop()
        }),
        ("inputs.script-ends", |c| {
            c.inputs.as_mut().unwrap().scripts.push(1)
        }),
        ("witnesses.item-ends", |c| {
            _ = c.witnesses.as_mut().unwrap().item_ends.pop()
        }),
        ("witnesses.item-ends", |c| {
            c.witnesses.as_mut().unwrap().ends.push(3)
        }),
        ("witnesses.ends", |c| {
            c.witnesses.as_mut().unwrap().items.push(3)
        }),
        ("outputs.values", |c| {
            _ = c.outputs.as_mut().unwrap().values.pop()
        }),
        ("outputs.script-ends", |c| {
            c.outputs.as_mut().unwrap().script_ends[0] = 9
        }),
        ("outputs.script-ends", |c| {
            _ = c.outputs.as_mut().unwrap().scripts.pop()
        }),
        ("spent.values", |c| {
            _ = c.spent.as_mut().unwrap().values.pop()
        }),
        ("spent.heights and coinbases", |c| {
            _ = c.spent.as_mut().unwrap().heights.pop()
        }),
        ("spent.heights and coinbases", |c| {
            _ = c.spent.as_mut().unwrap().coinbases.pop()
        }),
        ("spent.script-ends", |c| {
            _ = c.spent.as_mut().unwrap().script_ends.pop()
        }),
        ("spent.script-ends", |c| {
            c.spent.as_mut().unwrap().scripts.push(3)
        }),
    ];
    for (column, spoil) in spoilt {
        let mut columns = sound();
        spoil(&mut columns);
        assert_eq!(
            Columns::new(columns, true).err(),
            Some(Malformed(column)),
            "{column}"
        );
    }
}

#[test]
fn a_block_whose_hash_is_short_is_refused() {
    let header = wire::BlockHeader {
        height: 1,
        hash: vec![1; 31],
        previous: vec![1; 32],
        merkle_root: vec![1; 32],
        version: 1,
        time: 1,
        bits: 1,
        nonce: 1,
        median_time: 1,
        size: 1,
        weight: 1,
    };
    let block = wire::Block {
        header,
        columns: sound(),
        raw: None,
    };
    assert_eq!(
        crate::Block::new(block).err(),
        Some(Malformed("header.hash"))
    );
}

#[test]
fn an_end_before_the_one_in_front_of_it_is_seen_wherever_it_is() {
    for count in [0usize, 1, 2, 15, 16, 17, 18, 31, 32, 33, 34, 100] {
        let mut ends: Vec<u32> = (0..count as u32).map(|end| end * 2).collect();
        assert!(rising(&ends), "{count}");
        for place in 1..count {
            ends[place] -= 3.min(ends[place]);
            assert_eq!(
                rising(&ends),
                ends[place] >= ends[place - 1],
                "{place} of {count}"
            );
            ends[place] = place as u32 * 2;
        }
    }
}
