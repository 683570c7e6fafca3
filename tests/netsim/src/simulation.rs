//! The clock, and what happens when.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::bip152::ShortId;
use bitcoin::consensus::serialize;
use bitcoin::{BlockHash, Transaction, Txid};
use blockmill::chain::SyncConfig;
use blockmill::chain::block_check::BlockContext;
use blockmill::chain::sync::PeerId;
use blockmill::chain::sync::book::Reach;
use blockmill::network::Network;
use blockmill::wire::Moment;
use bytes::Bytes;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::host::{self, Host, Wish};
use crate::link::Link;
use crate::mining;
use crate::node::{Act, Kind};
use crate::scenario::Scenario;
use crate::world::{Side, World};

const TICK: Duration = Duration::from_millis(200);
const SECOND: Duration = Duration::from_secs(1);
/// Peers that a DNS seed names.
const SEEDED: usize = 60;
/// How long the machine sleeps when it does.
const SLEEP: Duration = Duration::from_secs(3_600);
/// Bytes of blocks that may wait for the check: small, so that too much is noticed.
const UNCHECKED: usize = 4 << 20;
/// What the machine may keep beyond that: the header tree, and for each peer what is in its buffers.
const MOST_KEPT: i64 = 48 << 20;

enum Event {
    Tick,
    /// Every peer may do something unasked.
    Act,
    Mine(Side),
    Pay,
    Split,
    Heal,
    Sleep,
    TroubleEnds,
    Learn(usize, u32, Side),
    LearnTransaction(usize, u64),
    Connected(PeerId, SocketAddr),
    ToHost(PeerId, Bytes),
    ToNode(PeerId, Bytes),
    Closed(PeerId),
    Checked(BlockHash, BlockContext, Bytes),
    Filled(PeerId, BlockHash, Vec<Option<Bytes>>),
}

struct Connection {
    node: usize,
    up: Link,
    down: Link,
}

struct Dropped {
    kind: Kind,
    reason: String,
    /// It was banned for it.
    offence: bool,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What it was made of.
    pub seed: u64,
    /// Simulated time until the host was at the tip for good.
    pub took: Duration,
    /// The most bytes that the network machine kept.
    pub peak: i64,
    /// Of everything that the host sent, in order.
    pub trace: u64,
    /// What did not hold.
    pub failures: Vec<String>,
}

/// A run.
pub struct Simulation {
    now: Moment,
    start: Moment,
    number: u64,
    events: BinaryHeap<Reverse<(Moment, u64, usize)>>,
    bodies: HashMap<usize, Event>,
    scenario: Scenario,
    world: World,
    host: Host,
    connections: BTreeMap<PeerId, Connection>,
    addresses: HashMap<SocketAddr, usize>,
    next_peer: u64,
    asleep: Option<Moment>,
    trouble: bool,
    payments: Vec<Transaction>,
    arrived: HashSet<Txid>,
    /// Payments that a peer has announced to the host.
    announced: HashSet<Txid>,
    dropped: Vec<Dropped>,
    trace: DefaultHasher,
}

impl Simulation {
    /// The run of a seed.
    pub fn new(seed: u64) -> Simulation {
        Simulation::of(Scenario::new(seed), World::new())
    }

    /// The run of a scenario in a world.
    pub fn of(mut scenario: Scenario, world: World) -> Simulation {
        // After the last block of the world's beginning.
        let genesis = Network::Regtest.params().genesis_header.time;
        let blocks = u64::from(world.height(Side::Main)) + 1;
        let start = u64::from(genesis) + u64::from(mining::SPACING) * blocks;
        let start = Moment::from_secs(start);
        for node in &mut scenario.nodes {
            node.height = world.height(Side::Main);
        }
        let addresses: HashMap<SocketAddr, usize> = scenario
            .nodes
            .iter()
            .enumerate()
            .map(|(place, node)| (node.addr, place))
            .collect();
        let config = config(&world, scenario.padding);
        let host = Host::new(config, scenario.seed, start);
        let mut simulation = Simulation {
            now: start,
            start,
            number: 0,
            events: BinaryHeap::new(),
            bodies: HashMap::new(),
            world,
            host,
            connections: BTreeMap::new(),
            addresses,
            next_peer: 0,
            asleep: None,
            trouble: true,
            payments: Vec::new(),
            arrived: HashSet::new(),
            announced: HashSet::new(),
            dropped: Vec::new(),
            trace: DefaultHasher::new(),
            scenario,
        };
        simulation.begin();
        simulation
    }

