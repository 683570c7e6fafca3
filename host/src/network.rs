//! The networks, as data: what Bitcoin Core keeps in its `chainparams`.
//!
//! `rust-bitcoin` has parameters too, but its activation heights on regtest are not Core's, so the heights are here.

use std::cmp::Ordering;
use std::fmt;
use std::hash;
use std::str::FromStr;
use std::sync::LazyLock;

use bitcoin::block::Header;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::hex::FromHex;
use bitcoin::{BlockHash, Target, Work};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub mod chain_file;

/// Blocks between two retargets.
pub const RETARGET_INTERVAL: u32 = 2016;
/// Seconds that a retarget period should last: two weeks.
pub const TARGET_TIMESPAN: i64 = 14 * 24 * 60 * 60;
/// Seconds that a block should take.
pub const TARGET_SPACING: u32 = 10 * 60;
/// All the sat that can exist; no value and no sum of values may pass it.
pub const MAX_MONEY: u64 = 21_000_000 * 100_000_000;

/// A Bitcoin network: one that is built in, or one that a chain file describes. Two are the same when their names are.
#[derive(Clone, Copy, Debug)]
pub enum Network {
    /// The main network.
    Mainnet,
    /// The third public test network.
    Testnet3,
    /// The fourth public test network (BIP94).
    Testnet4,
    /// The default signet (BIP325).
    Signet,
    /// A local network for tests: every block meets its target after two tries.
    Regtest,
    /// What a chain file says.
    File(&'static Params),
}

impl Network {
    /// Every network that needs no chain file, in the order in which they are shown.
    pub const ALL: [Network; 5] = [
        Network::Mainnet,
        Network::Testnet3,
        Network::Testnet4,
        Network::Signet,
        Network::Regtest,
    ];

