#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use super::*;
use crate::chain::fixtures::{REGTEST_BITS, mine_header};
use crate::chain::header_tree::{HeaderTree, Inserted};
use crate::network::Network;

/// A branch of which only what a rule asks for is real.
struct Made {
    parent_height: u32,
    bits: u32,
    first_bits: u32,
    first_time: u32,
    parent_time: u32,
    median: u32,
}

impl Default for Made {
    fn default() -> Self {
        Made {
            parent_height: 2015,
            bits: REGTEST_BITS,
            first_bits: REGTEST_BITS,
            first_time: 1_600_000_000,
            parent_time: 1_601_209_600,
            median: 1_601_000_000,
        }
    }
}

impl Ancestry for Made {
    fn parent_height(&self) -> u32 {
        self.parent_height
    }
    fn bits_at(&self, height: u32) -> u32 {
        if height == self.parent_height {
            self.bits
        } else {
            self.first_bits
        }
    }
    fn time_at(&self, height: u32) -> u32 {
        if height == self.parent_height {
            self.parent_time
        } else {
            self.first_time
        }
    }
    fn last_real_bits(&self, limit: u32) -> u32 {
        if self.bits == limit {
            self.first_bits
        } else {
            self.bits
        }
    }
    fn median_time_past(&self) -> u32 {
        self.median
    }
    fn median_time_at(&self, _: u32) -> u32 {
        self.median
    }
    fn work_at(&self, _: u32) -> Work {
        Target::MAX.to_work()
    }
}

fn regtest() -> HeaderTree {
    HeaderTree::new(Network::Regtest.params())
}

const NOW: u64 = 1_700_000_000;

#[test]
fn the_retargets_are_those_of_core() {
    let params = Network::Mainnet.params();
    for (parent_height, first_time, parent_time, bits, next) in [
        (
            32_255,
            1_261_130_161,
            1_262_152_739,
            0x1d00_ffff,
            0x1d00_d86a,
        ),
        (
            2_015,
            1_231_006_505,
            1_233_061_996,
            0x1d00_ffff,
            0x1d00_ffff,
        ),
        (
            68_543,
            1_279_008_237,
            1_279_297_671,
            0x1c05_a3f4,
            0x1c01_68fd,
        ),
        (
            46_367,
            1_263_163_443,
            1_269_211_443,
            0x1c38_7f6f,
            0x1d00_e1fd,
        ),
    ] {
        let branch = Made {
            parent_height,
            bits,
            first_bits: bits,
            first_time,
            parent_time,
            median: 0,
        };
        assert_eq!(
            next_bits(params, 0, &branch),
            next,
            "after height {parent_height}"
        );
    }
}

#[test]
fn a_period_that_ends_before_it_began_counts_as_the_shortest() {
    let params = Network::Mainnet.params();
    let backwards = retarget(params, 1_279_297_671, 1_279_008_237, 0x1c05_a3f4);
    assert_eq!(backwards, retarget(params, 0, 1, 0x1c05_a3f4));
    assert_eq!(backwards, 0x1c01_68fd);
}

#[test]
fn testnet4_starts_from_the_first_bits_of_the_period_and_testnet3_from_the_last() {
    let branch = Made {
        bits: 0x1d00_ffff,
        first_bits: 0x1c05_a3f4,
        first_time: 1_600_000_000,
        parent_time: 1_600_000_000 + 1_209_600,
        ..Made::default()
    };
    assert_eq!(
        next_bits(Network::Testnet4.params(), 0, &branch),
        0x1c05_a3f4
    );
    assert_eq!(
        next_bits(Network::Testnet3.params(), 0, &branch),
        0x1d00_ffff
    );
}

