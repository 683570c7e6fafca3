//! The fuzz part of `cargo xtask soak`: each target of `tests/fuzz` as a program of libFuzzer's, for a minute.
//!
//! The programs are built by `cargo fuzz` with a nightly compiler, into `target/fuzz/build`. Each begins with its corpus in
//! `tests/fuzz/corpus` and what earlier runs have found worth keeping, in `target/fuzz/corpus`. What makes one fail is written to
//! `target/fuzz/artifacts`, what libFuzzer says to `target/fuzz/logs`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;

/// Longer for one input is a failure, in seconds. Most take less than a millisecond; a busy machine takes its time.
const TIMEOUT: u64 = 25;
/// More memory is a failure, in MB. The targets have bounds of their own, far below.
const MEMORY: u64 = 2_048;
/// Lines of libFuzzer's that are shown when a target fails.
const LINES: usize = 30;

/// The targets, by name.
///
/// # Errors
///
/// When their folder cannot be listed.
pub fn targets(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("fuzz/fuzz_targets");
    let entries =
        fs::read_dir(&folder).with_context(|| format!("failed to list {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "rs") {
            names.extend(
                path.file_stem()
                    .and_then(|name| name.to_str())
                    .map(str::to_owned),
            );
        }
    }
    names.sort();
    Ok(names)
}

/// What is to be fuzzed.
#[derive(Debug)]
pub struct Fuzz {
    root: PathBuf,
    targets: Vec<String>,
    seconds: u64,
}

