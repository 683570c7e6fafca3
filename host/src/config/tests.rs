#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use super::*;

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/blockmill.toml");

/// Loads with a file of this text, this environment and these flags.
fn load(
    text: &str,
    environment: &[(&str, &str)],
    overrides: &Overrides,
) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.toml");
    std::fs::write(&file, text).unwrap();
    let environment = environment
        .iter()
        .map(|(key, value)| (OsString::from(key), OsString::from(value)));
    Config::from_sources(Some(&file), environment, overrides)
}

fn from_file(text: &str) -> Result<Config, ConfigError> {
    load(text, &[], &Overrides::new())
}

fn from_environment(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    load("", variables, &Overrides::new())
}

fn json(config: &Config) -> serde_json::Value {
    serde_json::to_value(config).unwrap()
}

#[test]
fn the_shipped_file_holds_the_defaults_and_the_three_plugins() {
    let mut shipped =
        Config::from_sources(Some(Path::new(SHIPPED)), [], &Overrides::new()).unwrap();
    let plugins = ["fee-estimator", "tx-writer", "utxo-tracker"];
    // The others are off; that their settings are their defaults is for them to say.
    for (name, plugin) in &mut shipped.plugin {
        assert_eq!(plugin.enabled, plugins.contains(&name.as_str()), "{name}");
        assert_eq!(plugin.file, Some(PathBuf::from(format!("{name}.wasm"))));
    }
    shipped.plugin.retain(|_, plugin| plugin.enabled);
    let mut expected = Config::default();
    for name in plugins {
        let file = Some(PathBuf::from(format!("{name}.wasm")));
        expected.plugin.insert(
            name.to_owned(),
            Plugin {
                file,
                ..Plugin::default()
            },
        );
    }
    assert_eq!(json(&shipped), json(&expected));
}

#[test]
fn the_shipped_file_has_every_key() {
    let shipped: toml::Table = std::fs::read_to_string(SHIPPED).unwrap().parse().unwrap();
    let template = template();
    for (section, value) in template.as_object().unwrap() {
        if section == layer::PLUGIN {
            continue;
        }
        let found = shipped
            .get(section)
            .unwrap_or_else(|| panic!("{section} is missing"));
        for key in value.as_object().into_iter().flat_map(|keys| keys.keys()) {
            assert!(found.get(key).is_some(), "{section}.{key} is missing");
        }
    }
    // those of a single plugin are in the list of the comment
    let text = std::fs::read_to_string(SHIPPED).unwrap();
    for key in keys_of(&template[layer::PLUGIN], "NAME") {
        let described = text
            .lines()
            .any(|line| line.starts_with(&format!("#   {key} ")));
        assert!(described, "plugins.NAME.{key} is not described");
    }
}

#[test]
fn each_layer_overrides_the_one_before() {
    let file = "network = \"signet\"\n[peers]\nmax_outbound = 3\nping_interval = \"3m\"\nconnect = [\"a\"]";
    let environment = [
        ("BLOCKMILL_NETWORK", "testnet4"),
        ("BLOCKMILL_PEERS__MAX_OUTBOUND", "4"),
        ("BLOCKMILL_PEERS__CONNECT", "b:1, c:2"),
        ("OTHER", "x"),
    ];
    let flags = Overrides::new().set("--network", "network", "regtest").set(
        "--connect",
        "peers.connect",
        vec!["d:3"],
    );

    let config = load(file, &[], &Overrides::new()).unwrap();
    assert_eq!(config.network, Network::Signet);
    assert_eq!(config.peer_addresses(), [("a".to_owned(), 38333)]);

    let config = load(file, &environment, &Overrides::new()).unwrap();
    assert_eq!(
        (config.network, config.peers.max_outbound),
        (Network::Testnet4, 4)
    );
    assert_eq!(config.peers.connect, ["b:1", "c:2"]);

    let config = load(file, &environment, &flags).unwrap();
    assert_eq!(
        (config.network, config.peers.max_outbound),
        (Network::Regtest, 4)
    );
    assert_eq!(config.peers.connect, ["d:3"]);
    assert_eq!(config.peers.ping_interval, Duration::from_secs(180));
    assert_eq!(
        config.peers.silence_timeout,
        Peers::default().silence_timeout
    );

    assert_eq!(
        config.origin("network"),
        Origin::Flag("--network".to_owned())
    );
    assert_eq!(
        config.origin("peers.max_outbound"),
        Origin::Environment("BLOCKMILL_PEERS__MAX_OUTBOUND".to_owned())
    );
    assert!(matches!(
        config.origin("peers.ping_interval"),
        Origin::File(_)
    ));
    assert_eq!(config.origin("mempool.expiry"), Origin::Default);
}

