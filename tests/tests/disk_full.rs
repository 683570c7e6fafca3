//! A disk that is full is nobody's fault but the disk's: blocks, headers and lanes wait and say so, and go on by themselves when
//! there is room, with nothing lost and nothing twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use blockmill_tests::host::{Host, Installation};
use blockmill_tests::rows;
use devnet::Devnet;
use devnet::large::{LargePeer, Recipe};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

const TABLES: &str = "\n[plugins.utxo-tracker]\n\n[plugins.ledger]\nfile = \"test/ledger.wasm\"\n";

/// A disk of its own, gone with this.
struct Disk(PathBuf);

impl Disk {
    /// None where the machine does not let us have one.
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=300m", "tmpfs"]);
        let done = mount.arg(at).output().is_ok_and(|out| out.status.success());
        done.then(|| Self(at.to_owned()))
    }

    /// Takes all the room that is left but so many bytes.
    fn fill(&self, leave: u64) {
        let mut ballast = File::create(self.0.join("ballast")).unwrap();
        let chunk = vec![1; 1 << 20];
        while ballast.write_all(&chunk).is_ok() {}
        while ballast.write_all(&chunk[..1]).is_ok() {}
        let size = ballast.metadata().unwrap().len();
        ballast.set_len(size - leave).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn plugin<'a>(status: &'a Value, name: &str) -> &'a Value {
    let mut plugins = status["plugins"].as_array().unwrap().iter();
    plugins.find(|plugin| plugin["name"] == name).unwrap()
}

fn installation(devnet: &Devnet) -> Installation {
    Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .key("plugins", "retry_pause = \"100ms\"")
        .plugins(TABLES)
}

/// All that the plugins have left at the tip.
fn left(host: &mut Host, tip: &str) -> (Value, Value, Vec<Vec<String>>) {
    let coins = host.coins_at(tip, LIMIT).unwrap();
    let count = host.get("status").unwrap()["tip"]["height"]
        .as_u64()
        .unwrap()
        + 1;
    let api = host.api();
    host.wait_for("all on the disk", LIMIT, |_| {
        let url = format!("http://{api}/api/v1/plugins/ledger/query/count");
        let answer: Value = ureq::get(url).call().ok()?.body_mut().read_json().ok()?;
        (answer["count"] == count).then_some(())
    })
    .unwrap();
    let state = host.get("plugins/ledger/query/state").unwrap();
    let database = host.installation().database();
    let rows = "SELECT height, position, seen FROM ledger_block ORDER BY height, position";
    (coins, state, rows::query(&database, rows).unwrap())
}

#[test]
fn a_host_on_a_full_disk_waits_says_so_and_goes_on_with_nothing_lost_or_twice() {
    let devnet = Devnet::new(6).unwrap();
    devnet.mine(8).unwrap();
    let ours = installation(&devnet);
    let Some(disk) = Disk::mount(&ours.folder().join("data")) else {
        println!("skipped: this machine lets nobody mount a disk");
        return;
    };
    let mut host = ours.start().unwrap();
    host.wait_for_height(8, LIMIT).unwrap();
    disk.fill(0);
    let mined = devnet.mine(20).unwrap();
    let tip = mined.last().unwrap().to_string();
    host.wait_for_lines("blocks cannot be kept", 1, LIMIT)
        .unwrap();
    let (code, health) = host.get_text("/health").unwrap();
    assert_eq!(code, 503);
    assert!(health.contains("the disk of"), "{health}");
    assert!(health.contains("is full"), "{health}");
    // Longer than it takes to try again a few times.
    std::thread::sleep(Duration::from_secs(5));
    let status = host.get("status").unwrap();
    for name in ["utxo-tracker", "ledger"] {
        let plugin = plugin(&status, name);
        assert_ne!(plugin["state"], "quarantined", "{plugin}");
        assert!(plugin["height"].as_u64().unwrap() >= 8, "{plugin}");
        assert!(plugin["capsule"].is_null(), "{plugin}");
    }
    assert!(host.log().matches("blocks cannot be kept").count() < 5);
    disk.empty();
    let found = left(&mut host, &tip);
    assert!(host.log().contains("blocks can be kept again"));
    assert!(!host.log().contains("plugin failed"), "{}", host.log());
    host.stop().unwrap();

    let mut calm = installation(&devnet).start().unwrap();
    assert_eq!(found, left(&mut calm, &tip), "{} rows", found.2.len());
    assert_eq!(found.2.len(), 29);
    calm.stop().unwrap();
    // And what is on that disk is whole.
    let mut again = ours.start().unwrap();
    assert_eq!(found, left(&mut again, &tip));
    again.stop().unwrap();
}

