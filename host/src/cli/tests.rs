#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;

use clap::{CommandFactory, error::ErrorKind};

use super::*;
use crate::{
    api::{
        Bounds,
        tests::{Server, coins},
    },
    status,
};

const HOOKS: Hooks = Hooks {
    run: |_, _| anyhow::bail!("not in this test"),
    check: |config| {
        let loaded = config
            .enabled_plugins()
            .into_iter()
            .map(|plugin| CheckedPlugin {
                name: plugin.name,
                version: "0.1.0".to_owned(),
                sha256: "ab".repeat(32),
                description: "does something".to_owned(),
            });
        Ok(loaded.collect())
    },
    txoutset_offline: |config| {
        anyhow::ensure!(
            config.network != crate::config::Network::Signet,
            "there is no data"
        );
        Ok(TxOutSet {
            height: 7,
            ..coins()
        })
    },
};

/// An address where nothing listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Runs a command line with a data folder of its own.
fn run(line: &[&str]) -> Result<String> {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().to_str().unwrap();
    let cli = Cli::try_parse_from(
        ["blockmill"]
            .iter()
            .chain(line)
            .chain(&["--data-dir", data_dir]),
    )
    .unwrap();
    let mut out = Vec::new();
    execute(&cli.command, &HOOKS, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn commands(command: &clap::Command) -> Vec<clap::Command> {
    let inner = command
        .get_subcommands()
        .filter(|command| command.get_name() != "help");
    std::iter::once(command.clone())
        .chain(inner.flat_map(commands))
        .collect()
}

#[test]
fn each_help_says_what_the_command_does_with_an_example() {
    let mut root = Cli::command();
    root.clone().debug_assert();
    root.build();
    let all = commands(&root);
    let names: Vec<_> = all
        .iter()
        .map(|command| command.get_name().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "blockmill",
            "run",
            "check",
            "status",
            "txoutset",
            "snapshot",
            "export",
            "import",
            "peers",
            "ban",
            "unban",
            "add",
            "drop",
            "plugin",
            "new",
            "build",
            "inspect",
            "test",
            "diff",
            "list",
            "enable",
            "disable",
            "reload",
            "revert",
            "retry",
            "rebuild",
            "purge",
            "replay",
            "query"
        ]
    );
    for mut command in all {
        let help = command.render_long_help().to_string();
        let name = command.get_name().to_owned();
        let (_, example) = help
            .split_once("Example")
            .unwrap_or_else(|| panic!("{name}: {help}"));
        assert!(example.contains("  blockmill "), "{name}: {help}");
        assert!(command.get_long_about().is_some(), "{name}");
    }
}

/// A line that starts with `blockmill` in an example, up to a pipe.
fn examples() -> Vec<Vec<String>> {
    let mut root = Cli::command();
    root.build();
    let mut lines = Vec::new();
    for command in commands(&root) {
        let text = command.get_after_help().unwrap().to_string();
        for line in text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("blockmill "))
        {
            let line = line.split('|').next().unwrap();
            lines.push(line.split_whitespace().map(str::to_owned).collect());
        }
    }
    lines
}

#[test]
fn each_example_is_a_command_line_that_is_understood() {
    let examples = examples();
    assert!(examples.len() >= 8);
    for line in examples {
        let parsed =
            Cli::try_parse_from(std::iter::once("blockmill".to_owned()).chain(line.clone()));
        assert!(parsed.is_ok(), "{line:?}: {}", parsed.unwrap_err());
    }
}

