//! Runs a plugin as the host does.

use std::collections::BTreeMap;

use bitcoin::hashes::Hash;
use bitcoin::{Block, Transaction, Txid};

use super::blocks;
use super::host::{self, Cell, Host, Phase, Row};
use crate::{
    BlockAnswer, BlockError, Json, MempoolChanges, Params, Processor, QueryError, StartInfo,
    TableKind, wire,
};

/// What is needed to go back before a block.
struct Undo {
    height: u32,
    journal: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// A transaction for [`Harness::mempool`].
#[derive(Clone, Debug)]
pub struct PoolTransaction {
    /// The transaction.
    pub transaction: Transaction,
    /// sat.
    pub fee: u64,
    /// Unconfirmed parents.
    pub parents: Vec<Txid>,
}

/// A plugin and a host in memory around it.
pub struct Harness<P> {
    plugin: P,
    host: Option<Host>,
    settings: String,
    undo: Vec<Undo>,
    /// What `mempool` gives as `current`.
    pub current: bool,
    /// What `mempool` gives as `time`, unix seconds.
    pub time: u64,
    /// What `MempoolChanges::sigop_costs` says of a transaction; 0 of others.
    pub sigop_costs: BTreeMap<Txid, u32>,
    pool_reset: bool,
}

impl<P: Processor> Harness<P> {
    /// A plugin on regtest with these settings and an empty state. Panics where `start` refuses the settings.
    pub fn new(settings: Json) -> Self {
        Self::on("regtest", settings)
    }

    /// A plugin on this network with these settings and an empty state.
    pub fn on(network: &str, settings: Json) -> Self {
        Self::try_on(network, settings).unwrap_or_else(|error| panic!("start: {error}"))
    }

    /// Like `on`, with the error that `start` answers.
    pub fn try_on(network: &str, settings: Json) -> Result<Self, String> {
        let descriptor = P::describe();
        assert!(
            descriptor == P::describe(),
            "describe must always give the same answer"
        );
        let mut host = Some(Host {
            phase: Phase::Idle,
            network: network.into(),
            rows: vec![Vec::new(); descriptor.tables.len()],
            descriptor,
            headers: BTreeMap::new(),
            state: BTreeMap::new(),
            journal: Vec::new(),
            volatile: BTreeMap::new(),
            values: BTreeMap::new(),
            series: BTreeMap::new(),
            log: Vec::new(),
            changes: None,
            sigop_costs: Vec::new(),
        });
        let settings = settings.to_string();
        let plugin = start(&mut host, &settings, None)?;
        Ok(Harness {
            plugin,
            host,
            settings,
            undo: Vec::new(),
            current: true,
            time: 0,
            sigop_costs: BTreeMap::new(),
            pool_reset: true,
        })
    }

    fn inside(&self) -> &Host {
        self.host.as_ref().expect("the host is here between calls")
    }

    fn inside_mut(&mut self) -> &mut Host {
        self.host.as_mut().expect("the host is here between calls")
    }

    /// Height of the last block, none before the first.
    pub fn height(&self) -> Option<u32> {
        self.inside()
            .headers
            .last_key_value()
            .map(|(height, _)| *height)
    }

    /// The plugin itself.
    pub fn plugin(&self) -> &P {
        &self.plugin
    }

    /// Gives the next block. The first one has height 0 if its parent is the null hash, else 1.
    pub fn block(&mut self, block: &Block) -> Result<BlockAnswer, BlockError> {
        self.block_with(block, None)
    }

    /// Gives the next block with the outputs it spends.
    pub fn block_with(
        &mut self,
        block: &Block,
        spent: Option<wire::Spent>,
    ) -> Result<BlockAnswer, BlockError> {
        let height = match self.height() {
            Some(height) => height + 1,
            None => u32::from(block.header.prev_blockhash != bitcoin::BlockHash::all_zeros()),
        };
        self.block_at(height, block, spent)
    }

    /// Gives a block as that of any height.
    pub fn block_at(
        &mut self,
        height: u32,
        block: &Block,
        spent: Option<wire::Spent>,
    ) -> Result<BlockAnswer, BlockError> {
        let header = self.header(height, block);
        let wanted = self.inside().descriptor.columns;
        let raw = wanted
            .contains(crate::WantedColumns::RAW)
            .then(|| bitcoin::consensus::serialize(block));
        let given = wire::Block {
            header: header.clone(),
            columns: blocks::columns(&block.txdata, wanted, spent),
            raw,
        };
        let given = crate::Block::new(given).expect("the harness makes sound columns");

        let before: Vec<usize> = self.inside().rows.iter().map(Vec::len).collect();
        self.inside_mut().headers.insert(height, header);
        let plugin = &mut self.plugin;
        let result = host::during(&mut self.host, Phase::Block(height), || {
            plugin.on_block(&given)
        });
        let journal = std::mem::take(&mut self.inside_mut().journal);
        match result {
            Ok(answer) => {
                self.undo.push(Undo { height, journal });
                Ok(answer)
            }
            Err(error) => {
                let host = self.inside_mut();
                host.headers.remove(&height);
                rewind(host, journal);
                for (table, length) in before.into_iter().enumerate() {
                    if host.descriptor.tables[table].kind == TableKind::Anchored {
                        host.rows[table].truncate(length);
                    }
                }
                self.restart();
                Err(error)
            }
        }
    }

