//! A plugin that floods the log in the block at the height of its setting `height`, and in every later one: lines without number, and
//! one without end. The host must keep a few and go on.

use blockmill_sdk::prelude::*;

/// Lines a block.
const LINES: u32 = 10_000;
/// Bytes of the last line.
const LONG_LINE: usize = 1 << 20;

/// The first height at which it misbehaves, when no setting says otherwise.
const DEFAULT_HEIGHT: u64 = 5;

/// The plugin.
pub struct Flood {
    height: u64,
}

impl Processor for Flood {
    fn describe() -> Descriptor {
        Descriptor::new("flood", env!("CARGO_PKG_VERSION"), "floods the log")
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        let mut settings = info.settings()?;
        let height = settings.number("height", DEFAULT_HEIGHT)?;
        settings.finish()?;
        Ok(Self { height })
    }

    fn begin_block(&mut self, block: &Block) -> Result<(), BlockError> {
        if u64::from(block.height()) >= self.height {
            for line in 0..LINES {
                log::warn(format!("line {line} of block {}", block.height()));
            }
            log::warn("x".repeat(LONG_LINE));
        }
        Ok(())
    }
}

export_plugin!(Flood);
