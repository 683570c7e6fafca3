//! Plugins without a running host: what `blockmill plugin new | build | inspect | test | diff` promise, with the real program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use blockmill_tests::{data, host};
use devnet::Devnet;
use serde_json::Value;
use sqlx::Connection as _;
use xtask::{plugins, workspace};

/// A plugin that `cargo xtask build` made.
fn wasm(name: &str, test: bool) -> String {
    let path = plugins::folder(&workspace::root(), test).join(format!("{name}.wasm"));
    assert!(
        path.is_file(),
        "{} is missing: cargo xtask build",
        path.display()
    );
    path.to_str().unwrap().to_owned()
}

/// Runs `blockmill plugin …` in a folder; its exit code, standard output and standard error.
fn plugin_in(folder: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = host::command().unwrap();
    command
        .current_dir(folder)
        .arg("plugin")
        .env_remove("CARGO_TARGET_DIR")
        .args(args);
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn plugin(args: &[&str]) -> (i32, String, String) {
    plugin_in(&workspace::root(), args)
}

/// As [`plugin`], with JSON.
fn json(args: &[&str]) -> (i32, Value) {
    let (code, out, err) = plugin(&[args, &["--json"]].concat());
    let value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{args:?}: {out}{err}"));
    (code, value)
}

fn regtest(name: &str) -> String {
    data::regtest(name).to_str().unwrap().to_owned()
}

#[test]
fn every_plugin_of_ours_leaves_the_same_however_it_is_disturbed() {
    for (name, more) in [
        ("utxo-tracker", &[][..]),
        ("tx-writer", &[]),
        ("address-history", &["--query", "status"]),
        ("block-stats", &["--query", r#"block={"height": 120}"#]),
        ("watch", &WATCHED[..]),
        // Its state learns from the pool, and is not the same where the pool was not heard of.
        ("fee-estimator", &["--no-mempool"]),
    ] {
        let file = wasm(name, false);
        let args = [&["test", &file, "--devnet", "20", "--reorg"], more].concat();
        let (code, report) = json(&args);
        assert_eq!(code, 0, "{report}");
        assert!(report.get("failure").is_none(), "{report}");
        let done = &report["disturbances"];
        for kind in [
            "restarts",
            "crashes",
            "cut_calls",
            "interrupted_calls",
            "reorgs",
        ] {
            assert!(done[kind].as_u64().unwrap() >= 5, "{name}: {report}");
        }
        assert_eq!(
            (report["first"].as_u64(), report["last"].as_u64()),
            (Some(0), Some(120))
        );
    }
}

/// Every script is watched.
const WATCHED: [&str; 4] = [
    "--set",
    r#"collections={ all = { patterns = ["."] } }"#,
    "--query",
    "collections",
];

#[test]
fn the_pool_is_told_before_the_blocks_and_what_a_plugin_makes_of_it_is_compared() {
    let told = |report: &Value| {
        let pool = &report["pool"];
        let of = |name: &str| pool[name].as_u64().unwrap();
        (of("arrived"), of("rivals"), of("left"))
    };
    let (code, report) = json(&[
        "test",
        &wasm("hearsay", true),
        "--devnet",
        "10",
        "--reorg",
        "--query",
        "waiting",
        "--query",
        r#"waiting={"times": 2}"#,
        "--query",
        "nothing",
    ]);
    assert_eq!(code, 0, "{report}");
    let (arrived, rivals, left) = told(&report);
    assert!(arrived > 200 && rivals > 20 && left >= 10, "{report}");
    let waiting = &report["volatile"][0];
    assert_eq!(waiting["table"], "hearsay_waiting");
    assert_eq!(waiting["rows"], left, "{report}");
    let queries = &report["queries"];
    assert_eq!(queries[0]["answer"]["waiting"], left, "{report}");
    assert_eq!(queries[1]["query"], r#"waiting={"times": 2}"#);
    assert_eq!(queries[1]["answer"]["waiting"], left * 2, "{report}");
    assert_eq!(queries[2]["refused"], "not found: no such query");

    for (name, table, more) in [
        ("tx-writer", "mempool", &[][..]),
        ("watch", "watch_pool", &WATCHED[..]),
    ] {
        let file = wasm(name, false);
        let (code, report) = json(&[&["test", &file, "--devnet", "10", "--reorg"], more].concat());
        assert_eq!(code, 0, "{report}");
        assert!(told(&report).2 >= 10, "{report}");
        let volatile = &report["volatile"][0];
        assert_eq!(volatile["table"], table);
        assert!(volatile["rows"].as_u64().unwrap() >= 10, "{report}");
    }
}

#[test]
fn a_plugin_that_makes_something_else_of_the_same_pool_is_caught() {
    let file = wasm("hearsay", true);
    let args = ["test", &file, "--devnet", "5", "--set", "numbers=true"];
    let (code, out, err) = plugin(&args);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.contains("table hearsay_waiting:"), "{out}");
    assert!(err.contains("--no-mempool"), "{err}");
    let (code, out, err) = plugin(&[&args[..], &["--no-mempool"]].concat());
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("nothing was told of it: --no-mempool"),
        "{out}"
    );

    let (code, out, err) = plugin(&["test", &file, "--devnet", "5", "--query", "calls"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        out.contains("the query calls is answered differently"),
        "{out}"
    );
    let (code, _, err) = plugin(&["test", &file, "--devnet", "0", "--query", "panic"]);
    assert_eq!(code, 1);
    assert!(err.contains("the query panic fails"), "{err}");
    let (code, _, err) = plugin(&["test", &file, "--query", "waiting=5"]);
    assert_eq!(code, 2);
    assert!(err.contains("such as block="), "{err}");

    // Nobody knows what transactions pay whose coins are not in the blocks.
    let (code, out, err) = plugin(&["test", &wasm("fee-estimator", false), "--devnet", "5"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("learns from the memory pool"), "{err}");
}

#[test]
fn real_blocks_leave_what_the_host_would_have_and_calls_are_cut_in_their_middle() {
    let (code, report) = json(&[
        "test",
        &wasm("utxo-tracker", false),
        "--blocks",
        &regtest("main.dat"),
        "--reorg",
    ]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["network"], "regtest");
    assert_eq!(report["last"], 130);
    // 17,470 coins, as Bitcoin Core counts them, and what the plugin keeps beside them.
    assert!(report["state_keys"].as_u64().unwrap() > 17_470, "{report}");
    assert!(
        report["disturbances"]["cut_in_the_middle"]
            .as_u64()
            .unwrap()
            >= 4,
        "{report}"
    );
    assert!(report["block_time_max"].as_u64() >= report["block_time_median"].as_u64());

    let settings = ["--set", "inputs=true", "--set", "outputs=true"];
    let file = wasm("tx-writer", false);
    let main = regtest("main.dat");
    let (code, report) = json(
        &[
            &["test", &file, "--blocks", &main, "--reorg"],
            &settings[..],
        ]
        .concat(),
    );
    assert_eq!(code, 0, "{report}");
    let rows = |table: &str| {
        let tables = report["tables"].as_array().unwrap();
        let found = tables.iter().find(|found| found["table"] == table).unwrap();
        found["rows"].as_u64().unwrap()
    };
    assert_eq!((rows("block"), rows("tx")), (131, 7_573));
    assert!(rows("input") > 0 && rows("output") > 0);
}

#[test]
fn a_heavier_branch_in_another_file_does_not_need_the_first_blocks_twice() {
    let folder = tempfile::tempdir().unwrap();
    let both = folder.path().join("both.dat");
    let bytes = [
        fs::read(regtest("main.dat")).unwrap(),
        fs::read(regtest("branch.dat")).unwrap(),
    ];
    fs::write(&both, bytes.concat()).unwrap();
    let (code, report) = json(&[
        "test",
        &wasm("minimal", true),
        "--blocks",
        both.to_str().unwrap(),
    ]);
    assert_eq!((code, report["last"].as_u64()), (0, Some(132)), "{report}");
}

#[test]
fn the_first_blocks_of_mainnet_pass_too() {
    let Some(file) = data::shared("blocks/mainnet-0-4312.dat") else {
        return;
    };
    let file = file.to_str().unwrap().to_owned();
    let (code, report) = json(&[
        "test",
        &wasm("utxo-tracker", false),
        "--blocks",
        &file,
        "--reorg",
    ]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(
        (report["network"].as_str(), report["last"].as_u64()),
        (Some("mainnet"), Some(4_312))
    );
}

#[test]
fn a_plugin_that_keeps_something_outside_of_its_state_is_caught_and_shown() {
    let file = wasm("forgetful", true);
    for reorg in [&[][..], &["--reorg"]] {
        let args = [&["test", &file, "--devnet", "5"], reorg].concat();
        let (code, out, err) = plugin(&args);
        assert_eq!(code, 1, "{out}{err}");
        assert!(out.contains("NOT THE SAME at block"), "{out}");
        assert!(
            out.contains("table forgetful_count: 1 row differs"),
            "{out}"
        );
        assert!(err.contains("outside of its state"), "{err}");
        let (code, report) = json(&args);
        assert_eq!(code, 1);
        let difference = &report["failure"]["difference"];
        assert_eq!(
            difference["state"]["first_keys"][0]["key"], "636f756e74",
            "{report}"
        );
    }
    let (code, out, err) = plugin(&[
        "test",
        &file,
        "--devnet",
        "5",
        "--reorg",
        "--set",
        "keeps=true",
    ]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn a_plugin_that_fails_is_told_with_its_block() {
    let (code, _, err) = plugin(&[
        "test",
        &wasm("trap-at", true),
        "--devnet",
        "3",
        "--set",
        "height=102",
    ]);
    assert_eq!(code, 1);
    assert!(err.contains("fails at block 102"), "{err}");
    let (code, _, err) = plugin(&["test", &wasm("trap-at", true), "--set", "hight=102"]);
    assert_eq!(code, 1);
    assert!(
        err.contains("does not start") && err.contains("hight"),
        "{err}"
    );
}

#[test]
fn a_golden_file_is_written_once_and_compared_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let golden = folder.path().join("minimal.golden");
    let file = wasm("minimal", true);
    let args = [
        "test",
        &file,
        "--devnet",
        "5",
        "--golden",
        golden.to_str().unwrap(),
    ];
    let (code, out, _) = plugin(&args);
    assert_eq!(code, 0);
    assert!(out.contains("did not exist and was written"), "{out}");
    let text = fs::read_to_string(&golden).unwrap();
    assert!(text.contains("\nblock 105 "), "{text}");
    // Another disturbance leaves the same text.
    let (code, out, err) = plugin(&[&args[..], &["--reorg"]].concat());
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("the same"), "{out}");

    let wrong = text.replacen("transactions=1 ", "transactions=2 ", 1);
    assert_ne!(wrong, text);
    fs::write(&golden, &wrong).unwrap();
    let (code, out, err) = plugin(&args);
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        out.contains("- ") && out.contains("transactions=2") && out.contains("+ "),
        "{out}"
    );
    assert!(err.contains("something else than"), "{err}");
    assert_eq!(
        fs::read_to_string(&golden).unwrap(),
        wrong,
        "it is not touched"
    );
}

#[test]
fn the_first_difference_of_two_plugins_is_shown() {
    let (minimal, forgetful) = (wasm("minimal", true), wasm("forgetful", true));
    let main = regtest("main.dat");
    let (code, out, err) = plugin(&["diff", &minimal, &minimal, "--blocks", &main]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("the same") && out.contains("131 blocks"),
        "{out}"
    );

    let (code, report) = json(&["diff", &minimal, &forgetful, "--devnet", "1"]);
    assert_eq!(code, 1);
    assert_eq!(report["difference"]["height"], 0);
    assert_eq!(report["compared"], 0);
    let tables = report["difference"]["difference"]["tables"]
        .as_array()
        .unwrap();
    assert_eq!(tables.len(), 2, "{report}");

    // One traps where the other does not: everything before is the same.
    let (code, report) = json(&[
        "diff",
        &wasm("trap-at", true),
        &wasm("walk", true),
        "--devnet",
        "0",
    ]);
    assert_eq!(code, 1, "{report}");
    let error = report["difference"]["difference"]["error"].clone();
    assert_eq!(report["difference"]["height"], 5, "{report}");
    assert!(
        error["first"].as_str().unwrap().contains("trapped") && error["second"].is_null(),
        "{report}"
    );
}

#[test]
fn what_is_asked_of_blocks_that_cannot_say_it_is_refused() {
    // Blocks from the middle of a chain, of which nobody knows what they spend.
    let bytes = fs::read(regtest("main.dat")).unwrap();
    let mut at = 0;
    for _ in 0..126 {
        at += 8 + u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("late.dat");
    fs::write(&file, &bytes[at..]).unwrap();
    let late = file.to_str().unwrap();
    let (code, report) = json(&["test", &wasm("minimal", true), "--blocks", late, "--reorg"]);
    assert_eq!(code, 0, "{report}");
    assert_eq!(
        (report["first"].as_u64(), report["last"].as_u64()),
        (Some(126), Some(130))
    );
    let (code, _, err) = plugin(&["test", &wasm("tx-writer", false), "--blocks", late]);
    assert_eq!(code, 1);
    assert!(err.contains("must begin with the first"), "{err}");
    let (code, _, err) = plugin(&["test", &wasm("minimal", true), "--blocks", "Cargo.toml"]);
    assert_eq!(code, 1);
    assert!(err.contains("magic of no network"), "{err}");
}

#[test]
fn inspect_shows_what_the_host_would_see() {
    let (code, found) = json(&["inspect", &wasm("tx-writer", false)]);
    assert_eq!(code, 0);
    assert_eq!(found["kind"], "core module");
    assert_eq!(found["package"], "blockmill:plugin@0.1.3");
    assert_eq!(found["plugin"]["name"], "tx-writer");
    assert_eq!(found["plugin"]["tables"][0]["kind"], "anchored");
    let imports = found["imports"].as_array().unwrap();
    assert!(
        imports
            .iter()
            .any(|name| name == "blockmill:plugin/rows@0.1.3"),
        "{found}"
    );

    let (code, out, _) = plugin(&["inspect", &wasm("utxo-tracker", false)]);
    assert_eq!(code, 0);
    for part in [
        "blockmill:plugin@0.1.3",
        "roles        coins",
        "columns      inputs, outputs",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }

    let (code, out, err) = plugin(&["inspect", &wasm("forbidden", true)]);
    assert_eq!(code, 1);
    assert!(
        out.contains("refused") && out.contains("open_file"),
        "{out}"
    );
    assert!(err.contains("would refuse"), "{err}");
}

/// Compiling takes a minute where the standard library for wasm is compiled too.
#[test]
fn a_new_plugin_builds_at_once_passes_its_tests_and_the_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, err) = plugin_in(
        folder.path(),
        &["new", "my-index", "--sdk", sdk().to_str().unwrap()],
    );
    assert_eq!(code, 0, "{out}{err}");
    let made = folder.path().join("my-index");

    let native = wasm_toolchain::cargo(&made)
        .arg("test")
        .env_remove("CARGO_TARGET_DIR")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&native.stdout).into_owned();
    assert!(
        native.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&native.stderr)
    );
    assert!(said.contains("1 passed"), "{said}");

    let (code, out, err) = plugin_in(&made, &["build", "--json"]);
    assert_eq!(code, 0, "{out}{err}");
    let built: Value = serde_json::from_str(&out).unwrap();
    let file = PathBuf::from(built["wasm"].as_str().unwrap());
    assert!(file.ends_with("target/plugins/my-index.wasm"), "{built}");
    assert_eq!(built["plugin"]["name"], "my-index");
    assert!(built["size"].as_u64().unwrap() < 200_000, "{built}");

    let (code, out, err) = plugin_in(&made, &["test", ".", "--devnet", "5", "--reorg"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("106 in my_index_block"), "{out}");
    // Under another name it is the plugin that it was made from.
    let (code, out, err) = plugin(&[
        "diff",
        file.to_str().unwrap(),
        &wasm("minimal", true),
        "--devnet",
        "1",
    ]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        out.contains("described    name: my-index and minimal"),
        "{out}"
    );
    assert!(!out.contains("state:"), "the states are the same: {out}");

    let (code, _, err) = plugin_in(
        folder.path(),
        &["new", "my-index", "--sdk", sdk().to_str().unwrap()],
    );
    assert_eq!(code, 1);
    assert!(err.contains("not empty"), "{err}");
}

/// Compiles a plugin too.
#[test]
fn a_plugin_made_from_a_template_runs_beside_the_one_that_it_was_made_from() {
    let folder = tempfile::tempdir().unwrap();
    let sdk = sdk();
    let new = ["new", "mine", "--template", "block-stats", "--sdk"];
    let (code, out, err) = plugin_in(
        folder.path(),
        &[&new[..], &[sdk.to_str().unwrap()]].concat(),
    );
    assert_eq!(code, 0, "{out}{err}");
    let made = folder.path().join("mine");
    // What it answers goes into the result.
    fs::write(made.join("queries.txt"), "# in the end\nstatus\n").unwrap();
    let golden = made.join("golden.txt");
    let (code, out, err) = plugin_in(
        &made,
        &["test", ".", "--devnet", "3", "--golden", "golden.txt"],
    );
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("query        status: {"), "{out}");
    let text = fs::read_to_string(&golden).unwrap();
    assert!(text.contains("\nquery status\n  {"), "{text}");
    assert!(text.contains("table mine_day_stats rows"), "{text}");

    let devnet = Devnet::new(6).unwrap();
    devnet.mine(5).unwrap();
    let file = made.join("target/plugins/mine.wasm");
    let tables = format!(
        "\n[plugins.utxo-tracker]\n[plugins.block-stats]\n[plugins.mine]\nfile = {:?}\n",
        file.to_str().unwrap()
    );
    let host = host::Installation::new("regtest", &[devnet.p2p_addr()]);
    let host = host.unwrap().plugins(&tables);
    host.run_to_height(5, Duration::from_secs(120)).unwrap();
    for table in ["block_stats", "mine"] {
        let sql = format!("SELECT count(*) FROM \"{table}\"");
        assert_eq!(count(&host, &sql), 6, "{table}");
    }
    for table in ["day_stats", "mine_day_stats"] {
        count(&host, &format!("SELECT count(*) FROM \"{table}\""));
    }
}

/// The one number of a question to a host's database.
fn count(host: &host::Installation, sql: &str) -> i64 {
    let url = format!("sqlite:{}?mode=ro", host.database().display());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut database = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned()))
            .fetch_one(&mut database)
            .await
            .unwrap()
    })
}