    /// Gives the next block in parts of `size` transactions, as the host does with a large one; `spent` has one entry a part.
    pub fn parts(
        &mut self,
        block: &Block,
        size: usize,
        spent: &[wire::Spent],
    ) -> Result<Vec<BlockAnswer>, BlockError> {
        let height = self.height().map_or(1, |height| height + 1);
        let header = self.header(height, block);
        let wanted = self.inside().descriptor.columns;
        self.inside_mut().headers.insert(height, header.clone());
        let total = block.txdata.len();
        let mut answers = Vec::new();
        for (n, part) in block.txdata.chunks(size).enumerate() {
            let last = (n + 1) * size >= total;
            let mut header = header.clone();
            if !last {
                header.weight = 0;
            }
            let given = wire::Block {
                header,
                columns: blocks::columns(part, wanted, spent.get(n).cloned()),
                raw: None,
            };
            let given = crate::Block::part(given, (n * size) as u32)
                .expect("the harness makes sound columns");
            let place = crate::Part {
                first: (n * size) as u32,
                transactions: total as u32,
                last,
            };
            let plugin = &mut self.plugin;
            answers.push(host::during(&mut self.host, Phase::Block(height), || {
                plugin.on_part(&given, &place)
            })?);
        }
        let journal = std::mem::take(&mut self.inside_mut().journal);
        self.undo.push(Undo { height, journal });
        Ok(answers)
    }

    /// Goes back to `height` as a reorg does: state and rows are rewound, and a fresh instance is started.
    pub fn rollback(&mut self, height: u32) {
        while self.undo.last().is_some_and(|undo| undo.height > height) {
            let undo = self.undo.pop().expect("just seen");
            let host = self.inside_mut();
            rewind(host, undo.journal);
            host.headers.remove(&undo.height);
            for (table, rows) in host.descriptor.tables.iter().zip(&mut host.rows) {
                if table.kind == TableKind::Anchored {
                    rows.retain(
                        |row| matches!(row[0], Cell::Integer(at) if at <= i64::from(height)),
                    );
                }
            }
        }
        self.restart();
    }

    /// Starts a fresh instance on the state as it is, which the host may do between any two calls.
    pub fn restart(&mut self) {
        let height = self.height();
        let settings = self.settings.clone();
        self.plugin = start(&mut self.host, &settings, height)
            .unwrap_or_else(|error| panic!("start: {error}"));
        self.pool_reset = true;
    }

    /// Like `restart`, with other settings; answers the error that `start` answers, and leaves the instance as it was.
    pub fn try_restart(&mut self, settings: Json) -> Result<(), String> {
        let height = self.height();
        let settings = settings.to_string();
        self.plugin = start(&mut self.host, &settings, height)?;
        self.settings = settings;
        self.pool_reset = true;
        Ok(())
    }

    /// Gives changes of the pool: what left (and the number of the reason), then what came. After a start and a rollback
    /// they are marked as a reset.
    pub fn mempool(
        &mut self,
        removed: &[(Txid, u8)],
        added: &[PoolTransaction],
    ) -> Result<(), String> {
        let host = self.host.as_mut().expect("the host is here between calls");
        if self.pool_reset {
            host.volatile.clear();
            for (table, rows) in host.descriptor.tables.iter().zip(&mut host.rows) {
                if table.kind == TableKind::Volatile {
                    rows.clear();
                }
            }
        }
        let transactions: Vec<Transaction> = added
            .iter()
            .map(|entry| entry.transaction.clone())
            .collect();
        let costs = transactions
            .iter()
            .map(|tx| self.sigop_costs.get(&tx.compute_txid()).copied());
        host.sigop_costs = costs.map(Option::unwrap_or_default).collect();
        let mut parent_ends = Vec::new();
        let mut parents = Vec::new();
        for entry in added {
            parents.extend(entry.parents.iter().flat_map(|txid| txid.to_byte_array()));
            parent_ends.push((parents.len() / 32) as u32);
        }
        let changes = wire::MempoolChanges {
            reset: std::mem::take(&mut self.pool_reset),
            time: self.time,
            height: host
                .headers
                .last_key_value()
                .map_or(0, |(height, _)| *height),
            current: self.current,
            removed: removed
                .iter()
                .flat_map(|(txid, _)| txid.to_byte_array())
                .collect(),
            removed_reasons: removed.iter().map(|(_, reason)| *reason).collect(),
            added: blocks::columns(&transactions, host.descriptor.columns, None),
            fees: added.iter().map(|entry| entry.fee).collect(),
            vsizes: transactions
                .iter()
                .map(|transaction| transaction.vsize() as u32)
                .collect(),
            first_seen: added.iter().map(|_| self.time).collect(),
            origins: added.iter().map(|_| 0).collect(),
            parent_ends,
            parents,
        };
        let changes = MempoolChanges::new(changes).expect("the harness makes sound columns");
        let plugin = &mut self.plugin;
        host::during(&mut self.host, Phase::Mempool, || {
            plugin.on_mempool(&changes)
        })
    }

