#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};

use super::*;
use crate::{
    config::{Config, Origin, Overrides},
    metrics::Metrics,
    status::{self, Point},
};

/// Answers as it is told, slowly where the path is `slow`.
pub(crate) struct Mock {
    health: Mutex<Health>,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Default for Mock {
    fn default() -> Self {
        Self {
            health: Mutex::new(Health::Following),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        }
    }
}

/// Long against what a busy machine adds.
const SLOW: Duration = Duration::from_millis(900);

fn block(height: u32) -> BlockInfo {
    BlockInfo {
        height,
        hash: "0f".repeat(32),
        previous: "0e".repeat(32),
        next: None,
        active: true,
        confirmations: 1,
        version: 4,
        merkle_root: "ab".repeat(32),
        time: 1_700_000_000,
        median_time: 1_699_999_000,
        bits: "207fffff".to_owned(),
        nonce: 7,
        txs: Some(2),
        size: Some(400),
        weight: Some(1_600),
    }
}

pub(crate) fn coins() -> TxOutSet {
    TxOutSet {
        height: 132,
        bestblock: "2d".repeat(32),
        txouts: 150,
        total_sats: 660_000_000_000,
        muhash: "aa".repeat(32),
        hash_serialized_3: "bb".repeat(32),
    }
}

impl Backend for Mock {
    fn status(&self) -> Status {
        status::tests::example()
    }

    fn pool_transaction(&self, txid: bitcoin::Txid) -> Option<status::PoolTransaction> {
        let family = || status::Family {
            txs: 1,
            vsize: 110,
            fees_sats: 220,
        };
        txid.to_string()
            .starts_with('a')
            .then(|| status::PoolTransaction {
                txid: txid.to_string(),
                wtxid: txid.to_string(),
                fee_sats: 220,
                vsize: 110,
                weight: 440,
                sigop_cost: Some(1),
                class: "primary".to_owned(),
                first_seen: 1_700_000_000,
                seen_from: Vec::new(),
                depends: Vec::new(),
                ancestors: family(),
                descendants: family(),
                passed_over: 0,
                suspicious: false,
            })
    }

    fn health(&self) -> Health {
        self.health.lock().unwrap().clone()
    }

    fn tip(&self) -> Tip {
        self.status().tip
    }

    fn block(&self, id: BlockId) -> anyhow::Result<Option<BlockInfo>> {
        match id {
            BlockId::Height(height @ 0..=132) => Ok(Some(block(height))),
            BlockId::Height(_) => Ok(None),
            // display order 0x00…01 is the last byte shown and the first inside
            BlockId::Hash(hash) if hash[0] == 1 => Ok(Some(block(5))),
            BlockId::Hash(hash) if hash[0] == 2 => anyhow::bail!("disk on fire"),
            BlockId::Hash(_) => Ok(None),
        }
    }

    fn plugins(&self) -> Vec<Plugin> {
        self.status().plugins
    }

    fn change(
        &self,
        plugin: &str,
        path: &str,
        params: Vec<(String, String)>,
    ) -> Result<String, QueryFailure> {
        let answer = self.query(plugin, path, params)?;
        Ok(format!("{{\"changed\":{answer}}}"))
    }

    fn peers(&self) -> Peers {
        status::tests::example_peers()
    }

    fn change_peers(&self, order: PeerOrder) -> Result<String, QueryFailure> {
        match order {
            PeerOrder::Drop { peer } if peer == "99" => {
                Err(QueryFailure::NotFound("no peer 99 is connected".to_owned()))
            }
            order => Ok(format!("{order:?}")),
        }
    }

    fn is_owner(&self, token: &str) -> bool {
        token == "the-owners"
    }