#[test]
fn a_lane_whose_flush_has_no_room_waits_and_its_plugin_is_not_blamed() {
    let devnet = Devnet::new(6).unwrap();
    devnet.mine(8).unwrap();
    let ours = installation(&devnet);
    let Some(disk) = Disk::mount(&ours.folder().join("data")) else {
        println!("skipped: this machine lets nobody mount a disk");
        return;
    };
    let mut host = ours.start().unwrap();
    host.wait_for_height(8, LIMIT).unwrap();
    // Enough for a component and a table, and less than what is never used up.
    disk.fill(32 << 20);
    let config = fs::read_to_string(ours.config()).unwrap();
    let more = "\n[plugins.trap-at]\nfile = \"test/trap-at.wasm\"\n[plugins.trap-at.settings]\nheight = 1000\n";
    fs::write(ours.config(), format!("{config}{more}")).unwrap();
    let waits = host
        .wait_for("a lane that waits for the disk", LIMIT, |status| {
            let plugins = status["plugins"].as_array()?;
            let plugin = plugins.iter().find(|plugin| plugin["name"] == "trap-at")?;
            (plugin["state"] == "waiting-for-host").then(|| plugin.clone())
        })
        .unwrap();
    let error = waits["last_error"].as_str().unwrap();
    assert!(error.contains("is full"), "{error}");
    disk.empty();
    host.wait_for("the tip", LIMIT, |status| {
        let plugins = status["plugins"].as_array()?;
        let plugin = plugins.iter().find(|plugin| plugin["name"] == "trap-at")?;
        (plugin["height"] == 8 && plugin["state"] == "following").then_some(())
    })
    .unwrap();
    assert!(!host.log().contains("quarantined"), "{}", host.log());
    host.stop().unwrap();
}

#[test]
fn a_pool_that_cannot_be_journaled_is_saved_as_soon_as_there_is_room() {
    let devnet = Devnet::start(devnet::Config {
        seed: 31,
        announce_pool: false,
        ..devnet::Config::default()
    })
    .unwrap();
    devnet.mine(160).unwrap();
    let ours = installation(&devnet);
    let Some(disk) = Disk::mount(&ours.folder().join("data")) else {
        println!("skipped: this machine lets nobody mount a disk");
        return;
    };
    let pool = |host: &mut Host, txs: usize| {
        host.wait_for("the pool", LIMIT, |status| {
            (status["mempool"]["txs"] == txs).then_some(())
        })
        .unwrap();
    };
    let mut host = ours.start().unwrap();
    host.wait_for_height(160, LIMIT).unwrap();
    let mut txs = devnet.fill_mempool(20).len();
    pool(&mut host, txs);
    disk.fill(0);
    txs += devnet.fill_mempool(60).len();
    pool(&mut host, txs);
    host.wait_for_lines("is not journaled", 1, LIMIT).unwrap();
    // They are taken all the same.
    txs += devnet.fill_mempool(20).len();
    pool(&mut host, txs);
    disk.empty();
    host.wait_for_lines("saved and journaled again", 1, LIMIT)
        .unwrap();
    assert_eq!(host.log().matches("is not journaled").count(), 1);
    assert!(!host.log().contains("was not saved"), "{}", host.log());
    host.kill9().unwrap();

    // Nobody announces them again.
    let mut host = ours.start().unwrap();
    pool(&mut host, txs);
    host.stop().unwrap();
}

