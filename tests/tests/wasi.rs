//! A plugin from a toolchain that brings WASI along: it is refused unless its table allows an inert one, and then it sees
//! the block's time and randomness and nothing of the world.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blockmill_tests::host::{Host, Installation};
use blockmill_tests::{rows, skipped};
use devnet::Devnet;
use xtask::componentize::{self, Built};
use xtask::workspace;

/// Compiling an interpreter takes a minute where the debug host has little of the machine.
const LIMIT: Duration = Duration::from_secs(600);
const BLOCKS: u32 = 12;
const SECOND: i64 = 1_000_000_000;

/// A host whose first answer may come late.
fn start(installation: &Installation) -> Host {
    let mut host = installation.spawn(&[]).unwrap();
    host.wait_for("its first answer", LIMIT, |status| {
        status.get("version").is_some().then_some(())
    })
    .unwrap();
    host
}

fn installation(devnet: &Devnet, component: &Path, keys: &str) -> Installation {
    Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(&format!(
            "\n[plugins.clockwork]\nfile = {component:?}\n{keys}\n"
        ))
}

/// The rows of a host that handled all blocks and was stopped.
fn rows_of(host: Host, devnet: &Devnet) -> Vec<Vec<String>> {
    let mut host = host;
    host.wait_for_tip(&devnet.status().tip.to_string(), LIMIT)
        .unwrap();
    // Its folder goes with the last who knows it.
    let installation = host.installation().clone();
    host.stop().unwrap();
    rows::query(
        &installation.database(),
        "SELECT height, count, block_time, wall, monotonic, random, world FROM clockwork ORDER BY height",
    )
    .unwrap()
}

fn component() -> Option<PathBuf> {
    match componentize::build(&workspace::root()).unwrap() {
        Built::Yes(component) => Some(component),
        Built::No(reason) => {
            skipped(&format!("a plugin in Python: {reason}"));
            None
        }
    }
}

#[test]
fn a_plugin_in_python_sees_the_time_and_the_randomness_of_the_block_and_nothing_of_the_world() {
    let Some(component) = component() else {
        return;
    };
    let devnet = Devnet::new(5).unwrap();
    devnet.mine(BLOCKS).unwrap();

    // Without the key it is refused, with the import and with what would allow it; the command and the host say the same.
    let refused = installation(&devnet, &component, "");
    refused
        .write_config(blockmill_tests::free_address().unwrap())
        .unwrap();
    let output = refused.command(&["check"]).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("wasi:"), "{error}");
    assert!(error.contains("wasi = \"inert\""), "{error}");
    let mut host = refused.spawn(&[]).unwrap();
    let ended = host.wait_for_end(LIMIT).unwrap().unwrap();
    assert_eq!(ended.code(), Some(2));

    let inert = installation(&devnet, &component, "wasi = \"inert\"");
    let host = start(&inert);
    let first = rows_of(host, &devnet);
    assert_eq!(first.len() as u32, BLOCKS + 1);
    let mut randoms = BTreeSet::new();
    for (index, row) in first.iter().enumerate() {
        let number = |column: usize| row[column].parse::<i64>().unwrap();
        assert_eq!(number(0), index as i64);
        assert_eq!(number(1), index as i64 + 1, "blocks counted in the state");
        assert_eq!(number(3), number(2) * SECOND, "the wall clock");
        assert_eq!(number(4), number(2) * SECOND, "the monotonic clock");
        assert_eq!(row[5].len(), 32);
        randoms.insert(row[5].clone());
        // No file, no connection, no variable of the environment, no argument, no input.
        assert_eq!(row[6], "refused refused 0 0 ''");
    }
    assert_eq!(randoms.len(), first.len(), "each block has its own");
    let log = inert.log();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count() as u32;
    assert_eq!(lines("is number "), BLOCKS + 1, "{log}");
    assert_eq!(lines("a word to the errors"), BLOCKS + 1, "{log}");

    // Another host makes the same of the same blocks, at another time.
    let host = start(&installation(&devnet, &component, "wasi = \"inert\""));
    assert_eq!(rows_of(host, &devnet), first);

    // A query sees the time and the randomness of the snapshot's block.
    let mut host = start(&inert);
    let wall = first.last().unwrap()[3].clone();
    let random = first.last().unwrap()[5].clone();
    for _ in 0..2 {
        let answer = host.get("plugins/clockwork/query/now").unwrap();
        assert_eq!(answer["count"], BLOCKS + 1);
        assert_eq!(answer["wall"].to_string(), wall);
        assert_eq!(answer["random"], random.as_str());
    }

    // Taking the key away while it runs is refused, and it goes on.
    let config = fs::read_to_string(inert.config()).unwrap();
    fs::write(inert.config(), config.replace("wasi = \"inert\"", "")).unwrap();
    let message = host.wait_for("the change refused", LIMIT, |status| {
        let reload = &status["plugins"][0]["reload"];
        (reload["state"] == "refused").then(|| reload["message"].to_string())
    });
    assert!(message.unwrap().contains("wasi:"));
    devnet.mine(1).unwrap();
    assert_eq!(rows_of(host, &devnet).len() as u32, BLOCKS + 2);
}