    /// The name used in configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Network::Mainnet => "mainnet",
            Network::Testnet3 => "testnet3",
            Network::Testnet4 => "testnet4",
            Network::Signet => "signet",
            Network::Regtest => "regtest",
            Network::File(params) => params.name,
        }
    }

    /// What the configuration calls it: the name, or the path of a chain file.
    pub const fn source(self) -> &'static str {
        match self {
            Network::File(params) => params.source,
            other => other.name(),
        }
    }

    /// The parameters of this network.
    pub fn params(self) -> &'static Params {
        Params::of(self)
    }

    /// The same network as `rust-bitcoin` names it, for addresses; for a chain file the network that it began as.
    pub fn to_bitcoin(self) -> bitcoin::Network {
        match self {
            Network::Mainnet => bitcoin::Network::Bitcoin,
            Network::Testnet3 => bitcoin::Network::Testnet,
            Network::Testnet4 => bitcoin::Network::Testnet4,
            Network::Signet => bitcoin::Network::Signet,
            Network::Regtest => bitcoin::Network::Regtest,
            Network::File(params) => params.base.to_bitcoin(),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for Network {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Network {}

impl hash::Hash for Network {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl PartialOrd for Network {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Network {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |network: &Self| {
            Network::ALL
                .iter()
                .position(|known| known == network)
                .unwrap_or(Network::ALL.len())
        };
        (rank(self), self.name()).cmp(&(rank(other), other.name()))
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.source())
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| match error {
            UnknownNetwork::Name(name) => serde::de::Error::unknown_variant(&name, &NAMES),
            error => serde::de::Error::custom(error),
        })
    }
}

/// The name is that of no network, or its chain file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownNetwork {
    /// No network has this name, and it is no path.
    #[error("unknown network {0:?}: expected {names} or the path of a chain file", names = NAMES.join(", "))]
    Name(String),
    /// What is wrong with a chain file.
    #[error("the chain file {path:?}: {problem}")]
    File {
        /// Where it is, or which of the built-in ones it is.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// What may be named without a path.
const NAMES: [&str; 8] = [
    "mainnet", "testnet3", "testnet4", "signet", "regtest", "bsv-main", "bsv-test", "bsv-stn",
];

impl FromStr for Network {
    type Err = UnknownNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Network::ALL
            .into_iter()
            .find(|network| network.name() == text)
        {
            Some(network) => Ok(network),
            None => chain_file::find(text).map(Network::File),
        }
    }
}

/// The parameters of one network.
#[derive(Clone, Debug)]
pub struct Params {
    /// What it is called.
    pub name: &'static str,
    /// What the configuration calls it: its name, or the path of its file.
    pub source: &'static str,
    /// The built-in network that it is, or that it began as.
    pub base: Network,
    /// The four bytes before every message, in wire order.
    pub magic: [u8; 4],
    /// The TCP port that peers listen on.
    pub default_port: u16,
    /// Names that resolve to addresses of peers.
    pub dns_seeds: &'static [&'static str],
    /// The genesis block, serialised.
    pub genesis_block: Vec<u8>,
    /// The header of the genesis block.
    pub genesis_header: Header,
    /// The hash of the genesis block.
    pub genesis_hash: BlockHash,
    /// The easiest target that a block may have.
    pub pow_limit: Target,
    /// `pow_limit` in compact form.
    pub pow_limit_bits: u32,
    /// The difficulty never changes (regtest).
    pub no_retargeting: bool,
    /// A block 20 minutes after its parent may have the easiest target (test networks).
    pub allow_min_difficulty: bool,
    /// Retargets start from the first bits of a period, and a period's first time is bounded below (BIP94).
    pub bip94: bool,
    /// First height whose coinbase must begin with its height (BIP34).
    pub bip34_height: u32,
    /// First height of OP_CHECKLOCKTIMEVERIFY and version 4 (BIP65).
    pub bip65_height: u32,
    /// First height of strict signatures and version 3 (BIP66).
    pub bip66_height: u32,
    /// First height of relative locktimes, and of median time past for locktimes (BIP68, 112, 113).
    pub csv_height: u32,
    /// First height of segregated witness (BIP141).
    pub segwit_height: u32,
    /// Blocks whose coinbase was allowed to repeat an earlier one that was still unspent (BIP30).
    pub bip30_exceptions: Vec<(u32, BlockHash)>,
    /// Blocks between two halvings of the subsidy.
    pub halving_interval: u32,
    /// The chain work below which a branch is not worth a download (Core's `nMinimumChainWork`).
    pub minimum_chain_work: Work,
    /// The human-readable part of segwit addresses.
    pub bech32_hrp: &'static str,
    /// Whether there is segregated witness at all; without it blocks are asked for and read without witnesses.
    pub segwit: bool,
    /// The most bytes of a block, each from a height on, rising; empty where the weight is the bound.
    pub max_block_sizes: Vec<(u32, u64)>,
    /// The last block before the emergency difficulty adjustment of August 2017.
    pub uahf_height: Option<u32>,
    /// The last block before the target follows the last 144 blocks.
    pub daa_height: Option<u32>,
    /// Blocks that the chain must have.
    pub pinned: Vec<(u32, BlockHash)>,
    /// Whether messages beyond 4 GB come with the extended header.
    pub extended_messages: bool,
    /// The longest message, blocks aside, that `protoconf` says we take; none is sent without it.
    pub protoconf: Option<u32>,
    /// The script that every block's solution must meet (BIP325).
    pub signet_challenge: Option<Vec<u8>>,
}

impl Params {
    /// The parameters of `network`.
    pub fn of(network: Network) -> &'static Params {
        static MAINNET: LazyLock<Params> = LazyLock::new(mainnet);
        static TESTNET3: LazyLock<Params> = LazyLock::new(testnet3);
        static TESTNET4: LazyLock<Params> = LazyLock::new(testnet4);
        static SIGNET: LazyLock<Params> = LazyLock::new(signet);
        static REGTEST: LazyLock<Params> = LazyLock::new(regtest);
        match network {
            Network::Mainnet => &MAINNET,
            Network::Testnet3 => &TESTNET3,
            Network::Testnet4 => &TESTNET4,
            Network::Signet => &SIGNET,
            Network::Regtest => &REGTEST,
            Network::File(params) => params,
        }
    }

    /// The network that this is about.
    pub fn network(&'static self) -> Network {
        match self.base {
            base if base.name() == self.name => base,
            _ => Network::File(self),
        }
    }

    /// The most bytes that the block at `height` may have; none where the weight is the bound.
    pub fn max_block_size(&self, height: u32) -> Option<u64> {
        self.max_block_sizes
            .iter()
            .rev()
            .find(|(from, _)| *from <= height)
            .map(|(_, bytes)| *bytes)
    }

    /// The most bytes that any block of the chain may have.
    pub fn largest_block(&self) -> u64 {
        let largest = self.max_block_sizes.iter().map(|(_, bytes)| *bytes).max();
        largest.unwrap_or(4_000_000)
    }

    /// Whether a block with this hash may stand at `height`.
    pub fn may_be(&self, height: u32, hash: &BlockHash) -> bool {
        self.pinned
            .iter()
            .all(|(at, pinned)| *at != height || pinned == hash)
    }

    /// What the coinbase of the block at `height` may create beside the fees, in sat.
    pub const fn subsidy(&self, height: u32) -> u64 {
        let halvings = height / self.halving_interval;
        if halvings >= 64 {
            0
        } else {
            (50 * 100_000_000) >> halvings
        }
    }

    /// Whether the block may repeat the txid of an unspent coinbase (BIP30).
    pub fn is_bip30_exception(&self, height: u32, hash: &BlockHash) -> bool {
        self.bip30_exceptions
            .iter()
            .any(|(at, block)| *at == height && block == hash)
    }

    /// What all networks share; the heights are those of a network that was born with everything active at 1.
    fn base(network: Network, pow_limit_bits: u32) -> Params {
        let genesis = genesis_block(network.to_bitcoin());
        Params {
            name: network.name(),
            source: network.name(),
            base: network,
            magic: network.to_bitcoin().magic().to_bytes(),
            default_port: 0,
            dns_seeds: &[],
            genesis_hash: genesis.block_hash(),
            genesis_header: genesis.header,
            genesis_block: bitcoin::consensus::serialize(&genesis),
            // The limit itself has more ones than its compact form can say. No target lies between the two, since
            // every target that a header can name is itself compact.
            pow_limit: Target::from_compact(bitcoin::CompactTarget::from_consensus(pow_limit_bits)),
            pow_limit_bits,
            no_retargeting: false,
            allow_min_difficulty: false,
            bip94: false,
            bip34_height: 1,
            bip65_height: 1,
            bip66_height: 1,
            csv_height: 1,
            segwit_height: 1,
            bip30_exceptions: Vec::new(),
            halving_interval: 210_000,
            minimum_chain_work: work(0, 0),
            bech32_hrp: "tb",
            segwit: true,
            max_block_sizes: Vec::new(),
            uahf_height: None,
            daa_height: None,
            pinned: Vec::new(),
            extended_messages: false,
            protoconf: None,
            signet_challenge: None,
        }
    }
}

