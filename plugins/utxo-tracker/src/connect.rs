//! Connects a block to the coin set: checks what needs the coins, and changes the set.
//!
//! A block costs two calls of the host: one takes all coins that it spends from earlier blocks, one puts all that it leaves.
//! Outputs that are spent in the block that made them never reach the state.

use blockmill_sdk::prelude::*;
use blockmill_sdk::state::{FoundValues, Keys};
use blockmill_sdk::wire::{Outputs, Spent};
use blockmill_sdk::{Columns, Pieces};

use crate::coin::{self, Coin};
use crate::created::Created;
use crate::index::Index;
use crate::rules::{Bip30, COINBASE_MATURITY, MAX_MONEY, bip30, is_unspendable};
use crate::totals::Totals;

/// The input's coin is in the state, not in the block.
const FROM_STATE: u32 = u32::MAX;

/// A block that is being connected, part by part.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// The totals so far.
    pub totals: Totals,
    /// Fees of its transactions so far, in sat.
    fees: u64,
    /// What its coinbase pays, in sat.
    coinbase: u64,
}

impl Open {
    /// Nothing of the block is connected yet.
    pub fn new(before: &Totals) -> Self {
        Open {
            totals: *before,
            fees: 0,
            coinbase: 0,
        }
    }
}

/// What connecting needs, kept from block to block so that its memory is used again.
#[derive(Debug)]
pub struct Connect {
    network: String,
    created: Created,
    /// For each input: which of the block's outputs it spends, or `FROM_STATE`.
    sources: Vec<u32>,
    /// For each output of the block: whether the block itself spends it.
    spent_here: Vec<bool>,
    keys: Keys,
    values: Pieces,
}

impl Connect {
    /// `network` as [`chain::network`] names it.
    pub fn new(network: &str) -> Self {
        Connect {
            network: network.into(),
            created: Created::default(),
            sources: Vec::new(),
            spent_here: Vec::new(),
            keys: Keys::fixed(coin::KEY_WIDTH as u32),
            values: Pieces::new(),
        }
    }

    /// Connects a block, or the next part of one. Answers what is known of the block then, and the outputs that this part
    /// spends, one an input.
    pub fn part(
        &mut self,
        block: &Block,
        place: &Part,
        before: Open,
        index: Option<&mut Index>,
    ) -> Result<(Open, Spent), BlockError> {
        let Open {
            mut totals,
            fees: fees_before,
            coinbase,
        } = before;
        let outputs = block.output_columns().ok_or("the host gave no outputs")?;
        if block.height() == 0 {
            // The genesis coinbase was never put into the set of the first program, so it never is.
            totals.unspendable_genesis_sats += outputs.values.iter().sum::<u64>();
            let open = Open {
                totals,
                fees: 0,
                coinbase: 0,
            };
            return Ok((open, empty_spent(block.input_count())));
        }

        match bip30(&self.network, block.header()) {
            Bip30::Impossible => {}
            Bip30::Check => self.refuse_repeats(block)?,
            Bip30::Overwrite => self.count_overwritten(block, &mut totals)?,
        }
        self.find_sources(block, place.is_first())?;
        let taken = blockmill_sdk::state::take_many(&self.keys);
        let (spent, fees) = self.spend(block, outputs, &taken, &mut totals)?;
        let fees = add(fees_before, fees).ok_or_else(|| {
            BlockError::Invalid("fees over all coins (bad-txns-accumulated-fee-outofrange)".into())
        })?;
        let coinbase = match place.is_first() {
            true => self.coinbase_out(block)?,
            false => coinbase,
        };
        if place.last {
            self.check_coinbase(block, coinbase, fees, &mut totals)?;
            totals.fees_sats += fees;
        }
        if let Some(index) = index {
            index.block(block, &self.sources, &self.spent_here, &spent);
        }
        self.create(block, &mut totals);
        let open = Open {
            totals,
            fees,
            coinbase,
        };
        Ok((open, spent))
    }

    /// Finds where the coin of each input is, and gathers the keys of those in the state.
    fn find_sources(&mut self, block: &Block, first: bool) -> Result<(), BlockError> {
        let txids = block.txids();
        let output_ends = &block.transaction_columns().output_ends;
        self.created.reset(block.len(), block.hash());
        self.sources.clear();
        self.spent_here.clear();
        self.spent_here.resize(block.output_count(), false);
        self.keys.clear();
        for tx in block.transactions() {
            if tx.is_coinbase() {
                self.sources.extend(tx.inputs().map(|_| FROM_STATE));
            } else {
                for input in tx.inputs() {
                    let previous = input.previous();
                    let Some(creator) = self.created.position(txids, previous.txid) else {
                        self.keys.push(&coin::key(previous.txid, previous.vout));
                        self.sources.push(FROM_STATE);
                        continue;
                    };
                    let output = output_of(output_ends, creator, previous.vout)
                        .ok_or_else(|| missing(previous))?;
                    match self.spent_here.get_mut(output) {
                        Some(spent @ false) => *spent = true,
                        _ => return Err(missing(previous)),
                    }
                    if first && creator == 0 {
                        return Err(immature(previous, block.height(), block.height()));
                    }
                    self.sources.push(output as u32);
                }
            }
            self.created.insert(txids, tx.position());
        }
        Ok(())
    }

