//! What both plugins do.

use blockmill_sdk::prelude::*;
use blockmill_sdk::rows::Integer;
use blockmill_sdk::table;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::hint::black_box;

/// State key of the number of blocks.
const COUNT: &[u8] = b"count";
/// First byte of the state keys of what was seen of the last blocks.
const SEEN: u8 = b'h';
/// Blocks of which something is kept.
const KEPT: u32 = 10;
/// More than any limit in the tests.
const MANY: u32 = 5_000;
/// Memory that is taken and given back with every block.
const SCRATCH: usize = 1 << 20;

table! {
    /// One row a block.
    pub table Blocks of BlockRow: Anchored "ledger_block" {
        position: Integer,
        seen: Integer,
    }
    key [position];
    indexes [];
}

/// The plugin.
pub struct Ledger {
    height: u64,
    fault: String,
    blocks: Blocks,
}

/// The standard map, but for its seed: that counts the maps that an instance has made, and an instance begins anew at a restart.
type Map = HashMap<u32, u32, BuildHasherDefault<DefaultHasher>>;

/// What a machine could answer differently from another: the bits of NaNs, and the order of a hash map.
fn peculiar(seed: u32) -> u64 {
    let zero = f64::from(black_box(seed)) * 0.0;
    let nans = [
        black_box(zero) / zero,
        -(black_box(zero) / zero),
        (-1.0 - zero).sqrt(),
        black_box(f64::INFINITY) - f64::INFINITY + zero,
        f64::from_bits(0x7ff4_0000_0000_1234) + zero,
        f64::from_bits(0xfff8_0000_0000_4321) * 1.5,
    ];
    let map: Map = (0..100).map(|key| (key ^ seed, key)).collect();
    let order = map.into_iter().flat_map(|(key, value)| [key, value]);
    let scratch = black_box(vec![seed as u8; SCRATCH]);
    nans.into_iter()
        .map(|nan| black_box(nan).to_bits())
        .chain(order.map(u64::from))
        .chain(scratch.last().map(|&last| u64::from(last)))
        .fold(0xcbf2_9ce4_8422_2325, |hash, word| {
            (hash ^ word).wrapping_mul(0x0100_0000_01b3)
        })
}

fn seen_key(height: u32) -> [u8; 5] {
    let [a, b, c, d] = height.to_be_bytes();
    [SEEN, a, b, c, d]
}

impl Ledger {
    fn fail(&mut self, height: u32) {
        match self.fault.as_str() {
            "trap" => deep_trap(height),
            "keys" => (0..MANY).for_each(|key| state::put(&key.to_be_bytes(), b"")),
            "state" => state::put(b"large", &vec![0; MANY as usize * 100]),
            "rows" => (0..i64::from(MANY)).for_each(|position| {
                self.blocks.push(BlockRow { position, seen: 0 });
            }),
            "twice" => self.blocks.push(BlockRow {
                position: 0,
                seen: 1,
            }),
            _ => {}
        }
    }
}

/// A function whose name is looked for in the backtrace.
#[inline(never)]
fn deep_trap(height: u32) {
    assert_eq!(
        black_box(height),
        u32::MAX,
        "a block that this plugin cannot take"
    );
}

impl Processor for Ledger {
    fn describe() -> Descriptor {
        Descriptor::new("ledger", env!("CARGO_PKG_VERSION"), "fails as it is told")
            .wants_mempool()
            .table::<Blocks>()
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        let mut settings = info.settings()?;
        let height = settings.number("height", u64::from(u32::MAX))?;
        let fault = settings.text("fault", "")?;
        settings.finish()?;
        Ok(Self {
            height,
            fault,
            blocks: Blocks::of::<Self>(),
        })
    }

    fn begin_block(&mut self, block: &Block) -> Result<(), BlockError> {
        let height = block.height();
        log::debug(format!("block {height}"));
        let count = state::get(COUNT)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u64::from_le_bytes);
        state::put(COUNT, &(count + 1).to_le_bytes());
        let page = state::scan(&[SEEN], None, KEPT);
        let earlier: u64 = page
            .iter()
            .map(|(_, value)| u64::from(value.first().copied().unwrap_or_default()))
            .sum();
        let seen = peculiar(height).wrapping_add(earlier);
        state::put(&seen_key(height), &seen.to_le_bytes());
        if let Some(old) = height.checked_sub(KEPT) {
            state::take(&seen_key(old));
        }
        self.blocks.push(BlockRow {
            position: 0,
            seen: (seen >> 1) as i64,
        });
        if crate::FAULTY && u64::from(height) == self.height {
            self.fail(height);
        }
        self.blocks.flush();
        Ok(())
    }

    fn on_mempool(&mut self, changes: &MempoolChanges) -> Result<(), String> {
        let count = changes.added().count();
        if crate::FAULTY && self.fault == "pool" && count > 0 {
            // What it reads is part of how it fails.
            deep_trap(state::get(COUNT).map_or(0, |bytes| bytes.len() as u32));
        }
        Ok(())
    }

    fn query(&self, path: &str, params: &Params) -> Result<Json, QueryError> {
        match path {
            // All of the state: what it must be the same as on any machine.
            "state" => {
                let mut all = Vec::new();
                state::scan_all(b"", |key, value| {
                    all.push(format!("{}={}", hex::encode(key), hex::encode(value)));
                    true
                });
                Ok(json!(all))
            }
            "spin" if crate::FAULTY => loop {
                black_box(state::get(COUNT));
            },
            "large" => {
                let bytes = params.number::<usize>("bytes")?.unwrap_or(0);
                Ok(json!("x".repeat(bytes)))
            }
            _ => Ok(json!({ "count": state::get(COUNT).and_then(|count| count.first().copied()) })),
        }
    }
}