#[test]
fn wrong_usage_is_refused_with_exit_code_2() {
    for (line, kind) in [
        (&["fly"][..], ErrorKind::InvalidSubcommand),
        (
            &["run", "--stop-at-height", "x"],
            ErrorKind::ValueValidation,
        ),
        (
            &["run", "--stop-at-height", "-1"],
            ErrorKind::UnknownArgument,
        ),
        (&["run", "--json"], ErrorKind::UnknownArgument),
        (
            &["plugin", "query", "name"],
            ErrorKind::MissingRequiredArgument,
        ),
        (
            &["plugin", "query", "name", "path", "novalue"],
            ErrorKind::ValueValidation,
        ),
        (
            &["plugin", "query", "name", "path", "=v"],
            ErrorKind::ValueValidation,
        ),
        (&["peers", "ban"], ErrorKind::MissingRequiredArgument),
        (&["peers", "praise"], ErrorKind::InvalidSubcommand),
        (
            &["plugin"],
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
        ),
    ] {
        let why = Cli::try_parse_from(["blockmill"].iter().chain(line)).unwrap_err();
        assert_eq!(why.kind(), kind, "{line:?}");
        assert_eq!(why.exit_code(), 2, "{line:?}");
    }
}

#[test]
fn flags_reach_the_configuration() {
    let cli = Cli::try_parse_from([
        "blockmill",
        "run",
        "--network",
        "regtest",
        "--connect",
        "a:1",
        "--connect",
        "b",
        "--data-dir",
        "/nowhere",
        "--api-listen",
        "127.0.0.1:1",
        "--plugins-dir",
        "/p",
        "--log-format",
        "json",
        "--log-level",
        "warn",
        "--stop-at-height",
        "255",
    ])
    .unwrap();
    let Command::Run {
        config,
        host,
        stop_at_height,
    } = cli.command
    else {
        panic!("not run")
    };
    let config = config.load(&host).unwrap();
    assert_eq!(stop_at_height, Some(255));
    assert_eq!(
        config.peer_addresses(),
        [("a".to_owned(), 1), ("b".to_owned(), 18444)]
    );
    assert_eq!(config.network_dir(), Path::new("/nowhere/regtest"));
    assert_eq!(config.plugins_dir(), Path::new("/p"));
    assert_eq!(config.api.listen.port(), 1);
    assert_eq!(
        (config.log.format, config.log.level.as_str()),
        (crate::config::LogFormat::Json, "warn")
    );
}

#[test]
fn a_wrong_configuration_ends_with_2_and_one_line() {
    let why = run(&["check", "--network", "moon"]).unwrap_err();
    assert_eq!(exit_code(&why), ExitCode::from(2));
    let text = report(&why);
    assert!(
        text.starts_with("error: flag --network: key `network`: \"moon\" is not possible here"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.toml");
    std::fs::write(&file, "[plugins.gone]\nenabled = true").unwrap();
    for command in ["run", "check"] {
        let why = run(&[command, "--config", file.to_str().unwrap()]).unwrap_err();
        assert_eq!(exit_code(&why), ExitCode::from(2));
        let text = report(&why);
        assert!(
            text.contains("x.toml: key `plugins.gone`: there is no plugin file"),
            "{text}"
        );
    }
    // one in the middle of a chain counts too
    let config = Config::default();
    let why = anyhow::Error::from(config.error("data_dir", "it is of another network", ""))
        .context("failed to start");
    assert_eq!(exit_code(&why), ExitCode::from(2));
    assert_eq!(
        report(&why),
        "error: failed to start\nbecause: key `data_dir`: it is of another network\n"
    );
    assert_eq!(exit_code(&anyhow::anyhow!("other")), ExitCode::FAILURE);
}

#[test]
fn check_shows_what_was_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.toml");
    std::fs::write(folder.path().join("a.wasm"), "\0asm").unwrap();
    let text = format!(
        "network = \"signet\"\n[plugins]\ndir = {:?}\n[plugins.a]\nenabled = true",
        folder.path()
    );
    std::fs::write(&file, text).unwrap();
    let shown = run(&["check", "--config", file.to_str().unwrap()]).unwrap();
    assert!(shown.contains("network   signet\n"), "{shown}");
    assert!(
        shown.contains("\na       0.1.0    abababababab  does something\n"),
        "{shown}"
    );
    assert!(shown.ends_with("\nall right\n"), "{shown}");
}

#[test]
fn nobody_there_is_said_clearly() {
    let address = nobody();
    for command in [
        &["status"][..],
        &["plugin", "list"],
        &["plugin", "query", "a", "b"],
    ] {
        let line: Vec<&str> = command
            .iter()
            .copied()
            .chain(["--api-listen", &address])
            .collect();
        let why = run(&line).unwrap_err();
        assert_eq!(exit_code(&why), ExitCode::FAILURE);
        let text = report(&why);
        assert!(
            text.starts_with(&format!(
                "error: no host answers at {address}: is `blockmill run` running"
            )),
            "{text}"
        );
    }
}

#[test]
fn what_is_no_host_is_told_from_one() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        use std::io::Read;
        let (mut stream, _) = other.accept().unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
            .unwrap();
    });
    let text = report(&run(&["status", "--api-listen", &address]).unwrap_err());
    thread.join().unwrap();
    assert!(
        text.contains(&format!(
            "what answers at {address} is no blockmill of this version"
        )),
        "{text}"
    );
}

