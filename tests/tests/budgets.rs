//! Budgets of what an instance is made of and of what a query uses, and where their use is shown; and failures in a call that
//! is not about a block.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::time::Duration;

use blockmill_tests::host::{self, Host, Installation};
use devnet::Devnet;
use serde_json::Value;
use xtask::workspace;

const LIMIT: Duration = Duration::from_secs(120);
/// Every budget that there is.
const KEYS: [&str; 12] = [
    "memory_limit",
    "table_limit",
    "instance_limit",
    "block_time_limit",
    "block_keys_limit",
    "block_state_limit",
    "block_rows_limit",
    "block_row_bytes_limit",
    "block_log_limit",
    "query_time_limit",
    "query_memory_limit",
    "query_answer_limit",
];

/// A TOML table of the plugin `ledger` that fails in this way.
fn ledger(fault: &str, keys: &str) -> String {
    format!(
        "\n[plugins.ledger]\nfile = \"test/ledger.wasm\"\n{keys}\n[plugins.ledger.settings]\nfault = \"{fault}\"\n"
    )
}

fn installation(devnet: &Devnet, tables: &str) -> Installation {
    Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .key("plugins", "retry_pause = \"100ms\"")
        .plugins(tables)
}

fn plugin<'a>(plugins: &'a Value, name: &str) -> &'a Value {
    let mut plugins = plugins.as_array().unwrap().iter();
    plugins.find(|plugin| plugin["name"] == name).unwrap()
}

/// Waits until a plugin is in quarantine; what the status says of it.
fn quarantined(host: &mut Host, name: &str) -> Value {
    host.wait_for(&format!("{name} in quarantine"), LIMIT, |status| {
        let plugin = plugin(&status["plugins"], name);
        (plugin["state"] == "quarantined").then(|| plugin.clone())
    })
    .unwrap()
}

fn wait_for_height(host: &mut Host, name: &str, height: u32) {
    host.wait_for(&format!("{name} at {height}"), LIMIT, |status| {
        (plugin(&status["plugins"], name)["height"] == height).then_some(())
    })
    .unwrap();
}

/// `blockmill plugin replay … --json`: the exit code and what it says.
fn replay(capsule: &str, with: Option<&str>) -> (i32, Value) {
    let mut command = host::command().unwrap();
    command.args(["plugin", "replay", capsule, "--json"]);
    command.args(with.into_iter().flat_map(|file| ["--with", file]));
    let output = command.output().unwrap();
    let json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|why| panic!("{why}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), json)
}

fn mended() -> String {
    let folder = xtask::plugins::folder(&workspace::root(), true);
    let file = folder.join("ledger-mended.wasm");
    file.to_str().unwrap().to_owned()
}

#[test]
fn a_plugin_of_more_tables_or_instances_than_its_budget_is_quarantined_at_the_start_and_the_others_run()
 {
    let devnet = Devnet::new(6).unwrap();
    devnet.mine(8).unwrap();
    for (keys, limit) in [
        ("table_limit = 3", "table_limit = 3:"),
        ("instance_limit = 1", "instance_limit = 1:"),
    ] {
        let tables = format!(
            "\n[plugins.trap-at]\nfile = \"test/trap-at.wasm\"\n[plugins.trap-at.settings]\nheight = 1000\n{}",
            ledger("", keys)
        );
        let mut host = installation(&devnet, &tables).start().unwrap();
        let stands = quarantined(&mut host, "ledger");
        let error = stands["last_error"].as_str().unwrap();
        assert!(error.contains(limit), "{error}");
        assert!(error.contains("would allow it"), "{error}");
        assert!(stands["height"].is_null(), "{stands}");
        let (key, value) = keys.split_once(" = ").unwrap();
        assert_eq!(stands["budgets"][key]["limit"].to_string(), value);
        // The other plugin has the default limits and goes on to the tip, and past it.
        wait_for_height(&mut host, "trap-at", 8);
        let (_, metrics) = host.get_text("/metrics").unwrap();
        let line = format!(
            "blockmill_plugin_budget_limit{{plugin=\"ledger\",budget=\"{key}\"}} {value}.0\n"
        );
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
        // Offline it is refused for the same reason, from the capsule alone.
        let (code, json) = replay(stands["capsule"].as_str().unwrap(), None);
        assert_eq!(
            (code, &json["same_failure"]),
            (1, &Value::Bool(true)),
            "{json}"
        );
        host.stop().unwrap();
    }
}

#[test]
fn a_query_over_its_memory_is_named_and_neither_other_queries_nor_blocks_are_hurt() {
    let devnet = Devnet::new(6).unwrap();
    devnet.mine(4).unwrap();
    let keys = "query_memory_limit = \"4 MB\"";
    let mut host = installation(&devnet, &ledger("", keys)).start().unwrap();
    wait_for_height(&mut host, "ledger", 4);
    let answer = host
        .get("plugins/ledger/query/large?bytes=8000000")
        .unwrap();
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("query_memory_limit = 4000000 bytes"),
        "{message}"
    );
    assert!(message.contains("would allow it"), "{message}");
    let answer = host.get("plugins/ledger/query/large?bytes=1000").unwrap();
    assert_eq!(answer.as_str().unwrap().len(), 1000);
    // More than the limit of a query is nothing to a block.
    devnet.mine(1).unwrap();
    wait_for_height(&mut host, "ledger", 5);
    host.stop().unwrap();
}

