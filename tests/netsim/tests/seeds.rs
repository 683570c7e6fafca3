//! Twenty networks; `cargo xtask soak` runs a thousand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use netsim::Simulation;

/// One test, because memory is counted for the whole process.
#[test]
fn the_host_ends_on_the_chain_with_the_most_work_in_bounded_memory_with_its_honest_peers_and_runs_repeat()
 {
    let mut failures = Vec::new();
    let mut first = None;
    let (mut incoming, mut compact, mut encrypted) = (Vec::new(), Vec::new(), Vec::new());
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
        compact.push(outcome.compact);
        encrypted.push(outcome.encrypted);
    }
    assert!(failures.is_empty(), "{failures:#?}");
    // In most, every place was taken and fought for, and honest peers were there before.
    let fought = incoming.iter().filter(|calls| calls.evicted > 100);
    let fought = fought.filter(|calls| calls.most == 32 && calls.refused > 100);
    assert!(fought.count() > 10);
    assert!(incoming.iter().map(|calls| calls.early).max() >= Some(8));
    // Blocks were put together of what the pool had, and some of what it should not have been.
    assert!(compact.iter().map(|compact| compact.blocks).sum::<u64>() > 100);
    assert!(compact.iter().map(|compact| compact.filled).sum::<u64>() > 200);
    assert!(compact.iter().map(|compact| compact.wrong).sum::<u64>() > 5);
    assert!(encrypted.iter().map(|v2| v2.outgoing).sum::<u64>() > 50);
    assert!(encrypted.iter().map(|v2| v2.incoming).sum::<u64>() > 50);
    assert!(encrypted.iter().map(|v2| v2.fallbacks).sum::<u64>() > 20);
    assert_eq!(Some(Simulation::new(1).run().trace), first);
}
