#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use std::time::Instant;

use super::*;
use crate::chain::fixtures::{self, mine_header};
use crate::network::Network;

const NOW: u64 = 1_700_000_000;

fn branch(tree: &mut HeaderTree, parent: &Header, count: u32, salt: u32) -> Vec<Header> {
    let mut headers: Vec<Header> = Vec::new();
    for _ in 0..count {
        let parent = headers.last().unwrap_or(parent);
        let header = mine_header(parent, |header| header.time = parent.time + 600 + salt);
        tree.insert(header, NOW).unwrap();
        headers.push(header);
    }
    headers
}

fn regtest() -> (HeaderTree, Header) {
    let params = Network::Regtest.params();
    (HeaderTree::new(params), params.genesis_header)
}

fn check_file(name: &str, network: Network, count: usize) {
    let Some(headers) = fixtures::headers(name) else {
        return;
    };
    assert_eq!(headers.len(), count);
    let started = Instant::now();
    let tree = HeaderTree::load(network.params(), headers.iter().copied()).unwrap();
    println!("{name}: {count} headers in {:?}", started.elapsed());
    assert_eq!(tree.len(), count);
    let last = headers.last().unwrap();
    assert_eq!(tree.best_header(), (count as u32 - 1, last.block_hash()));
    for (height, header) in headers.iter().enumerate() {
        let hash = header.block_hash();
        assert_eq!(tree.best_hash_at(height as u32), Some(hash));
        assert_eq!(tree.header(&hash), Some(*header));
    }
    // Any change is noticed, wherever it is.
    for height in [1, count / 2, count - 1] {
        let mut headers = headers.clone();
        headers[height].time ^= 1;
        let error = HeaderTree::load(network.params(), headers).unwrap_err();
        assert_eq!(error.index, height);
    }
}

#[test]
fn the_headers_of_mainnet_are_accepted() {
    check_file("headers/mainnet-0-10236.bin", Network::Mainnet, 10_237);
}

#[test]
fn the_headers_of_testnet3_are_accepted() {
    check_file("headers/testnet3-0-35141.bin", Network::Testnet3, 35_142);
}

#[test]
fn the_headers_of_signet_are_accepted() {
    check_file("headers/signet.bin", Network::Signet, 2_016);
}

#[test]
fn a_header_takes_no_more_memory_than_the_page_says() {
    assert_eq!(size_of::<Node>(), 128);
}

#[test]
fn work_adds_up() {
    let (mut tree, genesis) = regtest();
    let headers = branch(&mut tree, &genesis, 20, 0);
    let expected = headers
        .iter()
        .fold(genesis.work(), |work, header| work + header.work());
    assert_eq!(tree.chain_work(&headers[19].block_hash()), Some(expected));
    assert_eq!(tree.best_work(), expected);
}

#[test]
fn ancestors_are_found_on_every_branch() {
    let (mut tree, genesis) = regtest();
    let main = branch(&mut tree, &genesis, 300, 0);
    let side = branch(&mut tree, &main[99], 150, 1);
    for (tip, expected) in [
        (&main[299], &main),
        (&side[149], &[&main[..100], &side[..]].concat()),
    ] {
        let id = tree.id(&tip.block_hash()).unwrap();
        for (index, header) in expected.iter().enumerate() {
            let ancestor = tree.ancestor(id, index as u32 + 1).unwrap();
            assert_eq!(tree.node(ancestor).hash, header.block_hash());
            assert!(tree.is_ancestor(ancestor, id));
        }
        assert_eq!(tree.ancestor(id, 0), Some(Id::GENESIS));
        assert_eq!(tree.ancestor(id, 301), None);
    }
    let (on_main, on_side) = (main[150].block_hash(), side[149].block_hash());
    assert!(!tree.is_ancestor(tree.id(&on_main).unwrap(), tree.id(&on_side).unwrap()));
}

#[test]
fn a_locator_goes_back_in_doubling_steps_to_the_genesis() {
    let (mut tree, genesis) = regtest();
    let headers = branch(&mut tree, &genesis, 500, 0);
    let locator = tree.locator(None);
    let heights: Vec<u32> = locator
        .iter()
        .map(|hash| tree.height_of(hash).unwrap())
        .collect();
    assert_eq!(
        heights,
        [
            500, 499, 498, 497, 496, 495, 494, 493, 492, 491, 489, 485, 477, 461, 429, 365, 237, 0
        ]
    );
    assert_eq!(
        tree.locator(Some(&headers[0].block_hash())),
        [headers[0].block_hash(), genesis.block_hash()]
    );
    assert_eq!(
        HeaderTree::new(Network::Regtest.params()).locator(None),
        [genesis.block_hash()]
    );
}

