//! The columns of `wit/plugin.wit`, host side.

use super::{DecodeError, Layout, reader::Reader};

/// One entry a transaction.
#[derive(Debug, Clone, Default)]
pub struct Transactions {
    /// 32 bytes each, internal order.
    pub txids: Vec<u8>,
    pub versions: Vec<u32>,
    pub lock_times: Vec<u32>,
    /// Bytes, witnesses included.
    pub sizes: Vec<u32>,
    /// Weight units (BIP141).
    pub weights: Vec<u32>,
    pub input_ends: Vec<u32>,
    pub output_ends: Vec<u32>,
}

/// One entry an input.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// 32 bytes each, internal order.
    pub prev_txids: Vec<u8>,
    pub prev_vouts: Vec<u32>,
    pub sequences: Vec<u32>,
    pub script_ends: Vec<u32>,
    pub scripts: Vec<u8>,
}

/// One entry an output.
#[derive(Debug, Clone, Default)]
pub struct Outputs {
    /// sat.
    pub values: Vec<u64>,
    pub script_ends: Vec<u32>,
    pub scripts: Vec<u8>,
}

/// The witness stacks of all inputs.
#[derive(Debug, Clone, Default)]
pub struct Witnesses {
    pub item_ends: Vec<u32>,
    pub ends: Vec<u32>,
    pub items: Vec<u8>,
}

/// Transactions of a block, or of the pool, column by column.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    pub transactions: Transactions,
    pub inputs: Inputs,
    pub outputs: Outputs,
    layouts: Vec<Layout>,
}

impl Columns {
    /// Room for `count` transactions that have `bytes` bytes together.
    pub(super) fn with_capacity(count: usize, bytes: usize) -> Self {
        // Typical blocks have an input a 150 bytes and an output a 100; more only costs a reallocation.
        let (inputs, outputs) = (bytes / 150, bytes / 100);
        Self {
            transactions: Transactions {
                txids: Vec::new(),
                versions: Vec::with_capacity(count),
                lock_times: Vec::with_capacity(count),
                sizes: Vec::with_capacity(count),
                weights: Vec::with_capacity(count),
                input_ends: Vec::with_capacity(count),
                output_ends: Vec::with_capacity(count),
            },
            inputs: Inputs {
                prev_txids: Vec::with_capacity(inputs * 32),
                prev_vouts: Vec::with_capacity(inputs),
                sequences: Vec::with_capacity(inputs),
                script_ends: Vec::with_capacity(inputs),
                scripts: Vec::with_capacity(bytes / 4),
            },
            outputs: Outputs {
                values: Vec::with_capacity(outputs),
                script_ends: Vec::with_capacity(outputs),
                scripts: Vec::with_capacity(outputs * 32),
            },
            layouts: Vec::with_capacity(count),
        }
    }

    /// The columns of transactions that stand alone, each as its own bytes.
    ///
    /// # Errors
    ///
    /// When one of them is not exactly one transaction.
    pub fn of_transactions<'a>(
        transactions: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, DecodeError> {
        let mut columns = Self::default();
        for raw in transactions {
            let mut reader = Reader::new(raw);
            columns.push(&mut reader)?;
            reader.finish()?;
            if let Some(txid) = columns.layouts.last().and_then(|layout| layout.txid(raw)) {
                columns.transactions.txids.extend_from_slice(&txid);
            }
        }
        Ok(columns)
    }

    /// Memory that the columns take, in bytes.
    pub(super) fn footprint(&self) -> usize {
        let Self {
            transactions,
            inputs,
            outputs,
            layouts,
        } = self;
        transactions.txids.capacity()
            + 24 * transactions.versions.capacity()
            + inputs.prev_txids.capacity()
            + 12 * inputs.prev_vouts.capacity()
            + inputs.scripts.capacity()
            + 12 * outputs.values.capacity()
            + outputs.scripts.capacity()
            + size_of::<Layout>() * layouts.capacity()
    }

    /// Gives back memory that was taken for more than came.
    pub(super) fn shrink(&mut self) {
        self.inputs.scripts.shrink_to_fit();
        self.inputs.prev_txids.shrink_to_fit();
        self.outputs.scripts.shrink_to_fit();
    }

    /// Number of transactions.
    pub fn len(&self) -> usize {
        self.layouts.len()
    }

    /// Whether there is no transaction.
    pub fn is_empty(&self) -> bool {
        self.layouts.is_empty()
    }

