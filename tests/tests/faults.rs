//! A plugin that fails hurts nobody: it is quarantined where it stands, a failure can be run again on a desk, budgets are named,
//! and what the host's disk or database does wrong is never its fault.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use blockmill_tests::host::{Host, Installation};
use devnet::Devnet;
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use xtask::workspace;

const LIMIT: Duration = Duration::from_secs(120);
/// The height at which plugins fail.
const BAD: u32 = 5;

/// A TOML table of the plugin `ledger` that fails in this way.
fn ledger(fault: &str, keys: &str) -> String {
    format!(
        "\n[plugins.ledger]\nfile = \"test/ledger.wasm\"\n{keys}\n[plugins.ledger.settings]\nheight = {BAD}\nfault = \"{fault}\"\n"
    )
}

fn installation(devnet: &Devnet, tables: &str) -> Installation {
    Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .key("plugins", "retry_pause = \"100ms\"")
        .plugins(tables)
}

fn plugin<'a>(status: &'a Value, name: &str) -> &'a Value {
    let plugins = status["plugins"].as_array().unwrap();
    plugins
        .iter()
        .find(|plugin| plugin["name"] == name)
        .unwrap()
}

/// Waits until a plugin is in quarantine below its block; what the status says of it.
fn quarantined(host: &mut Host, name: &str) -> Value {
    host.wait_for(&format!("{name} in quarantine"), LIMIT, |status| {
        let plugin = plugin(status, name);
        (plugin["state"] == "quarantined").then(|| plugin.clone())
    })
    .unwrap()
}

fn wait_for_height(host: &mut Host, name: &str, height: u32) {
    host.wait_for(&format!("{name} at {height}"), LIMIT, |status| {
        (plugin(status, name)["height"] == height).then_some(())
    })
    .unwrap();
}

/// Waits until queries of `ledger` see so many blocks, genesis too: they see what is on the disk.
fn wait_for_count(host: &mut Host, count: u64) {
    let api = host.api();
    host.wait_for(&format!("{count} blocks on the disk"), LIMIT, |_| {
        let url = format!("http://{api}/api/v1/plugins/ledger/query/count");
        let answer: Value = ureq::get(url).call().ok()?.body_mut().read_json().ok()?;
        (answer["count"] == count).then_some(())
    })
    .unwrap();
}

fn wasm(name: &str) -> String {
    let folder = xtask::plugins::folder(&workspace::root(), true);
    folder
        .join(format!("{name}.wasm"))
        .to_str()
        .unwrap()
        .to_owned()
}

/// `blockmill plugin replay … --json`: the exit code and what it says.
fn replay(capsule: &str, with: Option<&str>) -> (i32, Value, String) {
    let mut command = std::process::Command::new(blockmill_tests::host::program().unwrap());
    command.args(["plugin", "replay", capsule, "--json"]);
    command.args(with.into_iter().flat_map(|file| ["--with", file]));
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let json =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{why}: {errors}"));
    (output.status.code().unwrap(), json, errors)
}