#[test]
fn the_active_chain_is_the_heaviest_of_those_whose_blocks_are_all_here() {
    let (mut tree, genesis) = regtest();
    let short = branch(&mut tree, &genesis, 3, 0);
    let long = branch(&mut tree, &genesis, 5, 1);
    assert_eq!(tree.best_header(), (5, long[4].block_hash()));
    assert_eq!(tree.tip(), (0, genesis.block_hash()));

    // Out of order: nothing moves until the gap closes.
    assert_eq!(tree.mark_checked(&short[1].block_hash()), None);
    assert_eq!(tree.mark_checked(&short[2].block_hash()), None);
    let change = tree.mark_checked(&short[0].block_hash()).unwrap();
    assert_eq!(
        change,
        TipChange {
            fork_height: 0,
            height: 3,
            hash: short[2].block_hash()
        }
    );
    assert_eq!(tree.mark_checked(&short[0].block_hash()), None);

    // As heavy as the active chain is not enough.
    for header in &long[..3] {
        assert_eq!(tree.mark_checked(&header.block_hash()), None);
    }
    let change = tree.mark_checked(&long[3].block_hash()).unwrap();
    assert_eq!(
        change,
        TipChange {
            fork_height: 0,
            height: 4,
            hash: long[3].block_hash()
        }
    );
    assert_eq!(tree.hash_at(2), Some(long[1].block_hash()));
    assert_eq!(tree.hash_at(5), None);
    assert!(tree.is_active(&long[1].block_hash()));
    assert!(!tree.is_active(&short[1].block_hash()));
    assert_eq!(
        tree.fork_point(&short[2].block_hash()),
        Some((0, genesis.block_hash()))
    );
}

#[test]
fn a_condemned_block_takes_its_descendants_with_it_and_the_next_best_is_chosen() {
    let (mut tree, genesis) = regtest();
    let trunk = branch(&mut tree, &genesis, 2, 0);
    let long = branch(&mut tree, &trunk[1], 4, 0);
    let short = branch(&mut tree, &trunk[1], 2, 1);
    for header in trunk.iter().chain(&long).chain(&short) {
        tree.mark_checked(&header.block_hash());
    }
    assert_eq!(tree.tip(), (6, long[3].block_hash()));

    let change = tree
        .mark_invalid(&long[1].block_hash(), "too good to be true")
        .unwrap();
    assert_eq!(
        change,
        TipChange {
            fork_height: 2,
            height: 4,
            hash: short[1].block_hash()
        }
    );
    assert_eq!(tree.best_header(), (4, short[1].block_hash()));
    for header in &long[1..] {
        assert_eq!(
            tree.invalid_reason(&header.block_hash()).as_deref(),
            Some("too good to be true")
        );
        assert_eq!(tree.mark_checked(&header.block_hash()), None);
    }
    assert_eq!(tree.invalid_reason(&long[0].block_hash()), None);

    // The equal that was there first comes back when the other goes.
    let change = tree.mark_invalid(&short[0].block_hash(), "no").unwrap();
    assert_eq!(
        change,
        TipChange {
            fork_height: 2,
            height: 3,
            hash: long[0].block_hash()
        }
    );
    assert_eq!(tree.mark_invalid(&genesis.block_hash(), "never"), None);
}

#[test]
fn a_checked_block_that_waits_is_not_revived_on_a_condemned_branch() {
    let (mut tree, genesis) = regtest();
    let headers = branch(&mut tree, &genesis, 4, 0);
    tree.mark_checked(&headers[2].block_hash());
    tree.mark_checked(&headers[3].block_hash());
    tree.mark_invalid(&headers[2].block_hash(), "no");
    tree.mark_checked(&headers[0].block_hash());
    let change = tree.mark_checked(&headers[1].block_hash()).unwrap();
    assert_eq!(change.height, 2);
    assert_eq!(tree.tip().0, 2);
}

#[test]
fn what_was_checked_before_is_taken_over_at_once_and_what_is_lost_is_missing() {
    let (mut tree, genesis) = regtest();
    let headers = branch(&mut tree, &genesis, 10, 0);
    let change = tree.mark_checked_through(&headers[7].block_hash()).unwrap();
    assert_eq!(
        change,
        TipChange {
            fork_height: 0,
            height: 8,
            hash: headers[7].block_hash()
        }
    );

    let change = tree.mark_missing(&headers[4].block_hash()).unwrap();
    assert_eq!(
        change,
        TipChange {
            fork_height: 4,
            height: 4,
            hash: headers[3].block_hash()
        }
    );
    // Those above are still there: one block closes the gap.
    let change = tree.mark_checked(&headers[4].block_hash()).unwrap();
    assert_eq!(
        change,
        TipChange {
            fork_height: 4,
            height: 8,
            hash: headers[7].block_hash()
        }
    );
}

#[test]
fn many_headers_load_fast_enough() {
    // Mainnet's own, over and over on regtest rules would not do: mine cheap ones.
    let params = Network::Regtest.params();
    let mut headers = vec![params.genesis_header];
    for _ in 0..50_000 {
        let header = mine_header(headers.last().unwrap(), |_| {});
        headers.push(header);
    }
    let started = Instant::now();
    let tree = HeaderTree::load(params, headers.iter().copied()).unwrap();
    let took = started.elapsed();
    println!("50,000 headers in {took:?}: {:?} for 900,000", took * 18);
    assert_eq!(tree.best_header().0, 50_000);
}
