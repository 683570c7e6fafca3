//! The shapes that programs rely on: status, health, metrics, blocks, queries, errors; and the command line says the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::time::Duration;

use bitcoin::Network;
use blockmill_tests::data;
use blockmill_tests::host::{ALL_ROWS, Host, Installation};
use devnet::{Config, Devnet};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);
const TIP: &str = "1a5c58e1336efe6d979fb9ffa77714c8c9979ca9ba1de8e44cec231075fc5dc8";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

/// An error as all of them are.
fn assert_error(host: &Host, path: &str, status: u16, code: &str) {
    let (got, text) = host.get_text(path).unwrap();
    let body = json(&text);
    assert_eq!(got, status, "{path}: {text}");
    assert_eq!(body["error"]["code"], code, "{path}");
    assert!(!body["error"]["message"].as_str().unwrap().is_empty());
    assert_eq!(body.as_object().unwrap().len(), 1);
}

/// What a command prints of a running host.
fn printed(installation: &Installation, args: &[&str]) -> Value {
    let output = installation.command(args).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    json(&String::from_utf8_lossy(&output.stdout))
}

#[test]
fn a_host_at_the_tip_answers_as_the_page_of_the_api_says() {
    let devnet = Devnet::serve_file(data::regtest("main.dat"), Network::Regtest).unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(ALL_ROWS);
    let mut host = installation.start().unwrap();
    host.wait_for_tip(TIP, LIMIT).unwrap();
    // After the last block come the indexes.
    host.wait_for("all following", LIMIT, |status| {
        let following = |plugin: &Value| plugin["state"] == "following";
        let all = status["plugins"].as_array()?.iter().all(following);
        let peers = !status["peers"].as_array()?.is_empty();
        (status["synced"] == true && all && peers).then_some(())
    })
    .unwrap();

    let status = host.get("status").unwrap();
    assert_eq!(status["network"], "regtest");
    assert!(!status["version"].as_str().unwrap().is_empty());
    assert!(status["uptime_seconds"].is_u64());
    assert_eq!(status["tip"]["height"], 130);
    assert_eq!(status["tip"]["hash"], TIP);
    assert!(status["tip"]["time"].as_u64().unwrap() > 1_296_688_602);
    assert_eq!(status["headers"]["height"], 130);
    let peer = &status["peers"][0];
    assert_eq!(peer["addr"], devnet.p2p_addr().to_string());
    assert_eq!(peer["user_agent"], "/devnet:0.1/");
    let services = peer["services"].as_array().unwrap();
    assert!(services.contains(&"NETWORK".into()) && services.contains(&"WITNESS".into()));
    assert_eq!(peer["height"], 130);
    assert!(peer["since"].as_u64().unwrap() > 1_700_000_000);
    for key in ["txs", "vbytes", "fees_sats"] {
        assert_eq!(status["mempool"][key], 0, "{key}");
    }
    let plugins = status["plugins"].as_array().unwrap();
    let names: Vec<&str> = plugins
        .iter()
        .map(|plugin| plugin["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["tx-writer", "utxo-tracker"]);
    for plugin in plugins {
        assert!(!plugin["version"].as_str().unwrap().is_empty());
        assert_eq!(plugin["sha256"].as_str().unwrap().len(), 64);
        assert_eq!(plugin["state"], "following");
        assert_eq!(plugin["height"], 130);
        assert_eq!(plugin["hash"], TIP);
        assert_eq!(plugin["lag"], 0);
        assert!(plugin["last_error"].is_null());
    }
    assert_eq!(host.get("plugins").unwrap(), status["plugins"]);
    assert_eq!(host.get("tip").unwrap(), status["tip"]);

    let (code, health) = host.get_text("/health").unwrap();
    assert_eq!((code, &json(&health)["status"]), (200, &"following".into()));

    let by_height = host.get("blocks/130").unwrap();
    assert_eq!(by_height, host.get(&format!("blocks/{TIP}")).unwrap());
    assert_eq!(by_height["hash"], TIP);
    assert_eq!(by_height["active"], true);
    assert_eq!(by_height["confirmations"], 1);
    assert!(by_height["next"].is_null());
    let parent = host.get("blocks/129").unwrap();
    assert_eq!(parent["hash"], by_height["previous"]);
    assert_eq!(parent["next"], TIP);

    assert_error(&host, "/api/v1/blocks/131", 404, "not_found");
    assert_error(&host, "/api/v1/blocks/what", 400, "bad_request");
    assert_error(&host, "/api/v2/status", 404, "not_found");
    assert_error(
        &host,
        "/api/v1/plugins/nobody/query/x",
        404,
        "no_such_plugin",
    );
    assert_error(
        &host,
        "/api/v1/plugins/utxo-tracker/query/x",
        404,
        "not_found",
    );
    assert_error(
        &host,
        "/api/v1/plugins/utxo-tracker/query/coin",
        400,
        "bad_request",
    );

    let coins = host.coins_at(TIP, LIMIT).unwrap();
    let totals = host.get("plugins/utxo-tracker/query/totals").unwrap();
    let said = totals.to_string();
    assert!(said.contains(&coins["txouts"].to_string()), "{said}");

    for (args, path) in [
        (&["status", "--json"][..], "status"),
        (&["plugin", "list", "--json"], "plugins"),
        (
            &["plugin", "query", "utxo-tracker", "totals"],
            "plugins/utxo-tracker/query/totals",
        ),
    ] {
        let mut ours = printed(&installation, args);
        let mut theirs = host.get(path).unwrap();
        for answer in [&mut ours, &mut theirs] {
            // These go on meanwhile.
            if let Some(answer) = answer.as_object_mut() {
                answer.remove("uptime_seconds");
                answer.remove("peers");
            }
        }
        assert_eq!(ours, theirs, "{args:?}");
    }
    let refused = installation
        .command(&["plugin", "query", "utxo-tracker", "x"])
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));

    let (code, metrics) = host.get_text("/metrics").unwrap();
    assert_eq!(code, 200);
    for line in [
        "blockmill_headers_height 130",
        "blockmill_blocks_height 130",
        "blockmill_synced 1",
        "blockmill_peers 1",
        "blockmill_mempool_transactions 0",
        "blockmill_blocks_total 130",
        "blockmill_transactions_total 7572",
        "blockmill_plugin_height{plugin=\"tx-writer\"} 130",
        "blockmill_plugin_lag_blocks{plugin=\"utxo-tracker\"} 0",
        "blockmill_plugin_traps_total{plugin=\"utxo-tracker\"} 0",
    ] {
        assert!(
            metrics.lines().any(|other| other == line),
            "{line} is not in\n{metrics}"
        );
    }
    for name in [
        "blockmill_block_stage_seconds_bucket{",
        "blockmill_peer_bytes_in_total ",
        "blockmill_block_log_bytes ",
        "blockmill_plugin_memory_bytes{",
        "blockmill_uptime_seconds ",
    ] {
        let has = |line: &&str| line.starts_with(name) && !line.ends_with(" 0");
        assert!(
            metrics.lines().find(has).is_some() || name.contains("uptime"),
            "{name} in\n{metrics}"
        );
    }
    host.stop().unwrap();
    // Of a stopped host the coins can still be read, and nothing else.
    assert_eq!(installation.txoutset().unwrap(), coins);
    let status = installation.command(&["status"]).unwrap();
    assert_eq!(status.status.code(), Some(1));
}