#[test]
fn what_cannot_be_used_is_said_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let here = |name: &str| folder.path().join(name);
    fs::write(here("text.wasm"), "no wasm\n").unwrap();
    fs::write(
        here("cut.wasm"),
        &fs::read(wasm("minimal", true)).unwrap()[..5_000],
    )
    .unwrap();
    let main = fs::read(regtest("main.dat")).unwrap();
    fs::write(here("cut.dat"), &main[..100_000]).unwrap();
    fs::write(here("notes.txt"), "my notes\n").unwrap();
    fs::write(here("bytes.txt"), [0xff, 0xfe]).unwrap();
    fs::create_dir(here("empty")).unwrap();
    let minimal = wasm("minimal", true);
    for (args, code, says) in [
        (&["build", "nothere"][..], 1, "there is no folder nothere"),
        (&["build", "notes.txt"], 1, "notes.txt is a file"),
        (&["build", "empty"], 1, "has no Cargo.toml"),
        (&["inspect", "nothere.wasm"], 1, "No such file"),
        (&["inspect", "cut.wasm"], 1, "would refuse cut.wasm"),
        (
            &["diff", "nothere.wasm", &minimal],
            1,
            "there is no plugin at nothere.wasm",
        ),
        (&["diff", &minimal, "text.wasm"], 1, "it is not WebAssembly"),
        (&["test", "text.wasm"], 1, "it is not WebAssembly"),
        (&["test", "cut.wasm"], 1, "cut.wasm cannot be used"),
        (
            &["test", &minimal, "--blocks", "cut.dat"],
            1,
            "is not whole",
        ),
        (
            &["test", &minimal, "--blocks", "nothere.dat"],
            1,
            "No such file",
        ),
        (
            &["test", &minimal, "--devnet", "1", "--golden", "notes.txt"],
            1,
            "notes.txt is no golden file",
        ),
        (
            &["test", &minimal, "--devnet", "1", "--golden", "bytes.txt"],
            1,
            "bytes.txt is no golden file",
        ),
        (
            &["new", "a", "--template", "nosuch"],
            2,
            "possible values: minimal, block-stats, watch",
        ),
        (&["new", "a/b"], 2, "lower-case letters"),
    ] {
        let (found, out, err) = plugin_in(folder.path(), args);
        assert_eq!(found, code, "{args:?}: {out}{err}");
        assert!(err.contains(says), "{args:?}: {err}");
        assert!(!err.contains("panicked"), "{args:?}: {err}");
    }
    assert_eq!(fs::read_to_string(here("notes.txt")).unwrap(), "my notes\n");
}

fn sdk() -> PathBuf {
    workspace::root().join("plugins/sdk")
}

#[test]
fn the_sdk_is_found_from_a_folder_of_the_checkout_and_by_its_variable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let here = workspace::root().join("docs");
    let (code, out, err) = plugin_in(&here, &["new", "a", "--path", path.to_str().unwrap()]);
    assert_eq!(code, 0, "{out}{err}");
    let manifest = fs::read_to_string(path.join("Cargo.toml")).unwrap();
    assert!(
        manifest.contains(sdk().canonicalize().unwrap().to_str().unwrap()),
        "{manifest}"
    );

    let mut command = host::command().unwrap();
    command
        .current_dir(folder.path())
        .env("BLOCKMILL_SDK", folder.path());
    let output = command.args(["plugin", "new", "b"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("BLOCKMILL_SDK names") && said.contains("not the SDK"),
        "{said}"
    );
    let (code, _, _) = plugin_in(folder.path(), &["new", "Bad_Name"]);
    assert_eq!(code, 2);
}
