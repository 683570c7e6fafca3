//! A plugin that allocates memory for ever in the block at the height of its setting `height`, and in every later one. Its memory
//! limit must end it.

use blockmill_sdk::prelude::*;

/// Bytes taken at a time.
const CHUNK: usize = 1 << 20;

/// The first height at which it misbehaves, when no setting says otherwise.
const DEFAULT_HEIGHT: u64 = 5;

/// The plugin.
pub struct Hoard {
    height: u64,
}

impl Processor for Hoard {
    fn describe() -> Descriptor {
        Descriptor::new(
            "hoard",
            env!("CARGO_PKG_VERSION"),
            "allocates memory without end",
        )
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        let mut settings = info.settings()?;
        let height = settings.number("height", DEFAULT_HEIGHT)?;
        settings.finish()?;
        Ok(Self { height })
    }

    fn begin_block(&mut self, block: &Block) -> Result<(), BlockError> {
        let mut hoard = Vec::new();
        while u64::from(block.height()) >= self.height {
            // Touched, so that it is memory and not only an address range.
            hoard.push(std::hint::black_box(vec![1_u8; CHUNK]));
        }
        Ok(())
    }
}

export_plugin!(Hoard);
