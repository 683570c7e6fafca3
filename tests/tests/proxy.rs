//! A SOCKS5 proxy: all connections go through it, names included, and a proxy that refuses or hangs is a failed try.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::time::{Duration, Instant};

use blockmill_tests::host::{ALL_ROWS, Host, Installation};
use blockmill_tests::socks::{Answer, Socks};
use devnet::Devnet;

const LIMIT: Duration = Duration::from_secs(60);
const BLOCKS: u32 = 110;
/// No name server knows it, and none may be asked.
const ONION: &str = "blockmillblockmillblockmillblockmillblockmillblockmillmill.onion";

fn installation(socks: &Socks, peers: &str) -> Installation {
    Installation::new("regtest", &[])
        .unwrap()
        .key("peers", &format!("connect = [{peers}]"))
        .key("peers", &format!("proxy = \"{}\"", socks.addr()))
        .key("peers", "proxy_timeout = \"2s\"")
        .key("peers", "reconnect_pause_max = \"1s\"")
        .key("peers", "event_log = \"{data_dir}/events.csv\"")
        .plugins(ALL_ROWS)
}

fn wait_for_requests(socks: &Socks, count: usize) {
    let end = Instant::now() + LIMIT;
    while socks.requests().len() < count {
        assert!(Instant::now() < end, "{:?}", socks.requests());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn sync(host: &mut Host, devnet: &Devnet) {
    let tip = devnet.status().tip.to_string();
    let ours = host.coins_at(&tip, LIMIT).unwrap();
    assert_eq!(ours["muhash"], devnet.utxo_set().unwrap().muhash);
}

#[test]
fn names_and_addresses_go_to_the_proxy_as_they_are_and_each_connection_has_its_own_credentials() {
    let devnet = Devnet::new(3).unwrap();
    devnet.mine(BLOCKS).unwrap();
    let socks = Socks::start(Answer::Forward(devnet.p2p_addr())).unwrap();
    // An address where nobody listens: a direct connection would fail.
    let peers = format!("\"{ONION}:8333\", \"192.0.2.7:18444\"");
    let mut host = installation(&socks, &peers).start().unwrap();
    sync(&mut host, &devnet);
    wait_for_requests(&socks, 2);
    let mut targets: Vec<String> = socks.requests().into_iter().map(|r| r.target).collect();
    targets.sort();
    assert_eq!(
        targets,
        ["192.0.2.7:18444".to_owned(), format!("{ONION}:8333")]
    );
    let (a, b) = (&socks.requests()[0], &socks.requests()[1]);
    assert_ne!(a.credentials.0, b.credentials.0);
    assert_ne!(a.credentials.1, b.credentials.1);
    assert!(a.credentials.0.len() >= 16);

    // The name is what the operator sees.
    let shown = host
        .wait_for("the peers", LIMIT, |status| {
            let peers = status["peers"].as_array()?;
            let addrs = peers.iter().filter_map(|peer| peer["addr"].as_str());
            let mut addrs: Vec<String> = addrs.map(str::to_owned).collect();
            addrs.sort();
            (addrs.len() == 2).then_some(addrs)
        })
        .unwrap();
    assert_eq!(shown, targets);
    host.stop().unwrap();
}

#[test]
fn a_proxy_that_refuses_or_hangs_is_a_failed_try_and_never_a_direct_connection() {
    let devnet = Devnet::new(4).unwrap();
    devnet.mine(BLOCKS).unwrap();
    let socks = Socks::start(Answer::Refuse).unwrap();
    let peers = format!("\"{}\"", devnet.p2p_addr());
    let mut host = installation(&socks, &peers).start().unwrap();
    wait_for_requests(&socks, 2);
    assert!(devnet.session_ids().is_empty());

    socks.set(Answer::Hang);
    // Each that hangs is given up after the proxy's timeout, and tried again.
    let before = socks.requests().len();
    wait_for_requests(&socks, before + 2);
    assert!(devnet.session_ids().is_empty());
    let events = host.installation().folder().join("data/events.csv");
    host.wait_for("the failures in the event log", LIMIT, |_| {
        let text = std::fs::read_to_string(&events).ok()?;
        (text.matches(",connect-failed,").count() >= 3).then_some(())
    })
    .unwrap();

    socks.set(Answer::Forward(devnet.p2p_addr()));
    sync(&mut host, &devnet);
    host.stop().unwrap();
}

#[test]
fn an_onion_without_a_proxy_is_an_error_of_the_configuration() {
    let installation = Installation::new("regtest", &[])
        .unwrap()
        .key("peers", &format!("connect = [\"{ONION}\"]"));
    installation
        .write_config(blockmill_tests::free_address().unwrap())
        .unwrap();
    let output = installation.command(&["check"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("through Tor only"), "{said}");
}