    fn values(&self, plugin: &str) -> Result<Values, QueryFailure> {
        if plugin != "fee-estimator" {
            return Err(QueryFailure::NoSuchPlugin(format!(
                "there is no plugin {plugin}"
            )));
        }
        let point = Point {
            height: 3,
            time: 4,
            value: 1.5,
        };
        Ok(Values {
            gauges: [("rate".to_owned(), 2.0)].into(),
            series: [("rates".to_owned(), vec![point])].into(),
        })
    }

    fn query(
        &self,
        plugin: &str,
        path: &str,
        params: Vec<(String, String)>,
    ) -> Result<String, QueryFailure> {
        if plugin != "utxo-tracker" {
            return Err(QueryFailure::NoSuchPlugin(format!(
                "there is no plugin {plugin}"
            )));
        }
        match path {
            "missing" => Err(QueryFailure::NotFound("no such coin".to_owned())),
            "wrong" => Err(QueryFailure::BadRequest("txid is missing".to_owned())),
            "trap" => Err(QueryFailure::Failed("trap: unreachable".to_owned())),
            "busy" => Err(QueryFailure::Busy("still starting".to_owned())),
            "panic" => panic!("a panic that the test wants"),
            "slow" => {
                let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(running, Ordering::SeqCst);
                std::thread::sleep(SLOW);
                self.running.fetch_sub(1, Ordering::SeqCst);
                Ok("{}".to_owned())
            }
            path => Ok(json!({ "path": path, "params": params }).to_string()),
        }
    }

    fn manage(&self, plugin: Option<(String, PluginAction)>) -> Result<String, QueryFailure> {
        Ok(format!("{plugin:?}"))
    }