impl Fuzz {
    /// Looks whether there is all that it takes: the targets in `only` (all, if it is empty), a nightly compiler and `cargo fuzz`.
    ///
    /// # Errors
    ///
    /// Says what is missing and how to get it.
    pub fn prepare(root: &Path, only: &[String], seconds: u64) -> Result<Fuzz> {
        let mut targets = targets(root)?;
        for name in only {
            ensure!(
                targets.contains(name),
                "there is no fuzz target {name:?}; there are {}",
                targets.join(", ")
            );
        }
        targets.retain(|name| only.is_empty() || only.contains(name));
        let works = |command: &mut Command| {
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        let mut missing = Vec::new();
        if !works(nightly("cargo").arg("--version")) {
            missing.push("a nightly compiler: rustup toolchain install nightly --profile minimal");
        }
        if !works(Command::new("cargo").args(["fuzz", "--version"])) {
            missing.push("cargo-fuzz: cargo install cargo-fuzz");
        }
        if !works(Command::new("c++").arg("--version")) {
            missing.push("a C++ compiler, for libFuzzer itself: the package g++ or clang");
        }
        if !missing.is_empty() {
            bail!(
                "fuzzing takes what is not here (--fuzz-seconds 0 leaves it out)\n  {}",
                missing.join("\n  ")
            );
        }
        Ok(Fuzz {
            root: root.to_path_buf(),
            targets,
            seconds,
        })
    }

    /// Builds the targets and runs one after the other; `false` when one failed.
    ///
    /// # Errors
    ///
    /// When they do not compile or cannot be started.
    pub fn run(&self) -> Result<bool> {
        let programs = self.build()?;
        let mut failed = Vec::new();
        for name in &self.targets {
            if !self.run_one(&programs.join(name), name)? {
                failed.push(name.as_str());
            }
        }
        match failed.as_slice() {
            [] => println!("{} fuzz targets, none failed", self.targets.len()),
            _ => println!(
                "{} fuzz targets, {} failed: {}",
                self.targets.len(),
                failed.len(),
                failed.join(", ")
            ),
        }
        Ok(failed.is_empty())
    }

    /// The folder of the programs.
    fn build(&self) -> Result<PathBuf> {
        // The versions of everything are the workspace's; libFuzzer's is in the manifest.
        fs::copy(
            self.root.join("Cargo.lock"),
            self.root.join("fuzz/Cargo.lock"),
        )
        .context("failed to copy Cargo.lock")?;
        let folder = self.folder("build")?;
        let triple = host_triple()?;
        // Without a sanitizer: there is no unsafe code here to be watched, and it is twice as fast.
        let status = nightly("cargo")
            .current_dir(&self.root)
            .args(["fuzz", "build", "--fuzz-dir", "fuzz", "--sanitizer", "none"])
            .args(["--target", &triple, "--target-dir"])
            .arg(&folder)
            .env_remove("CARGO_TARGET_DIR")
            .status()
            .context("failed to start cargo fuzz")?;
        ensure!(status.success(), "the fuzz targets did not compile");
        Ok(folder.join(triple).join("release"))
    }

    fn run_one(&self, program: &Path, name: &str) -> Result<bool> {
        let found = self.folder("corpus")?.join(name);
        let artifacts = self.folder("artifacts")?.join(name);
        for folder in [&found, &artifacts] {
            fs::create_dir_all(folder)
                .with_context(|| format!("failed to create {}", folder.display()))?;
        }
        let path = self.folder("logs")?.join(format!("{name}.log"));
        let log =
            File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
        let start = Instant::now();
        let status = Command::new(program)
            .current_dir(&self.root)
            .arg(format!("-max_total_time={}", self.seconds))
            .arg(format!("-timeout={TIMEOUT}"))
            .arg(format!("-rss_limit_mb={MEMORY}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg("-print_final_stats=1")
            .arg(&found)
            .arg(self.root.join("tests/fuzz/corpus").join(name))
            .stdout(Stdio::null())
            .stderr(log)
            .status()
            .with_context(|| format!("failed to start {}", program.display()))?;
        let said = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let said = String::from_utf8_lossy(&said);
        let report = Report::read(&said);
        println!(
            "{name:<14} {:>5.0} s {:>12} inputs  {}",
            start.elapsed().as_secs_f64(),
            report.inputs.as_deref().unwrap_or("?"),
            if status.success() { "ok" } else { "FAILED" }
        );
        if !status.success() {
            self.show_failure(name, &said, &report);
        }
        Ok(status.success())
    }

    fn show_failure(&self, name: &str, said: &str, report: &Report) {
        let lines: Vec<&str> = said.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(LINES)) {
            eprintln!("  {line}");
        }
        match &report.artifact {
            Some(file) => eprintln!(
                "error: the fuzz target {name} fails on\n  {file}\nrun it again with\n  cargo run -p blockmill-fuzz -- {name} {file}\n\
                 and put it into tests/fuzz/corpus/{name}, which the tests run"
            ),
            None => eprintln!("error: the fuzz target {name} fails, and left no input"),
        }
    }

    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = workspace::target(&self.root).join("fuzz").join(name);
        fs::create_dir_all(&folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        Ok(folder)
    }
}

/// A program of the nightly toolchain.
fn nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", program]);
    command
}

/// What programs of this machine are compiled for, as rustc calls it.
fn host_triple() -> Result<String> {
    let output = nightly("rustc")
        .arg("-vV")
        .output()
        .context("failed to start rustc")?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .context("rustc does not say what it compiles for")
}

/// What libFuzzer said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    /// How many inputs it ran.
    inputs: Option<String>,
    /// The file with the input that made the target fail.
    artifact: Option<String>,
}

impl Report {
    fn read(said: &str) -> Report {
        let after = |mark: &str| {
            said.lines()
                .find_map(|line| line.split_once(mark))
                .map(|(_, rest)| rest.trim().to_owned())
        };
        Report {
            inputs: after("stat::number_of_executed_units:"),
            artifact: after("Test unit written to "),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn what_libfuzzer_says_names_the_inputs_and_the_file_that_fails() {
        let said = "#1\tpulse\n==1== ERROR: libFuzzer: deadly signal\n\
                    artifact_prefix='a/'; Test unit written to a/crash-0b\nstat::number_of_executed_units: 1234\n";
        let report = Report {
            inputs: Some("1234".to_owned()),
            artifact: Some("a/crash-0b".to_owned()),
        };
        assert_eq!(Report::read(said), report);
        assert_eq!(Report::read(""), Report::default());
    }

    #[test]
    fn a_target_that_there_is_not_is_named_with_those_that_there_are() {
        let root = workspace::root();
        assert!(targets(&root).unwrap().contains(&"block".to_owned()));
        let error = Fuzz::prepare(&root, &["blok".to_owned()], 1).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("\"blok\"") && error.contains("block, "),
            "{error}"
        );
    }
}
