//! A block that is too large to be held goes from the peer through the checks into the block log and out to the plugins in
//! pieces, and leaves the same behind as when it is taken whole.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::time::{Duration, Instant};

use blockmill_tests::host::{Host, Installation};
use blockmill_tests::rows;
use devnet::large::{LargePeer, Recipe};

const LIMIT: Duration = Duration::from_secs(300);

/// The magic of the chain below.
const MAGIC: [u8; 4] = [0xda, 0xb5, 0xbf, 0xfa];

/// Regtest without segregated witness, as Bitcoin SV has it.
const CHAIN: &str = r#"
name = "large"
base = "regtest"
magic = "dab5bffa"
segwit = false
max_block_size = [{ from = 0, bytes = 4_000_000_000 }]
extended_messages = true
protoconf = 1_048_576
"#;

fn installation(peer: &LargePeer, plugins: &str) -> Installation {
    Installation::new("large", &[peer.addr()])
        .unwrap()
        .chain_file(CHAIN)
        .unwrap()
        .plugins(plugins)
}

const PLUGINS: &str = r#"
[plugins.utxo-tracker]
[plugins.tx-writer]
[plugins.block-stats]
[plugins.address-history]
[plugins.fee-estimator]
[plugins.watch]
[plugins.watch.settings]
max_followed = 100_000
collections = { everybody = { scripts = ["51"] } }
"#;

/// Everything that the plugins left, for people.
fn left_behind(host: &Host, installation: &Installation) -> Vec<Vec<Vec<String>>> {
    // The pool is told a moment after the start.
    let end = Instant::now() + LIMIT;
    while host.get("plugins/address-history/query/status").unwrap()["pool_height"].is_null() {
        assert!(Instant::now() < end, "the pool is never told");
        std::thread::sleep(Duration::from_millis(50));
    }
    let database = installation.database();
    let mut left: Vec<_> = [
        "SELECT count(*), sum(fee), sum(size), sum(total_out), min(hex(txid)), max(hex(txid)) FROM tx",
        "SELECT height, position, hex(txid), size, weight, fee, inputs, outputs, total_out FROM tx \
         WHERE position % 97 = 0 OR height = 112 ORDER BY height, position",
        "SELECT height, hex(hash), tx_count, size, weight, total_fees, total_out FROM block ORDER BY height",
        "SELECT * FROM block_stats ORDER BY height",
        "SELECT height, direction, count(*), sum(value), sum(position), max(hex(txid)) FROM watch_match \
         GROUP BY height, direction ORDER BY height, direction",
    ]
    .into_iter()
    .map(|sql| rows::query(&database, sql).unwrap())
    .collect();
    for query in [
        "utxo-tracker/query/totals",
        "address-history/query/status",
        "address-history/query/balance?script=51",
        "address-history/query/history?script=51&limit=1000",
        "watch/query/collections",
        "watch/query/matches?collection=everybody&limit=1000",
    ] {
        let mut answer = host.get(&format!("plugins/{query}")).unwrap();
        if let Some(answer) = answer.as_object_mut() {
            // The pool is told a moment after the start.
            answer
                .retain(|key, _| !["pool_height", "scripts_without_room"].contains(&key.as_str()));
        }
        left.push(vec![vec![answer.to_string()]]);
    }
    // It learns from a pool, and none was heard of; the rest of its answer is the time.
    let fees = host.get("plugins/fee-estimator/query/status").unwrap();
    left.push(vec![vec![fees["height"].to_string()]]);
    left
}

/// Waits until every plugin has the last block, and its rows are in the database.
fn wait_for_all(host: &mut Host, installation: &Installation) {
    wait_for_plugins(host, "all at the tip", |plugins| {
        plugins.matches("\"height\":112").count() >= 6
    });
    for table in ["block", "block_stats", "watch_match"] {
        let sql = format!("SELECT max(height) FROM {table}");
        host.wait_for("the rows", LIMIT, |_| {
            (rows::query(&installation.database(), &sql).unwrap()[0][0] == "112").then_some(())
        })
        .unwrap();
    }
}

