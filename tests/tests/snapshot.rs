//! A plugin's state as a file: what is exported here goes on elsewhere, and what is not whole or not of the chain does not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bitcoin::Network;
use blockmill_tests::data;
use blockmill_tests::host::{self, Installation};
use devnet::Devnet;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(120);
const COINS: &str = "\n[plugins.utxo-tracker]\n";
/// The coins as Bitcoin Core printed them.
const MUHASH_124: &str = "ce8d7ef686cb5e4659d5211a62c480f7b475ad13d43f95e1720aad7fd90eb009";
const MAIN_TIP: &str = "1a5c58e1336efe6d979fb9ffa77714c8c9979ca9ba1de8e44cec231075fc5dc8";
const MUHASH_130: &str = "f91b74827a4a0d17ccaf68f65aaab0a18266dc7e2c745f1a859dc9951c34307e";
const SERIALIZED_130: &str = "5698000273f33031dbef8e62c4dd942ff28045b8e7ca911424e4e9179b9cf052";
const BRANCH_TIP: &str = "14d7bfd71eed2bc3a9823a5d6e53271dffef5da8021ef818649af79ac0088e59";
const BRANCH_MUHASH: &str = "4f9e4e6f2dfac3ea10770abdde44160ecad39d96f819c92be3d8ecf9289312ea";

fn devnet() -> Devnet {
    Devnet::serve_file(data::regtest("main.dat"), Network::Regtest).unwrap()
}

fn coins_of(devnet: &Devnet) -> Installation {
    Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(COINS)
}

/// Snapshots at 124, of a running host, and at 130, of a stopped one.
struct Snapshots {
    folder: TempDir,
    source: Installation,
}

impl Snapshots {
    fn file(&self, height: u32) -> PathBuf {
        self.folder.path().join(format!("{height}.snapshot"))
    }
}

fn snapshots() -> &'static Snapshots {
    static MADE: OnceLock<Snapshots> = OnceLock::new();
    MADE.get_or_init(|| {
        let devnet = devnet();
        let made = Snapshots {
            folder: tempfile::tempdir().unwrap(),
            source: coins_of(&devnet),
        };
        let mut host = made.source.start().unwrap();
        host.coins_at(MAIN_TIP, LIMIT).unwrap();
        let said = said(export(&made.source, &made.file(124), &["--at", "124"]));
        assert!(said.contains("height             124"), "{said}");
        host.stop().unwrap();
        let said = self::said(export(&made.source, &made.file(130), &[]));
        assert!(
            said.contains(MAIN_TIP) && said.contains(SERIALIZED_130),
            "{said}"
        );
        made
    })
}

fn export(installation: &Installation, file: &Path, more: &[&str]) -> Output {
    let mut args = vec!["snapshot", "export", "utxo-tracker", file.to_str().unwrap()];
    args.extend(more);
    installation.command(&args).unwrap()
}

fn import(installation: &Installation, file: &Path, more: &[&str]) -> Output {
    installation
        .write_config(blockmill_tests::free_address().unwrap())
        .unwrap();
    let mut args = vec!["snapshot", "import", "utxo-tracker", file.to_str().unwrap()];
    args.extend(more);
    installation.command(&args).unwrap()
}