#[test]
fn a_host_without_peers_says_503_and_why() {
    let host = Installation::new("regtest", &[])
        .unwrap()
        // A port where nobody listens, so that no seed is asked.
        .peers(&["127.0.0.1:1".parse().unwrap()])
        .plugins(ALL_ROWS)
        .start()
        .unwrap();
    assert_error(&host, "/health", 503, "not_following");
    let (_, text) = host.get_text("/health").unwrap();
    assert!(text.contains("no peer"), "{text}");
    assert_eq!(host.get("status").unwrap()["synced"], false);
    host.stop().unwrap();
}

#[test]
fn a_pruned_host_keeps_what_reorgs_need_and_serves_the_headers_of_what_is_gone() {
    let devnet = Devnet::start(Config {
        seed: 31,
        ..Config::default()
    })
    .unwrap();
    devnet.mine(320).unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .key("chain", "keep_blocks = \"1 MB\"")
        .plugins(ALL_ROWS);
    let mut host = installation.start().unwrap();
    host.wait_for_tip(&devnet.status().tip.to_string(), LIMIT)
        .unwrap();
    host.stop().unwrap();
    let mut host = installation.start().unwrap();
    devnet.reorg(20, 21).unwrap();
    let coins = host
        .coins_at(&devnet.status().tip.to_string(), LIMIT)
        .unwrap();
    assert_eq!(coins["muhash"], devnet.utxo_set().unwrap().muhash);
    let first = host.get("blocks/1").unwrap();
    assert_eq!(
        (&first["height"], &first["active"]),
        (&1.into(), &true.into())
    );
    host.stop().unwrap();
}
