//! A SOCKS5 proxy: all connections go through it, names included, and a proxy that refuses or hangs is a failed try.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bitcoin::consensus::{Decodable, encode};
use bitcoin::p2p::address::Address;
use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::p2p::{Magic, ServiceFlags};
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

const SEED: &str = "seed.blockmill.example";
/// Regtest with a seed, and a magic of its own.
const SEEDED: &str = r#"
name = "seeded"
base = "regtest"
magic = "dab5bffb"
dns_seeds = ["seed.blockmill.example"]
"#;
const MAGIC: [u8; 4] = [0xda, 0xb5, 0xbf, 0xfb];

/// Peers in the open network, where nobody of ours listens.
fn strangers() -> Vec<SocketAddr> {
    (1..=3)
        .map(|n| SocketAddr::from(([64, n, 1, 1], 18_444)))
        .collect()
}

/// A node that knows some addresses, and says them once it `may`. It has no blocks but the first.
fn knowing(may: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let may = Arc::clone(&may);
            std::thread::spawn(move || tell(&stream, &may));
        }
    });
    addr
}

fn tell(stream: &TcpStream, may: &AtomicBool) -> Option<()> {
    let (mut reading, mut writing) = (stream, stream);
    let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
    let mut say = |message| {
        let message = RawNetworkMessage::new(Magic::from_bytes(MAGIC), message);
        std::io::Write::write_all(&mut writing, &encode::serialize(&message)).ok()
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    loop {
        let heard = RawNetworkMessage::consensus_decode(&mut reading).ok()?;
        match heard.payload() {
            NetworkMessage::Version(theirs) => {
                let mut ours = VersionMessage::new(
                    services,
                    now as i64,
                    theirs.sender.clone(),
                    theirs.receiver.clone(),
                    theirs.nonce.wrapping_add(1),
                    "/knows/".to_owned(),
                    0,
                );
                ours.version = 70_016;
                say(NetworkMessage::Version(ours))?;
                say(NetworkMessage::Verack)?;
            }
            NetworkMessage::GetHeaders(_) => say(NetworkMessage::Headers(Vec::new()))?,
            NetworkMessage::Ping(nonce) => say(NetworkMessage::Pong(*nonce))?,
            NetworkMessage::GetAddr => {
                while !may.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                let known = strangers();
                let known = known
                    .iter()
                    .map(|addr| (now as u32, Address::new(addr, services)));
                say(NetworkMessage::Addr(known.collect()))?;
            }
            _ => {}
        }
    }
}

#[test]
fn a_seed_is_connected_to_by_its_name_through_the_proxy_and_leads_to_those_it_knows() {
    let may = Arc::new(AtomicBool::new(false));
    let socks = Socks::start(Answer::Forward(knowing(Arc::clone(&may)))).unwrap();
    let installation = Installation::new("seeded", &[])
        .unwrap()
        .chain_file(SEEDED)
        .unwrap()
        .key("peers", &format!("proxy = \"{}\"", socks.addr()))
        .key("peers", "transport = \"v1\"");
    let mut host = installation.start().unwrap();
    let shown = |host: &Host| {
        let peers = host.get("peers").unwrap();
        let peers = peers["peers"].as_array().unwrap().clone();
        peers
            .iter()
            .map(|peer| {
                let text = |key: &str| peer[key].as_str().unwrap().to_owned();
                (text("kind"), text("addr"))
            })
            .collect::<Vec<_>>()
    };
    let seed = ("address-fetch".to_owned(), format!("{SEED}:18444"));
    host.wait_for("the seed's connection", LIMIT, |status| {
        (status["peers"].as_array()?.len() == 1).then_some(())
    })
    .unwrap();
    assert_eq!(shown(&host), std::slice::from_ref(&seed));
    // The name itself went to the proxy, and nothing else so far.
    let targets =
        |socks: &Socks| -> Vec<String> { socks.requests().into_iter().map(|r| r.target).collect() };
    assert_eq!(targets(&socks), std::slice::from_ref(&seed.1));

    may.store(true, Ordering::SeqCst);
    wait_for_requests(&socks, 1 + strangers().len());
    let asked = targets(&socks);
    for stranger in strangers() {
        assert!(asked.contains(&stranger.to_string()), "{asked:?}");
    }
    assert_eq!(asked.iter().filter(|target| **target == seed.1).count(), 1);
    host.wait_for("those it knows, and the seed gone", LIMIT, |status| {
        let peers = status["peers"].as_array()?;
        let gone = peers.iter().all(|peer| peer["kind"] != "address-fetch");
        (peers.len() == strangers().len() && gone).then_some(())
    })
    .unwrap();
    // What it was told is in the book, and the seed is not.
    let book = host.get("peers").unwrap()["book"].clone();
    let known = book["new"].as_u64().unwrap() + book["tried"].as_u64().unwrap();
    assert_eq!(known, strangers().len() as u64, "{book}");
    host.stop().unwrap();
}
