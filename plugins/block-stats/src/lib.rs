//! What blocks and days are made of: fee rates, kinds of scripts, the share of witnesses.
//!
//! Fee rates are those of Bitcoin Core's `getblockstats`: whole sat per vbyte, the percentiles by weight. The coinbase
//! counts in `txs`, `outputs` and the kinds of scripts, and in nothing else, as there.
//!
//! ```text
//! rows    block_stats   one row a block
//!         day_stats     one row a day, written by the first block of a later day
//! state   'B' height → Stats    of the last 2,016 blocks
//!         'D' day    → Stats    of every day
//!         'R' day    → fee rates and the weight that paid each of them, of the day that is not over
//! query   block?height=    day?date=2024-01-31    days?after=2024-01-31&limit=    status
//! ```
//!
//! A block belongs to the day (UTC) of its median time, which never falls along a chain: a day that is over stays as it is.

use blockmill_sdk::prelude::*;
use blockmill_sdk::rows::{Amount, Integer, Real, Text, Time};
use blockmill_sdk::script::Kind;
use blockmill_sdk::{record, sort, table};

/// Blocks that `block` can be asked about; rows hold all of them.
const KEPT: u32 = 2_016;

/// Days of one answer where `limit` does not say, and the most.
const DEFAULT_DAYS: u32 = 31;
const MAX_DAYS: u32 = 366;

record! {
    /// What is counted, of a block or of a day.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct Stats: Value {
        pub blocks: u64,
        pub txs: u64,
        /// Transactions with a witness.
        pub segwit_txs: u64,
        pub inputs: u64,
        pub outputs: u64,
        /// Bytes, with witnesses.
        pub size: u64,
        /// Weight units.
        pub weight: u64,
        /// Bytes of witnesses, with the two bytes that announce them in a transaction.
        pub witness_bytes: u64,
        /// sat.
        pub fees: u64,
        /// sat/vB, by weight: percentiles 10, 25, 50, 75 and 90.
        pub fee_rates: [u64; 5],
        /// sat/vB.
        pub min_fee_rate: u64,
        pub max_fee_rate: u64,
        /// Outputs of each kind, in the order of [`Kind::ALL`].
        pub kinds: [u64; 9],
    }
}

/// Fee rates in sat/vB, and how many weight units pay each.
pub type Rates = Vec<(u64, u64)>;

/// The statistics of the last blocks, by height.
const BLOCKS: Map<u32, Stats> = Map::new(b"B");
/// Those of every day, by number of days since 1970.
const DAYS: Map<u32, Stats> = Map::new(b"D");
/// The fee rates of the day that is not over.
const RATES: Map<u32, Rates> = Map::new(b"R");

