//! A plugin that traps on the block at the height of its setting `height`, each time that it is given it, and on no other.

use blockmill_sdk::prelude::*;

/// The first height at which it misbehaves, when no setting says otherwise.
const DEFAULT_HEIGHT: u64 = 5;

/// The plugin.
pub struct TrapAt {
    height: u64,
}

impl Processor for TrapAt {
    fn describe() -> Descriptor {
        Descriptor::new("trap-at", env!("CARGO_PKG_VERSION"), "traps on one block")
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        let mut settings = info.settings()?;
        let height = settings.number("height", DEFAULT_HEIGHT)?;
        settings.finish()?;
        Ok(Self { height })
    }

    fn begin_block(&mut self, block: &Block) -> Result<(), BlockError> {
        assert_ne!(
            u64::from(block.height()),
            self.height,
            "a block that this plugin cannot take"
        );
        Ok(())
    }
}

export_plugin!(TrapAt);
