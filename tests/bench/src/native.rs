//! Plugins outside of their sandbox, on the same stores.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use bitcoin::hashes::Hash;
use blockmill::frame::{Frame, Spent};
use blockmill::network::{Network, Params};
use blockmill::plugin::LaneSpace;
use blockmill::store::{self, ColumnData, ValueColumn};
use blockmill_sdk::bindings::blockmill::plugin::rows::{Cells, Column};
use blockmill_sdk::bindings::blockmill::plugin::state::{FoundValues, Keys, Page};
use blockmill_sdk::testing::native::{Functions, install};
use blockmill_sdk::{Block, Pieces, Processor, StartInfo, WantedColumns, log, wire};

use crate::lane::{close_block, open_block, position};

/// The host's functions over the host's stores, with the copies that the sandbox makes left out.
struct Host {
    space: LaneSpace,
    volatile: HashMap<Vec<u8>, Vec<u8>>,
    values: HashMap<String, f64>,
    height: u32,
    /// The first thing that went wrong.
    fault: Option<anyhow::Error>,
}

/// A plugin compiled into this program, and its stores.
pub struct NativeLane<P> {
    plugin: P,
    host: Rc<RefCell<Host>>,
}

impl<P: Processor> NativeLane<P> {
    /// A plugin, started.
    pub fn new(space: LaneSpace) -> Result<Self> {
        let host = Rc::new(RefCell::new(Host {
            space,
            volatile: HashMap::new(),
            values: HashMap::new(),
            height: 0,
            fault: None,
        }));
        install(Some(host.clone()));
        host.borrow_mut().space.state.begin_block();
        let plugin = P::start(&StartInfo {
            settings: "{}".into(),
            height: None,
        });
        host.borrow_mut().space.state.commit_start();
        install(None);
        Ok(Self {
            plugin: plugin.map_err(|error| anyhow!(error))?,
            host,
        })
    }

    /// Gives a block: how long its checks and the call took.
    pub fn block(&mut self, height: u32, frame: &Frame, spent: Option<&Spent>) -> Result<Duration> {
        let given = wire(height, frame, spent, P::describe().columns);
        open_block(&mut self.host.borrow_mut().space);
        self.host.borrow_mut().height = height;
        install(Some(self.host.clone()));
        let start = Instant::now();
        let answer = Block::new(given)
            .map_err(|error| error.to_string())
            .and_then(|block| {
                self.plugin
                    .on_block(&block)
                    .map_err(|error| format!("{error:?}"))
            });
        let took = start.elapsed();
        install(None);
        let mut host = self.host.borrow_mut();
        if let Some(fault) = host.fault.take() {
            return Err(fault);
        }
        answer.map_err(|error| anyhow!(error))?;
        close_block(&mut host.space, position(height, frame))?;
        Ok(took)
    }
}

/// A block as the SDK shows it to a plugin that asks for inputs and outputs.
pub fn block(height: u32, frame: &Frame) -> Result<Block> {
    let wanted = WantedColumns::INPUTS | WantedColumns::OUTPUTS;
    Ok(Block::new(wire(height, frame, None, wanted))?)
}

/// A block as it crosses the boundary.
fn wire(height: u32, frame: &Frame, spent: Option<&Spent>, wanted: WantedColumns) -> wire::Block {
    let t = &frame.columns.transactions;
    let i = &frame.columns.inputs;
    let o = &frame.columns.outputs;
    let header = &frame.header;
    wire::Block {
        header: wire::BlockHeader {
            height,
            hash: frame.hash.to_byte_array().to_vec(),
            previous: header.prev_blockhash.to_byte_array().to_vec(),
            merkle_root: header.merkle_root.to_byte_array().to_vec(),
            version: header.version.to_consensus(),
            time: header.time,
            bits: header.bits.to_consensus(),
            nonce: header.nonce,
            median_time: header.time,
            size: frame.size,
            weight: frame.weight(),
        },
        columns: wire::Columns {
            transactions: wire::Transactions {
                txids: t.txids.clone(),
                versions: t.versions.clone(),
                lock_times: t.lock_times.clone(),
                sizes: t.sizes.clone(),
                weights: t.weights.clone(),
                input_ends: t.input_ends.clone(),
                output_ends: t.output_ends.clone(),
            },
            inputs: wanted
                .contains(WantedColumns::INPUTS)
                .then(|| wire::Inputs {
                    prev_txids: i.prev_txids.clone(),
                    prev_vouts: i.prev_vouts.clone(),
                    sequences: i.sequences.clone(),
                    script_ends: i.script_ends.clone(),
                    scripts: i.scripts.clone(),
                }),
            witnesses: None,
            outputs: wanted
                .contains(WantedColumns::OUTPUTS)
                .then(|| wire::Outputs {
                    values: o.values.clone(),
                    script_ends: o.script_ends.clone(),
                    scripts: o.scripts.clone(),
                }),
            spent: spent
                .filter(|_| wanted.contains(WantedColumns::SPENT))
                .map(|spent| wire::Spent {
                    values: spent.values.clone(),
                    script_ends: spent.script_ends.clone(),
                    scripts: spent.scripts.clone(),
                    heights: spent.heights.clone(),
                    coinbases: spent.coinbases.clone(),
                }),
        },
        raw: None,
    }
}

