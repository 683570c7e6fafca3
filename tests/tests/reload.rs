//! Plugins replaced, taken back, switched on and off while blocks flow. The diary writes a row for each call with the number of
//! the call by its own count: a block that was skipped or given twice would show.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use blockmill_tests::host::{Host, Installation};
use blockmill_tests::rows;
use devnet::Devnet;
use serde_json::Value;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// A plugin as it was built.
fn built(name: &str) -> Vec<u8> {
    let folder = xtask::workspace::target(&xtask::workspace::root()).join("plugins/test");
    fs::read(folder.join(format!("{name}.wasm"))).unwrap()
}

/// The same code in another file: with a custom section more.
fn twin(mut module: Vec<u8>, mark: u8) -> Vec<u8> {
    module.extend_from_slice(&[0, 3, 1, b'#', mark]);
    module
}

/// Puts a file into the place of another as `cp` and compilers of good manners do.
fn replace(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("part");
    fs::write(&beside, bytes).unwrap();
    fs::rename(beside, path).unwrap();
}

/// A devnet, and a host that runs the diary from a folder where its file can be changed.
struct Setting {
    devnet: Devnet,
    host: Host,
    plugins: TempDir,
}

fn installation(devnet: &Devnet, plugins: &Path) -> Installation {
    let file = plugins.join("diary.wasm");
    Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .plugins(&format!("\n[plugins.diary]\nfile = {file:?}\n"))
}

impl Setting {
    fn new(blocks: u32) -> Self {
        Self::with(blocks, "")
    }

    /// With a diary that takes its time for each block, so that its data are being made for some seconds.
    fn toiling(blocks: u32) -> Self {
        Self::with(
            blocks,
            "[plugins.diary.settings]\ncolour = 0\ntoil = 20000\n",
        )
    }

    fn with(blocks: u32, table: &str) -> Self {
        let devnet = Devnet::new(3).unwrap();
        devnet.mine(blocks).unwrap();
        let plugins = tempfile::tempdir().unwrap();
        fs::write(plugins.path().join("diary.wasm"), built("diary")).unwrap();
        let installation = installation(&devnet, plugins.path()).plugins(table);
        let mut setting = Self {
            devnet,
            host: installation.start().unwrap(),
            plugins,
        };
        setting.level();
        setting
    }

    fn file(&self) -> PathBuf {
        self.plugins.path().join("diary.wasm")
    }

    fn level(&mut self) {
        let tip = self.devnet.status().tip.to_string();
        self.host.wait_for_tip(&tip, LIMIT).unwrap();
    }

    /// What the status says of the diary.
    fn diary(&mut self) -> Value {
        self.host
            .wait_for("the diary", LIMIT, |status| {
                Some(status["plugins"][0].clone())
            })
            .unwrap()
    }

    /// Waits until the change to this file has come to this end; gives what is said of it.
    fn reloaded(&mut self, file: &[u8], state: &str) -> String {
        let sha256 = sha256(file);
        let message = self.host.wait_for(state, LIMIT, |status| {
            let reload = &status["plugins"][0]["reload"];
            (reload["state"] == state && reload["sha256"] == sha256.as_str())
                .then(|| reload["message"].as_str().unwrap().to_owned())
        });
        message.unwrap()
    }