#[test]
fn a_log_of_spent_outputs_that_has_no_room_holds_up_who_needs_it_and_loses_nothing() {
    let tables = format!("{TABLES}\n[plugins.tx-writer]\n");
    let on = |devnet: &Devnet| {
        Installation::new("regtest", &[devnet.p2p_addr()])
            .unwrap()
            .key("plugins", "retry_pause = \"100ms\"")
            .plugins(&tables)
    };
    let devnet = Devnet::new(6).unwrap();
    devnet.mine(108).unwrap();
    let ours = on(&devnet);
    let mut host = ours.start().unwrap();
    host.coins_at(&devnet.status().tip.to_string(), LIMIT)
        .unwrap();
    host.stop().unwrap();
    // The log of spent outputs alone moves to a disk of its own.
    let other = ours.folder().join("other");
    let Some(disk) = Disk::mount(&other) else {
        println!("skipped: this machine lets nobody mount a disk");
        return;
    };
    let spent = ours.data().join("blocks/spent00000.dat");
    let moved = other.join("spent00000.dat");
    fs::copy(&spent, &moved).unwrap();
    fs::remove_file(&spent).unwrap();
    std::os::unix::fs::symlink(&moved, &spent).unwrap();

    let mut host = ours.start().unwrap();
    host.wait_for_height(108, LIMIT).unwrap();
    disk.fill(0);
    let before = moved.metadata().unwrap().len();
    // Together they spend more than the last page of the file has room for.
    let mined = devnet.mine(20).unwrap();
    let tip = mined.last().unwrap().to_string();
    let waits = host
        .wait_for("a lane that waits for the disk", LIMIT, |status| {
            let coins = plugin(status, "utxo-tracker");
            (coins["state"] == "waiting-for-host").then(|| coins.clone())
        })
        .unwrap();
    let error = waits["last_error"].as_str().unwrap();
    assert!(error.contains("failed to keep what block"), "{error}");
    assert!(error.contains("spent00000.dat"), "{error}");
    assert!(error.contains("No space left"), "{error}");
    // Not that another plugin is behind, which waits for this one.
    host.wait_for("the reason", LIMIT, |status| {
        let why = status["not_following"].as_str()?;
        (why.starts_with("plugin utxo-tracker waits for the host: ")
            && why.contains("failed to keep what block"))
        .then_some(())
    })
    .unwrap();
    // Who does not need it goes on, and blocks are kept; who does, waits for it.
    host.wait_for("the ledger at the tip", LIMIT, |status| {
        (plugin(status, "ledger")["height"] == 128).then_some(())
    })
    .unwrap();
    // Longer than it takes to try again a few times.
    std::thread::sleep(Duration::from_secs(5));
    let status = host.get("status").unwrap();
    assert_eq!(status["tip"]["height"], 128);
    for name in ["utxo-tracker", "tx-writer"] {
        let plugin = plugin(&status, name);
        let height = plugin["height"].as_u64().unwrap();
        assert!((108..128).contains(&height), "{plugin}");
        assert!(plugin["capsule"].is_null(), "{plugin}");
    }
    assert!(host.log().matches("failed to keep what block").count() < 20);
    // A kill in this state leaves only what is whole.
    host.kill9().unwrap();
    let mut host = ours.start().unwrap();
    disk.empty();
    let level = |host: &mut Host| {
        host.wait_for("all at the tip", LIMIT, |status| {
            let mut plugins = status["plugins"].as_array()?.iter();
            plugins
                .all(|plugin| plugin["hash"] == tip.as_str())
                .then_some(())
        })
        .unwrap();
        host.coins_at(&tip, LIMIT).unwrap()
    };
    let coins = level(&mut host);
    assert!(moved.metadata().unwrap().len() > before);
    assert!(!host.log().contains("quarantined"), "{}", host.log());
    host.stop().unwrap();
    // And what is on that disk is whole.
    let mut host = ours.start().unwrap();
    assert_eq!(level(&mut host), coins);
    host.stop().unwrap();
    for torn in ["is damaged", "dropped index records"] {
        assert!(!ours.log().contains(torn), "{}", ours.log());
    }

    let calm = on(&devnet);
    let mut host = calm.start().unwrap();
    assert_eq!(level(&mut host), coins);
    host.stop().unwrap();
    // What blocks spend shows in the fees.
    let fees = |of: &Installation| {
        let sql = "SELECT height, position, hex(txid), fee FROM tx ORDER BY height, position";
        rows::query(&of.database(), sql).unwrap()
    };
    let ours = fees(&ours);
    assert!(ours == fees(&calm), "other fees");
    assert!(ours.len() > 129, "transactions that spend something");
}

#[test]
fn coins_are_not_made_again_for_a_plugin_before_there_is_room_for_a_second_set() {
    const BEGUN: &str = "another plugin waits for what pruned blocks spend";
    let devnet = Devnet::new(77).unwrap();
    devnet.mine(110).unwrap();
    for _ in 0..40 {
        devnet.fill_mempool(5);
        devnet.mine(1).unwrap();
    }
    devnet.mine(400).unwrap();
    let tables = "\n[plugins.utxo-tracker]\n[plugins.tx-writer]\nenabled = false\n";
    let ours = Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .key("chain", "keep_blocks = \"32 kB\"")
        .plugins(tables);
    let Some(disk) = Disk::mount(&ours.folder().join("data")) else {
        println!("skipped: this machine lets nobody mount a disk");
        return;
    };
    let mut host = ours.start().unwrap();
    let tip = devnet.status().tip.to_string();
    host.wait_for("the tip", LIMIT, |status| {
        (plugin(status, "utxo-tracker")["hash"] == tip.as_str()).then_some(())
    })
    .unwrap();
    host.wait_for_lines("blocks pruned", 1, LIMIT).unwrap();
    disk.fill(32 << 20);
    let enable = ours.command(&["plugin", "enable", "tx-writer"]).unwrap();
    assert!(enable.status.success(), "{enable:?}");
    let message = host
        .wait_for("a refusal", LIMIT, |status| {
            let reload = &plugin(status, "utxo-tracker")["reload"];
            let message = reload["message"].as_str()?.to_owned();
            (reload["state"] == "refused").then_some(message)
        })
        .unwrap();
    assert!(
        message.starts_with("tx-writer waits for what block 0 spends, and a second set of data"),
        "{message}"
    );
    assert!(message.contains("is full"), "{message}");
    // Longer than it takes to look again; it is said once.
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(host.log().matches("a second set of data").count(), 1);
    assert!(!host.log().contains(BEGUN), "{}", host.log());
    let status = host.get("status").unwrap();
    let waits = plugin(&status, "tx-writer")["waiting_for"].as_str();
    assert!(waits.is_some_and(|why| why.contains("what block 0 spends")));
    // With room it is begun by itself, and both end at the tip.
    disk.empty();
    host.wait_for_lines(BEGUN, 1, LIMIT).unwrap();
    host.wait_for("the tip and the exchange", LIMIT, |status| {
        let coins = plugin(status, "utxo-tracker");
        (plugin(status, "tx-writer")["hash"] == tip.as_str()
            && coins["hash"] == tip.as_str()
            && coins["reload"]["state"] == "swapped")
            .then_some(())
    })
    .unwrap();
    let coins = host.coins_at(&tip, LIMIT).unwrap();
    assert_eq!(coins["muhash"], devnet.utxo_set().unwrap().muhash);
    host.stop().unwrap();
}