#[test]
fn after_twenty_minutes_a_test_network_takes_the_easiest_target_and_goes_back_after_it() {
    let params = Network::Testnet3.params();
    let branch = Made {
        parent_height: 100,
        bits: 0x1c05_a3f4,
        first_bits: 0x1c01_68fd,
        ..Made::default()
    };
    assert_eq!(
        next_bits(params, branch.parent_time + 1200, &branch),
        0x1c05_a3f4
    );
    assert_eq!(
        next_bits(params, branch.parent_time + 1201, &branch),
        0x1d00_ffff
    );
    let branch = Made {
        bits: 0x1d00_ffff,
        ..branch
    };
    assert_eq!(
        next_bits(params, branch.parent_time + 1200, &branch),
        0x1c01_68fd
    );
    assert_eq!(
        next_bits(
            Network::Mainnet.params(),
            branch.parent_time + 1201,
            &branch
        ),
        0x1d00_ffff
    );
}

#[test]
fn scaling_is_exact_for_the_easiest_targets_too() {
    // A signet target times four timespans needs more than 24 bits above its 234.
    let signet = Network::Signet.params();
    assert_eq!(retarget(signet, 0, u32::MAX, 0x1e03_77ae), 0x1e03_77ae);
    assert_eq!(retarget(signet, 0, 1_209_600, 0x1e03_77ae), 0x1e03_77ae);
    assert_eq!(retarget(signet, 0, 302_400, 0x1e03_77ae), 0x1e00_ddeb);
    let all_ones = Target::from_le_bytes([0xff; 32]);
    assert_eq!(scale(all_ones, 2, 1), all_ones);
    assert_eq!(scale(all_ones, 3, 3), all_ones);
    assert_eq!(scale(all_ones, 1, 2).to_le_bytes()[31], 0x7f);
}

#[test]
fn a_header_without_a_known_parent_is_refused() {
    let header = mine_header(&Network::Mainnet.params().genesis_header, |_| {});
    let error = regtest().insert(header, NOW).unwrap_err();
    assert_eq!(error, HeaderError::UnknownParent(header.prev_blockhash));
}

#[test]
fn a_header_on_an_invalid_branch_is_refused() {
    let mut tree = regtest();
    let bad = mine_header(&Network::Regtest.params().genesis_header, |_| {});
    let child = mine_header(&bad, |_| {});
    tree.insert(bad, NOW).unwrap();
    tree.mark_invalid(&bad.block_hash(), "a test says so");
    assert_eq!(
        tree.insert(child, NOW),
        Err(HeaderError::InvalidBranch(bad.block_hash()))
    );
    assert_eq!(
        tree.insert(bad, NOW),
        Err(HeaderError::InvalidBranch(bad.block_hash()))
    );
}

#[test]
fn a_header_with_other_bits_is_refused() {
    let genesis = Network::Regtest.params().genesis_header;
    for bits in [0x207f_fffe, 0x1d00_ffff, 0, 0xff7f_ffff, 0x20ff_ffff] {
        let mut header = mine_header(&genesis, |_| {});
        header.bits = CompactTarget::from_consensus(bits);
        let error = regtest().insert(header, NOW).unwrap_err();
        assert_eq!(
            error,
            HeaderError::BadBits {
                got: bits,
                expected: REGTEST_BITS
            }
        );
    }
}

#[test]
fn a_header_above_its_target_is_refused() {
    let mut header = mine_header(&Network::Regtest.params().genesis_header, |_| {});
    while header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    assert_eq!(
        regtest().insert(header, NOW),
        Err(HeaderError::BadProofOfWork(header.block_hash()))
    );
}

#[test]
fn a_header_at_the_median_time_past_is_refused_and_one_second_later_is_not() {
    let mut tree = regtest();
    let mut parent = Network::Regtest.params().genesis_header;
    for _ in 0..12 {
        parent = mine_header(&parent, |_| {});
        tree.insert(parent, NOW).unwrap();
    }
    // Five headers of ten minutes lie between the tip and the middle of eleven.
    let median = parent.time - 5 * 600;
    assert_eq!(tree.median_time(&parent.block_hash()), Some(median));
    let header = mine_header(&parent, |header| header.time = median);
    assert_eq!(
        tree.insert(header, NOW),
        Err(HeaderError::TooOld {
            time: median,
            median
        })
    );
    let header = mine_header(&parent, |header| header.time = median + 1);
    assert_eq!(tree.insert(header, NOW), Ok(Inserted::New));
}