#[test]
fn values_are_read_with_their_units() {
    let config = from_file(
        "[chain]\nkeep_blocks = \"10 GB\"\nminimum_work = \"0x0100\"\ncheck_start = \"full\"\n[database]\n\
         state_cache = \"16 MiB\"\n[peers]\nstall_timeout_max = \"1m 30s\"\n[mempool]\nexpiry = \"14days\"",
    )
    .unwrap();
    let mut work = [0; 32];
    work[30] = 1;
    assert_eq!(config.chain.minimum_work, MinimumWork::Work(work));
    assert_eq!(config.chain.keep_blocks, KeepBlocks::Bytes(10_000_000_000));
    assert_eq!(config.chain.check_start.depth(), u32::MAX);
    assert_eq!(config.database.state_cache, 16 << 20);
    assert_eq!(config.peers.stall_timeout_max, Duration::from_secs(90));
    assert_eq!(config.mempool.expiry, Mempool::default().expiry);
}

#[test]
fn a_plugin_has_its_own_limits_and_settings() {
    let config = load(
        "[plugins]\ndir = \"/p\"\nmemory_limit = \"64 MB\"\n\
         [plugins.one]\nfile = \"sub/one.wasm\"\nblock_time_limit = \"5s\"\n\
         [plugins.one.settings]\naddresses = true\nlist = [1, 2]\n[plugins.one.settings.deep]\nname = \"x\"\n\
         [plugins.off]\nenabled = false\n\
         [plugins.two-b]\nfile = \"/abs/two.wasm\"\nmemory_limit = \"32 MB\"\n",
        &[
            ("BLOCKMILL_PLUGINS__TWO_B__SETTINGS__DEPTH", "7"),
            ("BLOCKMILL_PLUGINS__TWO_B__QUERY_TIME_LIMIT", "1s"),
            ("BLOCKMILL_PLUGINS__THREE__ENABLED", "true"),
        ],
        &Overrides::new(),
    )
    .unwrap();
    let plugins = config.enabled_plugins();
    let names: Vec<_> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    assert_eq!(names, ["one", "three", "two-b"]);
    assert_eq!(plugins[0].file, Path::new("/p/sub/one.wasm"));
    assert_eq!(plugins[0].limits.memory, 64_000_000);
    assert_eq!(plugins[0].limits.block_time, Duration::from_secs(5));
    let settings: serde_json::Value = serde_json::from_str(&plugins[0].settings).unwrap();
    assert_eq!(
        settings,
        serde_json::json!({ "addresses": true, "list": [1, 2], "deep": { "name": "x" } })
    );
    assert_eq!(plugins[1].file, Path::new("/p/three.wasm"));
    assert_eq!(plugins[1].settings, "{}");
    assert_eq!(plugins[2].file, Path::new("/abs/two.wasm"));
    assert_eq!(plugins[2].limits.memory, 32_000_000);
    assert_eq!(plugins[2].limits.query_time, Duration::from_secs(1));
    assert_eq!(plugins[2].settings, "{\"depth\":7}");
}

#[test]
fn paths_and_url_are_resolved() {
    let config = from_file("network = \"regtest\"\ndata_dir = \"/srv/a%b?\"\n[peers]\nevent_log = \"{data_dir}/{network}/e.csv\"").unwrap();
    assert_eq!(config.network_dir(), Path::new("/srv/a%b?/regtest"));
    assert_eq!(config.plugins_dir(), Path::new("/srv/a%b?/plugins"));
    assert_eq!(
        config.plugin_file("x"),
        Path::new("/srv/a%b?/plugins/x.wasm")
    );
    assert_eq!(
        config.database_url(),
        "sqlite:/srv/a%25b%3F/regtest/blockmill.sqlite"
    );
    assert_eq!(config.event_log(), Some("/srv/a%b?/regtest/e.csv".into()));

    let home = std::env::home_dir().unwrap();
    let config = from_file("").unwrap();
    assert_eq!(config.network_dir(), home.join(".blockmill/mainnet"));
    assert_eq!(config.event_log(), None);
}

