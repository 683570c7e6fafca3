//! The operator's hand on the peers: who is connected, banned and known, what of it can be changed, and what outlives a restart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bitcoin::consensus::encode::{Decodable, serialize};
use bitcoin::p2p::address::{AddrV2, AddrV2Message, Address};
use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::p2p::{Magic, ServiceFlags};
use blockmill_tests::free_address;
use blockmill_tests::host::{Host, Installation};
use devnet::Devnet;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// Runs `blockmill peers …`: whether it succeeded, and what it printed.
fn peers(host: &Host, args: &[&str]) -> (bool, String) {
    let line: Vec<&str> = ["peers"].iter().chain(args).copied().collect();
    let output = host.installation().command(&line).unwrap();
    let text = if output.status.success() {
        output.stdout
    } else {
        output.stderr
    };
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// As `peers`, for what has to be done.
fn done(host: &Host, args: &[&str]) -> String {
    let (success, text) = peers(host, args);
    assert!(success, "{args:?}: {text}");
    text
}

/// As `peers`, for what has to be refused.
fn refused(host: &Host, args: &[&str]) -> String {
    let (success, text) = peers(host, args);
    assert!(!success, "{args:?}: {text}");
    text
}

/// What `peers --json` says, once `wanted` finds in it what is waited for.
fn wait_for<T>(host: &Host, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        let json: Value = serde_json::from_str(&done(host, &["--json"])).unwrap();
        if let Some(found) = wanted(&json) {
            return found;
        }
        assert!(start.elapsed() < LIMIT, "{what}: {json}\n{}", host.log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn find<'a>(json: &'a Value, addr: &str) -> Option<&'a Value> {
    json["peers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|peer| peer["addr"] == addr)
}

/// A peer that connects to the host and does the handshake.
struct Client(TcpStream);

impl Client {
    fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut client = Self(stream);
        let nobody = Address::new(&SocketAddr::from(([0, 0, 0, 0], 0)), ServiceFlags::NONE);
        client.send(NetworkMessage::Version(VersionMessage {
            version: 70_016,
            services: ServiceFlags::NONE,
            timestamp: now() as i64,
            receiver: nobody.clone(),
            sender: nobody,
            nonce: 77,
            user_agent: "/client:1/".to_owned(),
            start_height: 0,
            relay: false,
        }));
        client
    }

    fn handshake(to: SocketAddr) -> Self {
        let mut client = Self::connect(to);
        client.wait(|message| matches!(message, NetworkMessage::Verack));
        client.send(NetworkMessage::Verack);
        client.wait(|message| matches!(message, NetworkMessage::Ping(_)));
        client
    }

    fn send(&mut self, message: NetworkMessage) {
        let bytes = serialize(&RawNetworkMessage::new(Magic::REGTEST, message));
        // The host may have closed the connection.
        let _ = self.0.write_all(&bytes);
    }

    fn wait(&mut self, wanted: impl Fn(&NetworkMessage) -> bool) {
        loop {
            let mut head = [0; 24];
            self.0.read_exact(&mut head).unwrap();
            let length = u32::from_le_bytes(head[16..20].try_into().unwrap()) as usize;
            let mut bytes = head.to_vec();
            bytes.resize(24 + length, 0);
            self.0.read_exact(&mut bytes[24..]).unwrap();
            let message = RawNetworkMessage::consensus_decode(&mut bytes.as_slice()).unwrap();
            if wanted(message.payload()) {
                return;
            }
        }
    }

    /// Whether the host closes the connection.
    fn is_closed(&mut self) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.0.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(why) => return why.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}

#[test]
fn peers_are_shown_added_dropped_and_banned_and_what_cannot_be_is_said() {
    let (devnet, other) = (Devnet::new(3).unwrap(), Devnet::new(3).unwrap());
    devnet.mine(12).unwrap();
    other.mine(12).unwrap();
    let installation = Installation::new("regtest", &[devnet.p2p_addr()]).unwrap();
    let mut host = installation.start().unwrap();
    host.wait_for("the chain", LIMIT, |status| {
        (status["tip"]["height"] == 12).then_some(())
    })
    .unwrap();
    let addr = devnet.p2p_addr().to_string();
    let peer = wait_for(&host, "the peer", |json| {
        find(json, &addr)
            .filter(|peer| peer["ping_ms"].is_u64())
            .cloned()
    });
    assert_eq!(
        (&peer["kind"], &peer["direction"]),
        (&"manual".into(), &"outbound".into())
    );
    assert_eq!(
        (&peer["blocks"], &peer["in_flight"], &peer["misbehaviour"]),
        (&12.into(), &0.into(), &0.into())
    );
    assert!(
        peer["transport"].as_str().unwrap().starts_with('v'),
        "{peer}"
    );
    assert!(
        peer["bytes_in"].as_u64().unwrap() > 1_000 && peer["since"].as_u64().unwrap() > now() - 300
    );
    let table = done(&host, &[]);
    assert!(
        table.contains(&addr)
            && table.contains("TRANSPORT")
            && table.contains("peer book: 0 addresses"),
        "{table}"
    );
    let (_, metrics) = host.get_text("/metrics").unwrap();
    let line = format!(
        "blockmill_peer_connection_blocks{{peer=\"{addr}\",direction=\"outbound\",kind=\"manual\""
    );
    assert!(
        metrics
            .lines()
            .any(|shown| shown.starts_with(&line) && shown.ends_with(" 12.0")),
        "{metrics}"
    );

    // What cannot be.
    for (args, why) in [
        (vec!["ban", "127.0.0.1"], "is a peer of the configuration"),
        (vec!["ban", "127.0.0.0/8"], "is a peer of the configuration"),
        (vec!["ban", "somewhere"], "is no IP address"),
        (
            vec!["ban", "10.0.0.1", "--for", "soon"],
            "is no time to be banned for",
        ),
        (vec!["unban", "10.0.0.1"], "10.0.0.1 is not banned"),
        (
            vec!["drop", "10.0.0.1:5"],
            "no peer 10.0.0.1:5 is connected",
        ),
        (vec!["drop", "4711"], "no peer 4711 is connected"),
        (vec!["add", "a b"], "is no address of a peer"),
        (vec!["add", "x.onion"], "is no name of a hidden service"),
        (vec!["add", &addr], "is connected to already"),
    ] {
        let text = refused(&host, &args);
        assert!(text.contains(why), "{args:?}: {text}");
    }
    let mut stranger = TcpStream::connect(host.api()).unwrap();
    let request = "POST /api/v1/peers/ban?address=10.0.0.1 HTTP/1.1\r\nhost: here\r\nauthorization: Bearer no-token\r\nconnection: close\r\n\r\n";
    stranger.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stranger.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("owner's token"),
        "{answer}"
    );

    // One more, and gone again.
    let added = other.p2p_addr().to_string();
    done(&host, &["add", &added]);
    let id = wait_for(&host, "the added peer", |json| {
        find(json, &added)?["id"].as_u64()
    });
    let text = done(&host, &["drop", &id.to_string()]);
    assert!(text.contains("no longer connected to"), "{text}");
    wait_for(&host, "its end", |json| {
        find(json, &added).is_none().then_some(())
    });
    // The one of the configuration comes back.
    let before = peer["id"].as_u64().unwrap();
    done(&host, &["drop", &addr]);
    wait_for(&host, "its return", |json| {
        (find(json, &addr)?["id"].as_u64()? != before).then_some(())
    });
    assert!(wait_for(&host, "the added peer's absence", |json| Some(
        find(json, &added).is_none()
    )));

    // A ban outlives a restart.
    done(
        &host,
        &["ban", "10.1.2.3/16", "--for", "ever", "--reason", "noise"],
    );
    done(&host, &["ban", "2001:db8::1"]);
    host.stop().unwrap();
    let host = installation.start().unwrap();
    let bans = wait_for(&host, "the bans", |json| {
        let bans = json["bans"].as_array()?.clone();
        (bans.len() == 2).then_some(bans)
    });
    assert_eq!(
        (&bans[0]["subnet"], &bans[0]["until"], &bans[0]["by"]),
        (&"10.1.0.0/16".into(), &Value::Null, &"operator".into())
    );
    assert!(bans[1]["until"].as_u64().unwrap() > now() + 23 * 3_600);
    assert!(done(&host, &[]).contains("for good"));
    done(&host, &["unban", "10.1.0.0/16"]);
    wait_for(&host, "one ban", |json| {
        (json["bans"].as_array()?.len() == 1).then_some(())
    });
    host.stop().unwrap();
}

