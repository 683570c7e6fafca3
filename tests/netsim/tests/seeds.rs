//! Twenty networks; `cargo xtask soak` runs a thousand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use netsim::Simulation;

/// One test, because memory is counted for the whole process.
#[test]
fn the_host_ends_on_the_chain_with_the_most_work_in_bounded_memory_with_its_honest_peers_and_runs_repeat()
 {
    let mut failures = Vec::new();
    let mut first = None;
    let mut incoming = Vec::new();
    for seed in 1..=20 {
        let outcome = Simulation::new(seed).run();
        failures.extend(
            outcome
                .failures
                .iter()
                .map(|failure| format!("seed {seed}: {failure}")),
        );
        first.get_or_insert(outcome.trace);
        incoming.push(outcome.incoming);
    }
    assert!(failures.is_empty(), "{failures:#?}");
    // Every place was taken, and fought for; and some honest peers were there before.
    assert!(incoming.iter().all(|calls| calls.most == 32));
    assert!(
        incoming
            .iter()
            .all(|calls| calls.evicted > 100 && calls.refused > 100)
    );
    assert!(incoming.iter().map(|calls| calls.early).max() >= Some(8));
    assert_eq!(Some(Simulation::new(1).run().trace), first);
}
