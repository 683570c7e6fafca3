//! `cargo xtask test`: everything that has to pass, in one order, on a fresh clone as in a used one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use wasm_toolchain::{Source, WasmToolchain};

use crate::bcoin::{self, Installed};
use crate::libtest::Tally;
use crate::{plugins, programs, workspace};

/// The steps, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Step {
    /// cargo fmt --check
    Format,
    /// cargo clippy, warnings denied
    Lints,
    /// The plugins, those that misbehave on purpose too, to wasm
    Plugins,
    /// The programs that the integration tests start: the host and the devnet
    Programs,
    /// bcoin by npm, where npm is installed
    Bcoin,
    /// Unit tests, integration tests and documentation examples of the whole workspace
    Tests,
}

/// Runs the steps, or only those in `only`, and prints what became of them; `false` when something failed.
///
/// A step that fails does not keep the later ones from running. The last line is `N passed, N failed`, summed over all test
/// programs; a step that failed in another way than by a test counts as one more.
///
/// # Errors
///
/// When the output cannot be written.
pub fn run(root: &Path, only: &[Step], toolchain: Source, args: &[String]) -> Result<bool> {
    let mut total = Tally::default();
    let mut summary: BTreeMap<Step, (&str, Duration)> = BTreeMap::new();
    for step in Step::value_variants() {
        if !only.is_empty() && !only.contains(step) {
            continue;
        }
        heading(&format!("{}: {}", name(*step), about(*step)))?;
        let start = Instant::now();
        let (tally, result) = run_step(*step, root, toolchain, args);
        total += tally;
        let outcome = match &result {
            Ok(()) => "ok",
            Err(error) => {
                eprintln!("error: {error:#}");
                if tally.failed == 0 {
                    total.failed += 1;
                }
                "FAILED"
            }
        };
        summary.insert(*step, (outcome, start.elapsed()));
    }
    heading("summary")?;
    for (step, (outcome, time)) in &summary {
        println!(
            "{:<10} {outcome:<7} {:>7.1} s",
            name(*step),
            time.as_secs_f64()
        );
    }
    if total.ignored > 0 {
        println!("{} ignored", total.ignored);
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed == 0)
}

fn run_step(step: Step, root: &Path, toolchain: Source, args: &[String]) -> (Tally, Result<()>) {
    let no_tests = |result| (Tally::default(), result);
    let cargo = |arguments: &[&str]| {
        let mut command = workspace::cargo(root);
        command.args(arguments);
        command
    };
    match step {
        Step::Format => no_tests(succeed(&mut cargo(&["fmt", "--all", "--check"]))),
        Step::Lints => {
            let clippy = [
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "--deny",
                "warnings",
            ];
            no_tests(succeed(&mut cargo(&clippy)))
        }
        Step::Plugins => no_tests(
            WasmToolchain::find(toolchain)
                .and_then(|toolchain| plugins::build(root, &toolchain))
                .map(drop),
        ),
        Step::Programs => no_tests(programs::build_all(root)),
        Step::Bcoin => no_tests(bcoin::install(root).map(|installed| match installed {
            Installed::Yes => println!(
                "bcoin is in {}",
                workspace::shown(root, &bcoin::folder(root))
            ),
            Installed::No(reason) => println!("skipped, and so are the tests with bcoin: {reason}"),
        })),
        Step::Tests => {
            let tests = ["test", "--workspace", "--no-fail-fast", "--"];
            count(cargo(&tests).args(args), &mut std::io::stdout())
        }
    }
}

/// Runs `command` and expects exit code 0.
fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().context("failed to start cargo")?;
    if !status.success() {
        bail!("cargo ended with {status}");
    }
    Ok(())
}

/// Runs test programs, passes on to `out` what they print, and counts their tests.
fn count(command: &mut Command, out: &mut dyn Write) -> (Tally, Result<()>) {
    let mut tally = Tally::default();
    let result = count_into(command, out, &mut tally);
    (tally, result)
}

fn count_into(command: &mut Command, out: &mut dyn Write, tally: &mut Tally) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    // Bytes and not text: a test may print anything.
    while reader
        .read_until(b'\n', &mut line)
        .context("failed to read what cargo prints")?
        > 0
    {
        out.write_all(&line)
            .context("failed to show what cargo prints")?;
        if let Some(counts) = Tally::parse(&String::from_utf8_lossy(&line)) {
            *tally += counts;
        }
        line.clear();
    }
    let status = child.wait().context("failed to wait for cargo")?;
    if !status.success() {
        bail!("cargo ended with {status}");
    }
    Ok(())
}

fn heading(text: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "\n── {text}").context("failed to write to the terminal")?;
    out.flush().context("failed to write to the terminal")
}

fn name(step: Step) -> String {
    let value = step.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn about(step: Step) -> String {
    let value = step.to_possible_value();
    value
        .and_then(|value| value.get_help().map(ToString::to_string))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    fn shell(script: &str) -> (Tally, Result<()>) {
        // Not to our own output: whoever counts these tests would count the lines in it too.
        count(
            Command::new("sh").args(["-c", script]),
            &mut std::io::sink(),
        )
    }

    #[test]
    fn the_tests_of_all_programs_are_summed() {
        let line = "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        let (tally, result) = shell(&format!("echo '{line}'; printf '\\377\\n'; echo '{line}'"));
        assert!(result.is_ok());
        assert_eq!((tally.passed, tally.failed, tally.ignored), (4, 0, 2));
    }

    #[test]
    fn a_program_that_dies_is_a_failure_even_when_no_test_failed() {
        let (tally, result) = shell("exit 101");
        assert_eq!(tally, Tally::default());
        assert!(result.is_err());
    }
}