#[test]
fn who_connects_to_us_is_shown_banned_when_it_misbehaves_and_let_in_when_that_is_lifted() {
    let listen = free_address().unwrap();
    let installation = Installation::new("regtest", &[])
        .unwrap()
        .key("peers", &format!("listen = \"{listen}\""))
        .key("peers", "max_incoming_per_address = 2");
    let host = installation.start().unwrap();
    let mut client = Client::handshake(listen);
    let local = client.0.local_addr().unwrap().to_string();
    let peer = wait_for(&host, "the client", |json| find(json, &local).cloned());
    assert_eq!(
        (&peer["kind"], &peer["direction"]),
        (&"incoming".into(), &"inbound".into())
    );
    assert_eq!(peer["user_agent"], "/client:1/");
    // Two of one address, and no third.
    let _second = Client::handshake(listen);
    assert!(Client::connect(listen).is_closed());

    client.send(NetworkMessage::Unknown {
        command: "block".parse().unwrap(),
        payload: vec![1, 2, 3],
    });
    assert!(client.is_closed());
    let ban = wait_for(&host, "the ban", |json| json["bans"].get(0).cloned());
    assert_eq!(
        (&ban["subnet"], &ban["by"], &ban["offences"]),
        (&"127.0.0.1".into(), &"host".into(), &1.into())
    );
    assert!(ban["until"].as_u64().unwrap() <= now() + 600);
    assert!(Client::connect(listen).is_closed());
    // A kill loses the last seconds at most, not this.
    std::thread::sleep(Duration::from_secs(12));
    host.kill9().unwrap();
    let host = installation.start().unwrap();
    assert!(Client::connect(listen).is_closed());
    done(&host, &["unban", "127.0.0.1"]);
    Client::handshake(listen);

    // The operator's ban closes what is open.
    let mut client = Client::handshake(listen);
    let text = done(&host, &["ban", "127.0.0.1", "--for", "1h"]);
    assert!(text.contains("connections closed"), "{text}");
    assert!(client.is_closed());
    host.stop().unwrap();
}

