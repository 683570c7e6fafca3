//! A host that keeps few blocks: what was pruned comes from peers once more for a plugin that begins later.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::path::PathBuf;
use std::time::Duration;

use blockmill_tests::host::{Host, Installation};
use blockmill_tests::rows;
use devnet::Devnet;
use devnet::large::{LargePeer, Recipe};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);
const ROWS: &str = "\n[plugins.tx-writer.settings]\ninputs = true\noutputs = true\n";

fn diary() -> PathBuf {
    xtask::workspace::target(&xtask::workspace::root()).join("plugins/test/diary.wasm")
}

/// A chain with transactions below what a small host keeps.
fn chain() -> Devnet {
    let devnet = Devnet::new(77).unwrap();
    devnet.mine(110).unwrap();
    for _ in 0..40 {
        devnet.fill_mempool(5);
        devnet.mine(1).unwrap();
    }
    devnet.mine(400).unwrap();
    devnet
}

/// All three plugins; of those two that are named later, whether they are on.
fn installation(devnet: &Devnet, on: bool) -> Installation {
    let file = diary();
    Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(&format!(
            "\n[plugins.utxo-tracker]\n\n[plugins.diary]\nfile = {file:?}\nenabled = {on}\n\n\
             [plugins.tx-writer]\nenabled = {on}\n{ROWS}"
        ))
}

fn command(host: &Host, args: &[&str]) -> String {
    let output = host.installation().command(args).unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{args:?}: {text}");
    text
}

/// Waits until every plugin that is on has the tip.
fn level(devnet: &Devnet, host: &mut Host) {
    let tip = devnet.status().tip.to_string();
    host.wait_for("all at the tip", LIMIT, |status| {
        let plugins = status["plugins"].as_array()?;
        let mut on = plugins
            .iter()
            .filter(|plugin| plugin["state"] != "disabled");
        on.all(|plugin| plugin["hash"] == tip.as_str())
            .then_some(())
    })
    .unwrap();
}

fn plugin<'s>(status: &'s Value, name: &str) -> &'s Value {
    let plugins = status["plugins"].as_array().unwrap();
    plugins
        .iter()
        .find(|plugin| plugin["name"] == name)
        .unwrap()
}

/// A host at the tip that has pruned its first blocks.
fn pruned(devnet: &Devnet, keys: &[&str]) -> Host {
    let installation = keys.iter().fold(
        installation(devnet, false).key("chain", "keep_blocks = \"32 kB\""),
        |installation, key| installation.key("chain", key),
    );
    let mut host = installation.start().unwrap();
    level(devnet, &mut host);
    host.wait_for_lines("blocks pruned", 1, LIMIT).unwrap();
    assert!(host.get("blocks/1").unwrap()["txs"].is_null());
    host
}

/// The rows of a host that ran everything from the first block on, and kept all blocks.
fn reference(devnet: &Devnet) -> std::collections::BTreeMap<String, rows::Table> {
    let mut host = installation(devnet, true).start().unwrap();
    level(devnet, &mut host);
    let installation = host.installation().clone();
    host.stop().unwrap();
    rows::anchored(&installation.database()).unwrap()
}

fn compare(devnet: &Devnet, mut host: Host) {
    level(devnet, &mut host);
    let installation = host.installation().clone();
    host.stop().unwrap();
    let mut ours = rows::anchored(&installation.database()).unwrap();
    // The set of data before the last `rebuild`.
    ours.retain(|name, _| !name.starts_with("blockmill_other_"));
    rows::same(&ours, &reference(devnet)).unwrap();
}

#[test]
fn plugins_that_are_switched_on_after_blocks_were_pruned_have_the_rows_of_those_from_the_start() {
    let devnet = chain();
    let mut host = pruned(&devnet, &[]);

    // One that needs blocks and nothing else.
    let text = command(&host, &["plugin", "enable", "diary"]);
    assert!(!text.contains("was pruned"), "{text}");
    level(&devnet, &mut host);

    // One that asks for what blocks spend, which was pruned too: it says so at once. The coins made anew from pruned blocks
    // make that anew as well, without being asked, and both end as if nothing had been pruned.
    let text = command(&host, &["plugin", "enable", "tx-writer"]);
    assert!(
        text.contains("what block 0 spends: it was pruned"),
        "{text}"
    );
    devnet.mine(3).unwrap();
    level(&devnet, &mut host);
    host.wait_for_lines("goes through the chain once more", 1, LIMIT)
        .unwrap();
    host.wait_for("the exchange", LIMIT, |status| {
        (plugin(status, "utxo-tracker")["reload"]["state"] == "swapped").then_some(())
    })
    .unwrap();
    let coins = host
        .coins_at(&devnet.status().tip.to_string(), LIMIT)
        .unwrap();
    assert_eq!(coins["muhash"], devnet.utxo_set().unwrap().muhash);
    compare(&devnet, host);
}

#[test]
fn what_blocks_spend_can_be_kept_when_they_are_pruned() {
    let devnet = chain();
    let mut host = pruned(&devnet, &["keep_spent = \"all\""]);
    for name in ["tx-writer", "diary"] {
        let text = command(&host, &["plugin", "enable", name]);
        assert!(!text.contains("was pruned"), "{text}");
    }
    level(&devnet, &mut host);
    // Made anew beside itself, too.
    command(&host, &["plugin", "rebuild", "tx-writer"]);
    host.wait_for("the exchange", LIMIT, |status| {
        (plugin(status, "tx-writer")["reload"]["state"] == "swapped").then_some(())
    })
    .unwrap();
    compare(&devnet, host);
}