#[test]
fn a_large_pruned_block_is_not_loaded_again_and_again_while_it_cannot_be_kept() {
    let recipe = Recipe::of(7_000_000, 100);
    let peer = LargePeer::start_below([0xda, 0xb5, 0xbf, 0xfa], recipe, 400).unwrap();
    let tip = peer.tip().to_string();
    let ours = Installation::new("large", &[peer.addr()])
        .unwrap()
        .chain_file(
            "name = \"large\"\nbase = \"regtest\"\nmagic = \"dab5bffa\"\nsegwit = false\n\
             max_block_size = [{ from = 0, bytes = 4_000_000_000 }]\n",
        )
        .unwrap()
        .key("chain", "large_block = \"2 MB\"")
        .key("chain", "keep_blocks = \"32 kB\"")
        .plugins(
            "\n[plugins.utxo-tracker]\n[plugins.ledger]\nfile = \"test/ledger.wasm\"\nenabled = false\n",
        );
    let Some(disk) = Disk::mount(&ours.folder().join("data")) else {
        println!("skipped: this machine lets nobody mount a disk");
        return;
    };
    let at_tip = |host: &mut Host, name: &str| {
        host.wait_for("the tip", LIMIT, |status| {
            (plugin(status, name)["hash"] == tip.as_str()).then_some(())
        })
        .unwrap();
    };
    let waits_for = |host: &mut Host, what: &str| {
        host.wait_for(what, LIMIT, |status| {
            let why = plugin(status, "ledger")["waiting_for"].as_str()?;
            why.contains(what).then_some(())
        })
        .unwrap();
    };
    let mut host = ours.start().unwrap();
    at_tip(&mut host, "utxo-tracker");
    host.wait_for_lines("blocks pruned", 1, LIMIT).unwrap();
    assert_eq!(peer.asked(), 1);
    // Less than what is never used up.
    disk.fill(32 << 20);
    let enable = ours.command(&["plugin", "enable", "ledger"]).unwrap();
    assert!(enable.status.success(), "{enable:?}");
    waits_for(&mut host, "waiting for room: block 111 was pruned here");
    assert_eq!(peer.asked(), 2, "{}", host.log());
    // Longer than the pause before it is asked for again, were there room.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(peer.asked(), 2, "{}", host.log());
    assert!(host.get("status").unwrap()["tip"]["hash"] == tip.as_str());
    disk.empty();
    at_tip(&mut host, "ledger");
    assert_eq!(peer.asked(), 3);
    assert!(!host.log().contains("quarantined"), "{}", host.log());
    host.stop().unwrap();

    // With a key that was lowered it cannot be taken at all, and is loaded once to see that.
    let low = ours.key("chain", "longest_transaction = \"1 MB\"");
    let mut host = low.start().unwrap();
    // The configuration file is written anew at each start.
    let enable = low.command(&["plugin", "enable", "ledger"]).unwrap();
    assert!(enable.status.success(), "{enable:?}");
    at_tip(&mut host, "ledger");
    let rebuild = low.command(&["plugin", "rebuild", "ledger"]).unwrap();
    assert!(rebuild.status.success(), "{rebuild:?}");
    host.wait_for_lines("too long to be taken once more", 1, LIMIT)
        .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(peer.asked(), 4);
    host.stop().unwrap();
}