#[test]
fn a_plugin_that_traps_on_one_block_is_quarantined_while_the_others_go_on_and_its_failure_is_run_again_offline()
 {
    let devnet = Devnet::new(6).unwrap();
    devnet.mine(12).unwrap();
    let tables = format!("\n[plugins.utxo-tracker]\n{}", ledger("trap", ""));
    let mut host = installation(&devnet, &tables).start().unwrap();
    let stands = quarantined(&mut host, "ledger");
    assert_eq!(stands["height"], BAD - 1, "the cursor is kept");
    assert_eq!(stands["attempts"], 3);
    let error = stands["last_error"].as_str().unwrap();
    assert!(
        error.contains("at block 5") && error.contains("trapped"),
        "{error}"
    );
    wait_for_height(&mut host, "utxo-tracker", 12);
    devnet.mine(3).unwrap();
    wait_for_height(&mut host, "utxo-tracker", 15);
    // What is known of the peers is looked at now and then only.
    let tries = (0..100).map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        host.get_text("/health").unwrap()
    });
    let well = { tries }.find(|(code, _)| *code == 200);
    let (_, health) = well.expect("a host that is well but for one plugin");
    assert!(
        health.contains("degraded") && health.contains("ledger"),
        "{health}"
    );
    let (_, metrics) = host.get_text("/metrics").unwrap();
    for line in [
        "blockmill_plugin_quarantined{plugin=\"ledger\"} 1",
        "blockmill_plugin_quarantined{plugin=\"utxo-tracker\"} 0",
        "blockmill_plugin_traps_total{plugin=\"ledger\"} 3",
        "blockmill_plugin_budget_limit{plugin=\"ledger\",budget=\"block_time_limit\"} 30",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let status = host.get("status").unwrap();
    let used = &plugin(&status, "utxo-tracker")["budgets"];
    for budget in [
        "memory_limit",
        "block_time_limit",
        "block_keys_limit",
        "block_state_limit",
    ] {
        assert!(
            used[budget]["max"].as_u64().unwrap() > 0,
            "{budget} in {used}"
        );
    }
    let capsule = stands["capsule"].as_str().unwrap().to_owned();
    assert!(host.log().contains(&capsule), "the log names it");
    let installation = host.installation().clone();
    host.stop().unwrap();

    // One failure, one file.
    let files = std::fs::read_dir(installation.data().join("capsules")).unwrap();
    assert_eq!(files.count(), 1);
    let (code, json, errors) = replay(&capsule, None);
    assert_eq!(code, 1, "{json}");
    assert!(errors.contains("it still fails"), "{errors}");
    assert_eq!(json["same_failure"], true, "{json}");
    assert_eq!(json["failed"]["message"], json["was"]["message"]);
    let backtrace = json["was"]["backtrace"].as_str().unwrap();
    assert!(
        backtrace.contains("deep_trap"),
        "names of functions: {backtrace}"
    );
    let (code, json, errors) = replay(&capsule, Some(&wasm("ledger-mended")));
    assert_eq!(code, 0, "{json} {errors}");
    assert_eq!(json["same_component"], false);
    // Count and what was seen of the block; nothing is old enough to be removed.
    assert_eq!(json["wrote"]["keys_set"], 2, "{json}");
    assert_eq!(json["wrote"]["rows"]["ledger_block"], 1, "{json}");
    // Another plugin has nothing to do with it.
    let other = std::process::Command::new(blockmill_tests::host::program().unwrap())
        .args(["plugin", "replay", &capsule, "--with", &wasm("trap-at")])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&other.stderr).contains("trap-at"));
}

#[test]
fn each_budget_of_a_block_that_is_broken_is_named_with_its_limit() {
    let devnet = Devnet::new(6).unwrap();
    devnet.mine(8).unwrap();
    for (fault, budget) in [
        ("keys", "block_keys_limit = 1000"),
        ("state", "block_state_limit = \"100 kB\""),
        ("rows", "block_rows_limit = 1000"),
        ("rows", "block_row_bytes_limit = \"10 kB\""),
    ] {
        let mut host = installation(&devnet, &ledger(fault, budget))
            .start()
            .unwrap();
        let stands = quarantined(&mut host, "ledger");
        let (key, _) = budget.split_once(' ').unwrap();
        let error = stands["last_error"].as_str().unwrap();
        assert!(error.contains(key), "{budget}: {error}");
        assert!(error.contains("would allow it"), "{budget}: {error}");
        assert_eq!(stands["height"], BAD - 1);
        let (code, json, _) = replay(stands["capsule"].as_str().unwrap(), None);
        assert_eq!(
            (code, &json["same_failure"]),
            (1, &Value::Bool(true)),
            "{json}"
        );
        host.stop().unwrap();
    }
}