    fn begin(&mut self) {
        self.after(Duration::ZERO, Event::Tick);
        self.after(SECOND, Event::Act);
        self.after(self.scenario.spacing, Event::Mine(Side::Main));
        self.after(SECOND * 30, Event::Pay);
        if let Some((begins, ends)) = self.scenario.split {
            self.after(begins, Event::Split);
            self.after(ends, Event::Heal);
        }
        if let Some(at) = self.scenario.sleeps_at {
            self.after(at, Event::Sleep);
        }
        self.after(self.scenario.trouble, Event::TroubleEnds);
    }

    /// Runs until the host has been at the tip for a minute after all trouble, or its time is up.
    pub fn run(mut self) -> Outcome {
        let slept = self.scenario.sleeps_at.map_or(Duration::ZERO, |_| SLEEP);
        let limit = self.start + self.scenario.trouble + self.scenario.patience + slept;
        let mut there: Option<Moment> = None;
        while let Some(Reverse((at, _, place))) = self.events.pop() {
            self.now = at;
            if let Some(event) = self.bodies.remove(&place) {
                self.happen(event);
            }
            self.settle();
            there = match self.is_there() {
                true => there.or(Some(self.now)),
                false => None,
            };
            if there.is_some_and(|since| self.now.since(since) >= SECOND * 60) || self.now > limit {
                break;
            }
        }
        self.judge(there)
    }

    fn is_there(&self) -> bool {
        let tip = self.world.tip(Side::Main);
        let tip = tip.map(|tip| tip.header.block_hash());
        !self.trouble
            && self.asleep.is_none()
            && Some(self.host.machine().tip().1) == tip
            && self.host.machine().synced(self.now)
    }

    fn judge(self, there: Option<Moment>) -> Outcome {
        let mut failures = Vec::new();
        let machine = self.host.machine();
        if there.is_none() {
            failures.push(format!(
                "the host is at {} and the network at {}; synced: {}",
                machine.tip().0,
                self.world.height(Side::Main),
                machine.synced(self.now),
            ));
        }
        for dropped in &self.dropped {
            // On a bad line a peer may be too slow, and is never banned for it.
            let wronged = match dropped.kind {
                Kind::Slow => dropped.offence,
                kind => kind.is_honest(),
            };
            if wronged {
                failures.push(format!("an honest peer was dropped: {}", dropped.reason));
            }
        }
        for node in self
            .scenario
            .nodes
            .iter()
            .filter(|node| node.kind.is_honest())
        {
            if let Some((subnet, ban)) = machine.bans().of(node.addr.ip(), self.now.secs()) {
                failures.push(format!(
                    "an honest peer is banned ({subnet}): {}",
                    ban.reason
                ));
            }
        }
        let honest = self
            .connections
            .values()
            .filter(|connection| self.kind(connection.node).is_some_and(Kind::is_honest))
            .count();
        if honest == 0 {
            failures.push("no honest peer is connected".to_owned());
        }
        if self.host.peak > MOST_KEPT {
            failures.push(format!("{} bytes were kept", self.host.peak));
        }
        // Who has no honest peer but those for blocks alone hears of none.
        let lost = self.announced.difference(&self.arrived).count();
        // A payment of the time when nothing was synced is not asked for, and nobody announces it again.
        if lost * 2 > self.announced.len() && self.scenario.sleeps_at.is_none() {
            failures.push(format!(
                "{lost} of {} transactions did not come",
                self.announced.len()
            ));
        }
        Outcome {
            seed: self.scenario.seed,
            took: there.unwrap_or(self.now).since(self.start),
            peak: self.host.peak,
            trace: self.trace.finish(),
            failures,
        }
    }

