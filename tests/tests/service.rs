//! What whoever runs it counts on: it ends when it is told, in time and with everything stored, and says what is wrong before it
//! touches anything.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Output;
use std::time::{Duration, Instant};

use bitcoin::Network;
use blockmill_tests::data;
use blockmill_tests::host::{ALL_ROWS, Installation};
use blockmill_tests::rows;
use devnet::{Behaviour, Config, Devnet};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);
/// What the project promises for the end of a syncing host.
const END: Duration = Duration::from_secs(5);

/// A peer that takes long enough for a signal to come in the middle of the sync.
fn slow_peer() -> Devnet {
    Devnet::start(Config {
        files: vec![data::regtest("main.dat")],
        behaviour: Behaviour {
            latency_ms: 100,
            ..Behaviour::default()
        },
        ..Config::default()
    })
    .unwrap()
}

fn slow_download(installation: Installation) -> Installation {
    installation
        .key("chain", "download_window = 2")
        .key("chain", "blocks_per_peer = 1")
}

#[test]
fn sigterm_in_the_middle_of_the_sync_ends_it_within_five_seconds_and_nothing_is_lost() {
    let devnet = slow_peer();
    let installation = slow_download(Installation::new("regtest", &[devnet.p2p_addr()]).unwrap())
        .plugins(ALL_ROWS);
    let mut host = installation.start().unwrap();
    let seen = host
        .wait_for("some blocks", LIMIT, |status| {
            status["plugins"][0]["height"]
                .as_u64()
                .filter(|&height| height >= 5)
        })
        .unwrap();
    let began = Instant::now();
    // Fails when it does not end in time, or with another code than 0.
    host.stop().unwrap();
    assert!(began.elapsed() < END, "{:?}", began.elapsed());
    let coins = installation.txoutset().unwrap();
    let height = coins["height"].as_u64().unwrap();
    assert!(
        (seen..130).contains(&height),
        "stopped at {height}, was at {seen}"
    );
    let rows = rows::query(&installation.database(), "SELECT max(height) FROM block").unwrap();
    assert!(
        rows[0][0].parse::<u64>().unwrap() >= seen.saturating_sub(1),
        "{rows:?}"
    );
    // The flush at the end was a whole one: nothing has to be put right.
    let mut host = installation.start().unwrap();
    host.wait_for("a block", LIMIT, |status| status["tip"]["height"].as_u64())
        .unwrap();
    assert!(
        !host.log().contains("were at different blocks"),
        "{}",
        host.log()
    );
    host.stop().unwrap();
}