    /// Every block of the chain has one row, with its own number.
    fn check_rows(&mut self, table: &str) {
        self.level();
        let tip = self.devnet.status().height;
        let database = self.host.installation().database();
        let sql = format!(
            "SELECT printf('%d of %d to %d, %d wrong', count(*), min(height), max(height), sum(call <> height)) FROM {table}"
        );
        let wanted = format!("{} of 0 to {tip}, 0 wrong", tip + 1);
        // The last block may be committed and not flushed yet.
        for _ in 0..100 {
            let found = rows::query(&database, &sql).unwrap_or_default();
            if found.iter().flatten().any(|cell| cell.contains(&wanted)) {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
        let found = rows::query(
            &database,
            &format!("SELECT height, call FROM {table} WHERE height <> call"),
        );
        panic!(
            "{table} is not one row a block up to {tip}: {found:?}\n{}",
            self.host.log()
        );
    }

    fn command(&self, args: &[&str]) -> (bool, String) {
        let output = self.host.installation().command(args).unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    /// The diary's answer to a query.
    fn asked(&self) -> Value {
        self.host.get("plugins/diary/query/state").unwrap()
    }

    fn change_config(&self, from: &str, to: &str) {
        let path = self.host.installation().config();
        let config = fs::read_to_string(&path).unwrap();
        assert!(config.contains(from), "{config}");
        replace(&path, config.replace(from, to).as_bytes());
    }
}

fn sha256(bytes: &[u8]) -> String {
    use bitcoin::hashes::{Hash, sha256};
    sha256::Hash::hash(bytes).to_string()
}

#[test]
fn blocks_flow_on_through_many_swaps_and_none_is_skipped_or_given_twice() {
    let mut setting = Setting::new(20);
    let file = setting.file();
    for mark in 0..5 {
        let next = twin(built("diary"), mark);
        setting.devnet.mine(3).unwrap();
        match mark % 3 {
            0 => replace(&file, &next),
            1 => fs::write(&file, &next).unwrap(),
            _ => {
                // A copy that takes its time: what is there meanwhile is no plugin.
                let mut slow = fs::File::create(&file).unwrap();
                for piece in next.chunks(40_000) {
                    slow.write_all(piece).unwrap();
                    thread::sleep(Duration::from_millis(150));
                }
            }
        }
        setting.devnet.mine(2).unwrap();
        if mark == 3 {
            // Left behind at once: two changes, one after the other.
            continue;
        }
        let message = setting.reloaded(&next, "swapped");
        assert!(message.contains("identical"), "{message}");
        setting.devnet.reorg(2, 3).unwrap();
    }
    setting.check_rows("diary");
    assert_eq!(
        setting.diary()["sha256"],
        sha256(&twin(built("diary"), 4)).as_str()
    );
    let (_, metrics) = setting.host.get_text("/metrics").unwrap();
    assert!(
        !metrics.contains("outcome=\"refused\""),
        "a file was loaded while it was written"
    );
    // The same content again is no change.
    let swaps = setting.host.log().matches("plugin replaced").count();
    replace(&file, &twin(built("diary"), 4));
    thread::sleep(Duration::from_secs(2));
    assert_eq!(setting.host.log().matches("plugin replaced").count(), swaps);
    setting.host.stop().unwrap();
}

#[test]
fn what_cannot_be_used_is_refused_and_the_old_one_goes_on() {
    let mut setting = Setting::new(10);
    let (file, good) = (setting.file(), built("diary"));
    let mut other_world = good.clone();
    let version = b"@0.1.3";
    let place = |bytes: &[u8]| bytes.windows(6).position(|window| window == version);
    assert!(
        place(&other_world).is_some(),
        "the package's version is another one now"
    );
    while let Some(at) = place(&other_world) {
        other_world[at..at + 6].copy_from_slice(b"@0.9.0");
    }
    let mut torn = good.clone();
    torn.truncate(good.len() / 2);
    for (what, bytes, reason) in [
        ("no wasm", b"#!/bin/sh\n".to_vec(), "not WebAssembly"),
        ("half of one", torn, "no valid WebAssembly"),
        ("another world's", other_world, "0.9.0"),
        ("another plugin", built("walk"), "is the plugin \"walk\""),
    ] {
        replace(&file, &bytes);
        let message = setting.reloaded(&bytes, "refused");
        assert!(message.contains(reason), "{what}: {message}");
        setting.devnet.mine(1).unwrap();
        setting.level();
        assert_eq!(setting.diary()["sha256"], sha256(&good).as_str(), "{what}");
    }
    fs::remove_file(&file).unwrap();
    setting
        .host
        .wait_for("a deleted file", LIMIT, |status| {
            let message = status["plugins"][0]["reload"]["message"].as_str()?;
            message.contains("failed to read").then_some(())
        })
        .unwrap();
    // One that leaves something else, when that was forbidden.
    setting.change_config(
        "[plugins.diary]\n",
        "[plugins.diary]\nrequire_identical = true\n",
    );
    let shifted = built("diary-shifted");
    thread::sleep(Duration::from_millis(500));
    replace(&file, &shifted);
    let message = setting.reloaded(&shifted, "refused");
    assert!(
        message.contains("require_identical") && message.contains("new  call=10"),
        "{message}"
    );
    setting.devnet.mine(2).unwrap();
    setting.check_rows("diary");
    let (_, metrics) = setting.host.get_text("/metrics").unwrap();
    assert!(
        metrics.contains("blockmill_plugin_reloads_total{plugin=\"diary\",outcome=\"refused\"}"),
        "{metrics}"
    );
    // Without the key it may, and says so.
    setting.change_config("require_identical = true\n", "");
    let (done, text) = setting.command(&["plugin", "reload", "diary"]);
    let said =
        text.contains("different from block") || setting.host.log().contains("plugin replaced");
    assert!(done && said, "{text}");
    setting.host.stop().unwrap();
}

#[test]
fn another_state_version_takes_the_state_over_and_gives_it_back() {
    let mut setting = Setting::new(15);
    let (file, next) = (setting.file(), built("diary-next"));
    replace(&file, &next);
    setting.reloaded(&next, "swapped");
    setting.devnet.reorg(3, 4).unwrap();
    setting.check_rows("diary");
    assert_eq!(setting.asked()["state_version"], 2);
    assert!(setting.host.log().contains("migrated at block"));

    let (done, text) = setting.command(&["plugin", "revert", "diary"]);
    assert!(done, "{text}");
    setting.devnet.mine(2).unwrap();
    setting.check_rows("diary");
    assert_eq!(setting.asked()["state_version"], 1);

    // The file that was taken back stays so after a restart, until somebody asks for it.
    let Setting {
        devnet,
        host,
        plugins,
    } = setting;
    let installation = host.installation().clone();
    host.stop().unwrap();
    devnet.mine(1).unwrap();
    let host = installation.start().unwrap();
    let mut setting = Setting {
        devnet,
        host,
        plugins,
    };
    setting.check_rows("diary");
    assert_eq!(setting.asked()["state_version"], 1);
    assert_eq!(setting.diary()["sha256"], sha256(&built("diary")).as_str());
    let (done, text) = setting.command(&["plugin", "reload", "diary"]);
    assert!(done, "{text}");
    setting.reloaded(&next, "swapped");
    setting.check_rows("diary");
    assert_eq!(setting.asked()["state_version"], 2);
    setting.host.stop().unwrap();
}

#[test]
fn another_state_version_that_cannot_take_over_is_made_anew_beside_the_old_one() {
    let mut setting = Setting::new(60);
    let (file, anew) = (setting.file(), built("diary-anew"));
    replace(&file, &anew);
    setting.reloaded(&anew, "swapped");
    setting.devnet.mine(2).unwrap();
    setting.check_rows("diary_anew");
    assert_eq!(setting.asked()["state_version"], 3);
    let (done, text) = setting.command(&["plugin", "revert", "diary"]);
    assert!(done, "{text}");
    setting.check_rows("diary");
    assert_eq!(setting.asked()["state_version"], 1);
    let (done, text) = setting.command(&["plugin", "rebuild", "diary"]);
    assert!(done && text.contains("from the first block"), "{text}");
    setting.reloaded(&built("diary"), "swapped");
    setting.check_rows("diary");
    setting.host.stop().unwrap();
}

#[test]
fn a_change_while_the_plugin_is_far_behind_the_tip_skips_nothing() {
    let devnet = Devnet::new(4).unwrap();
    devnet.mine(400).unwrap();
    let plugins = tempfile::tempdir().unwrap();
    let file = plugins.path().join("diary.wasm");
    fs::write(&file, built("diary")).unwrap();
    let slow = "[plugins.diary.settings]\ntoil = 5000\n";
    let installation = installation(&devnet, plugins.path()).plugins(slow);
    let mut setting = Setting {
        devnet,
        host: installation.start().unwrap(),
        plugins,
    };
    let height = setting.diary()["height"].as_u64().unwrap_or(0);
    assert!(height < 200, "{height} of 400 blocks are there already");
    let next = twin(built("diary"), 9);
    replace(&file, &next);
    setting.reloaded(&next, "swapped");
    setting.check_rows("diary");
    setting.host.stop().unwrap();
}

#[test]
fn plugins_are_switched_and_told_by_the_configuration_while_the_host_runs() {
    let mut setting = Setting::new(10);
    let state = |host: &mut Host, wanted: &str| {
        host.wait_for(wanted, LIMIT, |status| {
            (status["plugins"][0]["state"] == wanted).then_some(())
        })
        .unwrap();
    };
    // Nobody but the owner changes anything.
    let post = |token: &str| {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let request = agent.post(format!(
            "http://{}/api/v1/plugins/diary/retry",
            setting.host.api()
        ));
        let answer = request.header("Authorization", token).send_empty().unwrap();
        answer.status().as_u16()
    };
    assert_eq!(post("Bearer 0"), 403);
    let token = fs::read_to_string(setting.host.installation().data().join("owner-token")).unwrap();
    assert_eq!(post(&format!("Bearer {token}")), 200);

    // Purging what runs is refused.
    let (done, text) = setting.command(&["plugin", "purge", "diary"]);
    assert!(!done && text.contains("switch it off first"), "{text}");
    let (done, text) = setting.command(&["plugin", "disable", "diary"]);
    assert!(done && text.contains("switched off"), "{text}");
    state(&mut setting.host, "disabled");
    setting.devnet.mine(5).unwrap();
    let (done, text) = setting.command(&["plugin", "enable", "diary"]);
    assert!(done && text.contains("switched on"), "{text}");
    setting.check_rows("diary");

    // A configuration that is wrong changes nothing, and says why.
    let path = setting.host.installation().config();
    let config = fs::read_to_string(&path).unwrap();
    replace(&path, format!("{config}\ncolour = 5\n").as_bytes());
    setting
        .host
        .wait_for_lines("the configuration is wrong", 1, LIMIT)
        .unwrap();
    setting
        .host
        .wait_for("the wrong key in the status", LIMIT, |status| {
            status["config_error"]
                .as_str()
                .filter(|error| error.contains("colour"))
                .map(|_| ())
        })
        .unwrap();
    // Settings, and keys that take a restart; a budget of all plugins does not.
    let told = config
        .replace("[peers]\n", "[peers]\nmax_outbound = 3\n")
        .replace(
            "[plugins]\n",
            "[plugins]\nquarantine_after = 7\nblock_keys_limit = 5000\n",
        );
    replace(
        &path,
        format!("{told}\n[plugins.diary.settings]\ncolour = 5\n").as_bytes(),
    );
    setting
        .host
        .wait_for_lines("other settings or budgets", 1, LIMIT)
        .unwrap();
    setting
        .host
        .wait_for_lines("peers.max_outbound", 1, LIMIT)
        .unwrap();
    let limit = setting
        .host
        .wait_for("what takes a restart", LIMIT, |status| {
            let keys = status["needs_restart"].as_array()?;
            (*keys == ["peers.max_outbound", "plugins.quarantine_after"])
                .then(|| status["plugins"][0]["budgets"]["block_keys_limit"]["limit"].clone())
        });
    assert_eq!(limit.unwrap(), 5000);
    // Settings that the plugin does not take.
    replace(
        &path,
        format!("{config}\n[plugins.diary.settings]\nsize = 5\n").as_bytes(),
    );
    setting
        .host
        .wait_for("settings refused", LIMIT, |status| {
            (status["plugins"][0]["reload"]["state"] == "refused").then_some(())
        })
        .unwrap();
    // A pinned hash that the file has not.
    let pin = "a".repeat(64);
    let pinned = config.replace(
        "[plugins.diary]\n",
        &format!("[plugins.diary]\nsha256 = \"{pin}\"\n"),
    );
    replace(&path, pinned.as_bytes());
    setting
        .host
        .wait_for("a pinned file refused", LIMIT, |status| {
            let message = status["plugins"][0]["reload"]["message"].as_str()?;
            message.contains("pins").then_some(())
        })
        .unwrap();
    replace(&path, config.as_bytes());
    setting.devnet.mine(2).unwrap();
    setting.check_rows("diary");

    // Gone means gone: the rows, the state, the tables.
    let (done, text) = setting.command(&["plugin", "disable", "diary"]);
    assert!(done, "{text}");
    let (done, text) = setting.command(&["plugin", "purge", "diary"]);
    assert!(done && text.contains("are removed"), "{text}");
    let database = setting.host.installation().database();
    assert!(rows::query(&database, "SELECT * FROM diary").is_err());
    let (done, text) = setting.command(&["plugin", "enable", "diary"]);
    assert!(done, "{text}");
    setting.check_rows("diary");
    setting.host.stop().unwrap();
}

#[test]
fn a_pinned_file_is_the_only_one_that_runs() {
    let devnet = Devnet::new(5).unwrap();
    devnet.mine(8).unwrap();
    let plugins = tempfile::tempdir().unwrap();
    let file = plugins.path().join("diary.wasm");
    let next = twin(built("diary"), 1);
    fs::write(&file, &next).unwrap();
    let pin = format!("sha256 = \"{}\"\n", sha256(&built("diary")));
    let installation = installation(&devnet, plugins.path()).plugins(&pin);
    let refused = format!("{:#}", installation.start().unwrap_err());
    assert!(refused.contains("exit status: 2"), "{refused}");
    assert!(refused.contains("plugins.diary.sha256"), "{refused}");

    fs::write(&file, built("diary")).unwrap();
    let host = installation.start().unwrap();
    let mut setting = Setting {
        devnet,
        host,
        plugins,
    };
    setting.level();
    replace(&file, &next);
    let message = setting.reloaded(&next, "refused");
    assert!(message.contains("pins"), "{message}");
    setting.check_rows("diary");
    // Nor does one that ran before, when another is pinned now.
    setting.change_config(&sha256(&built("diary")), &sha256(&next));
    let (done, text) = setting.command(&["plugin", "reload", "diary"]);
    assert!(done, "{text}");
    setting.reloaded(&next, "swapped");
    let (done, text) = setting.command(&["plugin", "revert", "diary"]);
    assert!(!done && text.contains("pins"), "{text}");
    setting.check_rows("diary");
    setting.host.stop().unwrap();
}

/// How often the log says that the diary's data are begun anew.
fn begun(setting: &Setting) -> usize {
    let log = setting.host.log();
    log.matches("is made anew beside the running one").count()
}

#[test]
fn what_is_being_made_is_begun_once_and_dropped_with_its_file() {
    let mut setting = Setting::toiling(100);
    let (file, anew) = (setting.file(), built("diary-anew"));
    replace(&file, &anew);
    setting.reloaded(&anew, "building");
    // Other changes of the configuration, and of the folder, have nothing to do with it.
    setting.change_config("[plugins]\n", "[plugins]\nrehearse_blocks = 5\n");
    replace(&file, &anew);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(setting.asked()["state_version"], 1, "it is not made yet");
    setting.reloaded(&anew, "swapped");
    assert_eq!(begun(&setting), 1, "{}", setting.host.log());
    assert_eq!(setting.asked()["state_version"], 3);

    // The old version is offered, and taken back before its data are made.
    replace(&file, &built("diary"));
    setting.reloaded(&built("diary"), "building");
    replace(&file, &anew);
    let message = setting.reloaded(&anew, "reverted");
    assert!(message.contains("is back"), "{message}");
    let log = setting.host.log();
    setting.devnet.mine(2).unwrap();
    setting.check_rows("diary_anew");
    assert_eq!(setting.asked()["state_version"], 3, "{log}");
    setting.host.stop().unwrap();
}

#[test]
fn settings_that_change_while_data_are_made_are_those_they_are_made_with() {
    let mut setting = Setting::toiling(100);
    let (done, text) = setting.command(&["plugin", "rebuild", "diary"]);
    assert!(done, "{text}");
    setting.reloaded(&built("diary"), "building");
    setting.change_config("colour = 0", "colour = 7");
    setting.reloaded(&built("diary"), "swapped");
    assert_eq!(setting.asked()["colour"], 7);
    setting.check_rows("diary");
    setting.host.stop().unwrap();
}

#[test]
fn a_version_that_fails_where_the_old_one_does_not_is_found_in_the_rehearsal() {
    let mut setting = Setting::with(10, "block_time_limit = \"500ms\"\n");
    let file = setting.file();
    for (name, why) in [
        ("diary-torn", "trapped"),
        ("diary-endless", "block_time_limit"),
    ] {
        replace(&file, &built(name));
        let message = setting.reloaded(&built(name), "refused");
        assert!(message.contains(why), "{name}: {message}");
        setting.devnet.mine(2).unwrap();
        setting.check_rows("diary");
        let diary = setting.diary();
        assert_eq!(diary["sha256"], sha256(&built("diary")).as_str());
        assert_eq!(diary["attempts"], 0, "nobody was hurt: {diary}");
        let (_, list) = setting.command(&["plugin", "list"]);
        assert!(list.contains("refused: it fails at block"), "{list}");
    }
    setting.host.stop().unwrap();
}

#[test]
fn a_change_in_the_middle_of_a_reorg_skips_nothing() {
    let mut setting = Setting::toiling(30);
    let file = setting.file();
    for mark in 0..6 {
        let next = twin(built("diary"), mark);
        // Some blocks are taken back, some are given again, and the file is there somewhere in between.
        setting.devnet.reorg(5, 6).unwrap();
        thread::sleep(Duration::from_millis(40 * u64::from(mark)));
        replace(&file, &next);
        setting.devnet.reorg(2, 3).unwrap();
        setting.reloaded(&next, "swapped");
        setting.check_rows("diary");
    }
    // And while data are being made.
    let anew = built("diary-anew");
    replace(&file, &anew);
    setting.reloaded(&anew, "building");
    setting.devnet.reorg(8, 9).unwrap();
    setting.reloaded(&anew, "swapped");
    setting.check_rows("diary_anew");
    setting.host.stop().unwrap();
}

#[test]
fn a_file_that_was_taken_back_and_is_asked_for_again_is_made_to_its_end() {
    let mut setting = Setting::toiling(100);
    let (file, anew) = (setting.file(), built("diary-anew"));
    replace(&file, &anew);
    setting.reloaded(&anew, "swapped");
    let (done, text) = setting.command(&["plugin", "revert", "diary"]);
    assert!(done, "{text}");
    let (done, text) = setting.command(&["plugin", "reload", "diary"]);
    assert!(done && text.contains("made anew"), "{text}");
    setting.change_config("[plugins]\n", "[plugins]\nrehearse_blocks = 5\n");
    setting.reloaded(&anew, "swapped");
    assert_eq!(setting.asked()["state_version"], 3);
    setting.check_rows("diary_anew");
    setting.host.stop().unwrap();
}
