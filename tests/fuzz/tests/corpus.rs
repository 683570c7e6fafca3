//! Every file of every corpus, once. `cargo xtask soak` goes on from there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::panic::catch_unwind;

use blockmill_fuzz::{TARGETS, Verdict, corpus};

/// Bytes of a corpus at most: it is kept with the source.
const MOST_BYTES: usize = 64 << 10;

/// One test, because memory is counted for the whole process.
#[test]
fn no_target_panics_on_its_corpus_and_each_is_taken_somewhere_and_refused_somewhere() {
    let mut failures = Vec::new();
    for target in TARGETS {
        let files = corpus::files(target.name).unwrap();
        let (mut taken, mut refused) = (0, 0);
        for (path, bytes) in &files {
            // Not captured where the process is aborted, as for too much memory.
            println!("{}", path.display());
            match catch_unwind(|| target.run(bytes)) {
                Ok(Verdict::Taken) => taken += 1,
                Ok(Verdict::Refused) => refused += 1,
                Err(_) => failures.push(path.display().to_string()),
            }
            // Cut anywhere and bent anywhere it may be refused, but no more than that.
            for at in places(bytes.len()) {
                let mut bent = bytes.clone();
                bent[at] ^= 0x81;
                for variant in [&bytes[..at], &bent] {
                    if catch_unwind(|| target.run(variant)).is_err() {
                        failures.push(format!("{} changed at {at}", path.display()));
                    }
                }
            }
        }
        assert!(taken > 0, "{} takes nothing of its corpus", target.name);
        assert!(
            taken + refused > 1,
            "{} has too small a corpus",
            target.name
        );
        let bytes: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes <= MOST_BYTES, "{}: {bytes} bytes", target.name);
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// A dozen places of so many bytes.
fn places(length: usize) -> impl Iterator<Item = usize> {
    (0..length).step_by((length / 12).max(1))
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
