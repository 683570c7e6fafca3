//! Blocks: decoded as a whole and in runs, held against the `bitcoin` crate, and checked as a whole and as a stream.

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Block, Transaction};
use blockmill::chain::block_check::{BlockView, Invalidity, Mutation, merkle_root};
use blockmill::chain::block_stream::{BlockStream, StreamError};
use blockmill::chain::{BadBlock, BlockContext, check_block};
use blockmill::frame::{Columns, Frame, HEADER_LEN, Run, Runs};
use blockmill::network::Network;
use bytes::Bytes;

use super::Verdict;
use crate::{Input, memory, shapes};

/// Flags, the size of a piece, the size of a run, the height; then the block.
pub fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let flags = input.byte();
    let piece = usize::from(input.byte()) + 1;
    let target = usize::from(input.byte()) * 16 + 1;
    let height = u32::from(input.u16());
    let mut raw = input.rest().to_vec();
    if flags & 1 != 0 {
        put_root_right(&mut raw);
    }
    let params = match flags >> 1 & 7 {
        chain @ 0..4 => shapes::CHAINS[usize::from(chain)],
        _ => Network::Mainnet.params(),
    };
    let context = BlockContext {
        params,
        height,
        median_time_past: 1_600_000_000,
    };
    let by_the_crate = deserialize::<Block>(&raw);
    // The columns have an estimate of their own: see `Columns::with_capacity`.
    memory::bounded((1 << 20) + 120 * raw.len(), || {
        let whole = Frame::decode(Bytes::copy_from_slice(&raw));
        match (&whole, &by_the_crate) {
            (Ok(frame), Ok(block)) => {
                columns_fit(frame);
                same_as_the_crate(frame, block);
            }
            // The crate takes a transaction that has no inputs and says so with the marker.
            (Err(_), Ok(block)) => assert!(block.txdata.iter().any(|tx| tx.input.is_empty())),
            (Ok(_), Err(error)) => panic!("decoded what the crate does not: {error}"),
            (Err(_), Err(_)) => {}
        }
        match (&whole, in_runs(&raw, piece, target)) {
            (Ok(frame), Some(runs)) => same_in_runs(frame, &runs),
            (Ok(frame), None) => assert_eq!(frame.tx_count(), 0, "a block, but not in runs"),
            (Err(error), Some(_)) => panic!("a block in runs, but not as a whole: {error}"),
            (Err(_), None) => {}
        }
        let streamed = as_a_stream(&raw, piece, context);
        match &whole {
            Ok(frame) if frame.tx_count() > 0 => {
                let checked = check_block(frame, &context);
                same_verdict(&streamed, &checked);
            }
            _ => assert_eq!(streamed, Err(BadBlock::Mutated(Mutation::Undecodable))),
        }
        Verdict::taken(whole.is_ok())
    })
}

/// Of several broken rules either may name another, but a block is condemned by both or by none.
fn same_verdict(streamed: &Result<(), BadBlock>, whole: &Result<(), BadBlock>) {
    match (streamed, whole) {
        (Err(BadBlock::Invalid(_)), Err(BadBlock::Invalid(_))) => {}
        // A signet's solution is looked at before the witnesses here, and behind them there.
        (Err(BadBlock::Invalid(Invalidity::Signet(_))), Err(BadBlock::Mutated(_))) => {}
        _ => assert_eq!(streamed, whole, "as a stream, as a whole"),
    }
}

/// Without the right merkle root every check ends at once.
fn put_root_right(raw: &mut [u8]) {
    if let Ok(frame) = Frame::decode(Bytes::copy_from_slice(raw))
        && frame.tx_count() > 0
    {
        let root = merkle_root(frame.columns.txids().copied().collect()).root;
        raw[36..68].copy_from_slice(&root);
    }
}

/// Every column has the length that another claims.
fn columns_fit(frame: &Frame) {
    let Columns {
        transactions,
        inputs,
        outputs,
        ..
    } = &frame.columns;
    let count = frame.tx_count();
    assert_eq!(transactions.txids.len(), 32 * count);
    for column in [
        &transactions.versions,
        &transactions.lock_times,
        &transactions.sizes,
        &transactions.weights,
        &transactions.input_ends,
        &transactions.output_ends,
    ] {
        assert_eq!(column.len(), count);
    }
    let all_inputs = transactions
        .input_ends
        .last()
        .map_or(0, |end| *end as usize);
    let all_outputs = transactions
        .output_ends
        .last()
        .map_or(0, |end| *end as usize);
    assert!(transactions.input_ends.is_sorted() && transactions.output_ends.is_sorted());
    assert_eq!(inputs.prev_txids.len(), 32 * all_inputs);
    assert_eq!(inputs.prev_vouts.len(), all_inputs);
    assert_eq!(inputs.sequences.len(), all_inputs);
    ends_fit(&inputs.script_ends, all_inputs, inputs.scripts.len());
    assert_eq!(outputs.values.len(), all_outputs);
    ends_fit(&outputs.script_ends, all_outputs, outputs.scripts.len());
    let witnesses = frame
        .columns
        .witnesses(|index| frame.raw_transaction(index))
        .expect("decoded before");
    ends_fit(&witnesses.item_ends, all_inputs, witnesses.ends.len());
    ends_fit(&witnesses.ends, witnesses.ends.len(), witnesses.items.len());
    assert!(frame.footprint() <= (1 << 12) + 60 * frame.raw.len());
}