#[test]
fn the_use_and_the_limit_of_every_budget_are_in_the_list_and_in_the_metrics() {
    let devnet = Devnet::new(6).unwrap();
    devnet.mine(8).unwrap();
    let mut host = installation(&devnet, &ledger("", "")).start().unwrap();
    wait_for_height(&mut host, "ledger", 8);
    let api = host.api();
    host.wait_for("an answer", LIMIT, |_| {
        let url = format!("http://{api}/api/v1/plugins/ledger/query/count");
        let answer: Value = ureq::get(url).call().ok()?.body_mut().read_json().ok()?;
        (answer["count"] == 9).then_some(())
    })
    .unwrap();
    let output = host
        .installation()
        .command(&["plugin", "list", "--json"])
        .unwrap();
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let budgets = plugin(&list, "ledger")["budgets"].as_object().unwrap();
    let (_, metrics) = host.get_text("/metrics").unwrap();
    let metric = |name: &str, key: &str| -> f64 {
        let label =
            format!("blockmill_plugin_budget_{name}{{plugin=\"ledger\",budget=\"{key}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&label));
        line.unwrap_or_else(|| panic!("{label} is not in\n{metrics}"))
            .parse()
            .unwrap()
    };
    for key in KEYS {
        let budget = &budgets[key];
        let scale = match budget["unit"].as_str().unwrap() {
            "microseconds" => 1e6,
            _ => 1.0,
        };
        let number = |what: &str| budget[what].as_f64().unwrap();
        assert!(number("max") > 0.0, "{key}: {budget}");
        assert!(number("last") <= number("max"), "{key}: {budget}");
        assert!(number("max") < number("limit"), "{key}: {budget}");
        assert_eq!(metric("limit", key) * scale, number("limit"), "{key}");
        // Of the time of a call between the two looks there may be more.
        assert!(
            metric("used_max", key) * scale >= number("max") * 0.999,
            "{key}"
        );
    }
    assert_eq!(budgets.len(), KEYS.len());
    host.stop().unwrap();
}

#[test]
fn a_failure_in_a_change_of_the_pool_is_run_again_from_its_capsule_and_a_mended_component_takes_it()
{
    let devnet = Devnet::start(devnet::Config {
        seed: 21,
        ..devnet::Config::default()
    })
    .unwrap();
    devnet.mine(110).unwrap();
    let tables = format!("\n[plugins.utxo-tracker]\n{}", ledger("pool", ""));
    let mut host = installation(&devnet, &tables).start().unwrap();
    wait_for_height(&mut host, "ledger", 110);
    host.wait_for("the tip", LIMIT, |status| {
        (status["synced"] == true).then_some(())
    })
    .unwrap();
    assert!(!devnet.fill_mempool(5).is_empty());
    let stands = quarantined(&mut host, "ledger");
    assert_eq!(stands["height"], 110);
    let error = stands["last_error"].as_str().unwrap();
    assert!(error.contains("on-mempool trapped"), "{error}");
    let capsule = stands["capsule"].as_str().unwrap().to_owned();
    let _installation = host.installation().clone();
    // Blocks go on for the one that does not fail.
    devnet.mine(1).unwrap();
    wait_for_height(&mut host, "utxo-tracker", 111);
    host.stop().unwrap();

    let (code, json) = replay(&capsule, None);
    assert_eq!(
        (code, &json["same_failure"]),
        (1, &Value::Bool(true)),
        "{json}"
    );
    assert_eq!(json["call"], "on-mempool");
    assert_eq!(json["failed"]["message"], json["was"]["message"]);
    let backtrace = json["was"]["backtrace"].as_str().unwrap();
    assert!(backtrace.contains("deep_trap"), "{backtrace}");
    let (code, json) = replay(&capsule, Some(&mended()));
    assert_eq!(
        (code, &json["same_component"]),
        (0, &Value::Bool(false)),
        "{json}"
    );
}
