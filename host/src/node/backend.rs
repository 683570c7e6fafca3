//! What the API shows of a running host.

mod pool;

use self::pool::{pool_status, pool_transaction};
use super::lanes::Lanes;
use super::manager::{Asker, Board, Idle};
use crate::api::{Backend, BlockId, OwnerToken, PeerOrder, PluginAction, QueryFailure};
use crate::block_log::BlockLog;
use crate::config::Config;
use crate::frame::Frame;
use crate::lane::{Feed, LaneShared, LaneStage, LaneStores, PoolFeed, Position};
use crate::net::{NetHandle, NetView};
use crate::network::Params;
use crate::snapshot::{self, Exported};
use crate::source::SourceProgress;
use crate::status::{
    self, BlockInfo, Headers, Health, Plugin, PluginState, Status, Tip, TxOutSet, Values,
};
use anyhow::Result;
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

mod peers;

/// Blocks that a lane may be behind the tip and still be called following.
const MAX_LAG: u32 = 2;

pub(super) struct NodeBackend {
    network: &'static str,
    params: &'static Params,
    started: Instant,
    feed: Arc<Feed>,
    lanes: Arc<Lanes>,
    board: Arc<Board>,
    asker: Asker,
    net: NetHandle,
    pool: Option<Arc<PoolFeed>>,
    blocks: Arc<BlockLog>,
    source: Option<Arc<Mutex<SourceProgress>>>,
    owner: OwnerToken,
    stores: LaneStores,
    config: Config,
}

impl NodeBackend {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        config: &Config,
        board: Arc<Board>,
        asker: Asker,
        feed: Arc<Feed>,
        lanes: Arc<Lanes>,
        net: NetHandle,
        pool: Option<Arc<PoolFeed>>,
        blocks: Arc<BlockLog>,
        source: Option<Arc<Mutex<SourceProgress>>>,
        owner: OwnerToken,
        stores: LaneStores,
    ) -> Self {
        let disabled = config.plugin.iter().filter(|(_, plugin)| !plugin.enabled);
        board
            .notes()
            .idle
            .extend(disabled.map(|(name, _)| (name.clone(), Idle::Disabled)));
        Self {
            network: config.network.name(),
            params: config.network.params(),
            started: Instant::now(),
            feed,
            lanes,
            board,
            asker,
            net,
            pool,
            blocks,
            source,
            owner,
            stores,
            config: config.clone(),
        }
    }

    pub(super) fn net(&self) -> NetView {
        self.net.view()
    }

    /// Writes the log line of a block that every lane has committed.
    pub(super) fn say_block(&self, height: u32) {
        let Some(hash) = self.feed.chain().hash_at(height) else {
            return;
        };
        let position = Position { height, hash };
        let Some((frame, announced)) = self.feed.recent(&position.hash) else {
            return;
        };
        let fees = self.feed.spent(position).ok().flatten().map(|spent| {
            let coinbase = frame
                .columns
                .transactions
                .output_ends
                .first()
                .map_or(0, |&end| end as usize);
            let out: u64 = frame.columns.outputs.values.iter().skip(coinbase).sum();
            spent.total().saturating_sub(out)
        });
        // From the announcement to the last lane's flush.
        let serving = self.lanes.serving();
        let done = serving
            .iter()
            .filter_map(|lane| lane.status().flushed_at)
            .max();
        let took = announced
            .zip(done)
            .map(|(announced, done)| done.saturating_duration_since(announced));
        let lanes: Vec<String> = serving
            .iter()
            .map(|lane| {
                format!(
                    "{}@{}",
                    lane.name(),
                    lane.status().flushed.map_or(0, |at| at.height)
                )
            })
            .collect();
        tracing::info!(
            height,
            %hash,
            txs = frame.tx_count(),
            size = frame.size,
            fees_sat = fees,
            committed_ms = took.map(|took| took.as_secs_f64() * 1e3),
            plugins = lanes.join(" "),
            "block"
        );
    }

    fn source(&self, net: &NetView) -> Option<status::Source> {
        let progress = self.source.as_ref()?;
        let progress = progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let foreign = self.blocks.foreign();
        Some(status::Source {
            path: foreign
                .and_then(|foreign| foreign.folder())
                .map_or_else(String::new, |folder| folder.path().display().to_string()),
            files: progress.files,
            files_read: progress.files_read,
            files_missing: progress.files_missing,
            bytes: progress.bytes,
            scanned: progress.scanned,
            blocks: progress.blocks,
            blocks_taken: foreign.map_or(0, |foreign| foreign.len() as u64),
            blocks_waiting: net.source.waiting as u64,
            blocks_unconnected: net.source.unconnected as u64,
            error: progress.error,
        })
    }

    fn synced(&self) -> bool {
        // On disk as well: queries answer from there.
        let level = |lane: &Arc<LaneShared>| {
            let status = lane.status();
            self.lag(lane) == 0 && status.flushed == status.cursor
        };
        self.feed.synced() && self.lanes.serving().iter().all(level)
    }

    fn lane(&self, name: &str) -> Result<Arc<LaneShared>, QueryFailure> {
        self.lanes
            .find(name)
            .ok_or_else(|| QueryFailure::NoSuchPlugin(format!("no plugin {name:?} runs")))
    }

    fn lag(&self, lane: &LaneShared) -> u32 {
        let tip = self.feed.chain().tip().map_or(0, |tip| tip.height);
        match lane.status().cursor {
            Some(at) => tip.saturating_sub(at.height),
            None => tip.saturating_add(1),
        }
    }

    fn plugin(&self, lane: &LaneShared) -> Plugin {
        let (lane_status, program) = (lane.status(), lane.program());
        let notes = self.board.notes();
        let previous = notes.previous.get(lane.name()).cloned();
        let reload = notes.reloads.get(lane.name()).cloned();
        drop(notes);
        Plugin {
            name: lane.name().to_owned(),
            version: program.descriptor.version.clone(),
            sha256: program.compiled.sha256.to_string(),
            state: match lane_status.stage {
                LaneStage::Starting => PluginState::Starting,
                LaneStage::Syncing => PluginState::Syncing,
                LaneStage::Following => PluginState::Following,
                LaneStage::Waiting => PluginState::Waiting,
                LaneStage::Retrying => PluginState::Retrying,
                LaneStage::Quarantined => PluginState::Quarantined,
                LaneStage::WaitingForHost => PluginState::WaitingForHost,
                LaneStage::Stopped => PluginState::Stopped,
            },
            height: lane_status.cursor.map(|at| at.height),
            hash: lane_status.cursor.map(|at| at.hash.to_string()),
            lag: self.lag(lane),
            waiting_for: lane_status.waiting.map(|waiting| waiting.to_string()),
            last_error: lane_status.last_error,
            budgets: lane.budgets(),
            attempts: lane_status.attempts,
            capsule: lane_status.capsule.map(|path| path.display().to_string()),
            previous_sha256: previous,
            reload,
        }
    }
}