/// The magic of a signet: what the hash of its challenge, as it would be pushed, begins with (BIP325).
pub(crate) fn signet_magic(challenge: &[u8]) -> [u8; 4] {
    let script = bitcoin::consensus::serialize(&challenge.to_vec());
    let [a, b, c, d, ..] = sha256d::Hash::hash(&script).to_byte_array();
    [a, b, c, d]
}

/// A chain work from its upper and lower 128 bits.
fn work(high: u128, low: u128) -> Work {
    let mut bytes = [0; 32];
    let (upper, lower) = bytes.split_at_mut(16);
    upper.copy_from_slice(&high.to_be_bytes());
    lower.copy_from_slice(&low.to_be_bytes());
    Work::from_be_bytes(bytes)
}

/// A block hash from its displayed bytes as two halves.
fn block_hash(high: u128, low: u128) -> BlockHash {
    let mut bytes = [0; 32];
    let (upper, lower) = bytes.split_at_mut(16);
    upper.copy_from_slice(&high.to_be_bytes());
    lower.copy_from_slice(&low.to_be_bytes());
    bytes.reverse();
    BlockHash::from_byte_array(bytes)
}

/// `1 <key> <key> 2 OP_CHECKMULTISIG`
const SIGNET_CHALLENGE: &str = "512103ad5e0edad18cb1f0fc0d28a3d4f1f3e445640337489abb10404f2d1e086be430\
    210359ef5021964fe22d6f8e05b2463c9540ce96883fe3b278760f048f5189f2e6c452ae";

fn mainnet() -> Params {
    Params {
        default_port: 8333,
        dns_seeds: &[
            "seed.bitcoin.sipa.be",
            "dnsseed.bluematt.me",
            "seed.bitcoin.jonasschnelli.ch",
            "seed.btc.petertodd.net",
            "seed.bitcoin.sprovoost.nl",
            "dnsseed.emzy.de",
            "seed.bitcoin.wiz.biz",
            "seed.mainnet.achownodes.xyz",
        ],
        bip34_height: 227_931,
        bip65_height: 388_381,
        bip66_height: 363_725,
        csv_height: 419_328,
        segwit_height: 481_824,
        bip30_exceptions: vec![
            (
                91_842,
                block_hash(
                    0x0000_0000_000a_4d0a_3981_61ff_c163_c503,
                    0x763b_1f43_6063_9393_e0e4_c8e3_00e0_caec,
                ),
            ),
            (
                91_880,
                block_hash(
                    0x0000_0000_0007_43f1_90a1_8c55_77a3_c2d2,
                    0xa1f6_10ae_9601_ac04_6a38_084c_cb7c_d721,
                ),
            ),
        ],
        // Height 886,157.
        minimum_chain_work: work(0, 0xb1f3_b93b_65b1_6d03_5a82_be84),
        bech32_hrp: "bc",
        ..Params::base(Network::Mainnet, 0x1d00_ffff)
    }
}

