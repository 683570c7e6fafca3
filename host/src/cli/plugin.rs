//! The commands for those who write plugins: they need no running host and no configuration.

mod build;
mod diff;
mod inspect;
mod new;
mod source;
mod template;
mod test;

use std::io::Write;

use anyhow::Result;
use clap::Subcommand;

/// What can be done with a plugin offline.
#[derive(Debug, Subcommand)]
pub(super) enum OfflineCommand {
    /// Begin a plugin: a folder that builds at once
    #[command(
        long_about = "Make a folder with a plugin that builds and passes its test: Cargo.toml, src/lib.rs with a test, README.md. \
                      The SDK is found at --sdk, at BLOCKMILL_SDK, or in a checkout of Blockmill that the current folder or this \
                      program came from.",
        after_help = "Example: a plugin that counts, in the folder ./my-index\n  \
                      blockmill plugin new my-index --template minimal"
    )]
    New(new::New),
    /// Compile a plugin to wasm
    #[command(
        long_about = "Compile the plugin in a folder for the right target, with whatever compiler can be had: the ordinary rustc, \
                      after rustup target add, or Debian's. Prints where the .wasm is, its size and what it imports.",
        after_help = "Example:\n  blockmill plugin build ./my-index"
    )]
    Build(build::Build),
    /// Show what a plugin file is, and what it would be refused for
    #[command(
        long_about = "Show hash, size, world, imports, description and tables of a plugin file. A file that the host would refuse \
                      is shown as far as it goes, with the reason, and the exit code is 1.",
        after_help = "Example:\n  blockmill plugin inspect my_index.wasm --json | jq .plugin.tables"
    )]
    Inspect(inspect::Inspect),
    /// Run a plugin over blocks, disturb it, and compare
    #[command(
        long_about = "Run a plugin as the host would, with its engine, its limits and its stores in a temporary folder, over real \
                      blocks or made-up ones: once undisturbed, and once with restarts, crashes and cut calls (with --reorg, \
                      reorgs) between the blocks. Both must leave the same state and the same rows. The column `spent` is worked \
                      out from the blocks, so that no other plugin is needed.",
        after_help = "Example: over a block file of any network, compared with what was kept before\n  \
                      blockmill plugin test my_index.wasm --blocks blk00000.dat --reorg --golden my_index.golden"
    )]
    Test(test::Test),
    /// Run two plugins over the same blocks, up to the first difference
    #[command(
        long_about = "Give the same blocks to two plugins, such as two versions of one, and stop at the first difference in what \
                      they leave: state, rows, spent outputs, errors. Exit code 0 when there is none.",
        after_help = "Example:\n  blockmill plugin diff old.wasm new.wasm --devnet 200"
    )]
    Diff(diff::Diff),
}

/// Does what the command line says.
pub(super) fn execute(command: &OfflineCommand, out: &mut dyn Write) -> Result<()> {
    match command {
        OfflineCommand::New(new) => new.run(out),
        OfflineCommand::Build(build) => build.run(out),
        OfflineCommand::Inspect(inspect) => inspect.run(out),
        OfflineCommand::Test(test) => test.run(out),
        OfflineCommand::Diff(diff) => diff.run(out),
    }
}

/// A line of the human output: what, and what of it.
fn field(out: &mut dyn Write, name: &str, value: impl std::fmt::Display) -> Result<()> {
    writeln!(out, "{name:<12} {value}")?;
    Ok(())
}

/// A size in bytes for people, in decimal units as everywhere here.
fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().si().to_string()
}

/// A time in microseconds for people.
fn time(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.2} ms", micros as f64 / 1e3),
        10_000..1_000_000 => format!("{:.0} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests;