    fn kind(&self, node: usize) -> Option<Kind> {
        self.scenario.nodes.get(node).map(|node| node.kind)
    }

    fn chance(&mut self) -> &mut ChaCha8Rng {
        &mut self.scenario.chance
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, at: Moment, event: Event) {
        self.number += 1;
        let place = self.number as usize;
        self.bodies.insert(place, event);
        self.events.push(Reverse((at, self.number, place)));
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        if let Some(until) = self.asleep
            && now >= until
        {
            self.asleep = None;
        }
        let awake = self.asleep.is_none();
        match event {
            Event::Tick => {
                if awake {
                    self.host.tell(|machine| machine.tick(now));
                }
                self.after(TICK, Event::Tick);
            }
            Event::Act => self.act(),
            Event::Mine(side) => self.mine(side),
            Event::Pay => self.pay(),
            Event::Split => self.split(),
            Event::Heal => self.heal(),
            Event::Sleep => self.sleep(),
            Event::TroubleEnds => self.trouble = false,
            Event::Learn(node, height, side) => self.learn(node, height, side),
            Event::LearnTransaction(node, number) => self.learn_transaction(node, number),
            Event::Connected(peer, addr) => self.connected(peer, addr),
            Event::ToHost(peer, bytes) if awake && self.connections.contains_key(&peer) => {
                self.host
                    .tell(|machine| machine.received(peer, &bytes, now));
            }
            Event::ToNode(peer, bytes) => self.deliver(peer, &bytes),
            Event::Closed(peer) => {
                self.connections.remove(&peer);
                if awake {
                    self.host.tell(|machine| machine.disconnected(peer, now));
                }
            }
            Event::Checked(hash, context, raw) => {
                let result = host::check(hash, &context, raw);
                self.host
                    .tell(|machine| machine.block_checked(hash, result, now));
            }
            Event::Filled(peer, hash, found) => {
                self.host
                    .tell(|machine| machine.compact_found(peer, hash, found, now));
            }
            Event::ToHost(..) => {}
        }
    }

    /// Does what the machine wants.
    fn settle(&mut self) {
        while let Some(wish) = self.host.wish() {
            match wish {
                Wish::Send(peer, bytes) => {
                    (self.now.0, peer.0, &bytes[..]).hash(&mut self.trace);
                    let now = self.now;
                    let Some(connection) = self.connections.get_mut(&peer) else {
                        continue;
                    };
                    let pieces = connection.up.send(&bytes, now, &mut self.scenario.chance);
                    for (at, piece) in pieces {
                        self.at(at, Event::ToNode(peer, piece));
                    }
                }
                Wish::Disconnect(peer, reason, fault, offence) => {
                    (self.now.0, peer.0, "disconnect").hash(&mut self.trace);
                    if let Some(connection) = self.connections.remove(&peer)
                        && let Some(kind) = self.kind(connection.node)
                        && fault
                    {
                        self.dropped.push(Dropped {
                            kind,
                            reason,
                            offence,
                        });
                    }
                }
                Wish::Connect(addr) => self.connect(addr),
                Wish::Resolve(name) => self.resolve(&name),
                Wish::Check(hash, context, raw) => {
                    let takes = Duration::from_millis(self.chance().random_range(1..20));
                    self.after(takes, Event::Checked(hash, context, raw));
                }
                Wish::Fill(peer, hash, wanted) => {
                    let found = wanted
                        .ids
                        .iter()
                        .map(|id| self.payment_of(*id, wanted.keys));
                    let found = found.collect();
                    self.after(Duration::from_millis(2), Event::Filled(peer, hash, found));
                }
                Wish::Transaction(txid) => {
                    self.arrived.insert(txid);
                }
            }
        }
    }

    fn payment_of(&self, id: ShortId, keys: (u64, u64)) -> Option<Bytes> {
        let same = |payment: &&Transaction| {
            ShortId::with_siphash_keys(&payment.compute_wtxid(), keys) == id
        };
        let payment = self.payments.iter().find(same)?;
        Some(serialize(payment).into())
    }

