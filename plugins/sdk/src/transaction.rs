//! Transactions, inputs and outputs as views over the columns: nothing is copied, nothing is allocated.

use std::iter::Zip;
use std::slice::Iter;

use crate::columns::{Columns, piece, start};
use crate::hex;
use crate::pieces::PiecesIter;

const NO_HASH: [u8; 32] = [0; 32];

/// The transactions of a block or of the pool, in order.
#[derive(Clone, Debug)]
pub struct Transactions<'a> {
    columns: &'a Columns,
    ends: Zip<Iter<'a, u32>, Iter<'a, u32>>,
    index: usize,
    input_start: usize,
    output_start: usize,
}

impl<'a> Transactions<'a> {
    #[inline]
    pub(crate) fn new(columns: &'a Columns) -> Self {
        let t = &columns.of.transactions;
        Transactions {
            columns,
            ends: t.input_ends.iter().zip(t.output_ends.iter()),
            index: 0,
            input_start: 0,
            output_start: 0,
        }
    }
}

impl<'a> Iterator for Transactions<'a> {
    type Item = Transaction<'a>;

    #[inline]
    fn next(&mut self) -> Option<Transaction<'a>> {
        let (input_end, output_end) = self.ends.next()?;
        let transaction = Transaction {
            columns: self.columns,
            index: self.index,
            input_start: self.input_start,
            input_end: *input_end as usize,
            output_start: self.output_start,
            output_end: *output_end as usize,
        };
        self.index += 1;
        self.input_start = transaction.input_end;
        self.output_start = transaction.output_end;
        Some(transaction)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ends.size_hint()
    }
}

impl ExactSizeIterator for Transactions<'_> {}

/// One transaction: a view that ends with the block it looks into. It cannot be kept:
///
/// ```compile_fail,E0521
/// use blockmill_sdk::prelude::*;
///
/// struct Keeps {
///     last: Option<Transaction<'static>>,
/// }
///
/// impl Processor for Keeps {
///     # fn describe() -> Descriptor { Descriptor::new("keeps", "0.1.0", "Keeps a transaction") }
///     # fn start(_: &StartInfo) -> Result<Self, String> { Ok(Keeps { last: None }) }
///     fn on_transaction(&mut self, tx: &Transaction<'_>, _: &Seen<'_>) -> Result<(), String> {
///         self.last = Some(*tx);
///         Ok(())
///     }
/// }
/// ```
///
/// Nor can a script of it, or a txid by reference:
///
/// ```compile_fail,E0597
/// # use blockmill_sdk::prelude::*;
/// # fn next() -> Block { unimplemented!() }
/// let script = {
///     let block: Block = next();
///     let tx = block.transactions().next().unwrap();
///     tx.outputs().next().unwrap().script()
/// };
/// assert!(script.is_empty());
/// ```
///
/// What is copied can: `output.script().to_vec()`, `*tx.txid()`.
///
/// The methods that read a column which the plugin's descriptor did not ask for stop the plugin with a message that says
/// which one it was, except where they answer with an `Option`.
#[derive(Clone, Copy, Debug)]
pub struct Transaction<'a> {
    columns: &'a Columns,
    index: usize,
    input_start: usize,
    input_end: usize,
    output_start: usize,
    output_end: usize,
}

impl<'a> Transaction<'a> {
    /// Place in the block (the coinbase is 0), or in the batch that came into the pool.
    #[inline]
    pub fn position(&self) -> usize {
        self.index
    }