#[test]
fn rows_that_the_database_refuses_are_the_plugin_s_fault_and_the_block_is_found() {
    let devnet = Devnet::new(6).unwrap();
    devnet.mine(12).unwrap();
    // Too little for the component, which the host keeps elsewhere.
    let mut host = installation(&devnet, &ledger("twice", ""))
        .key("plugins", "capsule_size_limit = \"64 kB\"")
        .start()
        .unwrap();
    let stands = quarantined(&mut host, "ledger");
    assert_eq!(stands["height"], BAD - 1, "{stands}");
    let error = stands["last_error"].as_str().unwrap();
    assert!(error.contains("UNIQUE"), "{error}");
    let capsule = stands["capsule"].as_str().unwrap().to_owned();
    assert!(capsule.contains("ledger.5.rows."), "{capsule}");
    assert!(std::fs::metadata(&capsule).unwrap().len() <= 64_000);
    let _data = host.installation().clone();
    host.stop().unwrap();

    let (code, json, errors) = replay(&capsule, None);
    assert_eq!(code, 1, "{json}");
    assert!(errors.contains("it still fails"), "{errors}");
    assert_eq!(json["same_component"], true, "{json}");
    assert_eq!(json["failed"]["class"], "rows", "{json}");
    assert_eq!(json["failed"]["message"], json["was"]["message"]);
    let (code, json, errors) = replay(&capsule, Some(&wasm("ledger-mended")));
    assert_eq!(code, 0, "{json} {errors}");
    assert_eq!(json["wrote"]["rows"]["ledger_block"], 1, "{json}");
    // Where the host's folder is not at hand the component has to be given.
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = elsewhere.path().join("moved.capsule");
    std::fs::copy(&capsule, &moved).unwrap();
    let output = std::process::Command::new(blockmill_tests::host::program().unwrap())
        .args(["plugin", "replay", moved.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--with"), "{said}");
}

#[test]
fn a_query_that_breaks_its_budget_is_named_and_run_again_and_blocks_go_on() {
    let devnet = Devnet::new(6).unwrap();
    devnet.mine(8).unwrap();
    let keys = "query_time_limit = \"300ms\"\nquery_answer_limit = \"1 kB\"";
    let mut host = installation(&devnet, &ledger("", keys)).start().unwrap();
    wait_for_count(&mut host, 9);
    for _ in 0..2 {
        let answer = host.get("plugins/ledger/query/spin").unwrap();
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("query_time_limit = 300ms"), "{message}");
    }
    let answer = host.get("plugins/ledger/query/large?bytes=2000").unwrap();
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("query_answer_limit = 1000 bytes"),
        "{message}"
    );
    assert_eq!(host.get("plugins/ledger/query/count").unwrap()["count"], 9);
    assert!(host.log().contains("a call has used half of its time"));
    devnet.mine(1).unwrap();
    wait_for_height(&mut host, "ledger", 9);
    let installation = host.installation().clone();
    host.stop().unwrap();
    let folder = installation.data().join("capsules");
    let mut capsules: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(capsules.len(), 2, "one for each question: {capsules:?}");
    capsules.retain(|path| {
        let (_, json, _) = replay(path.to_str().unwrap(), None);
        json["failed"]["message"]
            .as_str()
            .unwrap()
            .contains("query_time_limit")
    });
    let spin = capsules.first().unwrap().to_str().unwrap();
    // Recorded at its second failure, so the mended one has what it reads.
    let (code, json, errors) = replay(spin, Some(&wasm("ledger-mended")));
    assert_eq!(code, 0, "{json} {errors}");
    assert_eq!(json["wrote"]["answer"], "{\"count\":9}");
}

#[test]
fn a_database_that_cannot_be_written_is_waited_for_and_nobody_is_quarantined() {
    let devnet = Devnet::new(6).unwrap();
    devnet.mine(8).unwrap();
    let mut host = installation(&devnet, &ledger("", "")).start().unwrap();
    wait_for_height(&mut host, "ledger", 8);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let database = host.installation().database();
    let mut lock = runtime
        .block_on(SqliteConnectOptions::new().filename(&database).connect())
        .unwrap();
    runtime
        .block_on(sqlx::query("BEGIN IMMEDIATE").execute(&mut lock))
        .unwrap();
    devnet.mine(2).unwrap();
    let waits = host
        .wait_for("a lane that waits for the host", LIMIT, |status| {
            let plugin = plugin(status, "ledger");
            (plugin["state"] == "waiting-for-host").then(|| plugin.clone())
        })
        .unwrap();
    assert!(
        waits["last_error"].as_str().unwrap().contains("locked"),
        "{waits}"
    );
    let (code, health) = host.get_text("/health").unwrap();
    assert_eq!(code, 503);
    assert!(health.contains("waits for the host"), "{health}");
    // More failures than a plugin would be forgiven.
    host.wait_for_lines("the host failed, not the plugin", 4, LIMIT)
        .unwrap();
    runtime
        .block_on(sqlx::query("ROLLBACK").execute(&mut lock))
        .unwrap();
    runtime.block_on(lock.close()).unwrap();
    let well = host
        .wait_for("the tip", LIMIT, |status| {
            let plugin = plugin(status, "ledger");
            let well = plugin["height"] == 10 && plugin["state"] == "following";
            well.then(|| plugin.clone())
        })
        .unwrap();
    assert!(well["capsule"].is_null(), "{well}");
    assert_eq!(well["attempts"], 0);
    let log = host.log();
    assert!(!log.contains("quarantined"), "{log}");
    host.stop().unwrap();
}