fn ends_fit(ends: &[u32], count: usize, length: usize) {
    assert_eq!(ends.len(), count);
    assert!(ends.is_sorted());
    assert_eq!(ends.last().map_or(0, |end| *end as usize), length);
}

fn same_as_the_crate(frame: &Frame, block: &Block) {
    assert_eq!(frame.header, block.header);
    assert_eq!(frame.hash, block.block_hash());
    assert_eq!(frame.tx_count(), block.txdata.len());
    assert_eq!(u64::from(frame.weight()), block.weight().to_wu());
    for (index, tx) in block.txdata.iter().enumerate() {
        assert_eq!(
            BlockView::txid(frame, index),
            tx.compute_txid().to_byte_array()
        );
        assert_eq!(frame.wtxid(index), Some(tx.compute_wtxid().to_byte_array()));
        assert_eq!(frame.raw_transaction(index), Some(serialize(tx).as_slice()));
        let weight = frame.columns.transactions.weights[index];
        assert_eq!(u64::from(weight), tx.weight().to_wu());
        for (input, at) in tx.input.iter().zip(frame.inputs(index)) {
            assert_eq!(
                frame.prev_txid(at),
                input.previous_output.txid.as_byte_array()
            );
            assert_eq!(frame.prev_vout(at), input.previous_output.vout);
            assert_eq!(frame.sequence(at), input.sequence.to_consensus_u32());
            assert_eq!(frame.script_sig(at), input.script_sig.as_bytes());
        }
        for (output, at) in tx.output.iter().zip(frame.outputs(index)) {
            assert_eq!(frame.value(at), output.value.to_sat());
            assert_eq!(frame.script_pubkey(at), output.script_pubkey.as_bytes());
        }
        assert_eq!(frame.inputs(index).len(), tx.input.len());
        assert_eq!(frame.outputs(index).len(), tx.output.len());
    }
    let alone = block.txdata.iter().map(serialize::<Transaction>);
    let alone: Vec<Vec<u8>> = alone.collect();
    let columns = Columns::of_transactions(alone.iter().map(Vec::as_slice)).expect("whole");
    assert_eq!(columns.transactions.txids, frame.columns.transactions.txids);
    assert_eq!(columns.inputs.scripts, frame.columns.inputs.scripts);
    assert_eq!(columns.outputs.values, frame.columns.outputs.values);
}

fn in_runs(raw: &[u8], piece: usize, target: usize) -> Option<Vec<Run>> {
    let mut cut = Runs::new(raw.len() as u64, target, 1 << 20);
    let mut runs = Vec::new();
    for piece in raw.chunks(piece) {
        cut.push(piece).ok()?;
        while let Some(run) = cut.next().ok()? {
            runs.push(run);
        }
    }
    cut.is_finished().then_some(runs)
}

fn same_in_runs(frame: &Frame, runs: &[Run]) {
    let mut first = 0;
    let mut bytes = Vec::new();
    for (at, run) in runs.iter().enumerate() {
        columns_fit(&run.frame);
        assert_eq!((run.first, run.of as usize), (first, frame.tx_count()));
        assert_eq!(
            (run.frame.hash, run.frame.header),
            (frame.hash, frame.header)
        );
        assert_eq!(run.last, at + 1 == runs.len());
        for tx in 0..run.frame.tx_count() {
            let whole = first as usize + tx;
            assert_eq!(
                BlockView::txid(&run.frame, tx),
                BlockView::txid(frame, whole)
            );
        }
        first += run.frame.tx_count() as u32;
        bytes.extend_from_slice(&run.frame.raw);
    }
    assert_eq!(first as usize, frame.tx_count());
    assert!(frame.raw.ends_with(&bytes) && frame.raw.len() <= bytes.len() + HEADER_LEN + 9);
}

fn as_a_stream(raw: &[u8], piece: usize, context: BlockContext) -> Result<(), BadBlock> {
    let mut stream = BlockStream::new(context, raw.len() as u64, 1 << 20);
    for piece in raw.chunks(piece) {
        match stream.push(piece) {
            Ok(()) => {}
            Err(StreamError::Bad(bad)) => return Err(bad),
            Err(StreamError::TransactionTooLong(length)) => panic!("{length} bytes"),
        }
    }
    stream.finish().map(drop)
}