fn testnet3() -> Params {
    Params {
        default_port: 18_333,
        dns_seeds: &[
            "testnet-seed.bitcoin.jonasschnelli.ch",
            "seed.tbtc.petertodd.net",
            "seed.testnet.bitcoin.sprovoost.nl",
            "testnet-seed.bluematt.me",
            "seed.testnet.achownodes.xyz",
        ],
        allow_min_difficulty: true,
        bip34_height: 21_111,
        bip65_height: 581_885,
        bip66_height: 330_776,
        csv_height: 770_112,
        segwit_height: 834_624,
        minimum_chain_work: work(0, 0x15f5_e0c9_f134_55b0_eb17),
        ..Params::base(Network::Testnet3, 0x1d00_ffff)
    }
}

fn testnet4() -> Params {
    Params {
        default_port: 48_333,
        dns_seeds: &[
            "seed.testnet4.bitcoin.sprovoost.nl",
            "seed.testnet4.wiz.biz",
        ],
        allow_min_difficulty: true,
        bip94: true,
        // Height 123,613.
        minimum_chain_work: work(0, 0x09a0_fe15_d017_7d08_6304),
        ..Params::base(Network::Testnet4, 0x1d00_ffff)
    }
}

fn signet() -> Params {
    Params {
        default_port: 38_333,
        dns_seeds: &[
            "seed.signet.bitcoin.sprovoost.nl",
            "seed.signet.achownodes.xyz",
        ],
        // Height 293,175.
        minimum_chain_work: work(0, 0x0b46_3ea0_a4b8),
        // One of two keys (BIP325).
        signet_challenge: Some(Vec::from_hex(SIGNET_CHALLENGE).unwrap_or_default()),
        ..Params::base(Network::Signet, 0x1e03_77ae)
    }
}

fn regtest() -> Params {
    Params {
        default_port: 18_444,
        no_retargeting: true,
        allow_min_difficulty: true,
        segwit_height: 0,
        halving_interval: 150,
        bech32_hrp: "bcrt",
        ..Params::base(Network::Regtest, 0x207f_ffff)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn every_network_has_the_genesis_that_the_world_knows() {
        let known = [
            (
                Network::Mainnet,
                "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
            ),
            (
                Network::Testnet3,
                "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
            ),
            (
                Network::Testnet4,
                "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
            ),
            (
                Network::Signet,
                "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
            ),
            (
                Network::Regtest,
                "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
            ),
        ];
        for (network, hash) in known {
            let params = network.params();
            assert_eq!(params.genesis_hash.to_string(), hash);
            assert!(params.pow_limit.is_met_by(params.genesis_hash));
            assert_eq!(
                params.genesis_header.bits.to_consensus(),
                params.pow_limit_bits
            );
            assert_eq!(
                params.genesis_block.get(..80).unwrap(),
                bitcoin::consensus::serialize(&params.genesis_header)
            );
        }
    }

    #[test]
    fn a_network_is_named_in_lower_case_and_read_back() {
        for network in Network::ALL {
            assert_eq!(network.to_string().parse::<Network>().unwrap(), network);
            assert_eq!(
                serde_json::to_string(&network).unwrap(),
                format!("\"{network}\"")
            );
        }
        assert!(
            "Mainnet"
                .parse::<Network>()
                .unwrap_err()
                .to_string()
                .contains("expected mainnet")
        );
    }

    #[test]
    fn the_subsidy_halves_and_ends() {
        let mainnet = Params::of(Network::Mainnet);
        assert_eq!(mainnet.subsidy(0), 5_000_000_000);
        assert_eq!(mainnet.subsidy(209_999), 5_000_000_000);
        assert_eq!(mainnet.subsidy(210_000), 2_500_000_000);
        assert_eq!(mainnet.subsidy(840_000), 312_500_000);
        assert_eq!(mainnet.subsidy(u32::MAX), 0);
        assert_eq!(mainnet.subsidy(64 * 210_000), 0);
        // Core's own total (`validation_tests`, subsidy_limit_test), in steps of 1,000 blocks.
        let total: u64 = (0..14_000_000)
            .step_by(1000)
            .map(|height| mainnet.subsidy(height) * 1000)
            .sum();
        assert_eq!(total, 2_099_999_997_690_000);
        assert_eq!(Params::of(Network::Regtest).subsidy(150), 2_500_000_000);
    }

    #[test]
    fn the_bip30_pairs_are_known_by_height_and_hash() {
        let params = Params::of(Network::Mainnet);
        let first: BlockHash = "00000000000a4d0a398161ffc163c503763b1f4360639393e0e4c8e300e0caec"
            .parse()
            .unwrap();
        let second: BlockHash = "00000000000743f190a18c5577a3c2d2a1f610ae9601ac046a38084ccb7cd721"
            .parse()
            .unwrap();
        assert!(params.is_bip30_exception(91_842, &first));
        assert!(params.is_bip30_exception(91_880, &second));
        assert!(!params.is_bip30_exception(91_842, &second));
        assert!(!params.is_bip30_exception(91_880, &first));
    }
}