    /// Asks a question, on an instance of its own as the host does.
    pub fn query(&mut self, path: &str, params: &[(&str, &str)]) -> Result<Json, QueryError> {
        let params = Params::new(
            params
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
        );
        let info = StartInfo {
            settings: self.settings.clone(),
            height: self.height(),
        };
        host::during(&mut self.host, Phase::Query, || P::start(&info))
            .map_err(QueryError::Failed)
            .and_then(|plugin| {
                host::during(&mut self.host, Phase::Query, || plugin.query(path, &params))
            })
    }

    /// Asks as the host's owner does. What the plugin changes in its settings is kept if it takes it, and a fresh instance
    /// has it.
    pub fn change(&mut self, path: &str, params: &[(&str, &str)]) -> Result<Json, QueryError> {
        self.inside_mut().changes = Some(Vec::new());
        let answer = self.query(path, params);
        let changes = self.inside_mut().changes.take().unwrap_or_default();
        let answer = answer?;
        if changes.is_empty() {
            return Ok(answer);
        }
        let Ok(Json::Object(mut settings)) = Json::parse(&self.settings) else {
            panic!("the settings are no object: {}", self.settings)
        };
        let mut runtime = match settings.remove("runtime") {
            Some(Json::Object(runtime)) => runtime,
            _ => crate::Object::new(),
        };
        for (name, value) in changes {
            match value {
                Some(text) => runtime.insert(name, Json::parse(&text).expect("a JSON text")),
                None => drop(runtime.remove(&name)),
            }
        }
        if !runtime.is_empty() {
            settings.insert("runtime".into(), runtime.into());
        }
        self.try_restart(settings.into())
            .map_err(QueryError::BadRequest)?;
        Ok(answer)
    }

    /// The rows of a table, in the order in which they were written; an anchored table's first column is the height.
    pub fn rows(&self, table: &str) -> &[Row] {
        let tables = &self.inside().descriptor.tables;
        let place = tables
            .iter()
            .position(|declared| declared.name == table)
            .expect("a declared table");
        &self.inside().rows[place]
    }

    /// Every value of one column of a table, by the column's name (`height` too, in an anchored one).
    pub fn column(&self, table: &str, column: &str) -> Vec<Cell> {
        let declared = self
            .inside()
            .descriptor
            .tables
            .iter()
            .find(|declared| declared.name == table)
            .expect("a table");
        let anchored = usize::from(declared.kind == TableKind::Anchored);
        let place = match declared
            .columns
            .iter()
            .position(|declared| declared.name == column)
        {
            Some(place) => place + anchored,
            None => {
                assert!(
                    anchored == 1 && column == "height",
                    "`{table}` has no column `{column}`"
                );
                0
            }
        };
        self.rows(table)
            .iter()
            .map(|row| row[place].clone())
            .collect()
    }

    /// The whole state.
    pub fn state(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.inside().state
    }

    /// Puts entries into the state as if earlier blocks had done it.
    pub fn put_state<'a>(&mut self, entries: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
        let entries = entries
            .into_iter()
            .map(|(key, value)| (key.to_vec(), value.to_vec()));
        self.inside_mut().state.extend(entries);
        self.restart();
    }

    /// The whole volatile space.
    pub fn volatile(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.inside().volatile
    }

    /// A gauge.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.inside().values.get(name).copied()
    }

    /// A series: heights and values.
    pub fn series(&self, name: &str) -> &[(u32, f64)] {
        self.inside().series.get(name).map_or(&[], Vec::as_slice)
    }

    /// The lines of the log, each with its level before it.
    pub fn log(&self) -> &[String] {
        &self.inside().log
    }

    fn header(&self, height: u32, block: &Block) -> wire::BlockHeader {
        let headers = &self.inside().headers;
        let mut times: Vec<u32> = headers
            .values()
            .rev()
            .take(10)
            .map(|header| header.time)
            .collect();
        times.push(block.header.time);
        times.sort_unstable();
        wire::BlockHeader {
            height,
            hash: block.block_hash().to_byte_array().to_vec(),
            previous: block.header.prev_blockhash.to_byte_array().to_vec(),
            merkle_root: block.header.merkle_root.to_byte_array().to_vec(),
            version: block.header.version.to_consensus(),
            time: block.header.time,
            bits: block.header.bits.to_consensus(),
            nonce: block.header.nonce,
            median_time: times[times.len() / 2],
            size: block.total_size() as u32,
            weight: block.weight().to_wu() as u32,
        }
    }
}

fn start<P: Processor>(
    host: &mut Option<Host>,
    settings: &str,
    height: Option<u32>,
) -> Result<P, String> {
    let info = StartInfo {
        settings: settings.into(),
        height,
    };
    host::during(host, Phase::Start, || P::start(&info))
}

fn rewind(host: &mut Host, journal: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
    for (key, before) in journal.into_iter().rev() {
        match before {
            Some(value) => host.state.insert(key, value),
            None => host.state.remove(&key),
        };
    }
}