    /// A DNS seed knows some of the peers, good and bad alike.
    fn resolve(&mut self, name: &str) {
        let mut addrs: Vec<SocketAddr> = self.scenario.nodes.iter().map(|node| node.addr).collect();
        addrs.shuffle(&mut self.scenario.chance);
        addrs.truncate(SEEDED);
        let now = self.now;
        self.host.tell(|machine| machine.seeded(name, &addrs, now));
    }

    /// A connection takes a round trip, or does not come about.
    fn connect(&mut self, addr: SocketAddr) {
        let peer = PeerId(self.next_peer);
        self.next_peer += 1;
        let node = self.addresses.get(&addr).copied();
        let latency = node
            .and_then(|node| self.scenario.nodes.get(node))
            .map_or(SECOND * 5, |node| node.latency * 2);
        self.after(latency, Event::Connected(peer, addr));
    }

    fn connected(&mut self, peer: PeerId, addr: SocketAddr) {
        let now = self.now;
        let place = self
            .addresses
            .get(&addr)
            .copied()
            .filter(|place| self.is_reachable(*place) && self.asleep.is_none());
        let Some((place, node)) =
            place.and_then(|place| Some((place, self.scenario.nodes.get_mut(place)?)))
        else {
            self.host.tell(|machine| machine.connect_failed(addr, now));
            return;
        };
        node.connected();
        let mut link = Link::new(node.latency, node.bandwidth, node.loss);
        link.padding = self.scenario.padding;
        let connection = Connection {
            node: place,
            up: link.clone(),
            down: link,
        };
        self.connections.insert(peer, connection);
        self.host
            .tell(|machine| machine.connected(peer, addr, true, now));
    }

    /// Whether the host can speak to a peer: not while they are in two parts, and not twice at a time.
    fn is_reachable(&self, node: usize) -> bool {
        let apart = self.scenario.host_is_split
            && self
                .scenario
                .nodes
                .get(node)
                .is_some_and(|node| node.side(&self.world) == Side::Other);
        !apart && self.connections.values().all(|other| other.node != node)
    }

    fn deliver(&mut self, peer: PeerId, bytes: &Bytes) {
        let Some(connection) = self.connections.get(&peer) else {
            return;
        };
        let now = self.now.secs();
        let Some(node) = self.scenario.nodes.get_mut(connection.node) else {
            return;
        };
        let acts = node.hear(bytes, &self.world, now, &mut self.scenario.chance);
        self.perform(peer, acts);
    }

    fn perform(&mut self, peer: PeerId, acts: Vec<Act>) {
        for act in acts {
            let (bytes, closes) = match act {
                Act::Send(bytes) => (bytes, false),
                Act::SendAndClose(bytes) => (bytes, true),
            };
            let now = self.now;
            let Some(connection) = self.connections.get_mut(&peer) else {
                return;
            };
            let pieces = connection.down.send(&bytes, now, &mut self.scenario.chance);
            let last = pieces.last().map_or(now, |(at, _)| *at);
            for (at, piece) in pieces {
                self.at(at, Event::ToHost(peer, piece));
            }
            if closes {
                self.at(last, Event::Closed(peer));
                return;
            }
        }
    }

    fn peer_of(&self, node: usize) -> Option<PeerId> {
        let connection = self
            .connections
            .iter()
            .find(|(_, other)| other.node == node);
        connection.map(|(peer, _)| *peer)
    }

    fn act(&mut self) {
        let now = self.now.secs();
        let connected: Vec<(PeerId, usize)> = self
            .connections
            .iter()
            .map(|(peer, connection)| (*peer, connection.node))
            .collect();
        for (peer, node) in connected {
            if let Some(node) = self.scenario.nodes.get_mut(node) {
                let acts = node.act(&self.world, now, &mut self.scenario.chance);
                self.perform(peer, acts);
            }
        }
        self.after(SECOND, Event::Act);
    }

