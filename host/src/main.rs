//! The `blockmill` program.

use blockmill::cli::{self, Hooks};
use blockmill::node;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(Hooks {
        run: node::run,
        check: node::check,
        txoutset_offline: node::txoutset_offline,
    })
}
