#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use super::*;

#[test]
fn the_built_in_files_are_the_bitcoin_sv_chains() {
    for (name, magic, port, genesis, uahf, daa) in [
        (
            "bsv-main",
            [0xe3, 0xe1, 0xf3, 0xe8],
            8_333,
            Network::Mainnet,
            478_558,
            504_031,
        ),
        (
            "bsv-test",
            [0xf4, 0xe5, 0xf3, 0xf4],
            18_333,
            Network::Testnet3,
            1_155_875,
            1_188_697,
        ),
        (
            "bsv-stn",
            [0xfb, 0xce, 0xc4, 0xf9],
            9_333,
            Network::Testnet3,
            15,
            2_200,
        ),
    ] {
        let network: Network = name.parse().unwrap();
        let params = network.params();
        assert_eq!(network.name(), name);
        assert_eq!(serde_json::to_value(network).unwrap(), name);
        assert_eq!((params.magic, params.default_port), (magic, port));
        assert_eq!(params.genesis_hash, genesis.params().genesis_hash);
        assert_eq!(
            (params.uahf_height, params.daa_height),
            (Some(uahf), Some(daa))
        );
        assert!(!params.segwit && params.extended_messages);
        assert_eq!(params.segwit_height, u32::MAX);
        assert_eq!(params.protoconf, Some(1_048_576));
        assert_eq!(params.largest_block(), u64::from(u32::MAX));
        assert!(!params.pinned.is_empty());
        assert_eq!(params.network(), network);
        // Read twice, it is the same one.
        assert!(std::ptr::eq(
            params,
            name.parse::<Network>().unwrap().params()
        ));
    }
    let main = "bsv-main".parse::<Network>().unwrap().params();
    for (height, limit) in [
        (0, 1_000_000),
        (478_558, 1_000_000),
        (478_559, 8_000_000),
        (556_766, 32_000_000),
        (900_000, 4_294_967_295),
    ] {
        assert_eq!(main.max_block_size(height), Some(limit));
    }
    let cash: BlockHash = "0000000000000000004626ff6e3b936941d341c5932ece4357eeccac44e6d56c"
        .parse()
        .unwrap();
    assert!(!main.may_be(556_767, &cash) && main.may_be(556_766, &cash));
}

#[test]
fn a_path_names_a_file_and_the_file_names_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    std::fs::write(
        &path,
        "name = \"mine\"\nbase = \"regtest\"\nmagic = \"01020304\"\nsegwit = false\nmax_block_size = [{from = 0, bytes = 2000000000}]",
    )
    .unwrap();
    let text = path.to_str().unwrap();
    let network: Network = text.parse().unwrap();
    assert_eq!((network.name(), network.source()), ("mine", text));
    assert_eq!(serde_json::to_value(network).unwrap(), text);
    assert_eq!(network.to_bitcoin(), bitcoin::Network::Regtest);
    assert!(network.params().no_retargeting);
    assert_ne!(network, Network::Regtest);
    // From then on its name is enough.
    assert_eq!("mine".parse::<Network>().unwrap(), network);

    let missing = folder.path().join("gone.toml");
    let why = missing.to_str().unwrap().parse::<Network>().unwrap_err();
    assert!(why.to_string().contains("cannot be read"), "{why}");
}

#[test]
fn a_signet_of_ones_own_has_the_magic_of_its_challenge() {
    let own = parse(
        "name = \"own\"\nbase = \"signet\"\nsignet_challenge = \"51\"",
        "own.toml",
    )
    .unwrap();
    // The first bytes of sha256d of 01 51.
    assert_eq!(own.magic, signet_magic(&[0x51]));
    assert_eq!(own.signet_challenge.as_deref(), Some([0x51].as_slice()));
    assert!(own.dns_seeds.is_empty());
    assert_eq!(own.minimum_chain_work, super::super::work(0, 0));
    // The default signet's own magic comes out of its challenge.
    let signet = Network::Signet.params();
    assert_eq!(
        signet_magic(signet.signet_challenge.as_ref().unwrap()),
        signet.magic
    );
    assert_eq!(signet.magic, [0x0a, 0x03, 0xcf, 0x40]);
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let good = "name = \"x\"\nbase = \"mainnet\"\n";
    assert!(parse(good, "x.toml").is_ok());
    for (text, said) in [
        ("base = \"mainnet\"", "missing field `name`"),
        ("name = \"x\"", "missing field `base`"),
        (
            "name = \"x\"\nbase = \"mainnet\"\nprot = 1",
            "line 3: unknown field `prot`",
        ),
        ("name = \"X y\"\nbase = \"mainnet\"", "small letters"),
        (
            "name = \"signet\"\nbase = \"mainnet\"",
            "is a chain that is built in",
        ),
        (
            "name = \"bsv-main\"\nbase = \"mainnet\"",
            "is a chain that is built in",
        ),
        ("name = \"x\"\nbase = \"litecoin\"", "key `base`"),
        (&format!("{good}magic = \"e3e1f3\""), "is not four bytes"),
        (&format!("{good}magic = \"zz\""), "is not hexadecimal"),
        (&format!("{good}port = 0"), "key `port`"),
        (&format!("{good}port = 70000"), "line 3"),
        (&format!("{good}dns_seeds = [\"a b\"]"), "is no host name"),
        (
            &format!("{good}minimum_chain_work = \"x\""),
            "no hexadecimal number",
        ),
        (&format!("{good}bech32_hrp = \"\""), "key `bech32_hrp`"),
        (&format!("{good}segwit = false"), "needs it"),
        (
            &format!("{good}max_block_size = [{{from = 0, bytes = 5000}}]"),
            "the weight bounds",
        ),
        (
            &format!("{good}segwit = false\nmax_block_size = [{{from = 1, bytes = 5000}}]"),
            "must be `from = 0`",
        ),
        (
            &format!(
                "{good}segwit = false\nmax_block_size = [{{from = 0, bytes = 5000}}, {{from = 0, bytes = 6000}}]"
            ),
            "must rise",
        ),
        (
            &format!("{good}segwit = false\nmax_block_size = [{{from = 0, bytes = 5}}]"),
            "give 1000 to",
        ),
        (
            &format!(
                "{good}segwit = false\nsegwit_height = 5\nmax_block_size = [{{from = 0, bytes = 5000}}]"
            ),
            "key `segwit_height`",
        ),
        (
            &format!("{good}halving_interval = 0"),
            "key `halving_interval`",
        ),
        (&format!("{good}daa_height = 5"), "give 2016 or more"),
        (
            &format!("{good}uahf_height = 5000\ndaa_height = 4000"),
            "before `uahf_height`",
        ),
        (
            &format!("{good}pinned = [{{height = 1, hash = \"00\"}}]"),
            "is no block hash",
        ),
        (&format!("{good}protoconf = 5"), "1048576"),
        (
            &format!("{good}signet_challenge = \"51\""),
            "base = \"signet\"",
        ),
        (
            "name = \"x\"\nbase = \"signet\"\nsignet_challenge = \"\"",
            "1 to 10,000 bytes",
        ),
        (
            "name = \"x\"\nbase = \"signet\"\nsignet_challenge = \"51\"\nmagic = \"00000000\"",
            "hash of its challenge",
        ),
    ] {
        let why = parse(text, "x.toml").unwrap_err();
        assert!(why.contains(said), "{text}: {why}");
    }
    let why = "nowhere".parse::<Network>().unwrap_err().to_string();
    assert!(why.contains("bsv-stn or the path of a chain file"), "{why}");
}