    /// 32 bytes, internal order; [`hex::display`] turns it round for people.
    #[inline]
    pub fn txid(&self) -> &'a [u8; 32] {
        self.columns.txids().get(self.index).unwrap_or(&NO_HASH)
    }

    /// The version field.
    #[inline]
    pub fn version(&self) -> u32 {
        self.columns
            .of
            .transactions
            .versions
            .get(self.index)
            .copied()
            .unwrap_or(0)
    }

    /// The lock time field.
    #[inline]
    pub fn lock_time(&self) -> u32 {
        self.columns
            .of
            .transactions
            .lock_times
            .get(self.index)
            .copied()
            .unwrap_or(0)
    }

    /// Serialized size with witnesses, bytes.
    #[inline]
    pub fn size(&self) -> u32 {
        self.columns
            .of
            .transactions
            .sizes
            .get(self.index)
            .copied()
            .unwrap_or(0)
    }

    /// Weight units (BIP141).
    #[inline]
    pub fn weight(&self) -> u32 {
        self.columns
            .of
            .transactions
            .weights
            .get(self.index)
            .copied()
            .unwrap_or(0)
    }

    /// Virtual bytes: a quarter of the weight, rounded up.
    #[inline]
    pub fn vsize(&self) -> u32 {
        self.weight().div_ceil(4)
    }

    /// True for the first transaction of a block.
    #[inline]
    pub fn is_coinbase(&self) -> bool {
        self.columns.coinbase_first && self.index == 0
    }

    /// Number of inputs; known whether or not the columns of the inputs are here.
    #[inline]
    pub fn input_count(&self) -> usize {
        self.input_end - self.input_start
    }

    /// Number of outputs; known whether or not the columns of the outputs are here.
    #[inline]
    pub fn output_count(&self) -> usize {
        self.output_end - self.output_start
    }

    /// The inputs in order, the coinbase's too.
    #[inline]
    pub fn inputs(&self) -> Inputs<'a> {
        let Some(i) = &self.columns.of.inputs else {
            not_wanted("inputs")
        };
        let range = self.input_start..self.input_end;
        let all: &[[u8; 32]] = i.prev_txids.as_chunks().0;
        // One way out for all four: a compiler then sees that the slices are equally long and walks them with one counter.
        let (txids, vouts, sequences, ends) = match (
            all.get(range.clone()),
            i.prev_vouts.get(range.clone()),
            i.sequences.get(range.clone()),
            i.script_ends.get(range),
        ) {
            (Some(txids), Some(vouts), Some(sequences), Some(ends)) => {
                (txids, vouts, sequences, ends)
            }
            _ => Default::default(),
        };
        Inputs {
            fields: txids.iter().zip(vouts).zip(sequences.iter().zip(ends)),
            columns: self.columns,
            scripts: &i.scripts,
            script_start: start(&i.script_ends, self.input_start),
            index: self.input_start,
        }
    }

    /// The outputs in order.
    #[inline]
    pub fn outputs(&self) -> Outputs<'a> {
        let Some(o) = &self.columns.of.outputs else {
            not_wanted("outputs")
        };
        let range = self.output_start..self.output_end;
        let (values, ends) = match (o.values.get(range.clone()), o.script_ends.get(range)) {
            (Some(values), Some(ends)) => (values, ends),
            _ => Default::default(),
        };
        Outputs {
            fields: values.iter().zip(ends),
            scripts: &o.scripts,
            script_start: start(&o.script_ends, self.output_start),
            vout: 0,
        }
    }

    /// The witness stack of the input at `index` of this transaction; empty for an input without one.
    #[inline]
    pub fn witness(&self, index: usize) -> Witness<'a> {
        if index >= self.input_count() {
            return Witness {
                items: PiecesIter {
                    ends: [].iter(),
                    bytes: &[],
                    start: 0,
                },
            };
        }
        Witness::of(self.columns, self.input_start + index)
    }

    /// Sum of the outputs, sat.
    #[inline]
    pub fn output_value(&self) -> u64 {
        let Some(o) = &self.columns.of.outputs else {
            not_wanted("outputs")
        };
        sum(o.values.get(self.output_start..self.output_end))
    }

    /// Sum of the outputs that the inputs spend, sat. None for a coinbase, and where the `spent` column is not here.
    #[inline]
    pub fn input_value(&self) -> Option<u64> {
        if self.is_coinbase() {
            return None;
        }
        let spent = self.columns.of.spent.as_ref()?;
        Some(sum(spent.values.get(self.input_start..self.input_end)))
    }

    /// What the transaction pays to the miner, sat. None for a coinbase, and where the `spent` or `outputs` columns are
    /// not here.
    #[inline]
    pub fn fee(&self) -> Option<u64> {
        self.columns.of.outputs.as_ref()?;
        self.input_value()?.checked_sub(self.output_value())
    }
}

fn sum(values: Option<&[u64]>) -> u64 {
    values
        .unwrap_or_default()
        .iter()
        .fold(0, |sum, value| sum.wrapping_add(*value))
}

#[cold]
fn not_wanted(column: &str) -> ! {
    panic!("this plugin reads the column `{column}`, which its descriptor does not ask for")
}

/// The inputs of a transaction, in order.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    #[allow(clippy::type_complexity)]
    fields: Zip<Zip<Iter<'a, [u8; 32]>, Iter<'a, u32>>, Zip<Iter<'a, u32>, Iter<'a, u32>>>,
    columns: &'a Columns,
    scripts: &'a [u8],
    script_start: usize,
    index: usize,
}

impl<'a> Iterator for Inputs<'a> {
    type Item = Input<'a>;

    #[inline]
    fn next(&mut self) -> Option<Input<'a>> {
        let ((txid, vout), (sequence, end)) = self.fields.next()?;
        let end = *end as usize;
        let input = Input {
            previous: OutPoint { txid, vout: *vout },
            sequence: *sequence,
            script: self.scripts.get(self.script_start..end).unwrap_or_default(),
            columns: self.columns,
            index: self.index,
        };
        self.script_start = end;
        self.index += 1;
        Some(input)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.fields.size_hint()
    }
}