#[test]
fn without_a_peer_that_has_the_blocks_the_plugin_waits_and_says_so() {
    let devnet = chain();
    let installation = pruned(&devnet, &[]);
    let installation = {
        let kept = installation.installation().clone();
        installation.stop().unwrap();
        kept
    };
    let mut host = installation.clone().peers(&[]).spawn(&[]).unwrap();
    host.wait_for("its first answer", LIMIT, |status| {
        status.get("version").is_some().then_some(())
    })
    .unwrap();
    command(&host, &["plugin", "enable", "diary"]);
    host.wait_for("waiting", LIMIT, |status| {
        let diary = plugin(status, "diary");
        let why = diary["waiting_for"].as_str()?;
        (why.contains("waiting for peers: block 1 ") && why.contains("no connected peer has it"))
            .then(|| {
                assert_eq!(
                    (&diary["state"], &diary["attempts"]),
                    (&"waiting".into(), &0.into())
                )
            })
    })
    .unwrap();
    host.stop().unwrap();
    // With one it goes on where it was.
    let mut host = installation.peers(&[devnet.p2p_addr()]).start().unwrap();
    level(&devnet, &mut host);
    host.stop().unwrap();
}

/// Regtest without segregated witness, with a magic of its own.
const LARGE: &str = r#"
name = "large"
base = "regtest"
magic = "dab5bffa"
segwit = false
max_block_size = [{ from = 0, bytes = 4_000_000_000 }]
"#;

fn all_at(host: &mut Host, tip: &str) {
    host.wait_for("all at the tip", LIMIT, |status| {
        let mut plugins = status["plugins"].as_array()?.iter();
        plugins
            .all(|plugin| plugin["state"] == "disabled" || plugin["hash"] == tip)
            .then_some(())
    })
    .unwrap();
}

/// Bytes of large blocks that came once more.
fn lying(installation: &Installation) -> u64 {
    let files = std::fs::read_dir(installation.data().join("blocks/again")).unwrap();
    let files = files.map(|entry| entry.unwrap());
    files
        .filter(|entry| entry.file_name().to_string_lossy().ends_with(".dat"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum()
}

#[test]
fn a_pruned_block_that_is_too_large_to_be_held_comes_once_more_in_pieces_and_is_gone_again() {
    let peer = LargePeer::start_below([0xda, 0xb5, 0xbf, 0xfa], Recipe::of(7_000_000, 2_000), 400)
        .unwrap();
    let tip = peer.tip().to_string();
    let file = diary();
    let installation = |on: bool| {
        Installation::new("large", &[peer.addr()])
            .unwrap()
            .chain_file(LARGE)
            .unwrap()
            .key("chain", "large_block = \"2 MB\"")
            .plugins(&format!(
                "\n[plugins.utxo-tracker]\n\n[plugins.diary]\nfile = {file:?}\nenabled = {on}\n\n\
                 [plugins.tx-writer]\nenabled = {on}\n{ROWS}"
            ))
    };
    let small = installation(false).key("chain", "keep_blocks = \"32 kB\"");
    let mut host = small.start().unwrap();
    all_at(&mut host, &tip);
    host.wait_for_lines("blocks pruned", 1, LIMIT).unwrap();
    assert_eq!(peer.asked(), 1);
    let own = std::fs::read_dir(small.data().join("blocks")).unwrap();
    let own = own.map(|entry| entry.unwrap().metadata().unwrap().len());
    assert!(own.sum::<u64>() < 5_000_000, "the large block is pruned");

    // One that takes blocks whole. Its first connection ends in the middle of the block.
    peer.cut_once_after(3_000_000);
    command(&host, &["plugin", "enable", "diary"]);
    all_at(&mut host, &tip);
    assert_eq!(peer.asked(), 3);
    // All have gone past it.
    host.wait_for("its room back", LIMIT, |_| {
        (lying(&small) == 0).then_some(())
    })
    .unwrap();

    // One that takes parts, and asks for what they spend: the coins are made again for it, out of the same blocks.
    command(&host, &["plugin", "enable", "tx-writer"]);
    all_at(&mut host, &tip);
    host.wait_for("the exchange", LIMIT, |status| {
        (plugin(status, "utxo-tracker")["reload"]["state"] == "swapped").then_some(())
    })
    .unwrap();
    let coins = host.coins_at(&tip, LIMIT).unwrap();
    host.wait_for("its room back", LIMIT, |_| {
        (lying(&small) == 0).then_some(())
    })
    .unwrap();
    assert!(!host.log().contains("plugin failed"), "{}", host.log());
    host.stop().unwrap();

    let whole = installation(true);
    let mut host = whole.start().unwrap();
    all_at(&mut host, &tip);
    assert_eq!(host.coins_at(&tip, LIMIT).unwrap(), coins);
    host.stop().unwrap();
    let mut ours = rows::anchored(&small.database()).unwrap();
    ours.retain(|name, _| !name.starts_with("blockmill_other_"));
    rows::same(&ours, &rows::anchored(&whole.database()).unwrap()).unwrap();
}