    fn txoutset(&self) -> Result<TxOutSet, QueryFailure> {
        Ok(coins())
    }
}

/// A server on a free port, on a runtime of its own, that ends with this value.
pub(crate) struct Server {
    pub address: SocketAddr,
    pub mock: Arc<Mock>,
    metrics: Metrics,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(bounds: Bounds) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (mock, metrics) = (Arc::new(Mock::default()), Metrics::new("0.1.0", "regtest"));
        let (stop, stopped) = oneshot::channel::<()>();
        let (backend, metrics_too) = (Arc::clone(&mock), metrics.clone());
        let thread = std::thread::spawn(move || {
            runtime.block_on(serve(listener, backend, metrics_too, bounds, async {
                let _ = stopped.await;
            }));
        });
        Self {
            address,
            mock,
            metrics,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Sends these bytes and reads until the server closes.
    fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // a refusal may come as a reset after the answer
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn request(&self, method: &str, target: &str) -> (u16, String, String) {
        let answer = self.raw(&format!(
            "{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        ));
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{target}: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_owned())
    }

    fn json(&self, target: &str) -> (u16, Value) {
        let (status, head, body) = self.request("GET", target);
        assert!(
            head.contains("content-type: application/json"),
            "{target}: {head}"
        );
        (
            status,
            serde_json::from_str(&body).unwrap_or_else(|why| panic!("{target}: {why}: {body}")),
        )
    }

    fn error(&self, target: &str) -> (u16, String, String) {
        let (status, body) = self.json(target);
        let text = |key: &str| {
            body["error"][key]
                .as_str()
                .unwrap_or_else(|| panic!("{target}: {body}"))
                .to_owned()
        };
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        (status, text("code"), text("message"))
    }

    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

#[test]
fn health_is_200_when_following_and_503_with_the_reason_when_not() {
    let server = Server::start(Bounds::default());
    assert_eq!(
        server.json("/health"),
        (200, json!({ "status": "following" }))
    );

    *server.mock.health.lock().unwrap() = Health::NotFollowing("8 blocks behind".to_owned());
    assert_eq!(
        server.error("/health"),
        (
            503,
            "not_following".to_owned(),
            "8 blocks behind".to_owned()
        )
    );
    assert!(
        server
            .request("GET", "/health")
            .1
            .contains("retry-after: 1")
    );
}

#[test]
fn status_tip_plugins_and_coins_are_the_json_of_their_types() {
    let server = Server::start(Bounds::default());
    let example = serde_json::to_value(status::tests::example()).unwrap();
    assert_eq!(server.json("/api/v1/status"), (200, example.clone()));
    assert_eq!(server.json("/api/v1/tip"), (200, example["tip"].clone()));
    assert_eq!(
        server.json("/api/v1/plugins"),
        (200, example["plugins"].clone())
    );
    assert_eq!(
        server.json("/api/v1/txoutset"),
        (200, serde_json::to_value(coins()).unwrap())
    );
}

#[test]
fn metrics_are_text_for_prometheus() {
    let server = Server::start(Bounds::default());
    server.metrics.blocks_height.set(132);
    let (status, head, body) = server.request("GET", "/metrics");
    assert_eq!(status, 200);
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(
        body.lines()
            .any(|line| line == "blockmill_blocks_height 132"),
        "{body}"
    );
}

#[test]
fn a_block_is_found_by_height_and_by_hash() {
    let server = Server::start(Bounds::default());
    assert_eq!(
        server.json("/api/v1/blocks/7"),
        (200, serde_json::to_value(block(7)).unwrap())
    );
    let hash = |first: &str| format!("/api/v1/blocks/{}{first}", "0".repeat(62));
    assert_eq!(
        server.json(&hash("01")),
        (200, serde_json::to_value(block(5)).unwrap())
    );
    assert_eq!(server.error("/api/v1/blocks/133").0, 404);
    assert_eq!(server.error(&hash("03")).0, 404);
    assert_eq!(
        server.error(&hash("02")),
        (500, "failed".to_owned(), "disk on fire".to_owned())
    );
    for wrong in [
        "x",
        "-1",
        "+1",
        "4294967296",
        "1.0",
        "00ff",
        &"g".repeat(64),
        "%FF",
    ] {
        let (status, code, _) = server.error(&format!("/api/v1/blocks/{wrong}"));
        assert_eq!((status, code.as_str()), (400, "bad_request"), "{wrong}");
    }
}

#[test]
fn the_values_of_a_plugin_are_shown_by_name() {
    let server = Server::start(Bounds::default());
    let (_, values) = server.json("/api/v1/plugins/fee-estimator/values");
    assert_eq!(values["gauges"]["rate"], 2.0);
    assert_eq!(values["series"]["rates"][0]["height"], 3);
    assert_eq!(server.error("/api/v1/plugins/nobody/values").0, 404);
}

#[test]
fn a_query_reaches_the_plugin_with_path_and_parameters() {
    let server = Server::start(Bounds::default());
    let ask = |rest: &str| server.json(&format!("/api/v1/plugins/utxo-tracker/query/{rest}"));
    assert_eq!(
        ask("coin?txid=ab&vout=0"),
        (
            200,
            json!({ "path": "coin", "params": [["txid", "ab"], ["vout", "0"]] })
        )
    );
    assert_eq!(
        ask("a/b%20c?k=a%26b&k=2&e="),
        (
            200,
            json!({ "path": "a/b c", "params": [["k", "a&b"], ["k", "2"], ["e", ""]] })
        )
    );
    assert_eq!(
        ask("totals"),
        (200, json!({ "path": "totals", "params": [] }))
    );
}

#[test]
fn a_query_that_fails_says_how() {
    let server = Server::start(Bounds::default());
    for (path, status, code, message) in [
        (
            "utxo-tracker/query/missing",
            404,
            "not_found",
            "no such coin",
        ),
        (
            "utxo-tracker/query/wrong",
            400,
            "bad_request",
            "txid is missing",
        ),
        (
            "utxo-tracker/query/trap",
            500,
            "failed",
            "trap: unreachable",
        ),
        ("utxo-tracker/query/busy", 503, "busy", "still starting"),
        (
            "utxo-tracker/query/panic",
            500,
            "failed",
            "the host failed to answer",
        ),
        (
            "nobody/query/x",
            404,
            "no_such_plugin",
            "there is no plugin nobody",
        ),
    ] {
        let answer = server.error(&format!("/api/v1/plugins/{path}"));
        assert_eq!(
            answer,
            (status, code.to_owned(), message.to_owned()),
            "{path}"
        );
    }
    assert_eq!(
        server.json("/api/v1/plugins/utxo-tracker/query/fine").0,
        200
    );

    let text = server.metrics.text();
    for (outcome, count) in [("ok", 1), ("failed", 2), ("not_found", 1), ("busy", 1)] {
        let line = format!(
            "blockmill_plugin_queries_total{{plugin=\"utxo-tracker\",outcome=\"{outcome}\"}} {count}"
        );
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    assert!(
        !text.contains("nobody"),
        "names that strangers make up are no labels"
    );
}

#[test]
fn unknown_addresses_and_methods_are_json_errors_too() {
    let server = Server::start(Bounds::default());
    for target in [
        "/",
        "/api",
        "/api/v1",
        "/api/v2/status",
        "/api/v1/status/",
        "/api/v1/plugins/a",
        "/api/v1/plugins/a/query/",
    ] {
        let (status, code, message) = server.error(target);
        assert_eq!((status, code.as_str()), (404, "not_found"), "{target}");
        assert!(message.contains(target), "{message}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let (status, head, body) = server.request(method, "/api/v1/status");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (status, &body["error"]["code"]),
            (405, &json!("method_not_allowed")),
            "{method}"
        );
        assert!(head.contains("allow: get"), "{head}");
    }
    assert_eq!(server.request("HEAD", "/api/v1/status").0, 200);
}

#[test]
fn what_is_too_big_is_refused() {
    let server = Server::start(Bounds::default());
    let long = "x".repeat(9_000);
    assert_eq!(
        server
            .error(&format!("/api/v1/plugins/utxo-tracker/query/a?k={long}"))
            .0,
        414
    );
    assert_eq!(server.error(&format!("/{}", "y".repeat(3_000))).0, 414);
    let many = "k=1&".repeat(65);
    assert_eq!(
        server
            .error(&format!("/api/v1/plugins/utxo-tracker/query/a?{many}"))
            .0,
        400
    );

    let head =
        |line: &str| format!("GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{line}\r\n");
    let answer = server.raw(&format!("{}hello", head("content-length: 5\r\n")));
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.contains("body_not_allowed"),
        "{answer}"
    );
    assert!(
        server
            .raw(&head("transfer-encoding: chunked\r\n"))
            .starts_with("HTTP/1.1 413 ")
    );
    assert!(
        server
            .raw(&head(&"a: b\r\n".repeat(100)))
            .starts_with("HTTP/1.1 431 ")
    );
    assert!(
        server
            .raw(&head(&format!("a: {}\r\n", "z".repeat(20_000))))
            .starts_with("HTTP/1.1 431 ")
    );
    assert!(server.raw("nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert_eq!(server.json("/health").0, 200, "the server goes on");
}

#[test]
fn a_client_that_says_nothing_is_left() {
    let server = Server::start(Bounds {
        head_time: Duration::from_millis(200),
        ..Bounds::default()
    });
    let start = Instant::now();
    server.raw("GET /health HT");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn queries_run_in_a_bounded_number_and_do_not_hold_up_the_rest() {
    let server = Server::start(Bounds {
        queries: 2,
        ..Bounds::default()
    });
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| server.json("/api/v1/plugins/utxo-tracker/query/slow").0))
            .collect();
        std::thread::sleep(SLOW / 3);
        let start = Instant::now();
        assert_eq!(server.json("/health").0, 200);
        assert!(start.elapsed() < SLOW, "health waited for queries");
        for answer in asked {
            assert_eq!(answer.join().unwrap(), 200);
        }
    });
    assert_eq!(server.mock.most.load(Ordering::SeqCst), 2);
}

#[test]
fn a_question_that_finds_no_place_or_takes_too_long_is_told_so() {
    let bounds = Bounds {
        queries: 1,
        query_time: SLOW / 6,
        wait: SLOW / 6,
        ..Bounds::default()
    };
    let server = Server::start(bounds);
    let slow = "/api/v1/plugins/utxo-tracker/query/slow";
    assert_eq!(server.error(slow).0, 504);
    // the first one still runs, and keeps its place
    let (status, code, _) = server.error(slow);
    assert_eq!((status, code.as_str()), (503, "busy"));
    std::thread::sleep(SLOW);
    assert_eq!(
        server.json("/api/v1/plugins/utxo-tracker/query/fine").0,
        200
    );
}

#[test]
fn the_server_ends_when_told_with_idle_and_busy_connections_open() {
    let mut server = Server::start(Bounds {
        shutdown: Duration::from_secs(10),
        ..Bounds::default()
    });
    let mut idle = TcpStream::connect(server.address).unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut head = [0; 12];
    idle.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let address = server.address;
    let busy = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(b"GET /api/v1/plugins/utxo-tracker/query/slow HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    std::thread::sleep(SLOW / 3);
    let start = Instant::now();
    server.stop();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert!(
        busy.join().unwrap().starts_with("HTTP/1.1 200 "),
        "an open request is answered"
    );
    assert!(
        TcpStream::connect(address).is_err(),
        "nothing listens any more"
    );
}

#[test]
fn a_port_in_use_is_an_error_about_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let flags = Overrides::new()
        .set("--data-dir", "data_dir", "/nowhere")
        .set("--api-listen", "api.listen", address.as_str());
    let config = Config::from_sources(None, [], &flags).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let why = runtime.block_on(bind(&config)).unwrap_err();
    assert_eq!(why.origin, Origin::Flag("--api-listen".to_owned()));
    assert_eq!(why.key.as_deref(), Some("api.listen"));
    assert!(
        why.problem.contains(&address) && why.problem.contains("in use"),
        "{why}"
    );
}

#[test]
fn a_hash_is_turned_round_once() {
    let text = format!("01{}", "0".repeat(62));
    let mut inside = [0; 32];
    inside[31] = 1;
    assert_eq!(BlockId::parse(&text), Some(BlockId::Hash(inside)));
}

#[test]
fn peers_are_shown_to_everybody_and_changed_by_the_owner_alone() {
    let server = Server::start(Bounds::default());
    let (code, peers) = server.json("/api/v1/peers");
    assert_eq!(code, 200);
    assert_eq!(
        peers,
        serde_json::to_value(status::tests::example_peers()).unwrap()
    );
    for pointer in [
        "/peers/0/transport",
        "/peers/0/direction",
        "/peers/0/kind",
        "/peers/0/ping_ms",
        "/peers/0/bytes_in",
        "/peers/0/blocks",
        "/peers/0/in_flight",
        "/peers/0/misbehaviour",
        "/peers/0/since",
        "/bans/0/until",
        "/book/new",
    ] {
        assert!(peers.pointer(pointer).is_some(), "{pointer} is missing");
    }
    let post = |path: &str, token: &str| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        let request = format!(
            "POST /api/v1/peers/{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for (path, token, code, text) in [
        ("ban?address=10.0.0.1", "mine", "403", "owner's token"),
        ("ban?address=10.0.0.1&for=2h", "the-owners", "200", "7200s"),
        ("ban?address=x", "the-owners", "400", "no IP address"),
        ("ban", "the-owners", "400", "takes an address"),
        ("add?address=a&b=c", "the-owners", "400", "no parameter"),
        ("drop?address=99", "the-owners", "404", "no peer 99"),
        ("praise?address=1", "the-owners", "404", "nobody can praise"),
    ] {
        let answer = post(path, token);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code}")),
            "{path}: {answer}"
        );
        assert!(answer.contains(text), "{path}: {answer}");
    }
}