impl Host {
    /// Remembers what went wrong: the plugin's functions have no errors.
    fn keep<T>(&mut self, result: Result<T, impl Into<anyhow::Error>>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault.get_or_insert(error.into());
                None
            }
        }
    }
}

fn keys(keys: &Keys) -> store::Keys<'_> {
    match keys.width {
        0 => store::Keys::ends(&keys.ends, &keys.bytes),
        width => store::Keys::fixed(width as usize, &keys.bytes),
    }
}

fn found(column: ValueColumn) -> FoundValues {
    FoundValues {
        found: column.found,
        ends: column.ends,
        bytes: column.values,
    }
}

fn column(column: &Column) -> store::Column {
    let data = match &column.cells {
        Cells::Integers(values) => ColumnData::Integers(values.clone()),
        Cells::Reals(values) => ColumnData::Reals(values.clone()),
        Cells::Texts(pieces) => ColumnData::Texts {
            ends: pieces.ends.clone(),
            bytes: pieces.bytes.clone(),
        },
        Cells::Blobs(pieces) => ColumnData::Blobs {
            ends: pieces.ends.clone(),
            bytes: pieces.bytes.clone(),
        },
        Cells::Hashes(bytes) => {
            let mut bytes = bytes.clone();
            for hash in bytes.as_chunks_mut::<32>().0 {
                hash.reverse();
            }
            ColumnData::Hashes(bytes)
        }
    };
    store::Column {
        data,
        nulls: (!column.nulls.is_empty()).then(|| column.nulls.clone()),
    }
}

impl Functions for Host {
    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self
            .space
            .state
            .get(key)
            .map(|value| value.map(|v| v.to_vec()));
        self.keep(value).flatten()
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        let done = self.space.state.put(key, value);
        self.keep(done);
    }

    fn delete(&mut self, key: &[u8]) {
        let done = self.space.state.delete(key);
        self.keep(done);
    }

    fn take(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self
            .space
            .state
            .take(key)
            .map(|value| value.map(|v| v.to_vec()));
        self.keep(value).flatten()
    }

    fn get_many(&mut self, asked: &Keys) -> FoundValues {
        let mut out = ValueColumn::default();
        let done = self.space.state.get_many(keys(asked), &mut out);
        self.keep(done);
        found(out)
    }

    fn put_many(&mut self, asked: &Keys, values: &Pieces) {
        let values = store::Values::ends(&values.ends, &values.bytes);
        let done = self.space.state.put_many(keys(asked), values);
        self.keep(done);
    }

    fn delete_many(&mut self, asked: &Keys) {
        let done = self.space.state.delete_many(keys(asked));
        self.keep(done);
    }

    fn take_many(&mut self, asked: &Keys) -> FoundValues {
        let mut out = ValueColumn::default();
        let done = self.space.state.take_many(keys(asked), &mut out);
        self.keep(done);
        found(out)
    }

    fn scan(&mut self, prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Page {
        let page = self
            .space
            .state
            .scan(prefix, after, limit.min(10_000) as usize, 4 << 20);
        let page = self.keep(page).unwrap_or_default();
        Page {
            keys: Pieces {
                ends: page.key_ends,
                bytes: page.keys,
            },
            values: Pieces {
                ends: page.value_ends,
                bytes: page.values,
            },
            more: page.more,
        }
    }

    fn volatile_get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.volatile.get(key).cloned()
    }

    fn volatile_put(&mut self, key: &[u8], value: &[u8]) {
        self.volatile.insert(key.to_vec(), value.to_vec());
    }

    fn volatile_delete(&mut self, key: &[u8]) {
        self.volatile.remove(key);
    }

    fn append(&mut self, table: u32, columns: &[Column]) {
        let columns: Vec<store::Column> = columns.iter().map(column).collect();
        let done = self
            .space
            .rows
            .append(table as usize, self.height, &columns);
        self.keep(done);
    }

    fn put_rows(&mut self, table: u32, columns: &[Column]) {
        let done = self
            .space
            .rows
            .put(table as usize, columns.iter().map(column).collect());
        self.keep(done);
    }

    fn delete_rows(&mut self, table: u32, key: &[Column]) {
        let done = self
            .space
            .rows
            .delete(table as usize, key.iter().map(column).collect());
        self.keep(done);
    }

    fn set_value(&mut self, name: &str, value: f64) {
        self.values.insert(name.to_owned(), value);
    }

    fn push_value(&mut self, name: &str, value: f64) {
        self.values.insert(name.to_owned(), value);
    }

    fn log(&mut self, _level: log::Level, _message: &str) {}

    fn network(&mut self) -> String {
        Network::Regtest.name().to_owned()
    }

    fn subsidy(&mut self, height: u32) -> u64 {
        Params::of(Network::Regtest).subsidy(height)
    }

    fn header(&mut self, _height: u32) -> Option<wire::BlockHeader> {
        // Asked for in blocks only after a long silence, which a benchmark does not have.
        None
    }
}