impl ExactSizeIterator for Inputs<'_> {}

/// Names an output: the transaction that made it, and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutPoint<'a> {
    /// 32 bytes, internal order.
    pub txid: &'a [u8; 32],
    /// Index of the output.
    pub vout: u32,
}

impl OutPoint<'_> {
    /// True for what a coinbase's input names: no output at all.
    #[inline]
    pub fn is_null(&self) -> bool {
        self.vout == u32::MAX && self.txid == &NO_HASH
    }
}

impl std::fmt::Display for OutPoint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", hex::display(self.txid), self.vout)
    }
}

/// One input.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    previous: OutPoint<'a>,
    sequence: u32,
    script: &'a [u8],
    columns: &'a Columns,
    index: usize,
}

impl<'a> Input<'a> {
    /// The output that is spent; null in a coinbase.
    #[inline]
    pub fn previous(&self) -> OutPoint<'a> {
        self.previous
    }

    /// The sequence field.
    #[inline]
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// scriptSig.
    #[inline]
    pub fn script(&self) -> &'a [u8] {
        self.script
    }

    /// The output that is spent. None for a coinbase, and where the `spent` column is not here.
    #[inline]
    pub fn spent(&self) -> Option<Coin<'a>> {
        let spent = self.columns.of.spent.as_ref()?;
        if self.previous.is_null() {
            return None;
        }
        Some(Coin {
            value: *spent.values.get(self.index)?,
            script: piece(&spent.scripts, &spent.script_ends, self.index),
            height: *spent.heights.get(self.index)?,
            coinbase: *spent.coinbases.get(self.index)? != 0,
        })
    }

    /// The witness stack.
    #[inline]
    pub fn witness(&self) -> Witness<'a> {
        Witness::of(self.columns, self.index)
    }

    /// Place among all inputs of the block or batch, as in the columns.
    #[inline]
    pub fn index(&self) -> usize {
        self.index
    }
}

/// An output that an input spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coin<'a> {
    /// sat.
    pub value: u64,
    /// scriptPubKey.
    pub script: &'a [u8],
    /// Height of the block that made it.
    pub height: u32,
    /// True when a coinbase made it.
    pub coinbase: bool,
}

/// The outputs of a transaction, in order.
#[derive(Clone, Debug)]
pub struct Outputs<'a> {
    fields: Zip<Iter<'a, u64>, Iter<'a, u32>>,
    scripts: &'a [u8],
    script_start: usize,
    vout: u32,
}

impl<'a> Iterator for Outputs<'a> {
    type Item = Output<'a>;

    #[inline]
    fn next(&mut self) -> Option<Output<'a>> {
        let (value, end) = self.fields.next()?;
        let end = *end as usize;
        let output = Output {
            value: *value,
            script: self.scripts.get(self.script_start..end).unwrap_or_default(),
            vout: self.vout,
        };
        self.script_start = end;
        self.vout += 1;
        Some(output)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.fields.size_hint()
    }
}

impl ExactSizeIterator for Outputs<'_> {}

/// One output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output<'a> {
    value: u64,
    script: &'a [u8],
    vout: u32,
}

impl<'a> Output<'a> {
    /// sat.
    #[inline]
    pub fn value(&self) -> u64 {
        self.value
    }

    /// scriptPubKey.
    #[inline]
    pub fn script(&self) -> &'a [u8] {
        self.script
    }

    /// Place in its transaction.
    #[inline]
    pub fn vout(&self) -> u32 {
        self.vout
    }

    /// True when the script begins with OP_RETURN: nobody can ever spend it.
    #[inline]
    pub fn is_op_return(&self) -> bool {
        self.script.first() == Some(&0x6a)
    }
}

/// The items of a witness stack, bottom first.
#[derive(Clone, Debug)]
pub struct Witness<'a> {
    items: PiecesIter<'a>,
}

impl<'a> Witness<'a> {
    fn of(columns: &'a Columns, input: usize) -> Self {
        let Some(w) = &columns.of.witnesses else {
            not_wanted("witnesses")
        };
        let first = start(&w.item_ends, input);
        let last = w.item_ends.get(input).copied().unwrap_or(0) as usize;
        let ends = w.ends.get(first..last).unwrap_or_default();
        Witness {
            items: PiecesIter {
                ends: ends.iter(),
                bytes: &w.items,
                start: start(&w.ends, first),
            },
        }
    }
}

impl<'a> Iterator for Witness<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.items.next()
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

impl ExactSizeIterator for Witness<'_> {}

#[cfg(test)]
mod tests;