    /// Where a transaction's parts lie in the bytes that it was decoded from.
    pub fn layout(&self, index: usize) -> Option<&Layout> {
        self.layouts.get(index)
    }

    /// Where all transactions lie in the bytes that they were decoded from.
    pub fn layouts(&self) -> &[Layout] {
        &self.layouts
    }

    /// Fills the column of txids from the bytes that the transactions were decoded from.
    pub fn hash_txids(&mut self, raw: &[u8]) {
        self.transactions.txids.clear();
        self.transactions.txids.reserve(self.layouts.len() * 32);
        for txid in self.layouts.iter().filter_map(|layout| layout.txid(raw)) {
            self.transactions.txids.extend_from_slice(&txid);
        }
    }

    /// The txids one by one, internal order.
    pub fn txids(&self) -> impl ExactSizeIterator<Item = &[u8; 32]> {
        self.transactions.txids.as_chunks::<32>().0.iter()
    }

    /// Reads one transaction (BIP144) and adds it.
    pub(super) fn push(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let start = reader.at();
        self.transactions.versions.push(reader.u32()?);
        // An empty input list stands for the marker of BIP144; a transaction without inputs is none.
        let segwit = reader.peek()? == 0;
        if segwit {
            let [_, flag] = reader.array()?;
            if flag != 1 {
                return Err(DecodeError::Flag {
                    flag,
                    at: reader.at() - 1,
                });
            }
        }
        let inputs_at = reader.at();
        let inputs = reader.count(41)?;
        for _ in 0..inputs {
            self.inputs
                .prev_txids
                .extend_from_slice(&reader.array::<32>()?);
            self.inputs.prev_vouts.push(reader.u32()?);
            self.inputs.scripts.extend_from_slice(reader.var_bytes()?);
            self.inputs
                .script_ends
                .push(self.inputs.scripts.len() as u32);
            self.inputs.sequences.push(reader.u32()?);
        }
        for _ in 0..reader.count(9)? {
            self.outputs.values.push(reader.u64()?);
            self.outputs.scripts.extend_from_slice(reader.var_bytes()?);
            self.outputs
                .script_ends
                .push(self.outputs.scripts.len() as u32);
        }
        let outputs_end = reader.at();
        if segwit {
            let mut items = 0;
            for _ in 0..inputs {
                let count = reader.count(1)?;
                items += count;
                for _ in 0..count {
                    reader.var_bytes()?;
                }
            }
            if items == 0 {
                return Err(DecodeError::SuperfluousWitness(start));
            }
        }
        self.transactions.lock_times.push(reader.u32()?);

        let layout = Layout {
            start: start as u32,
            inputs: inputs_at as u32,
            outputs_end: outputs_end as u32,
            end: reader.at() as u32,
        };
        let size = layout.end - layout.start;
        self.transactions.sizes.push(size);
        self.transactions
            .weights
            .push(3 * layout.stripped_size() + size);
        self.transactions
            .input_ends
            .push(self.inputs.prev_vouts.len() as u32);
        self.transactions
            .output_ends
            .push(self.outputs.values.len() as u32);
        self.layouts.push(layout);
        Ok(())
    }

    /// The witness stacks of all inputs, read again from the bytes that the transactions were decoded from; `raw` gives
    /// the bytes of each transaction in turn.
    ///
    /// # Errors
    ///
    /// When the bytes are not those that the transactions were decoded from.
    pub fn witnesses<'a>(
        &self,
        mut raw: impl FnMut(usize) -> Option<&'a [u8]>,
    ) -> Result<Witnesses, DecodeError> {
        let mut out = Witnesses::default();
        out.item_ends.reserve(self.inputs.prev_vouts.len());
        let mut first_input = 0;
        for (index, (layout, &end)) in self
            .layouts
            .iter()
            .zip(&self.transactions.input_ends)
            .enumerate()
        {
            let inputs = end - first_input;
            first_input = end;
            if !layout.has_witness() {
                out.item_ends
                    .extend((0..inputs).map(|_| out.ends.len() as u32));
                continue;
            }
            let skip = (layout.outputs_end - layout.start) as usize;
            let bytes = raw(index).and_then(|tx| tx.get(skip..)).unwrap_or_default();
            let mut reader = Reader::new(bytes);
            for _ in 0..inputs {
                for _ in 0..reader.count(1)? {
                    out.items.extend_from_slice(reader.var_bytes()?);
                    out.ends.push(out.items.len() as u32);
                }
                out.item_ends.push(out.ends.len() as u32);
            }
        }
        Ok(out)
    }
}