/// Declares a table with the columns that blocks and days have in common, and how its rows are filled.
macro_rules! stats_table {
    ($(#[$doc:meta])* $table:ident, $row:ident, $name:literal, $own:ident: $of:ty, [$($key:ident),*]) => {
        table! {
            $(#[$doc])*
            pub table $table of $row: Anchored $name {
                $own: $of,
                blocks: Integer,
                txs: Integer,
                segwit_txs: Integer,
                inputs: Integer,
                outputs: Integer,
                size: Integer,
                weight: Integer,
                witness_bytes: Integer,
                witness_share: Real,
                fees: Amount,
                fee_rate_min: Integer,
                fee_rate_10: Integer,
                fee_rate_25: Integer,
                fee_rate_50: Integer,
                fee_rate_75: Integer,
                fee_rate_90: Integer,
                fee_rate_max: Integer,
                p2pk: Integer,
                p2pkh: Integer,
                p2sh: Integer,
                p2wpkh: Integer,
                p2wsh: Integer,
                p2tr: Integer,
                multisig: Integer,
                op_return: Integer,
                other: Integer,
            }
            key [$($key),*];
            indexes [];
        }

        impl $table {
            fn write(&mut self, $own: <$of as blockmill_sdk::rows::Kind>::Value<'_>, stats: &Stats) {
                let [fee_rate_10, fee_rate_25, fee_rate_50, fee_rate_75, fee_rate_90] =
                    stats.fee_rates.map(|rate| rate as i64);
                let [p2pk, p2pkh, p2sh, p2wpkh, p2wsh, p2tr, multisig, op_return, other] =
                    stats.kinds.map(|outputs| outputs as i64);
                self.push($row {
                    $own,
                    blocks: stats.blocks as i64,
                    txs: stats.txs as i64,
                    segwit_txs: stats.segwit_txs as i64,
                    inputs: stats.inputs as i64,
                    outputs: stats.outputs as i64,
                    size: stats.size as i64,
                    weight: stats.weight as i64,
                    witness_bytes: stats.witness_bytes as i64,
                    witness_share: stats.witness_share(),
                    fees: stats.fees,
                    fee_rate_min: stats.min_fee_rate as i64,
                    fee_rate_10,
                    fee_rate_25,
                    fee_rate_50,
                    fee_rate_75,
                    fee_rate_90,
                    fee_rate_max: stats.max_fee_rate as i64,
                    p2pk,
                    p2pkh,
                    p2sh,
                    p2wpkh,
                    p2wsh,
                    p2tr,
                    multisig,
                    op_return,
                    other,
                });
                self.flush();
            }
        }
    };
}

stats_table! {
    /// One row a block; `time` is its median time.
    BlockTable, BlockRow, "block_stats", time: Time, []
}

stats_table! {
    /// One row a day, at the height of the block that came after it.
    DayTable, DayRow, "day_stats", day: Text, [day]
}

/// The plugin.
pub struct BlockStats {
    blocks: BlockTable,
    days: DayTable,
    height: Option<u32>,
    /// The block whose parts are being counted.
    open: (Stats, Rates),
}

impl Processor for BlockStats {
    fn describe() -> Descriptor {
        Descriptor::new(
            "block-stats",
            env!("CARGO_PKG_VERSION"),
            "Fee rates, script types and witness share of blocks and days",
        )
        .wants(WantedColumns::INPUTS | WantedColumns::OUTPUTS | WantedColumns::SPENT)
        .table::<BlockTable>()
        .table::<DayTable>()
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        info.settings()?.finish()?;
        Ok(BlockStats {
            blocks: BlockTable::of::<Self>(),
            days: DayTable::of::<Self>(),
            height: info.height,
            open: Default::default(),
        })
    }

    fn on_block(&mut self, block: &Block) -> Result<BlockAnswer, BlockError> {
        self.on_part(block, &Part::whole(block))
    }

    const TAKES_PARTS: bool = true;

    fn on_part(&mut self, block: &Block, place: &Part) -> Result<BlockAnswer, BlockError> {
        if place.is_first() {
            self.open = (
                Stats {
                    blocks: 1,
                    txs: u64::from(place.transactions),
                    ..Stats::default()
                },
                Rates::new(),
            );
        }
        let (stats, rates) = &mut self.open;
        count(block, stats, rates);
        // Equal rates are joined, so that a large block takes no more memory than it has different ones.
        stats.set_rates(rates);
        if !place.last {
            return Ok(BlockAnswer::none());
        }
        let (stats, rates) = std::mem::take(&mut self.open);
        let time = u64::from(block.header().median_time);
        self.blocks.clear();
        self.days.clear();
        self.blocks.write(time, &stats);
        BLOCKS.put(&block.height(), &stats);
        if let Some(old) = block.height().checked_sub(KEPT) {
            BLOCKS.delete(&old);
        }
        self.add_to_day((time / date::DAY) as u32, &stats, rates)?;
        values::push("fee_rate_median", stats.fee_rates[2] as f64);
        values::push("witness_share", stats.witness_share());
        self.height = Some(block.height());
        Ok(BlockAnswer::none())
    }

    fn query(&self, path: &str, params: &Params) -> Result<Json, QueryError> {
        match path {
            "" | "status" => {
                params.only(&[])?;
                Ok(json!({ "height": self.height, "blocks_kept": KEPT }))
            }
            "block" => {
                params.only(&["height"])?;
                let missing = || QueryError::NotFound("no block was seen yet".into());
                let height = match params.number("height")? {
                    Some(height) => height,
                    None => self.height.ok_or_else(missing)?,
                };
                let stats = BLOCKS.get(&height)?.ok_or_else(|| {
                    QueryError::NotFound(format!(
                        "block {height} is not among the last {KEPT}: its row is in the table `block_stats`"
                    ))
                })?;
                Ok(stats.json("height", height.into()))
            }
            "day" => {
                params.only(&["date"])?;
                let day = day(params, "date")?.ok_or_else(|| {
                    QueryError::BadRequest("the parameter `date` is missing".into())
                })?;
                let stats = DAYS
                    .get(&day)?
                    .ok_or_else(|| QueryError::NotFound("no block was seen on that day".into()))?;
                Ok(stats.json("date", name(day).into()))
            }
            "days" => {
                params.only(&["after", "limit"])?;
                let limit = params.number("limit")?.unwrap_or(DEFAULT_DAYS);
                if !(1..=MAX_DAYS).contains(&limit) {
                    return Err(QueryError::BadRequest(format!(
                        "the parameter `limit` must be 1 to {MAX_DAYS}"
                    )));
                }
                let (days, more) = DAYS.page(day(params, "after")?.as_ref(), limit)?;
                let next = days.last().filter(|_| more).map(|(day, _)| name(*day));
                let days: Vec<Json> = days
                    .iter()
                    .map(|(day, stats)| stats.json("date", name(*day).into()))
                    .collect();
                // What to give as `after` for the next page.
                Ok(json!({ "days": days, "next": next }))
            }
            _ => Err(QueryError::NotFound(format!(
                "no query `{path}`: there are `block`, `day`, `days` and `status`"
            ))),
        }
    }
}

impl BlockStats {
    /// Counts the block into its day, and writes the row of the day before, if this is the first block of a new one.
    fn add_to_day(&mut self, day: u32, stats: &Stats, mut rates: Rates) -> Result<(), String> {
        // There is one day at most that is not over, and a later block belongs to it or to a later one.
        let open = RATES.page(None, 1)?.0.pop();
        let mut sums = Stats::default();
        match open {
            Some((open, before)) if open == day => {
                sums = DAYS.get(&day)?.unwrap_or_default();
                rates.extend(before);
            }
            Some((over, _)) => {
                let whole = DAYS.get(&over)?.unwrap_or_default();
                self.days.write(&name(over), &whole);
                RATES.delete(&over);
            }
            None => {}
        }
        rates.iter_mut().for_each(|(rate, _)| *rate = coarse(*rate));
        sums.add(stats);
        sums.set_rates(&mut rates);
        DAYS.put(&day, &sums);
        RATES.put(&day, &rates);
        Ok(())
    }
}

/// Counts the transactions of a block, or of a part of one.
fn count(block: &Block, stats: &mut Stats, rates: &mut Rates) {
    for tx in block.transactions() {
        stats.outputs += tx.output_count() as u64;
        for output in tx.outputs() {
            if let Some(count) = stats.kinds.get_mut(Kind::of(output.script()) as usize) {
                *count += 1;
            }
        }
        // The coinbase, which pays no fee.
        let Some(fee) = tx.fee() else { continue };
        let (size, weight) = (u64::from(tx.size()), u64::from(tx.weight()));
        // BIP141: weight = 3 × size without witnesses + size with them.
        let witness = size - weight.saturating_sub(size) / 3;
        stats.segwit_txs += u64::from(witness > 0);
        stats.witness_bytes += witness;
        stats.inputs += tx.input_count() as u64;
        stats.size += size;
        stats.weight += weight;
        stats.fees += fee;
        rates.push((fee * 4 / weight.max(1), weight));
    }
}

impl Stats {
    fn add(&mut self, other: &Stats) {
        self.blocks += other.blocks;
        self.txs += other.txs;
        self.segwit_txs += other.segwit_txs;
        self.inputs += other.inputs;
        self.outputs += other.outputs;
        self.size += other.size;
        self.weight += other.weight;
        self.witness_bytes += other.witness_bytes;
        self.fees += other.fees;
        for (count, more) in self.kinds.iter_mut().zip(other.kinds) {
            *count += more;
        }
    }

    /// Sorts the rates, joins equal ones, and takes from them what is known of a block's or a day's fee rates.
    fn set_rates(&mut self, rates: &mut Rates) {
        sort::by(rates, Ord::cmp);
        rates.dedup_by(|next, first| {
            let same = next.0 == first.0;
            if same {
                first.1 += next.1;
            }
            same
        });
        self.min_fee_rate = rates.first().map_or(0, |(rate, _)| *rate);
        self.max_fee_rate = rates.last().map_or(0, |(rate, _)| *rate);
        self.fee_rates = percentiles(rates);
    }

    /// The part of all bytes that is witnesses, 0 to 1.
    pub fn witness_share(&self) -> f64 {
        self.witness_bytes as f64 / self.size.max(1) as f64
    }

    /// For people.
    fn json(&self, key: &str, value: Json) -> Json {
        let kinds = Kind::ALL.iter().zip(self.kinds);
        let kinds: Vec<(String, Json)> = kinds
            .map(|(kind, outputs)| (kind.name().into(), outputs.into()))
            .collect();
        json!({
            key: value,
            "blocks": self.blocks,
            "txs": self.txs,
            "segwit_txs": self.segwit_txs,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "size": self.size,
            "weight": self.weight,
            "witness_bytes": self.witness_bytes,
            "witness_share": self.witness_share(),
            "fees_sats": self.fees,
            "fee_rate_min": self.min_fee_rate,
            "fee_rate_percentiles": self.fee_rates.to_vec(),
            "fee_rate_max": self.max_fee_rate,
            "script_types": kinds.into_iter().collect::<blockmill_sdk::Object>(),
        })
    }
}

/// The rates that 10, 25, 50, 75 and 90 percent of the weight pay at most, as Core's `CalculatePercentilesByWeight` finds
/// them in sorted rates; zeros where nobody pays.
fn percentiles(rates: &[(u64, u64)]) -> [u64; 5] {
    let total: u64 = rates.iter().map(|(_, weight)| weight).sum();
    [10, 25, 50, 75, 90].map(|percent| {
        let mut sum = 0;
        let reached = rates.iter().find(|(_, weight)| {
            sum += weight;
            sum * 100 >= total * percent
        });
        reached.map_or(0, |(rate, _)| *rate)
    })
}

/// Three digits of a fee rate: exact below 1,000 sat/vB, and few enough different ones for a day, whatever is paid in it.
fn coarse(rate: u64) -> u64 {
    let mut unit = 1;
    while rate / unit >= 1_000 {
        unit *= 10;
    }
    rate / unit * unit
}

/// The number of the day that a parameter names.
fn day(params: &Params, name: &str) -> Result<Option<u32>, QueryError> {
    let Some(text) = params.get(name) else {
        return Ok(None);
    };
    let time = date::parse(text).ok_or_else(|| {
        QueryError::BadRequest(format!(
            "the parameter `{name}` is no day such as 2024-01-31: `{text}`"
        ))
    })?;
    Ok(Some((time / date::DAY) as u32))
}

/// A day as people write it.
fn name(day: u32) -> String {
    date::text(u64::from(day) * date::DAY)
}

export_plugin!(BlockStats);

#[cfg(test)]
mod tests;
