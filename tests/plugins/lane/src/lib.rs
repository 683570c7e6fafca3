//! Counts blocks and writes a row for each, under a name that tests change in the compiled file: of the plugin and of its
//! table. A plugin's name is its own, so one file cannot run in two lanes.

use blockmill_sdk::prelude::*;
use blockmill_sdk::rows::{self, Column, Integer};
use blockmill_sdk::table;

const COUNT: Single<u64> = Single::new(b"calls");

table! {
    /// One row a call.
    pub table Pages of Page: Anchored "lane00" {
        call: Integer,
    }
    key [];
    indexes [];
}

/// What stands in the file, whatever the compiler knew of it.
fn name() -> &'static str {
    std::hint::black_box(<Pages as rows::Table>::NAME)
}

/// The plugin.
pub struct Lane;

impl Processor for Lane {
    fn describe() -> Descriptor {
        let version = env!("CARGO_PKG_VERSION");
        let mut descriptor = Descriptor::new(name(), version, "one of many").table::<Pages>();
        for table in &mut descriptor.tables {
            table.name = name().into();
        }
        descriptor
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        info.settings()?.finish()?;
        Ok(Self)
    }

    fn end_block(&mut self, _block: &Block) -> Result<(), BlockError> {
        let calls = COUNT.get()?.unwrap_or(0);
        COUNT.put(&(calls + 1));
        let mut cells = Default::default();
        <Integer as rows::Kind>::push(&mut cells, calls as i64);
        let columns: [Column; 1] = [<Integer as rows::Kind>::column(&mut cells)];
        rows::append(0, &columns);
        Ok(())
    }

    fn query(&self, _path: &str, _params: &Params) -> Result<Json, QueryError> {
        Ok(json!({ "calls": COUNT.get()? }))
    }
}

export_plugin!(Lane);
