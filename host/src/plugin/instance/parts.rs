//! A block that is given in parts, because it is too large to be held.

use super::{
    BlockInput, CallError, Clock, Instance, Phase, WantedColumns, columns, header, processor, wit,
    witnesses_of,
};
use crate::frame::Spent;
use std::time::Duration;

/// The interface that a plugin may export to take large blocks in parts.
const PARTS: &str = "blockmill:plugin/parts@0.1.2";

/// Time of `takes-parts`, which has nothing to do but to answer.
const ASK_TIME: Duration = Duration::from_secs(2);

/// Where a part stands in its block.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Transactions before it.
    pub first: u32,
    /// Transactions of the whole block.
    pub transactions: u32,
    pub last: bool,
    /// Bytes of the whole block.
    pub size: u32,
    /// Weight units of the whole block, with the last part; 0 before.
    pub weight: u32,
}

impl Instance {
    fn export_of_parts(&mut self, name: &str) -> Option<wasmtime::component::ComponentExportIndex> {
        let raw = self.raw;
        let interface = raw.get_export_index(&mut self.store, None, PARTS)?;
        raw.get_export_index(&mut self.store, Some(&interface), name)
    }

    /// Asks a plugin whether it takes parts; one that does not know of them does not.
    pub(super) fn takes_parts(&mut self) -> Result<bool, CallError> {
        const CALL: &str = "takes-parts";
        let Some(export) = self.export_of_parts(CALL) else {
            return Ok(false);
        };
        let raw = self.raw;
        self.call(CALL, Phase::Describe, Clock::new(ASK_TIME), |_, store| {
            let asked = raw.get_typed_func::<(), (bool,)>(&mut *store, export)?;
            Ok(asked.call(&mut *store, ())?.0)
        })
    }

    /// Gives a part of a block. The caller opens the block in the state and the rows before the first part, and closes it after
    /// the last.
    ///
    /// # Errors
    ///
    /// When the call fails; the block's changes must then be dropped, and so must the instance.
    pub fn on_part(
        &mut self,
        input: &BlockInput<'_>,
        place: &Place,
        wanted: WantedColumns,
    ) -> Result<Option<Spent>, CallError> {
        const CALL: &str = "on-part";
        let Some(export) = self.export_of_parts(CALL) else {
            return Err(CallError::Failed {
                call: CALL,
                message: "the plugin has no such export".to_owned(),
            });
        };
        let frame = input.frame;
        let witnesses = witnesses_of(CALL, frame, wanted)?;
        let part = wit::Block {
            header: wit::BlockHeaderParam {
                size: place.size,
                weight: place.weight,
                ..header(input)
            },
            columns: columns(&frame.columns, wanted, witnesses.as_ref(), input.spent),
            raw: wanted.raw.then_some(&frame.raw[..]),
        };
        self.store.data_mut().position = Some(input.position);
        let phase = Phase::Block {
            height: input.position.height,
            time: frame.header.time,
        };
        let clock = Clock::new(self.store.data().limits.block_time);
        let raw = self.raw;
        let answer = self.call(CALL, phase, clock, |_, store| {
            let part_of = raw.get_typed_func::<
                (wit::Block<'_>, u32, u32, bool),
                (Result<processor::BlockAnswer, processor::BlockError>,),
            >(&mut *store, export)?;
            let given = (part, place.first, place.transactions, place.last);
            Ok(part_of.call(&mut *store, given)?.0)
        })?;
        super::spent_of(CALL, answer, frame.columns.inputs.prev_vouts.len())
    }
}