#[test]
fn a_host_that_cannot_be_asked_is_a_matter_of_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.toml");
    std::fs::write(&file, "[api]\nenabled = false").unwrap();
    let why = run(&["status", "--config", file.to_str().unwrap()]).unwrap_err();
    assert_eq!(exit_code(&why), ExitCode::from(2));
    assert!(
        report(&why).contains("x.toml: key `api.enabled`: the API is switched off"),
        "{}",
        report(&why)
    );
    let why = run(&["status", "--api-listen", "127.0.0.1:0"]).unwrap_err();
    assert!(report(&why).contains("port 0"), "{}", report(&why));
}

#[test]
fn status_is_a_page_for_people_and_json_for_programs() {
    let server = Server::start(Bounds::default());
    let address = server.address.to_string();
    let json = run(&["status", "--json", "--api-listen", &address]).unwrap();
    assert_eq!(
        serde_json::from_str::<Status>(&json).unwrap(),
        status::tests::example()
    );

    let shown = run(&["status", "--api-listen", &address]).unwrap();
    let expected = format!(
        "\
network   regtest, blockmill 0.1.0, up 1 d 2 h
tip       132 of 140, 2023-11-14 22:13:20 UTC, syncing
          {}
health    not following: block 133 cannot be taken: a transaction of 5 bytes is longer than what is held; set \
                 chain.longest_transaction higher and restart
mempool   60 transactions, 12000 vB, 60000 sat of fees

PEER             USER AGENT        HEIGHT  SINCE                    SERVICES
127.0.0.1:18444  /Satoshi:31.0.0/     140  2023-11-14 22:13:21 UTC  NETWORK WITNESS

PLUGIN        VERSION  SHA256        STATE      HEIGHT  LAG  LAST ERROR
utxo-tracker  0.1.0    abababababab  following     132    0  -
tx-writer     0.1.0    cdcdcdcdcdcd  retrying        -  133  trap: unreachable
",
        "2d".repeat(32)
    );
    assert_eq!(shown, expected);
}

#[test]
fn peers_are_a_table_of_peers_one_of_bans_and_the_size_of_the_book() {
    let server = Server::start(Bounds::default());
    let address = server.address.to_string();
    let json = run(&["peers", "--json", "--api-listen", &address]).unwrap();
    assert_eq!(
        serde_json::from_str::<status::Peers>(&json).unwrap(),
        status::tests::example_peers()
    );
    let shown = run(&["peers", "--api-listen", &address]).unwrap();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].starts_with("ID  PEER "), "{shown}");
    for part in [
        "127.0.0.1:18444",
        "full",
        "v2",
        "12.3M",
        "130",
        "/Satoshi:31.0.0/",
    ] {
        assert!(lines[1].contains(part), "{part}: {shown}");
    }
    assert!(lines[3].starts_with("BANNED "), "{shown}");
    assert!(
        lines[4].contains("2023-11-14 22:23:20 UTC") && lines[4].contains("noise"),
        "{shown}"
    );
    assert!(
        lines[5].contains("for good") && lines[5].contains("malformed block"),
        "{shown}"
    );
    assert_eq!(
        *lines.last().unwrap(),
        "peer book: 7 addresses heard of, 2 connected to before"
    );
    // Changing takes the token of the data folder, and there is none here.
    let why = run(&["peers", "ban", "10.0.0.1", "--api-listen", &address]).unwrap_err();
    assert!(format!("{why:#}").contains("owner-token"), "{why:#}");
    let why = run(&["peers", "drop", "4", "--api-listen", &nobody()]).unwrap_err();
    assert!(format!("{why:#}").contains("no host answers"), "{why:#}");
}

