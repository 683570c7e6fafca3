//! Plugins that loop, hoard, trap, flood the log or import what they may not: each is stopped with its name and the cause, and
//! everything else goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::time::Duration;

use blockmill_tests::host::Host;
use devnet::Devnet;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);
/// The height at which the plugins begin to misbehave.
const BAD_HEIGHT: u32 = 5;

/// A TOML table for one of the plugins in `tests/plugins/`.
fn table(plugin: &str, keys: &str) -> String {
    format!(
        "\n[plugins.{plugin}]\nfile = \"test/{plugin}.wasm\"\n{keys}\n[plugins.{plugin}.settings]\nheight = {BAD_HEIGHT}\n"
    )
}

/// What the status says of a plugin.
fn plugin<'a>(status: &'a Value, name: &str) -> &'a Value {
    let plugins = status["plugins"].as_array().unwrap();
    plugins
        .iter()
        .find(|plugin| plugin["name"] == name)
        .unwrap()
}

#[test]
fn plugins_that_misbehave_stop_where_they_do_and_the_others_go_on() {
    let devnet = Devnet::new(6).unwrap();
    devnet.mine(12).unwrap();
    let tables = [
        "retry_pause = \"200ms\"\n\n[plugins.utxo-tracker]\n\n[plugins.tx-writer]\n".to_owned(),
        table("spin", "block_time_limit = \"500ms\""),
        table("hoard", "memory_limit = \"32 MB\""),
        table("trap-at", ""),
        table("flood", ""),
    ];
    let mut host = Host::start_with(&[devnet.p2p_addr()], &tables.concat()).unwrap();
    for height in [12, 15] {
        for name in ["utxo-tracker", "tx-writer", "flood"] {
            let what = format!("{name} at {height}");
            host.wait_for(&what, LIMIT, |status| {
                (plugin(status, name)["height"] == height).then_some(())
            })
            .unwrap();
        }
        if height == 12 {
            devnet.mine(3).unwrap();
        }
    }
    for (name, cause) in [
        ("spin", "longer than its limit"),
        ("hoard", "memory"),
        ("trap-at", "trap"),
    ] {
        let what = format!("{name} stopped below its block, saying {cause}");
        host.wait_for(&what, LIMIT, |status| {
            let plugin = plugin(status, name);
            let error = plugin["last_error"].as_str()?;
            (plugin["height"] == BAD_HEIGHT - 1 && error.contains(cause)).then_some(())
        })
        .unwrap();
    }
    // What the others know is right, and not only there.
    let ours = host.txoutset().unwrap();
    let theirs = devnet.utxo_set().unwrap();
    assert_eq!(ours["muhash"], theirs.muhash);
    assert_eq!(ours["height"], 15);

    // Eleven blocks with ten thousand lines and a line of a megabyte each.
    let log = host.log();
    let panicked = |line: &str| {
        line.contains("a block that this plugin cannot take") && line.contains("trap-at")
    };
    assert!(
        log.lines().any(panicked),
        "the message of a panic is in the log"
    );
    let lines = log
        .lines()
        .filter(|line| line.contains("flood") && line.contains("of block"))
        .count();
    assert!((1..=11 * 100).contains(&lines), "{lines} lines of flood");
    assert!(log.len() < 2_000_000, "{} bytes of log", log.len());
    host.stop().unwrap();
}

#[test]
fn a_plugin_that_imports_what_it_may_not_is_refused_with_the_import_before_anything_starts() {
    let tables = "[plugins.forbidden]\nfile = \"test/forbidden.wasm\"\n";
    let error = format!("{:#}", Host::start_with(&[], tables).unwrap_err());
    assert!(error.contains("exit status: 2"), "{error}");
    assert!(error.contains("forbidden"), "{error}");
    assert!(error.contains("env::open_file"), "{error}");
}
