//! Every key reaches the machine that it is for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::*;
use crate::chain::sync::TransportPreference;
use crate::config::{Mempool as MempoolKeys, Peers};
use crate::network::Network;
use crate::wire::Entropy;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// No pattern here has a `..`: a new key or a new field does not compile before it is decided what becomes of it.
#[test]
fn every_key_of_the_peers_reaches_the_network_machine() {
    let peers = Peers {
        connect: Vec::new(),
        add: Vec::new(),
        max_outbound: 3,
        transport: TransportPreference::V2,
        max_block_only: 5,
        dns_seeds: false,
        feeler_interval: seconds(101),
        address_answer_life: seconds(102),
        addresses_again: seconds(103),
        save_interval: seconds(104),
        listen: String::new(),
        max_incoming: 7,
        max_incoming_per_address: 2,
        incoming_rate: 1_234,
        ban_first: seconds(105),
        ban_second: seconds(106),
        connect_timeout: seconds(107),
        proxy: None,
        proxy_timeout: seconds(108),
        handshake_timeout: seconds(109),
        ping_interval: seconds(110),
        silence_timeout: seconds(111),
        headers_timeout: seconds(112),
        headers_sync_timeout: seconds(113),
        lag_timeout: seconds(114),
        compact_blocks: false,
        block_timeout: seconds(115),
        stall_timeout: seconds(116),
        stall_timeout_max: seconds(117),
        stale_tip_timeout: seconds(118),
        stream_floor: 4_321,
        stream_patience: seconds(122),
        late_tick: seconds(119),
        reconnect_pause: seconds(120),
        reconnect_pause_max: seconds(121),
        user_agent_comment: "mine".to_owned(),
        event_log: Default::default(),
    };
    let mut config = Config::default();
    config.peers = peers;
    config.chain.minimum_work = MinimumWork::Work([1; 32]);
    config.chain.download_window = 77;
    config.chain.blocks_per_peer = 9;
    config.chain.large_block = 5_000_000;
    let params = Network::Mainnet.params();
    let defaults = SyncConfig::new(params);
    let SyncConfig {
        connect,
        only_named,
        max_outbound,
        max_block_only,
        dns_seeds,
        feeler_interval,
        address_answer_life,
        addresses_again,
        reach,
        max_incoming,
        max_incoming_per_address,
        incoming_rate,
        ban_ladder,
        user_agent,
        minimum_version,
        required_services,
        minimum_work,
        transactions,
        compact_blocks,
        verify_block_checksums,
        message_events,
        handshake_timeout,
        ping_interval,
        pong_timeout,
        headers_timeout,
        headers_quiet,
        headers_sync_timeout,
        lag_timeout,
        headers_retry,
        stale_tip,
        recent_tip,
        synced_grace,
        download_window,
        blocks_per_peer,
        blocks_per_fast_peer,
        fast_block,
        max_unchecked_bytes,
        max_again_bytes,
        stream_above,
        stall_timeout,
        max_stall_timeout,
        block_timeout,
        transaction_timeout,
        transactions_per_peer,
        transport,
        entropy,
        connect_timeout,
        reconnect_delay,
        max_reconnect_delay,
        late_tick,
        stream_floor,
        stream_patience,
    } = sync_config(&config, params, false, true);

    assert_eq!((max_outbound, max_block_only), (3, 5));
    assert!(dns_seeds.is_empty());
    assert_eq!(feeler_interval, seconds(101));
    assert_eq!(address_answer_life, seconds(102));
    assert_eq!(addresses_again, seconds(103));
    assert_eq!((max_incoming, max_incoming_per_address), (7, 2));
    assert_eq!(incoming_rate, 1_234);
    assert_eq!(ban_ladder.first, seconds(105));
    assert_eq!(ban_ladder.second, seconds(106));
    assert_eq!(connect_timeout, seconds(107));
    assert_eq!(handshake_timeout, seconds(109));
    assert_eq!(ping_interval, seconds(110));
    assert_eq!(pong_timeout, seconds(111));
    assert_eq!(headers_timeout, seconds(112));
    assert_eq!(headers_sync_timeout, seconds(113));
    assert_eq!(lag_timeout, seconds(114));
    assert!(!compact_blocks);
    assert_eq!(block_timeout, seconds(115));
    assert_eq!(stall_timeout, seconds(116));
    assert_eq!(max_stall_timeout, seconds(117));
    assert_eq!(stale_tip, seconds(118));
    assert_eq!(late_tick, seconds(119));
    assert_eq!((stream_floor, stream_patience), (4_321, seconds(122)));
    assert_eq!(reconnect_delay, seconds(120));
    assert_eq!(max_reconnect_delay, seconds(121));
    assert!(user_agent.ends_with("(mine)/"), "{user_agent}");
    assert_eq!(transport, TransportPreference::V2);
    // Keys of [chain], and what else is told.
    assert_eq!(minimum_work, bitcoin::Work::from_be_bytes([1; 32]));
    assert_eq!((download_window, blocks_per_peer), (77, 9));
    assert_eq!(stream_above, 5_000_000);
    assert!(!transactions && message_events && !verify_block_checksums);
    assert_eq!(max_unchecked_bytes, AHEAD);
    // Without keys: as the machine has them. Names are connected to by the shell.
    assert!(connect.is_empty() && !only_named);
    assert_eq!(reach, defaults.reach);
    assert_eq!(minimum_version, defaults.minimum_version);
    assert_eq!(required_services, defaults.required_services);
    assert_eq!(headers_quiet, defaults.headers_quiet);
    assert_eq!(headers_retry, defaults.headers_retry);
    assert_eq!(recent_tip, defaults.recent_tip);
    assert_eq!(synced_grace, defaults.synced_grace);
    assert_eq!(blocks_per_fast_peer, defaults.blocks_per_fast_peer);
    assert_eq!(fast_block, defaults.fast_block);
    assert_eq!(max_again_bytes, defaults.max_again_bytes);
    assert_eq!(transaction_timeout, defaults.transaction_timeout);
    assert_eq!(transactions_per_peer, defaults.transactions_per_peer);
    assert!(matches!(entropy, Entropy::System));

    // A proxy has a timeout of its own, and reaches more; named peers are the only ones.
    config.peers.proxy = Some("127.0.0.1:9050".parse().unwrap());
    config.peers.connect = vec!["one:1".to_owned()];
    config.peers.dns_seeds = true;
    let by_proxy = sync_config(&config, params, true, false);
    assert_eq!(by_proxy.connect_timeout, seconds(108));
    assert!(by_proxy.reach.tor && by_proxy.only_named);
    assert!(by_proxy.transactions && !by_proxy.message_events);
    assert_eq!(by_proxy.dns_seeds.len(), params.dns_seeds.len());
    // What the shell takes for itself.
    assert_eq!(config.peer_addresses(), [("one".to_owned(), 1)]);
    assert_eq!(config.peers.save_interval, seconds(104));
}

