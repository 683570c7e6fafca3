//! Every file of every corpus, once. `cargo xtask soak` goes on from there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::process::Command;

use blockmill_fuzz::{TARGETS, corpus};

#[test]
fn no_target_fails_on_its_corpus_nor_on_what_is_close_to_it() {
    let mut failures = Vec::new();
    for target in TARGETS {
        // In a process of its own, which ends where a target takes too much memory.
        let output = Command::new(env!("CARGO_BIN_EXE_blockmill-fuzz"))
            .arg(target.name)
            .output()
            .unwrap();
        if !output.status.success() {
            let names = String::from_utf8_lossy(&output.stdout);
            let said = String::from_utf8_lossy(&output.stderr);
            let name = names.lines().last().unwrap_or("nothing");
            failures.push(format!("{}: {name}\n{said}", target.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_target_has_a_program_and_a_corpus_and_nothing_else_has() {
    let workspace = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let names = |folder: &std::path::Path| -> BTreeSet<String> {
        std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                name.trim_end_matches(".rs").to_owned()
            })
            .collect()
    };
    let targets: BTreeSet<String> = TARGETS.map(|target| target.name.to_owned()).into();
    assert_eq!(names(&corpus::folder()), targets);
    assert_eq!(names(&workspace.join("fuzz/fuzz_targets")), targets);
    let manifest = std::fs::read_to_string(workspace.join("fuzz/Cargo.toml")).unwrap();
    for target in &targets {
        let path = format!("path = \"fuzz_targets/{target}.rs\"");
        assert!(manifest.contains(&path), "{target} is no program");
        let program =
            std::fs::read_to_string(workspace.join(format!("fuzz/fuzz_targets/{target}.rs")))
                .unwrap();
        assert!(program.contains(&format!("run(\"{target}\"")), "{target}");
    }
}
