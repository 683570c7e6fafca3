//! The clock, and what happens when.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::hash::DefaultHasher;
use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::Address;
use bitcoin::{BlockHash, Transaction, Txid};
use blockmill::chain::SyncConfig;
use blockmill::chain::block_check::BlockContext;
use blockmill::chain::sync::PeerId;
use blockmill::chain::sync::book::Reach;
use blockmill::network::Network;
use blockmill::wire::{Entropy, Moment};
use bytes::Bytes;
use rand_chacha::ChaCha8Rng;

use crate::host::{self, Host};
use crate::kind::Kind;
use crate::link::Link;
use crate::mining;
use crate::scenario::Scenario;
use crate::world::{Side, World};

mod calls;
mod judge;
mod news;
mod traffic;

pub use calls::Incoming;
use judge::Dropped;
pub use judge::{Compact, Outcome};
use news::Paid;

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

/// From an honest peer's announcement of a block to the block, whatever the others do.
const MOST_LATE: Duration = Duration::from_secs(60);

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
    /// The peer closed the connection.
    Closed(PeerId),
    /// A peer connects.
    Call(usize),
    /// A block was checked, which was put together or not.
    Checked(BlockHash, BlockContext, Bytes, bool),
    Filled(PeerId, BlockHash, Vec<Option<Bytes>>),
}

struct Connection {
    node: usize,
    up: Link,
    down: Link,
    /// The peer made it.
    incoming: bool,
    /// The peer made it before any that is not honest, and is.
    early: bool,
}

/// What the machine was told to allow.
struct Limits {
    incoming: usize,
    of_one_address: usize,
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
    /// Payments, and since when there are they.
    payments: Vec<(Moment, Transaction)>,
    /// How many of them are in the blocks of either part.
    paid: Paid,
    compact: Compact,
    /// Blocks that an honest peer announced to the host, and when, until the host is there.
    awaited: BTreeMap<u32, Moment>,
    slowest: Duration,
    arrived: HashSet<Txid>,
    /// Payments that a peer has announced to the host.
    announced: HashSet<Txid>,
    dropped: Vec<Dropped>,
    limits: Limits,
    incoming: Incoming,
    /// What did not hold on the way.
    failures: Vec<String>,
    trace: DefaultHasher,
}

impl Simulation {
    /// The run of a seed.
    pub fn new(seed: u64) -> Simulation {
        Simulation::of(Scenario::new(seed), World::new())
    }

    /// The run of a scenario in a world.
    pub fn of(mut scenario: Scenario, mut world: World) -> Simulation {
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
            .filter(|(_, node)| node.calls.is_none())
            .map(|(place, node)| (node.addr, place))
            .collect();
        // Where lines alone count, the seed names everybody, and nobody need tell of others.
        if scenario.padding == 1 {
            world.set_listeners(listeners(&scenario));
        }
        let config = config(&world, &scenario);
        let limits = Limits {
            incoming: config.max_incoming,
            of_one_address: config.max_incoming_per_address,
        };
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
            paid: Paid::default(),
            compact: Compact::default(),
            awaited: BTreeMap::new(),
            slowest: Duration::ZERO,
            arrived: HashSet::new(),
            announced: HashSet::new(),
            dropped: Vec::new(),
            limits,
            incoming: Incoming::default(),
            failures: Vec::new(),
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
        self.expect_calls();
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
                    self.measure_awaited();
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
                let closed = self.connections.remove(&peer);
                if awake {
                    self.host.tell(|machine| machine.disconnected(peer, now));
                }
                if let Some(connection) = closed {
                    self.call_again(connection.node);
                }
            }
            Event::Call(place) => self.call(place),
            Event::Checked(hash, context, raw, assembled) => {
                let result = host::check(hash, &context, raw);
                match (assembled, &result) {
                    (false, _) => {}
                    (true, Ok(())) => self.compact.blocks += 1,
                    (true, Err(_)) => self.compact.wrong += 1,
                }
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

    /// The machine stands still, and everybody hangs up.
    fn sleep(&mut self) {
        self.asleep = Some(self.now + SLEEP);
        // Whoever has announced them is gone.
        self.awaited.clear();
        for connection in std::mem::take(&mut self.connections).into_values() {
            self.call_again(connection.node);
        }
    }
}

/// What peers tell of each other. Of some it is not true, or not any more, that they speak version 2 of the transport.
fn listeners(scenario: &Scenario) -> Vec<Address> {
    let listening = scenario.nodes.iter().filter(|node| node.calls.is_none());
    let told = listening.zip(0..).map(|(node, number)| {
        let rumour = match number % 3 {
            0 => ServiceFlags::P2P_V2,
            _ => ServiceFlags::NONE,
        };
        Address::new(&node.addr, node.services() | rumour)
    });
    told.collect()
}

fn config(world: &World, scenario: &Scenario) -> SyncConfig {
    let params = Network::Regtest.params();
    let mut config = SyncConfig::new(params);
    config.dns_seeds = vec!["seed".to_owned()];
    config.reach = Reach::INTERNET;
    config.transport = scenario.transport;
    config.entropy = Entropy::Seeded(scenario.seed, 0);
    config.max_unchecked_bytes = match scenario.padding {
        1 => UNCHECKED,
        // As many blocks as if they were as large as they count.
        padding => config.max_unchecked_bytes / padding as usize,
    };
    let step = params.genesis_header.work();
    let blocks = world.height(Side::Main) - 10;
    config.minimum_work = (0..blocks).fold(step, |work, _| work + step);
    config
}