#[test]
fn plugin_list_and_query_ask_the_host() {
    let server = Server::start(Bounds::default());
    let address = server.address.to_string();
    let list = run(&["plugin", "list", "--api-listen", &address]).unwrap();
    assert_eq!(list.lines().count(), 3);
    assert!(list.starts_with("PLUGIN "), "{list}");
    let json = run(&["plugin", "list", "--json", "--api-listen", &address]).unwrap();
    assert_eq!(
        serde_json::from_str::<Vec<Plugin>>(&json).unwrap(),
        status::tests::example().plugins
    );

    let query = |rest: &[&str]| {
        let line: Vec<&str> = ["plugin", "query"]
            .iter()
            .chain(rest)
            .chain(&["--api-listen", &address])
            .copied()
            .collect();
        run(&line)
    };
    let answer = query(&["utxo-tracker", "/a b/c?d", "k=a&b=c", "ü=#%"]).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        answer,
        serde_json::json!({ "path": "a b/c?d", "params": [["k", "a&b=c"], ["ü", "#%"]] })
    );

    let why = query(&["utxo-tracker", "wrong"]).unwrap_err();
    assert_eq!(
        report(&why),
        "error: the host refused /api/v1/plugins/utxo-tracker/query/wrong\nbecause: txid is missing (bad_request)\n"
    );
    assert_eq!(exit_code(&why), ExitCode::FAILURE);
}

#[test]
fn txoutset_is_that_of_the_running_host_or_of_the_data_folder() {
    let server = Server::start(Bounds::default());
    let (here, nobody) = (server.address.to_string(), nobody());
    let set = |line: &[&str]| {
        let line: Vec<&str> = ["txoutset", "--json"].iter().chain(line).copied().collect();
        run(&line).map(|text| serde_json::from_str::<TxOutSet>(&text).unwrap().height)
    };
    assert_eq!(set(&["--api-listen", &here]).unwrap(), 132);
    assert_eq!(
        set(&["--api-listen", &here, "--network", "regtest"]).unwrap(),
        132
    );
    assert_eq!(
        set(&["--api-listen", &here, "--network", "mainnet"]).unwrap(),
        7,
        "that host follows regtest"
    );
    assert_eq!(set(&["--api-listen", &nobody]).unwrap(), 7);

    let why = set(&["--api-listen", &nobody, "--network", "signet"]).unwrap_err();
    let text = report(&why);
    assert!(
        text.starts_with("error: failed to read the coins of ")
            && text.ends_with("because: there is no data\n"),
        "{text}"
    );

    let shown = run(&["txoutset", "--api-listen", &nobody]).unwrap();
    assert!(
        shown.starts_with("height             7\nbestblock          2d2d"),
        "{shown}"
    );
    assert_eq!(shown.lines().count(), 6);
}

#[test]
fn text_of_strangers_cannot_move_the_cursor() {
    let mut status = status::tests::example();
    status.peers[0].user_agent = "/evil\u{1b}[2J\n/".to_owned();
    status.plugins[0].last_error = Some("x".repeat(500));
    let mut out = Vec::new();
    table::status(&mut out, &status).unwrap();
    let shown = String::from_utf8(out).unwrap();
    assert!(
        shown.contains("/evil [2J /") && !shown.contains('\u{1b}'),
        "{shown}"
    );
    assert!(
        shown.lines().all(|line| line.chars().count() < 200),
        "{shown}"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let why = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
    assert!(is_broken_pipe(&why));
    assert!(!is_broken_pipe(&anyhow::anyhow!("other")));
}
