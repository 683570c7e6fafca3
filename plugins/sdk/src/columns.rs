//! The columns of a set of transactions, checked once so that the views over them need not check again.

use std::fmt;

use crate::transaction::Transactions;
use crate::wire;

/// The columns contradict each other: which one, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed columns: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Transactions in columns: those of a block, or those that came into the pool.
///
/// [`Columns::transactions`] shows them as transactions with inputs and outputs; the columns themselves can be read too,
/// which is the fastest way through when only one of them matters (all output values, say).
#[derive(Debug)]
pub struct Columns {
    pub(crate) of: wire::Columns,
    /// True in a block: the first transaction is the coinbase.
    pub(crate) coinbase_first: bool,
}

impl Columns {
    /// Takes the columns over, if their lengths agree with each other and no end lies before its beginning.
    pub fn new(of: wire::Columns, coinbase_first: bool) -> Result<Self, Malformed> {
        let t = &of.transactions;
        let count = t.versions.len();
        check(t.txids.len() == count * 32, "transactions.txids")?;
        check(t.lock_times.len() == count, "transactions.lock-times")?;
        check(
            t.sizes.len() == count && t.weights.len() == count,
            "transactions.sizes and weights",
        )?;
        check(t.input_ends.len() == count, "transactions.input-ends")?;
        check(t.output_ends.len() == count, "transactions.output-ends")?;
        let inputs = last(&t.input_ends);
        let outputs = last(&t.output_ends);
        check(rising(&t.input_ends), "transactions.input-ends")?;
        check(rising(&t.output_ends), "transactions.output-ends")?;

        if let Some(i) = &of.inputs {
            check(i.prev_txids.len() == inputs * 32, "inputs.prev-txids")?;
            check(
                i.prev_vouts.len() == inputs && i.sequences.len() == inputs,
                "inputs.prev-vouts and sequences",
            )?;
            check(
                pieces(&i.script_ends, inputs, i.scripts.len()),
                "inputs.script-ends",
            )?;
        }
        if let Some(w) = &of.witnesses {
            check(
                pieces(&w.item_ends, inputs, w.ends.len()),
                "witnesses.item-ends",
            )?;
            check(
                pieces(&w.ends, w.ends.len(), w.items.len()),
                "witnesses.ends",
            )?;
        }
        if let Some(o) = &of.outputs {
            check(o.values.len() == outputs, "outputs.values")?;
            check(
                pieces(&o.script_ends, outputs, o.scripts.len()),
                "outputs.script-ends",
            )?;
        }
        if let Some(s) = &of.spent {
            check(s.values.len() == inputs, "spent.values")?;
            check(
                s.heights.len() == inputs && s.coinbases.len() == inputs,
                "spent.heights and coinbases",
            )?;
            check(
                pieces(&s.script_ends, inputs, s.scripts.len()),
                "spent.script-ends",
            )?;
        }
        Ok(Columns { of, coinbase_first })
    }

    /// How many transactions there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.of.transactions.versions.len()
    }

    /// True when there is no transaction.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The transactions, in the order of the block, or parents before children.
    #[inline]
    pub fn transactions(&self) -> Transactions<'_> {
        Transactions::new(self)
    }

    /// The txids side by side, internal byte order.
    #[inline]
    pub fn txids(&self) -> &[[u8; 32]] {
        self.of.transactions.txids.as_chunks().0
    }

    /// The transactions' own columns.
    #[inline]
    pub fn transaction_columns(&self) -> &wire::Transactions {
        &self.of.transactions
    }

    /// The inputs' columns, if the plugin asked for them.
    #[inline]
    pub fn input_columns(&self) -> Option<&wire::Inputs> {
        self.of.inputs.as_ref()
    }

    /// The outputs' columns, if the plugin asked for them.
    #[inline]
    pub fn output_columns(&self) -> Option<&wire::Outputs> {
        self.of.outputs.as_ref()
    }

    /// The witnesses' columns, if the plugin asked for them.
    #[inline]
    pub fn witness_columns(&self) -> Option<&wire::Witnesses> {
        self.of.witnesses.as_ref()
    }

    /// The columns of the outputs that the inputs spend, if the plugin asked for them.
    #[inline]
    pub fn spent_columns(&self) -> Option<&wire::Spent> {
        self.of.spent.as_ref()
    }

    /// Number of inputs over all transactions.
    #[inline]
    pub fn input_count(&self) -> usize {
        last(&self.of.transactions.input_ends)
    }

    /// Number of outputs over all transactions.
    #[inline]
    pub fn output_count(&self) -> usize {
        last(&self.of.transactions.output_ends)
    }
}

fn check(agrees: bool, column: &'static str) -> Result<(), Malformed> {
    if agrees {
        Ok(())
    } else {
        Err(Malformed(column))
    }
}

fn last(ends: &[u32]) -> usize {
    ends.last().copied().unwrap_or(0) as usize
}

/// True when there are `count` ends that rise to `total`.
fn pieces(ends: &[u32], count: usize, total: usize) -> bool {
    ends.len() == count && last(ends) == total && rising(ends)
}

/// True when no end lies before the one in front of it. Sixteen at a time and without an early exit, which a compiler makes
/// into a few vector instructions: this is looked at for every column of every block.
fn rising(ends: &[u32]) -> bool {
    let next = ends.get(1..).unwrap_or_default();
    let (chunks, _) = ends.as_chunks::<16>();
    let (next_chunks, next_rest) = next.as_chunks::<16>();
    let mut falls = false;
    for (chunk, next) in chunks.iter().zip(next_chunks) {
        falls |= chunk
            .iter()
            .zip(next)
            .fold(false, |falls, (a, b)| falls | (a > b));
    }
    let rest = ends
        .get(ends.len().saturating_sub(next_rest.len() + 1)..)
        .unwrap_or_default();
    !falls && rest.is_sorted()
}

/// Piece `index` of `bytes` cut at `ends`; empty where there is none.
#[inline]
pub(crate) fn piece<'a>(bytes: &'a [u8], ends: &[u32], index: usize) -> &'a [u8] {
    let start = start(ends, index);
    let end = ends.get(index).copied().unwrap_or(0) as usize;
    bytes.get(start..end).unwrap_or_default()
}

/// Where piece `index` begins.
#[inline]
pub(crate) fn start(ends: &[u32], index: usize) -> usize {
    match index.checked_sub(1) {
        Some(before) => ends.get(before).copied().unwrap_or(0) as usize,
        None => 0,
    }
}

#[cfg(test)]
mod tests;