#[test]
fn every_key_of_the_mempool_reaches_the_pool() {
    let mut config = Config::default();
    config.mempool = MempoolKeys {
        enabled: true,
        max_size: 5_000_001,
        expiry: seconds(5_002),
        persist: false,
        min_relay_fee: 5_003,
        mining_floor: 5_004,
    };
    let defaults = MempoolConfig::default();
    let MempoolConfig {
        max_bytes,
        expiry_seconds,
        min_relay_fee,
        incremental_fee,
        mining_floor,
        max_cluster_entries,
        max_cluster_vsize,
        max_orphans,
        max_orphan_bytes,
        orphan_expiry_seconds,
        relative_locks,
        sigops,
    } = mempool_config(&config, Network::Mainnet.params());
    assert_eq!(max_bytes, 5_000_001);
    assert_eq!(expiry_seconds, 5_002);
    assert_eq!(min_relay_fee, 5_003);
    assert_eq!(mining_floor, 5_004);
    assert_eq!(incremental_fee, defaults.incremental_fee);
    assert_eq!(max_cluster_entries, defaults.max_cluster_entries);
    assert_eq!(max_cluster_vsize, defaults.max_cluster_vsize);
    assert_eq!(max_orphans, defaults.max_orphans);
    assert_eq!(max_orphan_bytes, defaults.max_orphan_bytes);
    assert_eq!(orphan_expiry_seconds, defaults.orphan_expiry_seconds);
    assert!(relative_locks && sigops);
    let bsv: Network = "bsv-main".parse().unwrap();
    let bsv = mempool_config(&config, bsv.params());
    assert!(!bsv.relative_locks && !bsv.sigops);
}

/// In numbers, so that nobody changes one in passing.
#[test]
fn the_timers_of_the_network_have_their_defaults() {
    const MINUTE: u64 = 60;
    let config = sync_config(&Config::default(), Network::Mainnet.params(), true, false);
    assert_eq!(config.ping_interval, seconds(2 * MINUTE));
    assert_eq!(config.pong_timeout, seconds(20 * MINUTE));
    let stale = config.stale_tip;
    assert_eq!(stale, seconds(30 * MINUTE), "20 to 30 minutes");
    assert_eq!(config.stall_timeout, seconds(2));
    assert_eq!(config.max_stall_timeout, seconds(64));
    assert_eq!(config.address_answer_life, seconds(24 * 60 * MINUTE));
    assert_eq!(config.addresses_again, seconds(30 * MINUTE));
    assert_eq!(config.feeler_interval, seconds(2 * MINUTE));
    assert_eq!(config.headers_timeout, seconds(MINUTE));
    assert_eq!(config.block_timeout, seconds(2 * MINUTE));
    assert_eq!(config.lag_timeout, seconds(20 * MINUTE));
    assert_eq!(config.late_tick, seconds(30));
    assert_eq!((config.max_outbound, config.max_block_only), (8, 2));
}