#[test]
fn the_file_in_the_data_folder_is_read_unless_another_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    std::fs::write(folder.path().join(FILE_NAME), "network = \"signet\"").unwrap();
    let flags = Overrides::new().set("--data-dir", "data_dir", path);
    assert_eq!(
        Config::from_sources(None, [], &flags).unwrap().network,
        Network::Signet
    );
    let environment = [(OsString::from("BLOCKMILL_DATA_DIR"), OsString::from(path))];
    let config = Config::from_sources(None, environment, &Overrides::new()).unwrap();
    assert_eq!(config.network, Network::Signet);
    assert_eq!(load("", &[], &flags).unwrap().network, Network::Mainnet);
}

#[test]
fn addresses_of_peers_have_many_forms() {
    for (text, host, port) in [
        ("127.0.0.1:18444", "127.0.0.1", 18444),
        ("127.0.0.1", "127.0.0.1", 8333),
        ("node.example.org:1", "node.example.org", 1),
        ("localhost", "localhost", 8333),
        ("[::1]:18444", "::1", 18444),
        ("[::1]", "::1", 8333),
        ("2001:db8::7", "2001:db8::7", 8333),
    ] {
        let address = check::address(text, 8333);
        assert_eq!(address, Ok((host.to_owned(), port)), "{text}");
    }
    for text in [
        "",
        ":1",
        "a:",
        "a:0",
        "a:70000",
        "a:b",
        "a b:1",
        "[::1",
        "[::1]1",
        "[x]:1",
        "http://a:1",
        "a:1:2",
    ] {
        assert!(check::address(text, 8333).is_err(), "{text}");
    }
}

