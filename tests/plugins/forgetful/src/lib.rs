//! A plugin that counts blocks in its own memory and never reads the count back: right until its instance ends. With the
//! setting `keeps` it is the honest one, and with `adds` it counts from another number.

use std::sync::atomic::{AtomicU64, Ordering};

use blockmill_sdk::prelude::*;
use blockmill_sdk::rows::Integer;
use blockmill_sdk::table;

table! {
    /// The count at each block.
    pub table Counts of CountRow: Anchored "forgetful_count" {
        count: Integer,
    }
    key [];
    indexes [];
}

/// Outside of the state: gone with the instance, and not taken back with a block.
static SEEN: AtomicU64 = AtomicU64::new(0);

const COUNT: Single<u64> = Single::new(b"count");

/// The plugin.
pub struct Forgetful {
    keeps: bool,
    adds: u64,
    counts: Counts,
}

impl Processor for Forgetful {
    fn describe() -> Descriptor {
        Descriptor::new(
            "forgetful",
            env!("CARGO_PKG_VERSION"),
            "keeps a count outside of its state",
        )
        .table::<Counts>()
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        let mut settings = info.settings()?;
        let keeps = settings.bool("keeps", false)?;
        let adds = settings.number("adds", 0)?;
        settings.finish()?;
        Ok(Self {
            keeps,
            adds,
            counts: Counts::of::<Self>(),
        })
    }

    fn end_block(&mut self, _block: &Block) -> Result<(), BlockError> {
        let count = match self.keeps {
            true => COUNT.get()?.unwrap_or(self.adds) + 1,
            false => SEEN.fetch_add(1, Ordering::Relaxed) + 1,
        };
        self.counts.clear();
        self.counts.push(CountRow {
            count: i64::try_from(count).unwrap_or(i64::MAX),
        });
        self.counts.flush();
        COUNT.put(&count);
        Ok(())
    }
}

export_plugin!(Forgetful);