#[test]
fn who_floods_pings_and_never_reads_is_not_read_either() {
    let listen = free_address().unwrap();
    let installation = Installation::new("regtest", &[])
        .unwrap()
        .key("peers", &format!("listen = \"{listen}\""))
        .key("peers", "incoming_rate = \"10 GB\"");
    let host = installation.start().unwrap();
    let mut client = Client::handshake(listen);
    let ping = serialize(&RawNetworkMessage::new(
        Magic::REGTEST,
        NetworkMessage::Ping(7),
    ));
    let pings = ping.repeat(8_192);
    let patience = Some(Duration::from_secs(10));
    client.0.set_write_timeout(patience).unwrap();
    // The buffers of both sockets and what waits for the machine take some of it.
    let mut sent = 0;
    while client.0.write_all(&pings).is_ok() {
        sent += pings.len();
        assert!(sent < 256 << 20, "the host goes on reading, and answering");
    }
    // The host is there for others.
    Client::handshake(listen);
    host.stop().unwrap();
}

#[test]
fn an_address_that_somebody_tells_leads_to_the_chain_and_is_known_after_a_restart() {
    let devnet = Devnet::new(5).unwrap();
    devnet.mine(7).unwrap();
    let listen = free_address().unwrap();
    let installation = Installation::new("regtest", &[])
        .unwrap()
        .key("peers", &format!("listen = \"{listen}\""));
    let mut host = installation.start().unwrap();
    let mut client = Client::handshake(listen);
    let IpAddr::V4(ip) = devnet.p2p_addr().ip() else {
        panic!("the devnet listens on IPv4")
    };
    client.send(NetworkMessage::AddrV2(vec![AddrV2Message {
        time: now() as u32,
        services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
        addr: AddrV2::Ipv4(ip),
        port: devnet.p2p_addr().port(),
    }]));
    host.wait_for("the chain", LIMIT, |status| {
        (status["tip"]["height"] == 7).then_some(())
    })
    .unwrap();
    let addr = devnet.p2p_addr().to_string();
    let peer = wait_for(&host, "the peer", |json| find(json, &addr).cloned());
    assert_eq!(peer["kind"], "full");
    drop(client);
    host.stop().unwrap();
    devnet.mine(1).unwrap();

    // Nobody tells it this time.
    let mut host = installation.start().unwrap();
    host.wait_for("the next block", LIMIT, |status| {
        (status["tip"]["height"] == 8).then_some(())
    })
    .unwrap();
    wait_for(&host, "the book", |json| {
        (json["book"]["tried"] == 1).then_some(())
    });
    host.stop().unwrap();

    // A book that is torn costs nothing but itself.
    let file = installation.data().join("peers.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(&addr), "{text}");
    fs::write(&file, &text[..text.len() - 9]).unwrap();
    let host = installation.start().unwrap();
    let json: Value = serde_json::from_str(&done(&host, &["--json"])).unwrap();
    assert_eq!(json["book"]["tried"], 0);
    assert_eq!(host.get("tip").unwrap()["height"], 8);
    assert!(
        host.log()
            .contains("the peer book cannot be used and is set aside")
    );
    assert_eq!(
        fs::read_to_string(file.with_extension("jsonl.damaged")).unwrap(),
        text[..text.len() - 9]
    );
    host.stop().unwrap();
}

#[test]
fn an_address_to_listen_at_that_is_taken_is_said_before_anything_is_touched() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let installation = Installation::new("regtest", &[])
        .unwrap()
        .key("peers", &format!("listen = \"{listen}\""));
    let mut host = installation.spawn(&[]).unwrap();
    let status = host.wait_for_end(LIMIT).unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(
        host.log()
            .contains(&format!("failed to listen for peers at {listen}")),
        "{}",
        host.log()
    );
    assert!(!installation.data().join("format.toml").exists());
}