fn borrowed(params: &[(String, String)]) -> Vec<(&str, &str)> {
    params
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

pub(super) fn services(flags: ServiceFlags) -> Vec<String> {
    const NAMES: [(u64, &str); 7] = [
        (0, "NETWORK"),
        (2, "BLOOM"),
        (3, "WITNESS"),
        (6, "COMPACT_FILTERS"),
        (10, "NETWORK_LIMITED"),
        (11, "P2P_V2"),
        (1, "GETUTXO"),
    ];
    let bits = flags.to_u64();
    (0..64)
        .filter(|bit| bits & (1 << bit) != 0)
        .map(|bit| {
            let known = NAMES.iter().find(|(known, _)| *known == bit);
            known.map_or_else(|| format!("2^{bit}"), |(_, name)| (*name).to_owned())
        })
        .collect()
}

impl Backend for NodeBackend {
    fn status(&self) -> Status {
        let net = self.net.view();
        let tip = self.tip();
        let mempool = self.pool.as_ref().map(|pool| {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |t| t.as_secs());
            pool_status(&pool.pool(), now)
        });
        let peers = net.peers.iter().map(peers::shown);
        let (config_error, needs_restart) = {
            let notes = self.board.notes();
            (notes.config_error.clone(), notes.needs_restart.clone())
        };
        Status {
            config_error,
            needs_restart,
            network: self.network.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            headers: Headers {
                height: net.best_header.max(tip.height),
            },
            tip,
            synced: self.synced(),
            not_following: match self.health() {
                Health::NotFollowing(why) => Some(why),
                Health::Following | Health::Degraded(_) => None,
            },
            peers: peers.collect(),
            mempool: mempool.unwrap_or_default(),
            plugins: self.plugins(),
            reorgs: net.reorgs,
            source: self.source(&net),
        }
    }

    fn pool_transaction(&self, txid: bitcoin::Txid) -> Option<status::PoolTransaction> {
        pool_transaction(&self.pool.as_ref()?.pool(), &txid)
    }

    fn health(&self) -> Health {
        let net = self.net.view();
        if let Some(why) = self.feed.not_kept() {
            return Health::NotFollowing(format!("blocks cannot be kept: {why}"));
        }
        if let Some(why) = net.held_up {
            return Health::NotFollowing(why);
        }
        if net.peers.is_empty() && !(self.source.is_some() && self.feed.synced()) {
            return Health::NotFollowing("no peer is connected".to_owned());
        }
        if !self.feed.synced() {
            let tip = self.tip().height;
            return Health::NotFollowing(format!("at block {tip} of {}", net.best_header.max(tip)));
        }
        let mut quarantined = BTreeMap::new();
        // Others are behind for the sake of one that fails: that one is what is wrong.
        let mut behind = None;
        for lane in self.lanes.serving() {
            let status = lane.status();
            let why = status.last_error.unwrap_or_default();
            match status.stage {
                LaneStage::Retrying => {
                    return Health::NotFollowing(format!("plugin {} fails: {why}", lane.name()));
                }
                LaneStage::WaitingForHost => {
                    return Health::NotFollowing(format!(
                        "plugin {} waits for the host: {why}",
                        lane.name()
                    ));
                }
                // Without the coins nobody knows what blocks spend, and whether they are valid.
                LaneStage::Quarantined if lane.program().descriptor.coins => {
                    return Health::NotFollowing(format!(
                        "plugin {} is quarantined: {why}",
                        lane.name()
                    ));
                }
                LaneStage::Quarantined => {
                    quarantined.insert(lane.name().to_owned(), why);
                    continue;
                }
                _ => {}
            }
            let lag = self.lag(&lane);
            if lag > MAX_LAG && behind.is_none() {
                let name = lane.name();
                behind = Some(match status.waiting {
                    Some(waiting) => format!("plugin {name} is {waiting}"),
                    None => format!("plugin {name} is {lag} blocks behind"),
                });
            }
        }
        if let Some(why) = behind {
            return Health::NotFollowing(why);
        }
        match quarantined.is_empty() {
            true => Health::Following,
            false => Health::Degraded(quarantined),
        }
    }

    fn tip(&self) -> Tip {
        let chain = self.feed.chain();
        let Some(tip) = chain.tip() else {
            return Tip::default();
        };
        let time = chain
            .header_at(tip.height)
            .map_or(0, |(header, _)| header.time);
        Tip {
            height: tip.height,
            hash: tip.hash.to_string(),
            time,
        }
    }

    fn block(&self, id: BlockId) -> Result<Option<BlockInfo>> {
        let chain = self.feed.chain();
        let position = match id {
            BlockId::Height(height) => chain.hash_at(height).map(|hash| Position { height, hash }),
            BlockId::Hash(bytes) => {
                let hash = BlockHash::from_byte_array(bytes);
                chain.find(&hash).or_else(|| {
                    self.blocks
                        .height_of(&hash)
                        .map(|height| Position { height, hash })
                })
            }
        };
        let Some(position) = position else {
            return Ok(None);
        };
        let active = chain.contains(position);
        let next = chain.hash_at(position.height + 1).filter(|_| active);
        let tip = chain.tip().map_or(0, |tip| tip.height);
        let known = chain.header_at(position.height).filter(|_| active);
        drop(chain);
        // A large one is not read for this: what is not known without it stays out.
        let large = self.feed.large(position).is_some();
        let frame = (!large)
            .then(|| self.blocks.get(&position.hash))
            .transpose()?
            .flatten()
            .map(Frame::decode_without_txids)
            .transpose()?;
        let (header, median_time) = match (known, &frame) {
            (Some(known), _) => known,
            (None, Some(frame)) => (frame.header, frame.header.time),
            (None, None) => return Ok(None),
        };
        Ok(Some(BlockInfo {
            height: position.height,
            hash: position.hash.to_string(),
            previous: header.prev_blockhash.to_string(),
            next: next.map(|hash| hash.to_string()),
            active,
            confirmations: if active { tip - position.height + 1 } else { 0 },
            version: header.version.to_consensus(),
            merkle_root: header.merkle_root.to_string(),
            time: header.time,
            median_time,
            bits: format!("{:08x}", header.bits.to_consensus()),
            nonce: header.nonce,
            txs: frame.as_ref().map(|frame| frame.tx_count() as u32),
            size: frame.as_ref().map(|frame| frame.size),
            weight: frame.as_ref().map(Frame::weight),
        }))
    }

    fn plugins(&self) -> Vec<Plugin> {
        let serving = self.lanes.serving();
        let running = serving.iter().map(|lane| self.plugin(lane));
        let running: Vec<Plugin> = running.collect();
        let notes = self.board.notes();
        let idle = notes.idle.iter().map(|(name, why)| Plugin {
            name: name.clone(),
            version: String::new(),
            sha256: String::new(),
            state: match why {
                Idle::Disabled => PluginState::Disabled,
                Idle::Failed(_) => PluginState::Failed,
            },
            height: None,
            hash: None,
            lag: 0,
            waiting_for: None,
            last_error: match why {
                Idle::Disabled => None,
                Idle::Failed(why) => Some(why.clone()),
            },
            previous_sha256: None,
            reload: notes.reloads.get(name).cloned(),
            budgets: BTreeMap::new(),
            attempts: 0,
            capsule: None,
        });
        running.into_iter().chain(idle).collect()
    }

    fn query(
        &self,
        plugin: &str,
        path: &str,
        params: Vec<(String, String)>,
    ) -> Result<String, QueryFailure> {
        self.lane(plugin)?.query(path, &borrowed(&params))
    }

    fn change(
        &self,
        plugin: &str,
        path: &str,
        params: Vec<(String, String)>,
    ) -> Result<String, QueryFailure> {
        self.lane(plugin)?.change(path, &borrowed(&params))
    }

    fn peers(&self) -> status::Peers {
        peers::all(&self.net.view())
    }

    fn change_peers(&self, order: PeerOrder) -> Result<String, QueryFailure> {
        peers::change(&self.net, &self.config, order)
    }

    fn is_owner(&self, token: &str) -> bool {
        self.owner.is(token)
    }

    fn values(&self, plugin: &str) -> Result<Values, QueryFailure> {
        Ok(self.lane(plugin)?.surroundings.gauges.values())
    }

    fn manage(&self, plugin: Option<(String, PluginAction)>) -> Result<String, QueryFailure> {
        self.asker.ask(plugin)
    }

    fn export_snapshot(
        &self,
        plugin: &str,
        file: &std::path::Path,
        at: Option<u32>,
    ) -> Result<Exported, QueryFailure> {
        let lane = self.lane(plugin)?;
        let failed = |error: anyhow::Error| QueryFailure::Failed(format!("{error:#}"));
        let note = self
            .stores
            .rows
            .note(plugin)
            .map_err(|error| failed(error.into()))?;
        let note =
            note.ok_or_else(|| QueryFailure::Busy("no block has been stored yet".to_owned()))?;
        let coins = lane.program().descriptor.coins;
        let about = super::snapshot::about(self.params, plugin, &note, coins).map_err(failed)?;
        let fork = self.stores.state.fork(&note.slot.lane(plugin));
        let fork = fork.map_err(|error| failed(error.into()))?;
        Ok(snapshot::export(fork, about, file, at, || {
            !self.feed.stopping()
        })?)
    }

    fn txoutset(&self) -> Result<TxOutSet, QueryFailure> {
        let Some(lane) = self.lanes.coins() else {
            let message = "no plugin with the role \"coins\" runs: switch utxo-tracker on";
            return Err(QueryFailure::NoSuchPlugin(message.to_owned()));
        };
        let Some(view) = lane.view().filter(|view| view.cursor().is_some()) else {
            return Err(QueryFailure::Busy(
                "no block has been stored yet".to_owned(),
            ));
        };
        super::txoutset(&view, || !self.feed.stopping())
            .map_err(|error| QueryFailure::Failed(format!("{error:#}")))
    }
}
