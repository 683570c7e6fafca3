//! The coin sets that Bitcoin Core itself is told of (`m_assumeutxo_data` in its chain parameters), by block.

use crate::network::Network;

/// A coin set of which the hash is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownSet {
    /// The chain.
    pub network: Network,
    /// Height of the last block in it.
    pub height: u32,
    /// Hash of that block, as displayed.
    pub block: &'static str,
    /// `hash_serialized_3` of the coins, as displayed.
    pub hash_serialized_3: &'static str,
}

const fn set(
    network: Network,
    height: u32,
    block: &'static str,
    hash_serialized_3: &'static str,
) -> KnownSet {
    KnownSet {
        network,
        height,
        block,
        hash_serialized_3,
    }
}

/// All of them.
pub const KNOWN: [KnownSet; 8] = [
    set(
        Network::Mainnet,
        840_000,
        "0000000000000000000320283a032748cef8227873ff4872689bf23f1cda83a5",
        "a2a5521b1b5ab65f67818e5e8eccabb7171a517f9e2382208f77687310768f96",
    ),
    set(
        Network::Mainnet,
        880_000,
        "000000000000000000010b17283c3c400507969a9c2afd1dcf2082ec5cca2880",
        "dbd190983eaf433ef7c15f78a278ae42c00ef52e0fd2a54953782175fbadcea9",
    ),
    set(
        Network::Mainnet,
        910_000,
        "0000000000000000000108970acb9522ffd516eae17acddcb1bd16469194a821",
        "4daf8a17b4902498c5787966a2b51c613acdab5df5db73f196fa59a4da2f1568",
    ),
    set(
        Network::Testnet3,
        2_500_000,
        "0000000000000093bcb68c03a9a168ae252572d348a2eaeba2cdf9231d73206f",
        "f841584909f68e47897952345234e37fcd9128cd818f41ee6c3ca68db8071be7",
    ),
    set(
        Network::Testnet4,
        90_000,
        "0000000002ebe8bcda020e0dd6ccfbdfac531d2f6a81457191b99fc2df2dbe3b",
        "784fb5e98241de66fdd429f4392155c9e7db5c017148e66e8fdbc95746f8b9b5",
    ),
    set(
        Network::Testnet4,
        120_000,
        "000000000bd2317e51b3c5794981c35ba894ce27d3e772d5c39ecd9cbce01dc8",
        "10b05d05ad468d0971162e1b222a4aa66caca89da2bb2a93f8f37fb29c4794b0",
    ),
    set(
        Network::Signet,
        160_000,
        "0000003ca3c99aff040f2563c2ad8f8ec88bd0fd6b8f0895cfaf1ef90353a62c",
        "fe0a44309b74d6b5883d246cb419c6221bcccf0b308c9b59b7d70783dbdf928a",
    ),
    set(
        Network::Signet,
        290_000,
        "0000000577f2741bb30cd9d39d6d71b023afbeb9764f6260786a97969d5c9ac0",
        "97267e000b4b876800167e71b9123f1529d13b14308abec2888bbd2160d14545",
    ),
];

/// What is known of the coins at a height of a network.
pub fn at(network: Network, height: u32) -> Option<&'static KnownSet> {
    KNOWN
        .iter()
        .find(|set| set.network == network && set.height == height)
}