fn said(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Heights of the blocks that the installation keeps, from its index.
fn kept_heights(installation: &Installation) -> Vec<u32> {
    let index = fs::read(installation.data().join("blocks/blk.index")).unwrap();
    let records = index[16..].chunks_exact(64);
    records
        .map(|record| u32::from_le_bytes(record[32..36].try_into().unwrap()))
        .collect()
}

#[test]
fn coins_of_a_snapshot_are_cores_and_go_on_from_there_through_a_reorg_down_to_it() {
    let made = snapshots();
    let devnet = devnet();
    let installation = coins_of(&devnet);
    let said = said(import(
        &installation,
        &made.file(124),
        &["--expect", MUHASH_124],
    ));
    assert!(
        said.contains("the hash is the one that was given"),
        "{said}"
    );
    let coins = installation.txoutset().unwrap();
    assert_eq!(coins["height"], 124);
    assert_eq!(coins["txouts"], 13_860);
    assert_eq!(coins["muhash"], MUHASH_124);

    let mut host = installation.start().unwrap();
    assert_eq!(
        host.coins_at(MAIN_TIP, LIMIT).unwrap()["muhash"],
        MUHASH_130
    );
    // A restart in between finds the block again.
    host.stop().unwrap();
    let mut host = installation.start().unwrap();
    devnet.load(data::regtest("branch.dat")).unwrap();
    assert_eq!(
        host.coins_at(BRANCH_TIP, LIMIT).unwrap()["muhash"],
        BRANCH_MUHASH
    );
    host.stop().unwrap();
    let below: Vec<u32> = kept_heights(&installation)
        .into_iter()
        .filter(|height| (1..=124).contains(height))
        .collect();
    assert!(below.is_empty(), "blocks below the snapshot: {below:?}");
}

#[test]
fn a_reorg_that_leaves_the_snapshots_block_stops_the_plugin_and_says_why() {
    let made = snapshots();
    let devnet = devnet();
    let installation = coins_of(&devnet);
    said(import(
        &installation,
        &made.file(130),
        &["--expect", SERIALIZED_130],
    ));
    let mut host = installation.start().unwrap();
    host.coins_at(MAIN_TIP, LIMIT).unwrap();
    devnet.load(data::regtest("branch.dat")).unwrap();
    let error = host
        .wait_for("the plugin's word", LIMIT, |status| {
            let plugin = &status["plugins"][0];
            let error = plugin["last_error"].as_str()?;
            (plugin["state"] == "waiting-for-host").then(|| error.to_owned())
        })
        .unwrap();
    assert!(error.contains("began with a snapshot"), "{error}");
    let (code, health) = host.get_text("/health").unwrap();
    assert_eq!(code, 503, "{health}");
    host.stop().unwrap();
    // What it has is still the state of its block.
    assert_eq!(installation.txoutset().unwrap()["muhash"], MUHASH_130);
}

#[test]
fn a_snapshot_of_a_block_that_is_not_on_the_chain_is_refused_or_flagged() {
    let made = snapshots();
    let devnet = devnet();
    devnet.load(data::regtest("branch.dat")).unwrap();
    // The headers are there.
    let with_headers = Installation::new("regtest", &[devnet.p2p_addr()]).unwrap();
    with_headers.run_to_height(132, LIMIT).unwrap();
    let with_headers = with_headers.plugins(COINS);
    let why = refused(import(&with_headers, &made.file(130), &[]));
    assert!(why.contains("the chain with the most work has"), "{why}");
    said(import(&with_headers, &made.file(124), &[]));
    with_headers.run_to_height(132, LIMIT).unwrap();
    assert_eq!(with_headers.txoutset().unwrap()["muhash"], BRANCH_MUHASH);

    // They come later.
    let without = coins_of(&devnet);
    let said = said(import(&without, &made.file(130), &[]));
    assert!(said.contains("looked for as soon as they come"), "{said}");
    assert!(said.contains("nobody but the file"), "{said}");
    let mut host = without.start().unwrap();
    host.wait_for_lines("the block of the snapshot is not on the chain", 1, LIMIT)
        .unwrap();
    host.wait_for("the plugin's word", LIMIT, |status| {
        let error = status["plugins"][0]["last_error"].as_str()?;
        error.contains("began with a snapshot").then_some(())
    })
    .unwrap();
    host.stop().unwrap();
}

#[test]
fn what_is_not_whole_or_of_something_else_is_refused_and_leaves_nothing() {
    let made = snapshots();
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(made.file(130)).unwrap();
    let devnet = devnet();
    let installation = coins_of(&devnet);
    let file = folder.path().join("a.snapshot");
    let mut altered = whole.clone();
    let middle = whole.len() / 2;
    altered[middle] ^= 1;
    for (bytes, says) in [
        (&whole[..100], "torn"),
        (&whole[..middle], "torn"),
        (&whole[..whole.len() - 1], "torn"),
        (&altered[..], "damaged"),
        (&b"utxo\xff and more"[..], "is no snapshot"),
        (&[][..], "is no snapshot"),
    ] {
        fs::write(&file, bytes).unwrap();
        let why = refused(import(&installation, &file, &[]));
        assert!(why.contains(says), "{says}: {why}");
    }
    let zeros = "00".repeat(32);
    let why = refused(import(
        &installation,
        &made.file(130),
        &["--expect", &zeros],
    ));
    assert!(
        why.contains("does not hash to") && why.contains(MUHASH_130),
        "{why}"
    );
    let mainnet = Installation::new("mainnet", &[]).unwrap().plugins(COINS);
    let why = refused(import(&mainnet, &made.file(130), &[]));
    assert!(why.contains("is of regtest"), "{why}");
    assert!(!mainnet.data().exists(), "nothing is made for it");
    let other = Installation::new("regtest", &[])
        .unwrap()
        .plugins(COINS)
        .plugins("\n[plugins.block-stats]\n");
    other
        .write_config(blockmill_tests::free_address().unwrap())
        .unwrap();
    let path = made.file(130);
    let args = ["snapshot", "import", "block-stats", path.to_str().unwrap()];
    let why = refused(other.command(&args).unwrap());
    assert!(why.contains("of the plugin \"utxo-tracker\""), "{why}");
    let why = refused(import(&made.source, &made.file(130), &[]));
    assert!(why.contains("has data already"), "{why}");

    // None of that is in the way of a whole one, nor of a first sync.
    assert!(installation.txoutset().is_err());
    installation.run_to_height(50, LIMIT).unwrap();
    assert!(kept_heights(&installation).contains(&1));
    let again = coins_of(&devnet);
    fs::write(&file, &altered).unwrap();
    refused(import(&again, &file, &[]));
    said(import(&again, &made.file(130), &[]));
    assert_eq!(again.txoutset().unwrap()["muhash"], MUHASH_130);
}

/// Whenever it is killed: the plugin has either nothing, and begins at the first block, or all of it.
#[test]
fn an_import_that_is_killed_leaves_nothing_that_counts() {
    let made = snapshots();
    let devnet = devnet();
    let whole = coins_of(&devnet);
    let start = Instant::now();
    said(import(&whole, &made.file(124), &[]));
    let took = start.elapsed();
    let mut killed = 0;
    for part in [30, 60, 90] {
        let installation = coins_of(&devnet);
        installation
            .write_config(blockmill_tests::free_address().unwrap())
            .unwrap();
        let mut import = host::command().unwrap();
        import
            .args(["snapshot", "import", "utxo-tracker"])
            .arg(made.file(124))
            .arg("--config")
            .arg(installation.config())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut import = import.spawn().unwrap();
        std::thread::sleep(took * part / 100);
        import.kill().unwrap();
        killed += usize::from(!import.wait().unwrap().success());
        // Even where the block was noted and the plugin not yet, which no timing here is sure to meet.
        if part == 30 {
            fs::create_dir_all(installation.data()).unwrap();
            let base = fs::read(whole.data().join("snapshot-base")).unwrap();
            fs::write(installation.data().join("snapshot-base"), base).unwrap();
        }
        let mut host = installation.start().unwrap();
        let coins = host.coins_at(MAIN_TIP, LIMIT).unwrap();
        assert_eq!(coins["muhash"], MUHASH_130, "killed after {part} %");
        host.stop().unwrap();
    }
    assert!(killed > 0, "all were through before they were killed");
}

#[test]
fn an_export_says_what_it_cannot_reach_and_leaves_no_file() {
    let made = snapshots();
    let file = made.folder.path().join("never");
    for (at, says) in [
        ("131", "up to 130, not 131"),
        ("10", "can be taken back to block 30"),
    ] {
        let why = refused(export(&made.source, &file, &["--at", at]));
        assert!(why.contains(says), "{at}: {why}");
    }
    let nothing = Installation::new("regtest", &[]).unwrap().plugins(COINS);
    nothing
        .write_config(blockmill_tests::free_address().unwrap())
        .unwrap();
    refused(export(&nothing, &file, &[]));
    let names: Vec<_> = fs::read_dir(made.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
}