fn wait_for_plugins(host: &Host, what: &str, fact: impl Fn(&str) -> bool) {
    let end = Instant::now() + LIMIT;
    loop {
        let plugins = host.get("plugins").unwrap().to_string();
        if fact(&plugins) {
            return;
        }
        assert!(Instant::now() < end, "{what}: {plugins}\n{}", host.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The most memory that the process had at once, in bytes.
fn peak(host: &Host) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}

#[test]
fn a_block_in_parts_leaves_the_same_as_the_whole_block() {
    let recipe = Recipe::of(36_000_000, 20_000);
    let peer = LargePeer::start(MAGIC, recipe).unwrap();
    let large = peer.large();
    assert!(large.size > 36_000_000);
    let tip = peer.tip().to_string();

    let parts = installation(&peer, PLUGINS).key("chain", "large_block = \"4 MB\"");
    // The first try ends in the middle: what was written of it is cut off again.
    peer.cut_once_after(20_000_000);
    let mut host = parts.start().unwrap();
    host.coins_at(&tip, LIMIT).unwrap();
    wait_for_all(&mut host, &parts);
    let coins = host.txoutset().unwrap();
    assert!(
        parts.log().contains("a large block comes in pieces"),
        "{}",
        parts.log()
    );
    assert!(!parts.log().contains("plugin failed"), "{}", parts.log());
    assert_eq!(peer.asked(), 2);
    host.stop().unwrap();
    // It is read again, and hashed, at the next start.
    let mut host = parts.start().unwrap();
    host.coins_at(&tip, LIMIT).unwrap();
    assert_eq!(host.txoutset().unwrap(), coins);
    assert!(!parts.log().contains("is damaged"), "{}", parts.log());
    // Queries see what is on disk: after a start that is everything.
    let in_parts = left_behind(&host, &parts);
    host.stop().unwrap();

    let whole = installation(&peer, PLUGINS).key("chain", "large_block = \"400 MB\"");
    let mut host = whole.start().unwrap();
    host.coins_at(&tip, LIMIT).unwrap();
    wait_for_all(&mut host, &whole);
    assert!(!whole.log().contains("a large block comes in pieces"));
    assert_eq!(host.txoutset().unwrap(), coins);
    host.stop().unwrap();
    let mut host = whole.start().unwrap();
    host.coins_at(&tip, LIMIT).unwrap();
    for (whole, parts) in left_behind(&host, &whole).iter().zip(&in_parts) {
        let shown =
            |left: &[Vec<String>]| format!("{left:?}").chars().take(500).collect::<String>();
        assert!(whole == parts, "{}\n{}", shown(whole), shown(parts));
    }
    host.stop().unwrap();

    let table = &in_parts[2];
    let row = table.iter().find(|row| row[0] == "111").unwrap();
    assert_eq!(row[2], large.transactions.to_string());
    assert_eq!(row[3], large.size.to_string());
    assert_eq!(row[4], (4 * large.size).to_string());
}

#[test]
fn a_plugin_that_takes_no_parts_stands_still_and_the_others_go_on() {
    let peer = LargePeer::start(MAGIC, Recipe::of(7_000_000, 100)).unwrap();
    let installation = installation(
        &peer,
        "quarantine_after = 2\nretry_pause = \"10ms\"\n\n[plugins.utxo-tracker]\n[plugins.tx-writer]\n\
         [plugins.v0-1-0]\nfile = \"test/v0-1-0.wasm\"\n",
    )
    .key("chain", "large_block = \"2 MB\"")
    .key("chain", "whole_block_limit = \"5 MB\"");
    let mut host = installation.start().unwrap();
    wait_for_plugins(&host, "the other lane's quarantine", |plugins| {
        plugins.contains("quarantined")
            && plugins.contains("this plugin takes no parts")
            && plugins.matches("\"height\":112").count() >= 2
    });
    host.wait_for("the rows", LIMIT, |_| {
        (rows::query(&installation.database(), "SELECT max(height) FROM block").unwrap()[0][0]
            == "112")
            .then_some(())
    })
    .unwrap();
    host.stop().unwrap();

    // With a higher limit it is given the block whole, coins and all, and goes on.
    let installation = installation.key("chain", "whole_block_limit = \"50 MB\"");
    let host = installation.start().unwrap();
    wait_for_plugins(&host, "the other lane", |plugins| {
        plugins.matches("\"height\":112").count() >= 3
    });
    host.stop().unwrap();
}

#[test]
fn a_block_with_the_extended_header_is_taken() {
    let peer = LargePeer::start(MAGIC, Recipe::of(7_000_000, 100)).unwrap();
    peer.frame_extended();
    let installation =
        installation(&peer, "[plugins.utxo-tracker]\n").key("chain", "large_block = \"2 MB\"");
    let mut host = installation.start().unwrap();
    host.coins_at(&peer.tip().to_string(), LIMIT).unwrap();
    assert!(installation.log().contains("a large block comes in pieces"));
    assert_eq!((peer.asked(), peer.sent_extended()), (1, 1));
    host.stop().unwrap();
}

#[test]
fn a_block_with_too_long_a_transaction_is_loaded_once_and_health_says_what_helps() {
    let peer = LargePeer::start(MAGIC, Recipe::of(7_000_000, 100)).unwrap();
    let plugins = "[plugins.utxo-tracker]\n";
    let small = installation(&peer, plugins)
        .key("chain", "large_block = \"2 MB\"")
        .key("chain", "longest_transaction = \"1 MB\"");
    let host = small.start().unwrap();
    let end = Instant::now() + LIMIT;
    let why = loop {
        let (_, health) = host.get_text("/health").unwrap();
        if health.contains("chain.longest_transaction") {
            break health;
        }
        assert!(Instant::now() < end, "{health}\n{}", host.log());
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(why.contains("block 111 cannot be taken"), "{why}");
    let why: serde_json::Value = serde_json::from_str(&why).unwrap();
    let why = why["error"]["message"].as_str().unwrap();
    assert_eq!(host.get("status").unwrap()["not_following"], why);
    let shown = small.command(&["status"]).unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let line = format!("\nhealth    not following: {why}\n");
    assert!(shown.contains(&line), "{shown}");
    // Blocks that could not be kept are asked for again every two seconds; this one is not.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(peer.asked(), 1);
    host.stop().unwrap();

    let enough = small.key("chain", "longest_transaction = \"10 MB\"");
    let mut host = enough.start().unwrap();
    host.coins_at(&peer.tip().to_string(), LIMIT).unwrap();
    assert_eq!(peer.asked(), 2);
    host.stop().unwrap();
}

/// Run by `cargo xtask large-block` and `cargo xtask soak`, in release, where a gigabyte takes a minute.
#[test]
#[ignore = "takes a gigabyte of disk"]
fn a_gigabyte_goes_through_600_megabytes() {
    let peer = LargePeer::start(MAGIC, Recipe::of(1_050_000_000, 100_000)).unwrap();
    let large = peer.large();
    assert!(large.size >= 1_000_000_000);
    let installation = installation(&peer, PLUGINS);
    let started = Instant::now();
    let mut host = installation.start().unwrap();
    host.coins_at(&peer.tip().to_string(), Duration::from_secs(1_800))
        .unwrap();
    host.wait_for("the rows", Duration::from_secs(1_800), |_| {
        (rows::query(&installation.database(), "SELECT max(height) FROM block").unwrap()[0][0]
            == "112")
            .then_some(())
    })
    .unwrap();
    let took = started.elapsed();
    let peak = peak(&host);
    println!(
        "a block of {} bytes and {} transactions: {took:?}, peak memory {:.0} MB",
        large.size,
        large.transactions,
        peak as f64 / 1e6
    );
    let count = rows::query(
        &installation.database(),
        "SELECT count(*) FROM tx WHERE height = 111",
    )
    .unwrap();
    assert_eq!(count[0][0], large.transactions.to_string());
    host.stop().unwrap();
    assert!(peak < 600_000_000, "peak memory {peak}");
}
