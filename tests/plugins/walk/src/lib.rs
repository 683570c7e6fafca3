//! A plugin that walks every input and output of a block and does next to nothing with them: what the way into the sandbox
//! and the SDK's views cost. The benchmark runs [`walk`] natively too.

use blockmill_sdk::prelude::*;

/// State key of the last block's sum, written when the setting `report` is on.
pub const SUM: &[u8] = b"sum";

/// The plugin.
pub struct Walk {
    /// Whether the sum goes to the state: on for checking, off for measuring.
    report: bool,
}

impl Processor for Walk {
    fn describe() -> Descriptor {
        Descriptor::new(
            "walk",
            env!("CARGO_PKG_VERSION"),
            "walks every input and output",
        )
        .wants(WantedColumns::INPUTS | WantedColumns::OUTPUTS)
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        let mut settings = info.settings()?;
        let report = settings.bool("report", false)?;
        settings.finish()?;
        Ok(Self { report })
    }

    fn on_block(&mut self, block: &Block) -> Result<BlockAnswer, BlockError> {
        let sum = std::hint::black_box(walk(block));
        if self.report {
            state::put(SUM, &sum.to_le_bytes());
        }
        Ok(BlockAnswer::none())
    }
}

/// Looks at every field of every input and output, and sums up what it sees.
pub fn walk(block: &Block) -> u64 {
    let mut sum = 0u64;
    for transaction in block.transactions() {
        for input in transaction.inputs() {
            let previous = input.previous();
            sum = sum.wrapping_add(
                u64::from(previous.vout)
                    + u64::from(input.sequence())
                    + input.script().len() as u64
                    + u64::from(previous.txid.first().copied().unwrap_or_default()),
            );
        }
        for output in transaction.outputs() {
            let script = output.script();
            sum = sum.wrapping_add(
                output.value()
                    + script.len() as u64
                    + u64::from(script.first().copied().unwrap_or_default()),
            );
        }
    }
    sum
}

export_plugin!(Walk);
