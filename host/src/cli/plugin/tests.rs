#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: OfflineCommand,
}

fn run(line: &[&str]) -> (Result<()>, String) {
    let parsed = Line::try_parse_from(std::iter::once(&"plugin").chain(line)).unwrap();
    let mut out = Vec::new();
    let result = execute(&parsed.command, &mut out);
    (result, String::from_utf8(out).unwrap())
}

#[test]
fn a_file_that_is_no_plugin_is_inspected_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.wasm");
    let shown = path.to_str().unwrap();
    let (result, _) = run(&["inspect", shown]);
    assert!(format!("{:#}", result.unwrap_err()).contains("failed to read the plugin"));

    // An empty core module: it is WebAssembly, and no plugin.
    for (bytes, kind, why) in [
        (&b"nothing"[..], "not WebAssembly", "does not begin with"),
        (b"\0asm\x01\0\0\0", "core module", "wit/plugin.wit"),
        (b"\0asm\x0d\0\x01\0", "component", "wit/plugin.wit"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let (result, out) = run(&["inspect", shown]);
        assert!(result.unwrap_err().to_string().contains("would refuse"));
        assert!(
            out.contains(kind) && out.contains("refused") && out.contains(why),
            "{out}"
        );
        let (result, out) = run(&["inspect", "--json", shown]);
        assert!(result.is_err());
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (json["kind"].as_str(), json["size"].as_u64()),
            (Some(kind), Some(bytes.len() as u64))
        );
        assert!(json["refused"].as_str().unwrap().contains(why), "{json}");
        assert_eq!(json["sha256"].as_str().unwrap().len(), 64);
    }
}

#[test]
fn what_is_not_there_is_named() {
    for line in [
        &["test", "/nowhere/a.wasm"][..],
        &["diff", "/nowhere/a.wasm", "/nowhere/b.wasm"],
    ] {
        let (result, _) = run(line);
        assert!(result.unwrap_err().to_string().contains("/nowhere/a.wasm"));
    }
    let folder = tempfile::tempdir().unwrap();
    let (result, _) = run(&["build", folder.path().to_str().unwrap()]);
    assert!(result.unwrap_err().to_string().contains("no Cargo.toml"));
}

#[test]
fn wrong_usage_is_refused_by_the_command_line() {
    for line in [
        &["new", "My-Index"][..],
        &["new", "a", "--template", "none"],
        &["test"],
        &["test", "a.wasm", "--blocks", "b", "--devnet", "3"],
        &["test", "a.wasm", "--devnet", "100000000"],
        &["test", "a.wasm", "--set", "nothing"],
        &["diff", "a.wasm"],
    ] {
        assert!(
            Line::try_parse_from(std::iter::once(&"plugin").chain(line)).is_err(),
            "{line:?}"
        );
    }
}

#[test]
fn figures_are_shown_in_units_for_people() {
    assert_eq!(time(30), "30 µs");
    assert_eq!(time(2_340), "2.34 ms");
    assert_eq!(time(25_400), "25 ms");
    assert_eq!(time(30_000_000), "30.0 s");
    assert_eq!(size(135_300), "135.3 kB");
}
