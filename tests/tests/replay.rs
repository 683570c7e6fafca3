//! A capsule that lacks something: `blockmill plugin replay` says what, and does not guess. The capsules are made here, byte
//! by byte, as docs/design.md draws them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs;
use std::path::Path;

use blockmill_tests::{data, host};
use serde_json::{Value, json};
use xtask::{plugins, workspace};

/// The state is known, and empty: a scan went over all of it.
const EMPTY_STATE: [u8; 25] = {
    let mut reads = [0; 25];
    // No value; one range, from the empty key to the end; no volatile value; no header.
    reads[4] = 1;
    reads
};
/// What a block spends whose only transaction is its coinbase.
const COINBASE_SPENDS: [u8; 21] = {
    let mut spent = [0; 21];
    spent[0] = 1;
    spent
};

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| match sum & 1 {
            1 => (sum >> 1) ^ 0xedb8_8320,
            _ => sum >> 1,
        })
    })
}

/// A capsule of a failure with the first block, or with what `header` says.
fn capsule(folder: &Path, plugin: &str, header: Value, sections: &[(&str, &[u8])]) -> String {
    let mut whole = json!({
        "host": "0.1.0", "written": 1, "network": "regtest", "plugin": plugin, "version": "0.0.9",
        "component": "ab".repeat(32), "component_bytes": 3_000_000, "settings": "{}", "limits": {},
        "call": "on-block", "class": "trap", "message": "on-block trapped: unreachable", "cause": "unreachable",
        "backtrace": "", "cursor": null, "given": "block", "block": { "height": 1, "hash": "00".repeat(32) },
        "median_time": 1, "pool": null, "query": null, "recorded": true, "truncated": false, "sections": [],
    });
    let fields = whole.as_object_mut().unwrap();
    fields.extend(header.as_object().unwrap().clone());
    let lengths = sections.iter().map(|(name, bytes)| (name, bytes.len()));
    fields["sections"] = json!(lengths.collect::<Vec<_>>());
    let text = whole.to_string();
    let mut bytes = b"BMCAPS\0\x01".to_vec();
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
    sections
        .iter()
        .for_each(|(_, section)| bytes.extend(*section));
    let sum = crc32(&bytes);
    bytes.extend(sum.to_le_bytes());
    let path = folder.join(format!("{plugin}.capsule"));
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The first block of the devnet's chain that is kept beside the tests.
fn block() -> Vec<u8> {
    let bytes = fs::read(data::regtest("main.dat")).unwrap();
    let length = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    bytes[8..8 + length].to_vec()
}

fn wasm(name: &str, test: bool) -> String {
    let path = plugins::folder(&workspace::root(), test).join(format!("{name}.wasm"));
    path.to_str().unwrap().to_owned()
}

/// Exit code and both outputs.
fn replay(args: &[&str]) -> (i32, String, String) {
    let mut command = host::command().unwrap();
    let output = command.args(["plugin", "replay"]).args(args).output();
    let output = output.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn a_component_that_was_too_large_for_its_capsule_is_asked_for_by_its_hash() {
    let folder = tempfile::tempdir().unwrap();
    let block = block();
    let sections = [("block", &block[..]), ("reads", &EMPTY_STATE)];
    let path = capsule(folder.path(), "minimal", json!({}), &sections);
    let (code, out, err) = replay(&[&path]);
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    let hash = "ab".repeat(32);
    for part in [
        "minimal 0.0.9",
        "3000000 bytes",
        "--with",
        &format!("sha256 is {hash}"),
        &format!("components/{hash}.wasm"),
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }
    let (code, out, err) = replay(&[&path, "--with", &wasm("minimal", true)]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("another component") && out.contains("it succeeds"),
        "{out}"
    );
    let (code, _, err) = replay(&[&path, "--with", &wasm("walk", true)]);
    assert_eq!(code, 1);
    assert!(err.contains("the capsule is of minimal"), "{err}");
}

#[test]
fn a_component_that_asks_for_what_the_capsule_lacks_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let block = block();

    // A column.
    let sections = [("block", &block[..]), ("reads", &EMPTY_STATE)];
    let path = capsule(folder.path(), "v0-1-0", json!({}), &sections);
    let with = wasm("v0-1-0", true);
    let (code, _, err) = replay(&[&path, "--with", &with]);
    assert_eq!(code, 1);
    assert!(err.contains("the column `spent`"), "{err}");

    // A header.
    let sections = [
        ("block", &block[..]),
        ("spent", &COINBASE_SPENDS),
        ("reads", &EMPTY_STATE),
    ];
    let path = capsule(folder.path(), "v0-1-0", json!({}), &sections);
    let (code, out, err) = replay(&[&path, "--with", &with]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("the header at height 1"), "{out}");
    assert!(err.contains("does not tell whether it is mended"), "{err}");

    // A key of the volatile space.
    let query =
        json!({ "given": "query", "call": "query", "query": ["waiting", []], "block": null });
    let sections = [("reads", &EMPTY_STATE[..])];
    let path = capsule(folder.path(), "hearsay", query, &sections);
    let (code, out, err) = replay(&[&path, "--with", &wasm("hearsay", true), "--json"]);
    assert_eq!(code, 1, "{out}{err}");
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(said["missing"], true, "{said}");
    let message = said["failed"]["message"].as_str().unwrap();
    assert!(message.contains("the volatile key waiting"), "{message}");

    // A file that is none.
    let (code, _, err) = replay(&["Cargo.toml"]);
    assert_eq!(code, 1);
    assert!(err.contains("cannot be used"), "{err}");
}

#[test]
fn a_recorded_pool_tells_its_signature_operations_again_and_an_old_record_that_it_does_not_know_them()
 {
    let folder = tempfile::tempdir().unwrap();
    let block = block();
    // The only transaction of the first block, as if it had come into the pool.
    let raw = &block[81..];
    let mut pool = [0u32.to_le_bytes(), 1u32.to_le_bytes()].concat();
    pool.extend((raw.len() as u32).to_le_bytes());
    pool.extend(raw);
    // Fee, virtual bytes, when it was seen first; new; no parents.
    for number in [1_000u64, 100, 1_700_000_000] {
        pool.extend(number.to_le_bytes());
    }
    pool.push(0);
    pool.extend(0u32.to_le_bytes());
    let header = json!({
        "given": "mempool", "call": "on-mempool", "block": null, "cursor": { "height": 0, "hash": "00".repeat(32) },
        "pool": { "reset": true, "time": 1_700_000_000u64, "height": 0, "current": false },
    });
    let with = wasm("fee-estimator", false);
    let costs = 4u32.to_le_bytes();
    let known = [
        ("pool", &pool[..]),
        ("sigops", &costs),
        ("reads", &EMPTY_STATE),
    ];
    let path = capsule(folder.path(), "fee-estimator", header.clone(), &known);
    let (code, out, err) = replay(&[&path, "--with", &with]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("it succeeds"), "{out}");

    let unknown = [("pool", &pool[..]), ("reads", &EMPTY_STATE)];
    let path = capsule(folder.path(), "fee-estimator", header, &unknown);
    let (code, out, err) = replay(&[&path, "--with", &with, "--json"]);
    assert_eq!(code, 1, "{out}{err}");
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(said["missing"], true, "{said}");
    let message = said["failed"]["message"].as_str().unwrap();
    assert!(message.contains("the signature operations"), "{message}");
}