#[test]
fn the_same_blocks_give_the_same_state_under_load_with_less_memory_and_after_restarts() {
    let devnet = Devnet::new(6).unwrap();
    devnet.mine(40).unwrap();
    let state = |host: &mut Host| {
        wait_for_count(host, 41);
        let state = host.get("plugins/ledger/query/state").unwrap();
        assert_eq!(state.as_array().unwrap().len(), 11, "{state}");
        state
    };
    let mut calm = installation(&devnet, &ledger("", "")).start().unwrap();
    let expected = state(&mut calm);
    calm.stop().unwrap();

    // Two threads that leave no time to anybody, a tenth of the memory, a flush after every block, and a kill in the middle.
    let busy = Arc::new(AtomicBool::new(true));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let busy = busy.clone();
            std::thread::spawn(move || {
                while busy.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let pressed = installation(&devnet, &ledger("", "memory_limit = \"4 MB\""))
        .key("database", "state_cache = \"1 MB\"")
        .key("database", "flush_interval = \"1ms\"")
        .key("chain", "download_window = 4");
    devnet.limit_height(Some(20)).unwrap();
    let mut host = pressed.start().unwrap();
    wait_for_count(&mut host, 21);
    host.kill9().unwrap();
    devnet.limit_height(None).unwrap();
    let mut host = pressed.start().unwrap();
    let found = state(&mut host);
    busy.store(false, Ordering::Relaxed);
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    host.stop().unwrap();
    assert_eq!(found, expected);

    // And with too little of it the plugin fails, instead of giving another answer.
    let starved = installation(&devnet, &ledger("", "memory_limit = \"2097152 B\""));
    let mut host = starved.start().unwrap();
    let stands = quarantined(&mut host, "ledger");
    let error = stands["last_error"].as_str().unwrap();
    assert!(error.contains("memory_limit = 2097152 bytes"), "{error}");
    host.stop().unwrap();
}

#[test]
fn a_new_file_ends_the_quarantine() {
    let devnet = Devnet::new(9).unwrap();
    devnet.mine(BAD + 3).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.wasm");
    std::fs::copy(wasm("ledger"), &file).unwrap();
    let table = ledger("trap", "").replace("\"test/ledger.wasm\"", &format!("{file:?}"));
    let mut host = installation(&devnet, &table).start().unwrap();
    quarantined(&mut host, "ledger");
    let beside = folder.path().join("mended");
    std::fs::copy(wasm("ledger-mended"), &beside).unwrap();
    std::fs::rename(&beside, &file).unwrap();
    wait_for_height(&mut host, "ledger", BAD + 3);
    host.stop().unwrap();
}

#[test]
fn a_run_to_a_height_ends_when_a_plugin_stands_below_it_and_a_retry_ends_the_quarantine() {
    let devnet = Devnet::new(9).unwrap();
    devnet.mine(BAD + 3).unwrap();
    let installation = installation(
        &devnet,
        &format!(
            "\n[plugins.trap-at]\nfile = \"test/trap-at.wasm\"\n[plugins.trap-at.settings]\nheight = {BAD}\n"
        ),
    );
    let why = installation.run_to_height(BAD + 3, LIMIT).unwrap_err();
    let why = format!("{why:#}");
    assert!(why.contains("trap-at is quarantined"), "{why}");

    let mut host = installation.start().unwrap();
    quarantined(&mut host, "trap-at");
    let output = installation
        .command(&["plugin", "retry", "trap-at"])
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    // It fails again, because nothing was mended.
    host.wait_for_lines("plugin quarantined", 3, LIMIT).unwrap();
    // Other settings mend it.
    let path = installation.config();
    let config = std::fs::read_to_string(&path).unwrap();
    let mended = config.replace(&format!("height = {BAD}"), "height = 1000");
    std::fs::write(&path, mended).unwrap();
    wait_for_height(&mut host, "trap-at", BAD + 3);
    host.stop().unwrap();
}