    fn mine(&mut self, side: Side) {
        if side == Side::Other && !self.world.is_split() {
            return;
        }
        if self.trouble {
            let now = self.now.secs();
            self.world.mine(side, now, &mut self.scenario.chance);
            self.tell_everybody(side);
            let mean = self.scenario.spacing.as_secs_f64();
            // Blocks come as they please: an exponential waiting time.
            let chance: f64 = self.chance().random_range(0.001..1.0);
            self.after(
                Duration::from_secs_f64(-mean * chance.ln()),
                Event::Mine(side),
            );
        }
    }

    /// The last block of a part finds its way to each peer of that part.
    fn tell_everybody(&mut self, side: Side) {
        let height = self.world.height(side);
        for place in 0..self.scenario.nodes.len() {
            let delay = Duration::from_millis(self.chance().random_range(50..8_000));
            if self
                .scenario
                .nodes
                .get(place)
                .is_some_and(|node| node.side(&self.world) == side)
            {
                self.after(delay, Event::Learn(place, height, side));
            }
        }
    }

    fn learn(&mut self, place: usize, height: u32, side: Side) {
        let peer = self.peer_of(place);
        let Some(node) = self.scenario.nodes.get_mut(place) else {
            return;
        };
        // News of a part that is no more.
        if node.side(&self.world) != side
            || height < node.height
            || height > self.world.height(side)
        {
            return;
        }
        let acts = node.learn(height, &self.world, &mut self.scenario.chance);
        if let Some(peer) = peer {
            self.perform(peer, acts);
        }
    }

    fn pay(&mut self) {
        if !self.trouble {
            return;
        }
        let number = self.payments.len() as u64;
        let seed = self.scenario.seed;
        self.payments.push(mining::payment((seed << 32) + number));
        for place in 0..self.scenario.nodes.len() {
            if self.kind(place) == Some(Kind::Honest) {
                let delay = Duration::from_millis(self.chance().random_range(50..5_000));
                self.after(delay, Event::LearnTransaction(place, number));
            }
        }
        self.after(SECOND * 60, Event::Pay);
    }

    fn learn_transaction(&mut self, place: usize, number: u64) {
        let peer = self.peer_of(place);
        let Some(payment) = self.payments.get(number as usize) else {
            return;
        };
        let Some(node) = self.scenario.nodes.get_mut(place) else {
            return;
        };
        let acts = node.learn_transaction(payment, &mut self.scenario.chance);
        if let Some(peer) = peer {
            if !acts.is_empty() {
                self.announced.insert(payment.compute_txid());
            }
            self.perform(peer, acts);
        }
    }

    fn split(&mut self) {
        self.world.split();
        self.after(self.scenario.spacing, Event::Mine(Side::Other));
        if self.scenario.host_is_split {
            let cut: Vec<PeerId> = self
                .connections
                .iter()
                .filter(|(_, connection)| {
                    self.scenario
                        .nodes
                        .get(connection.node)
                        .is_some_and(|node| node.half == Side::Other)
                })
                .map(|(peer, _)| *peer)
                .collect();
            for peer in cut {
                self.after(Duration::ZERO, Event::Closed(peer));
            }
        }
    }

    fn heal(&mut self) {
        self.world.heal();
        let height = self.world.height(Side::Main);
        for node in &mut self.scenario.nodes {
            node.height = node.height.min(height);
        }
        self.tell_everybody(Side::Main);
    }

    /// The machine stands still, and everybody hangs up.
    fn sleep(&mut self) {
        self.asleep = Some(self.now + SLEEP);
        self.connections.clear();
    }
}

fn config(world: &World, padding: u64) -> SyncConfig {
    let params = Network::Regtest.params();
    let mut config = SyncConfig::new(params);
    config.dns_seeds = vec!["seed".to_owned()];
    config.reach = Reach::INTERNET;
    config.max_unchecked_bytes = match padding {
        1 => UNCHECKED,
        // As many blocks as if they were as large as they count.
        padding => config.max_unchecked_bytes / padding as usize,
    };
    let step = params.genesis_header.work();
    let blocks = world.height(Side::Main) - 10;
    config.minimum_work = (0..blocks).fold(step, |work, _| work + step);
    config
}