/// What a file says wrongly: its text, the key that is to be named, part of the problem, part of the hint.
const WRONG_FILES: &[(&str, &str, &str, &str)] = &[
    (
        "netwrok = \"regtest\"",
        "netwrok",
        "no such key",
        "did you mean `network`?",
    ),
    (
        "nonsense = 1",
        "nonsense",
        "no such key",
        "the keys here are: network, data_dir, log, peers",
    ),
    (
        "[peers]\nconect = []",
        "peers.conect",
        "no such key",
        "did you mean `connect`?",
    ),
    (
        "[peers.connect_to]\na = 1",
        "peers.connect_to",
        "no such key",
        "did you mean",
    ),
    (
        "[plugin.a]\nenabled = true",
        "plugin",
        "no such key",
        "did you mean `plugins`?",
    ),
    (
        "[plugins]\nmemory_limitt = \"1 MB\"",
        "plugins.memory_limitt",
        "no such key",
        "did you mean `memory_limit`?",
    ),
    (
        "[plugins.a]\nenable = true",
        "plugins.a.enable",
        "no such key",
        "did you mean `enabled`?",
    ),
    (
        "[plugins.a]\nmemory_limit = 5",
        "plugins.a.memory_limit",
        "the number 5",
        "",
    ),
    (
        "[plugins.a]\nenabled = \"yes\"",
        "plugins.a.enabled",
        "the text \"yes\", but it must be true or false",
        "the default is enabled = true",
    ),
    (
        "[plugins.a]\nmemory_limit = \"5 XB\"",
        "plugins.a.memory_limit",
        "\"5 XB\" is not a size",
        "",
    ),
    (
        "[plugins.a]\nmemory_limit = \"5 GB\"",
        "plugins.a.memory_limit",
        "5 GB is not possible",
        "give 2 MiB to 4 GiB",
    ),
    (
        "[plugins.a]\nfile = \"\"",
        "plugins.a.file",
        "empty",
        "a.wasm",
    ),
    (
        "[plugins.A_b]\nenabled = true",
        "plugins.A_b",
        "no name of a plugin",
        "lower-case",
    ),
    (
        "[plugins.-a]\nenabled = true",
        "plugins.-a",
        "no name of a plugin",
        "begin with a letter",
    ),
    (
        "[plugins.a23456789012345678901234567890123]\nenabled = true",
        "plugins.a23456789012345678901234567890123",
        "no name of a plugin",
        "1 to 32",
    ),
    (
        "[plugins.dir]\nenabled = true",
        "plugins.dir",
        "found a table, but it must be text",
        "the default is dir = \"{data_dir}/plugins\"",
    ),
    (
        "[plugins]\nquery_time_limit = \"0s\"",
        "plugins.query_time_limit",
        "nothing",
        "\"2s\"",
    ),
    (
        "network = \"main\"",
        "network",
        "\"main\" is not possible here",
        "\"mainnet\", \"testnet3\"",
    ),
    (
        "network = \"mainet\"",
        "network",
        "did you mean \"mainnet\"?",
        "it is one of",
    ),
    ("network = 5", "network", "", ""),
    ("data_dir = \"\"", "data_dir", "empty", "~/.blockmill"),
    (
        "log = 3",
        "log",
        "found the number 3, but it must be a table",
        "",
    ),
    (
        "[log]\nformat = \"xml\"",
        "log.format",
        "\"xml\" is not possible",
        "it is one of \"human\", \"json\"",
    ),
    (
        "[log]\nlevel = \"a=b=c\"",
        "log.level",
        "no log filter",
        "debug",
    ),
    (
        "[peers]\nmax_outbound = \"8\"",
        "peers.max_outbound",
        "the text \"8\", but it must be a whole number",
        "the default is max_outbound = 8",
    ),
    (
        "[peers]\nmax_outbound = -1",
        "peers.max_outbound",
        "-1",
        "the default is max_outbound = 8",
    ),
    (
        "[peers]\nmax_outbound = 100000",
        "peers.max_outbound",
        "100000",
        "the default is max_outbound = 8",
    ),
    (
        "[peers]\nadd = [\"a b\"]",
        "peers.add.0",
        "no address of a peer",
        "host:port",
    ),
    (
        "[peers]\nadd = [\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"i\"]",
        "peers.add",
        "9 peers are more than 8",
        "name fewer",
    ),
    (
        "[peers]\nlisten = \"everywhere\"",
        "peers.listen",
        "no address to listen at",
        "0.0.0.0:8333",
    ),
    (
        "[peers]\nban_first = \"2days\"",
        "peers.ban_first",
        "2days is more than peers.ban_second",
        "give less here",
    ),
    (
        "[peers]\nmax_incoming = 0",
        "peers.max_incoming",
        "0 is too small",
        "1 or more",
    ),
    (
        "[peers]\nmax_outbound = 0",
        "peers.max_outbound",
        "0 is too small",
        "1 or more",
    ),
    (
        "[peers]\nping_interval = 120",
        "peers.ping_interval",
        "the number 120",
        "the default is ping_interval = \"2m\"",
    ),
    (
        "[peers]\nping_interval = \"2 parsecs\"",
        "peers.ping_interval",
        "\"2 parsecs\" is not a duration",
        "the default is ping_interval = \"2m\"",
    ),
    (
        "[peers]\nping_interval = \"1h\"",
        "peers.ping_interval",
        "1h is more than peers.silence_timeout, which is 20m",
        "less here",
    ),
    (
        "[plugins]\nretry_pause_max = \"1ms\"",
        "plugins.retry_pause_max",
        "1ms is less than plugins.retry_pause, which is 1s",
        "more here",
    ),
    (
        "[peers]\nconnect = \"a:1\"",
        "peers.connect",
        "the text \"a:1\", but it must be a list",
        "",
    ),
    (
        "[peers]\nconnect = [\"a:1\", \"b:x\"]",
        "peers.connect.1",
        "\"b:x\" is no address of a peer",
        "127.0.0.1:8333",
    ),
    (
        "[peers]\nconnect = [\"a:1\", 2]",
        "peers.connect.1",
        "the number 2",
        "",
    ),
    (
        "[peers]\nuser_agent_comment = \"a/b\"",
        "peers.user_agent_comment",
        "BIP14",
        "without",
    ),
    (
        "[chain]\nkeep_blocks = \"some\"",
        "chain.keep_blocks",
        "neither \"all\" nor a size",
        "the default is keep_blocks = \"all\"",
    ),
    (
        "[chain]\nkeep_blocks = 550",
        "chain.keep_blocks",
        "the number 550",
        "",
    ),
    (
        "[chain]\nminimum_work = \"xyz\"",
        "chain.minimum_work",
        "hexadecimal",
        "the default is minimum_work = \"default\"",
    ),
    (
        "[chain]\nminimum_work = \"+f\"",
        "chain.minimum_work",
        "hexadecimal",
        "",
    ),
    (
        "[chain]\ncheck_start = \"ful\"",
        "chain.check_start",
        "did you mean \"full\"?",
        "\"none\", \"quick\", \"full\"",
    ),
    (
        "[chain]\nundo_depth = 0",
        "chain.undo_depth",
        "0 is too small",
        "",
    ),
    (
        "[database]\nurl = \"mysql://x\"",
        "database.url",
        "no database that this build knows",
        "sqlite:PATH",
    ),
    (
        "[database]\nstate_cache = \"256\"",
        "database.state_cache",
        "\"256\" is not a size",
        "the default is state_cache = \"256 MB\"",
    ),
    (
        "[mempool]\npersist = 1",
        "mempool.persist",
        "the number 1, but it must be true or false",
        "the default is persist = true",
    ),
    (
        "[api]\nlisten = \"localhost:3080\"",
        "api.listen",
        "socket address",
        "the default is listen = \"127.0.0.1:3080\"",
    ),
    (
        "[api]\nlisten = 3080",
        "api.listen",
        "the number 3080",
        "the default is listen = \"127.0.0.1:3080\"",
    ),
];

