//! A plugin that loops for ever in the block at the height of its setting `height`, and in every later one. Its time limit must
//! end it.

use blockmill_sdk::prelude::*;

/// The first height at which it misbehaves, when no setting says otherwise.
const DEFAULT_HEIGHT: u64 = 5;

/// The plugin.
pub struct Spin {
    height: u64,
}

impl Processor for Spin {
    fn describe() -> Descriptor {
        Descriptor::new(
            "spin",
            env!("CARGO_PKG_VERSION"),
            "never comes back from a block",
        )
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        let mut settings = info.settings()?;
        let height = settings.number("height", DEFAULT_HEIGHT)?;
        settings.finish()?;
        Ok(Self { height })
    }

    fn begin_block(&mut self, block: &Block) -> Result<(), BlockError> {
        while u64::from(block.height()) >= self.height {
            std::hint::spin_loop();
        }
        Ok(())
    }
}

export_plugin!(Spin);