#[test]
fn a_header_more_than_two_hours_ahead_is_refused_until_its_time_comes() {
    let mut tree = regtest();
    let header = mine_header(&Network::Regtest.params().genesis_header, |header| {
        header.time = NOW as u32 + 7200
    });
    let early = NOW - 1;
    assert_eq!(
        tree.insert(header, early),
        Err(HeaderError::TooNew {
            time: header.time,
            now: early
        })
    );
    assert_eq!(tree.insert(header, NOW), Ok(Inserted::New));
}

#[test]
fn a_header_of_an_old_version_is_refused_from_the_height_on_that_asks_for_more() {
    let genesis = Network::Regtest.params().genesis_header;
    for version in [-1, 0, 1, 2, 3] {
        let header = mine_header(&genesis, |header| {
            header.version = bitcoin::block::Version::from_consensus(version)
        });
        assert_eq!(
            regtest().insert(header, NOW),
            Err(HeaderError::OldVersion { version, height: 1 })
        );
    }
    let header = mine_header(&genesis, |header| {
        header.version = bitcoin::block::Version::from_consensus(4)
    });
    assert_eq!(regtest().insert(header, NOW), Ok(Inserted::New));

    let params = Params {
        bip34_height: 10,
        bip66_height: 20,
        bip65_height: 30,
        ..Network::Regtest.params().clone()
    };
    for (height, version, refused) in [
        (9, 1, false),
        (10, 1, true),
        (19, 2, false),
        (20, 2, true),
        (29, 3, false),
        (30, 3, true),
        (30, 4, false),
    ] {
        let branch = Made {
            parent_height: height - 1,
            ..Made::default()
        };
        let header = mine_header(&genesis, |header| {
            header.version = bitcoin::block::Version::from_consensus(version);
            header.time = branch.median + 1;
        });
        let result = check_header(&params, &header, header.block_hash(), &branch, NOW);
        let expected = if refused {
            Err(HeaderError::OldVersion { version, height })
        } else {
            Ok(())
        };
        assert_eq!(result, expected);
    }
}

#[test]
fn the_first_header_of_a_period_may_not_go_back_more_than_ten_minutes_where_bip94_holds() {
    let params = Params {
        bip94: true,
        ..Network::Regtest.params().clone()
    };
    let check = |params: &Params, parent_height, back: u32| {
        let branch = Made {
            parent_height,
            ..Made::default()
        };
        let header = mine_header(&params.genesis_header, |header| {
            header.time = branch.parent_time - back
        });
        check_header(params, &header, header.block_hash(), &branch, NOW)
    };
    let parent = Made::default().parent_time;
    assert_eq!(
        check(&params, 2015, 601),
        Err(HeaderError::TimeWarp {
            time: parent - 601,
            parent
        })
    );
    assert_eq!(check(&params, 2015, 600), Ok(()));
    assert_eq!(check(&params, 2014, 601), Ok(()));
    assert_eq!(check(Network::Regtest.params(), 2015, 601), Ok(()));
}

#[test]
fn a_full_tree_refuses_more() {
    let mut tree = regtest();
    tree.set_max_headers(2);
    let first = mine_header(&Network::Regtest.params().genesis_header, |_| {});
    let second = mine_header(&first, |_| {});
    assert_eq!(tree.insert(first, NOW), Ok(Inserted::New));
    assert_eq!(tree.insert(second, NOW), Err(HeaderError::TreeFull));
    assert_eq!(tree.insert(first, NOW), Ok(Inserted::Known));
}
