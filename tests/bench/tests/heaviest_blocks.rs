//! No block that the rules allow breaks a default budget of one of our plugins.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use blockmill::network::Network;
use blockmill::plugin::Budget;
use blockmill_bench::budgets::{compiled, give, heaviest, real};
use blockmill_bench::lane::Bench;
use std::path::Path;

#[test]
fn the_heaviest_blocks_leave_half_of_every_budget() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = xtask::workspace::target(&root).canonicalize().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::new(folder.path(), Network::Mainnet).unwrap();
    let plugins = compiled(&bench, &target).expect("the plugins: cargo xtask build");
    let cases = real(&target).unwrap().into_iter().chain(heaviest());
    for case in cases {
        for used in give(&bench, &plugins, &case, 1).unwrap() {
            for (budget, percent) in used.percent {
                // Time is this machine's, and of a build that may not be optimised.
                let most = if budget == Budget::BlockTime {
                    100.0
                } else {
                    50.0
                };
                assert!(
                    percent < most,
                    "{}: {} takes {percent:.1} % of {}",
                    case.name,
                    used.plugin,
                    budget.key()
                );
            }
        }
    }
}
