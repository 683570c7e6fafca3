//! Peers that lie, break off or fall silent: each is dropped with the reason in the log, and the chain goes on with an honest one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs;
use std::time::Duration;

use blockmill_tests::host::{ALL_ROWS, Installation};
use devnet::{Behaviour, Config, Devnet, Mining};

const LIMIT: Duration = Duration::from_secs(120);
const BLOCKS: u32 = 300;

fn chain(behaviour: Behaviour) -> Devnet {
    let devnet = Devnet::start(Config {
        seed: 11,
        mining: Mining {
            txs_per_block: 4,
            ..Config::default().mining
        },
        behaviour,
        ..Config::default()
    })
    .unwrap();
    devnet.mine(BLOCKS).unwrap();
    devnet
}

/// What a peer does wrong, and the words that the log has for it.
fn faults() -> Vec<(&'static str, Behaviour, &'static str)> {
    let fault = Behaviour::default;
    vec![
        (
            "magic",
            Behaviour {
                wrong_magic: true,
                ..fault()
            },
            "wrong magic",
        ),
        (
            "mutated",
            Behaviour {
                mutated_block: true,
                ..fault()
            },
            "duplicated transactions",
        ),
        (
            "oversized",
            Behaviour {
                oversized_length: Some(1 << 30),
                ..fault()
            },
            "block of 1073741824 bytes, at most",
        ),
        (
            "header",
            Behaviour {
                bad_pow_header: true,
                ..fault()
            },
            "does not meet its target",
        ),
        (
            "stall",
            Behaviour {
                stall: true,
                ..fault()
            },
            "held up the download",
        ),
    ]
}

#[test]
fn each_bad_peer_is_dropped_with_the_reason_and_the_sync_goes_on_with_the_honest_one() {
    // Slow at first, so that every other peer is asked for blocks before it has sent them all.
    let slow = Behaviour {
        latency_ms: 100,
        ..Behaviour::default()
    };
    let devnet = chain(slow);
    for (name, behaviour, reason) in faults() {
        let bad = devnet.add_server(&format!("/{name}/"), behaviour).unwrap();
        let installation = Installation::new("regtest", &[bad, devnet.p2p_addr()])
            .unwrap()
            .key("peers", "event_log = \"{data_dir}/events.csv\"")
            // Smaller than the chain, so that whoever is silent holds it up.
            .key("chain", "download_window = 32")
            .plugins(ALL_ROWS);
        let mut host = installation.start().unwrap();
        let dropped = |line: &str| line.contains("peer dropped") && line.contains(reason);
        let line = host
            .wait_for_log(&format!("that /{name}/ was dropped"), LIMIT, dropped)
            .unwrap();
        assert!(line.contains(&bad.to_string()), "{line}");
        let ours = host
            .coins_at(&devnet.status().tip.to_string(), LIMIT)
            .unwrap();
        assert_eq!(ours["muhash"], devnet.utxo_set().unwrap().muhash, "{name}");
        let (_, metrics) = host.get_text("/metrics").unwrap();
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix("blockmill_peers_dropped_total "));
        assert_ne!(count, Some("0"), "{name}");
        host.stop().unwrap();
        let events = fs::read_to_string(installation.folder().join("data/events.csv")).unwrap();
        let said = |line: &str| line.contains(&bad.to_string()) && line.contains(reason);
        assert!(events.lines().any(said), "{name}: {events}");
    }
}

/// The merkle root and the witness commitment hash the same bytes, so the checksum of a block says nothing new and is not compared.
#[test]
fn a_wrong_checksum_over_the_right_block_does_no_harm() {
    let devnet = chain(Behaviour {
        wrong_checksum: true,
        ..Behaviour::default()
    });
    let mut host = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(ALL_ROWS)
        .start()
        .unwrap();
    let coins = host
        .coins_at(&devnet.status().tip.to_string(), LIMIT)
        .unwrap();
    assert_eq!(coins["muhash"], devnet.utxo_set().unwrap().muhash);
    host.stop().unwrap();
}

#[test]
fn a_peer_that_breaks_off_in_the_middle_of_a_block_costs_nothing_but_the_connection() {
    let devnet = chain(Behaviour {
        latency_ms: 200,
        ..Behaviour::default()
    });
    let bad = Behaviour {
        honest_blocks: 3,
        disconnect_mid_block: true,
        ..Behaviour::default()
    };
    let bad = devnet.add_server("/broken/", bad).unwrap();
    let mut host = Installation::new("regtest", &[bad, devnet.p2p_addr()])
        .unwrap()
        .plugins(ALL_ROWS)
        .start()
        .unwrap();
    let coins = host
        .coins_at(&devnet.status().tip.to_string(), LIMIT)
        .unwrap();
    assert_eq!(coins["muhash"], devnet.utxo_set().unwrap().muhash);
    host.stop().unwrap();
}

#[test]
fn with_a_bad_peer_alone_nothing_wrong_is_taken_in_and_an_honest_one_later_is_enough() {
    let devnet = chain(Behaviour {
        honest_blocks: 7,
        mutated_block: true,
        ..Behaviour::default()
    });
    let mut host = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .key("peers", "reconnect_pause_max = \"1s\"")
        .plugins(ALL_ROWS)
        .start()
        .unwrap();
    host.wait_for_log("a mutated block", LIMIT, |line| {
        line.contains("peer dropped") && line.contains("duplicated transactions")
    })
    .unwrap();
    assert!(host.get("tip").unwrap()["height"].as_u64().unwrap() < BLOCKS.into());
    // The header is not condemned: the same block in its true form is still wanted.
    devnet
        .set_behaviour(devnet.p2p_addr(), Behaviour::default())
        .unwrap();
    let coins = host
        .coins_at(&devnet.status().tip.to_string(), LIMIT)
        .unwrap();
    assert_eq!(coins["muhash"], devnet.utxo_set().unwrap().muhash);
    host.stop().unwrap();
}

#[test]
fn blocks_come_from_several_peers_at_once() {
    let devnet = chain(Behaviour {
        latency_ms: 50,
        ..Behaviour::default()
    });
    let late = || Behaviour {
        latency_ms: 50,
        ..Behaviour::default()
    };
    let second = devnet.add_server("/second/", late()).unwrap();
    let third = devnet.add_server("/third/", late()).unwrap();
    let mut host = Installation::new("regtest", &[devnet.p2p_addr(), second, third])
        .unwrap()
        .plugins(ALL_ROWS)
        .start()
        .unwrap();
    host.wait_for_tip(&devnet.status().tip.to_string(), LIMIT)
        .unwrap();
    host.wait_for("three peers that have sent blocks", LIMIT, |status| {
        let peers = status["peers"].as_array()?;
        let all = |peer: &serde_json::Value| peer["bytes_in"].as_u64().unwrap_or(0) > 30_000;
        (peers.len() == 3 && peers.iter().all(all)).then_some(())
    })
    .unwrap();
    let status = host.get("status").unwrap();
    let agents: Vec<&str> = status["peers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|peer| peer["user_agent"].as_str().unwrap())
        .collect();
    for agent in ["/devnet:0.1/", "/second/", "/third/"] {
        assert!(agents.contains(&agent), "{agents:?}");
    }
    host.stop().unwrap();
}