    /// Walks the inputs with their coins: checks them, and builds the answer's columns. Answers the fees too.
    fn spend(
        &self,
        block: &Block,
        outputs: &Outputs,
        taken: &FoundValues,
        totals: &mut Totals,
    ) -> Result<(Spent, u64), BlockError> {
        let inputs = block.input_count();
        let mut spent = Spent {
            values: Vec::with_capacity(inputs),
            script_ends: Vec::with_capacity(inputs),
            scripts: Vec::with_capacity(taken.bytes.len()),
            heights: Vec::with_capacity(inputs),
            coinbases: Vec::with_capacity(inputs),
        };
        let height = block.height();
        let mut found = taken.iter();
        let mut sources = self.sources.iter();
        let mut fees: u64 = 0;
        for tx in block.transactions() {
            if tx.is_coinbase() {
                for _ in tx.inputs() {
                    sources.next();
                    push(
                        &mut spent,
                        &Coin {
                            height: 0,
                            coinbase: false,
                            value: 0,
                            script: &[],
                        },
                    );
                }
                continue;
            }
            let mut value_in: u64 = 0;
            for (input, source) in tx.inputs().zip(sources.by_ref()) {
                let coin = if *source == FROM_STATE {
                    let bytes = found
                        .next()
                        .flatten()
                        .ok_or_else(|| missing(input.previous()))?;
                    let coin = Coin::read(bytes).ok_or("a coin in the state is too short")?;
                    if coin.coinbase && height - coin.height.min(height) < COINBASE_MATURITY {
                        return Err(immature(input.previous(), coin.height, height));
                    }
                    totals.txouts = totals.txouts.saturating_sub(1);
                    totals.total_sats = totals.total_sats.saturating_sub(coin.value);
                    coin
                } else {
                    let output = *source as usize;
                    let script = script_of(outputs, output);
                    if is_unspendable(script) {
                        return Err(missing(input.previous()));
                    }
                    let value = outputs.values.get(output).copied().unwrap_or(0);
                    Coin {
                        height,
                        coinbase: false,
                        value,
                        script,
                    }
                };
                value_in = add(value_in, coin.value)
                    .ok_or_else(|| invalid(&tx, "its inputs are worth more than all coins (bad-txns-inputvalues-outofrange)"))?;
                push(&mut spent, &coin);
            }
            let value_out = value_out(&tx)?;
            let fee = value_in.checked_sub(value_out).ok_or_else(|| {
                invalid(
                    &tx,
                    &format!(
                        "it spends {value_in} sat and pays {value_out} (bad-txns-in-belowout)"
                    ),
                )
            })?;
            fees = add(fees, fee).ok_or_else(|| {
                invalid(
                    &tx,
                    "fees over all coins (bad-txns-accumulated-fee-outofrange)",
                )
            })?;
        }
        Ok((spent, fees))
    }

    /// The coinbase may take what the block's transactions pay and the new coins of its height, not more.
    fn coinbase_out(&self, block: &Block) -> Result<u64, BlockError> {
        match block.transactions().next() {
            Some(coinbase) => value_out(&coinbase),
            None => Err(BlockError::Invalid("the block has no transaction".into())),
        }
    }

    /// `taken` is what the coinbase pays.
    fn check_coinbase(
        &self,
        block: &Block,
        taken: u64,
        fees: u64,
        totals: &mut Totals,
    ) -> Result<(), BlockError> {
        let allowed = chain::subsidy(block.height()).saturating_add(fees);
        let unclaimed = allowed.checked_sub(taken).ok_or_else(|| {
            BlockError::Invalid(format!(
                "the coinbase takes {taken} sat of {allowed} (bad-cb-amount)"
            ))
        })?;
        totals.unclaimed_sats += unclaimed;
        Ok(())
    }

    /// Puts the outputs that the block leaves.
    fn create(&mut self, block: &Block, totals: &mut Totals) {
        self.keys.clear();
        self.values.clear();
        let height = block.height();
        let mut spent_here = self.spent_here.iter();
        for tx in block.transactions() {
            let coinbase = tx.is_coinbase();
            for (output, spent_here) in tx.outputs().zip(spent_here.by_ref()) {
                if *spent_here {
                    continue;
                }
                if is_unspendable(output.script()) {
                    totals.unspendable_script_sats += output.value();
                    continue;
                }
                self.keys.push(&coin::key(tx.txid(), output.vout()));
                let head = coin::head(height, coinbase, output.value());
                self.values.push_with(|bytes| {
                    bytes.extend_from_slice(&head);
                    bytes.extend_from_slice(output.script());
                });
                totals.txouts += 1;
                totals.total_sats += output.value();
            }
        }
        blockmill_sdk::state::put_many(&self.keys, &self.values);
    }

