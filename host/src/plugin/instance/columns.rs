//! A block as a plugin gets it: its header and the columns that it asked for.

use super::{BlockInput, processor, wit};
use crate::frame::{Columns, Frame, Spent, Witnesses};
use crate::plugin::descriptor::WantedColumns;
use crate::plugin::error::CallError;
use bitcoin::hashes::Hash;

/// The witnesses of a block or a part of one, for a plugin that asks for them.
pub(super) fn witnesses_of(
    call: &'static str,
    frame: &Frame,
    wanted: WantedColumns,
) -> Result<Option<Witnesses>, CallError> {
    let columns = wanted.witnesses.then(|| {
        frame
            .columns
            .witnesses(|index| frame.raw_transaction(index))
            .map_err(|error| CallError::Host {
                call,
                source: error.into(),
            })
    });
    columns.transpose()
}

/// What a plugin answered to a block, or a part of one, with so many inputs.
pub(super) fn spent_of(
    call: &'static str,
    answer: Result<processor::BlockAnswer, processor::BlockError>,
    inputs: usize,
) -> Result<Option<Spent>, CallError> {
    match answer {
        Ok(processor::BlockAnswer { spent: None }) => Ok(None),
        Ok(processor::BlockAnswer { spent: Some(spent) }) => {
            let spent = Spent {
                values: spent.values,
                script_ends: spent.script_ends,
                scripts: spent.scripts,
                heights: spent.heights,
                coinbases: spent.coinbases,
            };
            spent.check(inputs).map_err(|e| CallError::Answer {
                call,
                reason: e.to_string(),
            })?;
            Ok(Some(spent))
        }
        Err(processor::BlockError::Invalid(reason)) => Err(CallError::Invalid(reason)),
        Err(processor::BlockError::Failed(message)) => Err(CallError::Failed { call, message }),
    }
}

pub(super) fn header<'a>(input: &BlockInput<'a>) -> wit::BlockHeaderParam<'a> {
    let frame = input.frame;
    wit::BlockHeaderParam {
        height: input.position.height,
        hash: frame.hash.as_byte_array(),
        previous: frame.header.prev_blockhash.as_byte_array(),
        merkle_root: frame.header.merkle_root.as_byte_array(),
        version: frame.header.version.to_consensus(),
        time: frame.header.time,
        bits: frame.header.bits.to_consensus(),
        nonce: frame.header.nonce,
        median_time: input.median_time,
        size: frame.size,
        weight: frame.weight(),
    }
}

pub(super) fn columns<'a>(
    columns: &'a Columns,
    wanted: WantedColumns,
    witnesses: Option<&'a Witnesses>,
    spent: Option<&'a Spent>,
) -> wit::Columns<'a> {
    let Columns {
        transactions,
        inputs,
        outputs,
        ..
    } = columns;
    wit::Columns {
        transactions: wit::Transactions {
            txids: &transactions.txids,
            versions: &transactions.versions,
            lock_times: &transactions.lock_times,
            sizes: &transactions.sizes,
            weights: &transactions.weights,
            input_ends: &transactions.input_ends,
            output_ends: &transactions.output_ends,
        },
        inputs: wanted.inputs.then_some(wit::Inputs {
            prev_txids: &inputs.prev_txids,
            prev_vouts: &inputs.prev_vouts,
            sequences: &inputs.sequences,
            script_ends: &inputs.script_ends,
            scripts: &inputs.scripts,
        }),
        witnesses: witnesses.map(|witnesses| wit::Witnesses {
            item_ends: &witnesses.item_ends,
            ends: &witnesses.ends,
            items: &witnesses.items,
        }),
        outputs: wanted.outputs.then_some(wit::Outputs {
            values: &outputs.values,
            script_ends: &outputs.script_ends,
            scripts: &outputs.scripts,
        }),
        spent: spent.filter(|_| wanted.spent).map(|spent| wit::SpentParam {
            values: &spent.values,
            script_ends: &spent.script_ends,
            scripts: &spent.scripts,
            heights: &spent.heights,
            coinbases: &spent.coinbases,
        }),
    }
}
