#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::*;
use bitcoin::Block;
use proptest::prelude::*;
use std::path::PathBuf;

/// A file of the public chain data, or none (said in one line) where the folder is missing.
fn chain_data(name: &str) -> Option<Vec<u8>> {
    let folder = std::env::var_os("BLOCKMILL_TEST_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    let path = folder.join("blocks").join(name);
    let data = std::fs::read(&path).ok();
    if data.is_none() {
        eprintln!("skipped: no {}", path.display());
    }
    data
}

/// Holds a frame against the same block as the `bitcoin` crate reads it.
fn agrees(raw: Vec<u8>) -> Frame {
    let block: Block = consensus::deserialize(&raw).unwrap();
    let frame = Frame::decode(raw.into()).unwrap();
    assert_eq!(frame.hash, block.block_hash());
    assert_eq!(frame.tx_count(), block.txdata.len());
    assert_eq!(u64::from(frame.weight()), block.weight().to_wu());
    let columns = &frame.columns;
    let witnesses = columns.witnesses(|i| frame.raw_transaction(i)).unwrap();
    let (mut input, mut output, mut item) = (0, 0, 0);
    let start = |ends: &[u32], i: usize| if i == 0 { 0 } else { ends[i - 1] as usize };
    for (i, tx) in block.txdata.iter().enumerate() {
        assert_eq!(
            columns.txids().nth(i).unwrap(),
            tx.compute_txid().as_byte_array()
        );
        assert_eq!(frame.wtxid(i).unwrap(), tx.compute_wtxid().to_byte_array());
        assert_eq!(columns.transactions.sizes[i] as usize, tx.total_size());
        assert_eq!(
            u64::from(columns.transactions.weights[i]),
            tx.weight().to_wu()
        );
        assert_eq!(
            columns.layouts()[i].stripped_size() as usize,
            tx.base_size()
        );
        assert_eq!(columns.transactions.versions[i], tx.version.0 as u32);
        assert_eq!(
            columns.transactions.lock_times[i],
            tx.lock_time.to_consensus_u32()
        );
        for txin in &tx.input {
            let inputs = &columns.inputs;
            assert_eq!(
                &inputs.prev_txids[input * 32..][..32],
                txin.previous_output.txid.as_byte_array()
            );
            assert_eq!(inputs.prev_vouts[input], txin.previous_output.vout);
            assert_eq!(inputs.sequences[input], txin.sequence.0);
            let script = start(&inputs.script_ends, input)..inputs.script_ends[input] as usize;
            assert_eq!(&inputs.scripts[script], txin.script_sig.as_bytes());
            for element in &txin.witness {
                let bytes = start(&witnesses.ends, item)..witnesses.ends[item] as usize;
                assert_eq!(&witnesses.items[bytes], element);
                item += 1;
            }
            assert_eq!(witnesses.item_ends[input] as usize, item);
            input += 1;
        }
        assert_eq!(columns.transactions.input_ends[i] as usize, input);
        for txout in &tx.output {
            let outputs = &columns.outputs;
            assert_eq!(outputs.values[output], txout.value.to_sat());
            let script = start(&outputs.script_ends, output)..outputs.script_ends[output] as usize;
            assert_eq!(&outputs.scripts[script], txout.script_pubkey.as_bytes());
            output += 1;
        }
        assert_eq!(columns.transactions.output_ends[i] as usize, output);
    }
    frame
}

#[test]
fn the_columns_of_real_blocks_hold_what_the_bitcoin_crate_reads() {
    for (name, txs, inputs, outputs) in [
        ("mainnet-367891.raw", 420, 20_818, 0),
        ("mainnet-413567.raw", 1_557, 4_887, 3_581),
        ("mainnet-800000.raw", 3_721, 4_912, 12_103),
        ("testnet3-924634.raw", 15, 0, 0),
    ] {
        let Some(raw) = chain_data(name) else {
            continue;
        };
        let frame = agrees(raw);
        assert_eq!(frame.tx_count(), txs, "{name}");
        if inputs > 0 {
            assert_eq!(frame.columns.inputs.sequences.len(), inputs, "{name}");
        }
        if outputs > 0 {
            assert_eq!(frame.columns.outputs.values.len(), outputs, "{name}");
        }
    }
}

#[test]
fn the_txids_of_block_800000_are_as_listed() {
    let (Some(raw), Some(listed)) = (
        chain_data("mainnet-800000.raw"),
        chain_data("mainnet-800000.txids.txt"),
    ) else {
        return;
    };
    let frame = Frame::decode(raw.into()).unwrap();
    let listed = String::from_utf8(listed).unwrap();
    let mut count = 0;
    for (txid, line) in frame.columns.txids().zip(listed.lines()) {
        assert_eq!(
            bitcoin::Txid::from_byte_array(*txid).to_string(),
            line.trim()
        );
        count += 1;
    }
    assert_eq!(count, 3_721);
    assert_eq!(frame.weight(), 3_992_881);
}

#[test]
fn a_cut_or_lengthened_block_is_refused_everywhere() {
    let genesis = consensus::serialize(&bitcoin::constants::genesis_block(
        bitcoin::Network::Bitcoin,
    ));
    agrees(genesis.clone());
    for cut in 0..genesis.len() {
        Frame::decode(Bytes::copy_from_slice(&genesis[..cut])).unwrap_err();
    }
    let mut longer = genesis;
    longer.push(0);
    assert_eq!(
        Frame::decode(longer.into()).unwrap_err(),
        DecodeError::Trailing(1)
    );
}

#[test]
fn a_count_that_the_data_cannot_hold_is_refused_before_it_is_allocated() {
    let mut raw = vec![0; HEADER_LEN];
    raw.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let error = Frame::decode(raw.into()).unwrap_err();
    assert_eq!(
        error,
        DecodeError::Count {
            count: u64::MAX,
            at: HEADER_LEN
        }
    );
}

proptest! {
    #[test]
    fn any_bytes_give_an_error_or_a_frame(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Frame::decode(bytes.clone().into());
        let _ = Columns::of_transactions([bytes.as_slice()]);
        let _ = Spent::decode(&bytes);
    }

    #[test]
    fn a_changed_byte_never_panics(at in 0usize..285, value: u8) {
        let mut raw = consensus::serialize(&bitcoin::constants::genesis_block(bitcoin::Network::Bitcoin));
        raw[at] = value;
        let _ = Frame::decode(raw.into());
    }

    #[test]
    fn spent_columns_come_back_as_they_were_kept(
        entries in proptest::collection::vec((any::<u64>(), proptest::collection::vec(any::<u8>(), 0..40), any::<u32>(), 0u8..2), 0..50),
    ) {
        let mut spent = Spent::default();
        for (value, script, height, coinbase) in entries {
            spent.values.push(value);
            spent.scripts.extend(script);
            spent.script_ends.push(spent.scripts.len() as u32);
            spent.heights.push(height);
            spent.coinbases.push(coinbase);
        }
        prop_assert_eq!(Spent::decode(&spent.encode()).unwrap(), spent);
    }
}