    fn all_created(&mut self, columns: &Columns) {
        self.keys.clear();
        for tx in columns.transactions() {
            for output in tx.outputs() {
                self.keys.push(&coin::key(tx.txid(), output.vout()));
            }
        }
    }

    /// BIP30: no output of the block may be there already.
    fn refuse_repeats(&mut self, block: &Block) -> Result<(), BlockError> {
        self.all_created(block);
        let there = blockmill_sdk::state::get_many(&self.keys);
        if there.found.iter().all(|found| *found == 0) {
            return Ok(());
        }
        let mut found = there.iter();
        for tx in block.transactions() {
            for _ in tx.outputs() {
                if found.next().flatten().is_some() {
                    return Err(invalid(
                        &tx,
                        "one of that txid still has unspent outputs (bad-txns-BIP30)",
                    ));
                }
            }
        }
        Ok(())
    }

    /// The coins that this block's coins take the place of are gone for ever.
    fn count_overwritten(&mut self, block: &Block, totals: &mut Totals) -> Result<(), BlockError> {
        self.all_created(block);
        let there = blockmill_sdk::state::get_many(&self.keys);
        for bytes in there.iter().flatten() {
            let coin = Coin::read(bytes).ok_or("a coin in the state is too short")?;
            totals.txouts = totals.txouts.saturating_sub(1);
            totals.total_sats = totals.total_sats.saturating_sub(coin.value);
            totals.unspendable_bip30_sats += coin.value;
        }
        Ok(())
    }
}

/// Place among all outputs of output `vout` of the transaction at `position`.
#[inline]
fn output_of(output_ends: &[u32], position: usize, vout: u32) -> Option<usize> {
    let start = match position.checked_sub(1) {
        Some(before) => *output_ends.get(before)?,
        None => 0,
    };
    let output = start.checked_add(vout)?;
    (output < *output_ends.get(position)?).then_some(output as usize)
}

#[inline]
pub(crate) fn script_of(outputs: &Outputs, output: usize) -> &[u8] {
    let start = match output.checked_sub(1) {
        Some(before) => outputs.script_ends.get(before).copied().unwrap_or(0),
        None => 0,
    };
    let end = outputs.script_ends.get(output).copied().unwrap_or(0);
    outputs
        .scripts
        .get(start as usize..end as usize)
        .unwrap_or_default()
}

#[inline]
fn push(spent: &mut Spent, coin: &Coin<'_>) {
    spent.values.push(coin.value);
    spent.scripts.extend_from_slice(coin.script);
    spent.script_ends.push(spent.scripts.len() as u32);
    spent.heights.push(coin.height);
    spent.coinbases.push(u8::from(coin.coinbase));
}

fn empty_spent(inputs: usize) -> Spent {
    Spent {
        values: vec![0; inputs],
        script_ends: vec![0; inputs],
        scripts: Vec::new(),
        heights: vec![0; inputs],
        coinbases: vec![0; inputs],
    }
}

/// Sum of two amounts, none where it is no amount of money.
#[inline]
fn add(a: u64, b: u64) -> Option<u64> {
    a.checked_add(b).filter(|sum| *sum <= MAX_MONEY)
}

/// Sum of a transaction's outputs, each and all an amount of money.
#[inline]
fn value_out(tx: &Transaction<'_>) -> Result<u64, BlockError> {
    let sum = tx
        .outputs()
        .try_fold(0, |sum, output| add(sum, output.value()));
    sum.ok_or_else(|| {
        invalid(
            tx,
            "its outputs are worth more than all coins (bad-txns-txouttotal-toolarge)",
        )
    })
}

#[cold]
fn invalid(tx: &Transaction<'_>, what: &str) -> BlockError {
    BlockError::Invalid(format!("transaction {}: {what}", hex::display(tx.txid())))
}

#[cold]
fn missing(previous: OutPoint<'_>) -> BlockError {
    BlockError::Invalid(format!(
        "the output {previous} does not exist or is spent already (bad-txns-inputs-missingorspent)"
    ))
}

#[cold]
fn immature(previous: OutPoint<'_>, created: u32, height: u32) -> BlockError {
    BlockError::Invalid(format!(
        "the coinbase output {previous} of height {created} is spent at {height}, before it is {COINBASE_MATURITY} blocks \
         old (bad-txns-premature-spend-of-coinbase)"
    ))
}
