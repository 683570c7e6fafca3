// The diary in all its versions, included by their crates: a row for every block that it is given, with the number of
// the call by its own count, which is in its state. A block that is skipped or given twice shows in the numbers.

use blockmill_sdk::prelude::*;
use blockmill_sdk::rows::Integer;
use blockmill_sdk::table;

/// The plugin.
pub struct Diary {
    pages: Pages,
    colour: u64,
    toil: u64,
}

impl Processor for Diary {
    fn describe() -> Descriptor {
        Descriptor::new("diary", env!("CARGO_PKG_VERSION"), "a row for every call")
            .state_version(STATE_VERSION)
            .table::<Pages>()
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        let mut settings = info.settings()?;
        // Only there to be changed.
        let colour = settings.number("colour", 0)?;
        // Thousands of steps that do nothing but take time, for each block.
        let toil = settings.number("toil", 0)?;
        settings.finish()?;
        Ok(Self {
            pages: Pages::of::<Self>(),
            colour,
            toil,
        })
    }

    fn migrate(from: u32) -> Result<bool, String> {
        if !MIGRATES || from != 1 {
            return Ok(false);
        }
        let calls = Single::<u64>::new(b"calls").get()?.ok_or("no calls")?;
        COUNT.put(&calls);
        state::delete(b"calls");
        Ok(true)
    }

    fn end_block(&mut self, _block: &Block) -> Result<(), BlockError> {
        if TRAPS {
            panic!("torn out");
        }
        if ENDLESS {
            loop {
                std::hint::black_box(());
            }
        }
        for step in 0..self.toil * 1_000 {
            std::hint::black_box(step);
        }
        self.pages.clear();
        let calls = COUNT.get()?.unwrap_or(0);
        COUNT.put(&(calls + 1));
        self.pages.push(Page {
            call: calls as i64 + SHIFT,
        });
        self.pages.flush();
        Ok(())
    }

    fn query(&self, _path: &str, _params: &Params) -> Result<Json, QueryError> {
        Ok(json!({ "state_version": STATE_VERSION, "calls": COUNT.get()?, "colour": self.colour }))
    }
}

export_plugin!(Diary);