#[test]
fn what_is_wrong_in_a_file_is_said_with_file_key_and_remedy() {
    let mut failures = Vec::new();
    for (text, key, problem, hint) in WRONG_FILES {
        let why = from_file(text).expect_err(text);
        let shown = why.to_string();
        let right = why.key.as_deref() == Some(*key)
            && matches!(&why.origin, Origin::File(file) if file.ends_with("test.toml"))
            && why.problem.contains(problem)
            && why.hint.clone().unwrap_or_default().contains(hint)
            && shown.lines().count() == 1
            && shown.contains(key)
            && !shown.contains("plugin.");
        if !right {
            failures.push(format!("{text}\n=> {shown}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn what_is_wrong_in_the_environment_is_said_with_its_variable() {
    for (name, value, key, problem) in [
        ("BLOCKMILL_NETWROK", "regtest", "netwrok", "no such key"),
        (
            "BLOCKMILL_PEERS__PING_INTERVAL",
            "2",
            "peers.ping_interval",
            "\"2\" is not a duration",
        ),
        (
            "BLOCKMILL_PEERS__MAX_OUTBOUND",
            "many",
            "peers.max_outbound",
            "the text \"many\"",
        ),
        (
            "BLOCKMILL_PEERS__CONNECT",
            "a:b",
            "peers.connect.0",
            "\"a:b\" is no address",
        ),
        (
            "BLOCKMILL_MEMPOOL__ENABLED",
            "perhaps",
            "mempool.enabled",
            "true or false",
        ),
        ("BLOCKMILL_PEERS", "x", "peers", "a table"),
        (
            "BLOCKMILL_PLUGINS__TX_WRITER__ENABLE",
            "true",
            "plugins.tx-writer.enable",
            "no such key",
        ),
        (
            "BLOCKMILL_PLUGIN__A__ENABLED",
            "true",
            "plugin",
            "no such key",
        ),
    ] {
        let why = from_environment(&[(name, value)]).expect_err(name);
        assert_eq!(why.origin, Origin::Environment(name.to_owned()), "{why}");
        assert_eq!(why.key.as_deref(), Some(key), "{why}");
        assert!(why.problem.contains(problem), "{why}");
        assert!(why.to_string().contains(name), "{why}");
    }
}

#[test]
fn what_is_wrong_with_a_flag_is_said_with_the_flag() {
    for (flag, key, value, problem) in [
        (
            "--network",
            "network",
            "moon",
            "\"moon\" is not possible here",
        ),
        ("--api-listen", "api.listen", "x", "socket address"),
    ] {
        let why = load("", &[], &Overrides::new().set(flag, key, value)).unwrap_err();
        assert_eq!(why.origin, Origin::Flag(flag.to_owned()));
        assert!(why.problem.contains(problem), "{why}");
        assert!(
            why.to_string()
                .starts_with(&format!("flag {flag}: key `{key}`: ")),
            "{why}"
        );
    }
}

#[test]
fn text_that_looks_like_a_number_stays_text_where_text_is_wanted() {
    let config = from_environment(&[
        ("BLOCKMILL_CHAIN__MINIMUM_WORK", "00010"),
        ("BLOCKMILL_DATA_DIR", "123"),
        ("BLOCKMILL_PLUGINS__A__FILE", "5"),
        ("BLOCKMILL_API__LISTEN", "127.0.0.1:1"),
        ("BLOCKMILL_LOG", "debug"),
        ("BLOCKMILL_TEST_DATA", "/x"),
    ])
    .unwrap();
    assert!(matches!(config.chain.minimum_work, MinimumWork::Work(work) if work[31] == 0x10));
    assert_eq!(config.data_dir, Path::new("123"));
    assert_eq!(config.plugin["a"].file.as_deref(), Some(Path::new("5")));
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_named() {
    let missing = Path::new("/does/not/exist.toml");
    let why = Config::from_sources(Some(missing), [], &Overrides::new()).unwrap_err();
    assert_eq!(
        why.to_string(),
        "/does/not/exist.toml: there is no such file; give an existing one to --config"
    );

    let why = Config::from_sources(Some(Path::new("/")), [], &Overrides::new()).unwrap_err();
    assert!(
        why.to_string().starts_with("/: cannot read the file"),
        "{why}"
    );

    let why = from_file("network = \"regtest\"\n\n[peers\n").unwrap_err();
    assert!(why.problem.starts_with("line 3 is not TOML"), "{why}");
    let why = from_file("network = \"regtest\"\nnetwork = \"signet\"\n").unwrap_err();
    assert!(
        why.problem.contains("line 2") && why.problem.contains("duplicate"),
        "{why}"
    );
}

#[test]
fn a_plugin_file_that_is_missing_or_unreadable_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().display();
    let check = |plugins: &str| {
        from_file(&format!("[plugins]\ndir = \"{dir}\"\n{plugins}"))
            .unwrap()
            .check_plugin_files()
    };

    let why = check("[plugins.a]\nenabled = true").unwrap_err();
    assert_eq!(why.key.as_deref(), Some("plugins.a"));
    assert!(matches!(why.origin, Origin::File(_)));
    assert_eq!(why.problem, format!("there is no plugin file {dir}/a.wasm"));
    assert!(why.hint.unwrap().contains("plugins.a.enabled = false"));

    let why = check("[plugins.a]\nfile = \"b.wasm\"").unwrap_err();
    assert_eq!(why.key.as_deref(), Some("plugins.a.file"));
    assert_eq!(why.problem, format!("there is no plugin file {dir}/b.wasm"));

    std::fs::create_dir(folder.path().join("c.wasm")).unwrap();
    let why = check("[plugins.c]\nenabled = true").unwrap_err();
    assert!(
        why.problem
            .starts_with(&format!("cannot read the plugin file {dir}/c.wasm")),
        "{why}"
    );

    std::fs::write(folder.path().join("a.wasm"), "\0asm").unwrap();
    check("[plugins.a]\nenabled = true\n[plugins.gone]\nenabled = false").unwrap();
}

#[test]
fn networks_are_those_of_rust_bitcoin() {
    for network in Network::ALL {
        let theirs = network.to_bitcoin();
        assert_eq!(serde_json::to_value(network).unwrap(), network.name());
        let name = match network {
            Network::Mainnet => "bitcoin",
            Network::Testnet3 => "testnet",
            other => other.name(),
        };
        assert_eq!(theirs.to_string(), name);
    }
}