/// The program refused to run: exit code 2, one line of error with these words.
fn assert_refused(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    let lines = text
        .lines()
        .filter(|line| line.starts_with("error: "))
        .count();
    assert_eq!(lines, 1, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn a_port_in_use_is_refused_by_name_before_anything_is_touched() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let installation = Installation::new("regtest", &[]).unwrap().plugins(ALL_ROWS);
    installation.write_config(address).unwrap();
    let output = installation.command(&["run"]).unwrap();
    assert_refused(
        &output,
        &[
            "blockmill.toml",
            "api.listen",
            &address.to_string(),
            "in use",
        ],
    );
    assert!(!installation.folder().join("data").exists());
}

#[test]
fn data_of_another_network_or_of_a_newer_version_are_refused_and_left_as_they_are() {
    let devnet = Devnet::new(3).unwrap();
    devnet.mine(3).unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(ALL_ROWS);
    installation.run_to_height(3, LIMIT).unwrap();
    let folder = installation.folder().join("data");
    let marker = folder.join("regtest/format.toml");
    let good = fs::read_to_string(&marker).unwrap();

    fs::rename(folder.join("regtest"), folder.join("signet")).unwrap();
    let output = installation
        .command(&["run", "--network", "signet"])
        .unwrap();
    assert_refused(&output, &["data_dir", "regtest", "signet"]);
    fs::rename(folder.join("signet"), folder.join("regtest")).unwrap();

    let newer = good
        .lines()
        .map(|line| match line.starts_with("format") {
            true => "format = 999\n".to_owned(),
            false => format!("{line}\n"),
        })
        .collect::<String>();
    assert_ne!(newer, good);
    fs::write(&marker, &newer).unwrap();
    for command in ["run", "check"] {
        let output = installation.command(&[command]).unwrap();
        assert_refused(&output, &["data_dir", "999"]);
    }
    assert_eq!(fs::read_to_string(&marker).unwrap(), newer);
    fs::write(&marker, &good).unwrap();
    // And they are still what they were.
    assert_eq!(installation.txoutset().unwrap()["height"], 3);
    installation.run_to_height(3, LIMIT).unwrap();
}

#[test]
fn a_second_host_on_the_same_data_is_refused_and_the_first_goes_on() {
    let installation = Installation::new("regtest", &[]).unwrap().plugins(ALL_ROWS);
    let host = installation.start().unwrap();
    let other = blockmill_tests::free_address().unwrap().to_string();
    let output = installation
        .command(&["run", "--api-listen", &other])
        .unwrap();
    assert_refused(&output, &["data_dir", "in use"]);
    assert_eq!(host.get("tip").unwrap()["height"], 0);
    host.stop().unwrap();
}

#[test]
fn check_names_what_is_wrong_with_file_key_and_what_would_be_right_and_touches_nothing() {
    let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let new = || Installation::new("regtest", &[]).unwrap();
    let check = |installation: &Installation| {
        installation.write_config(nowhere).unwrap();
        let output = installation.command(&["check"]).unwrap();
        assert!(!installation.folder().join("data").exists());
        output
    };
    let good = check(&new().plugins(ALL_ROWS));
    let text = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(
        good.status.success(),
        "{}",
        String::from_utf8_lossy(&good.stderr)
    );
    assert!(
        text.contains("utxo-tracker") && text.contains("tx-writer"),
        "{text}"
    );

    assert_refused(
        &check(&new().key("peers", "max_outbond = 3")),
        &["blockmill.toml", "peers.max_outbond", "max_outbound"],
    );
    assert_refused(
        &check(&new().key("peers", "max_outbound = \"many\"")),
        &["blockmill.toml", "peers.max_outbound", "8"],
    );
    assert_refused(
        &check(&new().key("chain", "keep_blocks = \"10 parsecs\"")),
        &["blockmill.toml", "chain.keep_blocks"],
    );
    assert_refused(
        &check(&new().plugins("\n[plugins.no-such-plugin]\n")),
        &["no-such-plugin"],
    );
    assert_refused(
        &check(&new().plugins("\n[plugins.tx-writer]\n")),
        &["tx-writer", "coins", "utxo-tracker"],
    );
    let wrong = "\n[plugins.utxo-tracker]\n\n[plugins.tx-writer]\n\n[plugins.tx-writer.settings]\nouputs = true\n";
    assert_refused(&check(&new().plugins(wrong)), &["tx-writer", "ouputs"]);
    let damaged = new().plugins("\n[plugins.damaged]\nfile = \"damaged.wasm\"\n");
    fs::write(damaged.folder().join("damaged.wasm"), b"\0asm what is this").unwrap();
    let dir = format!("dir = \"{}\"", damaged.folder().display());
    assert_refused(&check(&damaged.key("plugins", &dir)), &["damaged.wasm"]);

    let nothing = new();
    let output = nothing.command(&["check"]).unwrap();
    assert_refused(&output, &["blockmill.toml"]);
}

#[test]
fn logs_are_json_when_asked_for_and_quiet() {
    let devnet = Devnet::serve_file(data::regtest("main.dat"), Network::Regtest).unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .key("log", "format = \"json\"")
        .plugins(ALL_ROWS);
    installation.run_to_height(130, LIMIT).unwrap();
    let log = installation.log();
    let lines = log.lines().count();
    assert!((3..150).contains(&lines), "{lines} lines:\n{log}");
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(
            event["timestamp"].is_string() && event["level"].is_string(),
            "{line}"
        );
    }
    assert!(
        !log.contains("\"ERROR\"") && !log.contains("\"WARN\""),
        "{log}"
    );
}
