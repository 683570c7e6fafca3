//! The HTTP interface: requests as bytes, on one connection.

use std::cell::Cell;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use blockmill::api::{
    Backend, BlockId, Bounds, PeerOrder, PluginAction, QueryFailure, serve_stream,
};
use blockmill::metrics::Metrics;
use blockmill::status::{
    BlockInfo, Headers, Health, Mempool, Peers, Plugin, PoolTransaction, Status, Tip, TxOutSet,
    Values,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};

use super::Verdict;
use crate::{Input, memory};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(1)
        .thread_keep_alive(Duration::from_secs(3_600))
        .build()
        .expect("a runtime")
});
static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::new("0", "regtest"));

/// How long an answer is waited for, and how often the server gets its turn at least: the machine may be busy.
const PATIENCE: Duration = Duration::from_millis(20);
const TURNS: u32 = 100;

/// A byte says in what pieces the requests come; the rest are the requests.
pub fn run(data: &[u8]) -> Verdict {
    let mut input = Input::new(data);
    let piece = usize::from(input.byte()) + 1;
    let requests = input.rest();
    LazyLock::force(&METRICS);
    RUNTIME.block_on(tokio::task::yield_now());
    let answers = memory::bounded((8 << 20) + 400 * data.len(), || {
        RUNTIME.block_on(ask(requests, piece))
    });
    let text = String::from_utf8_lossy(&answers);
    assert!(text.is_empty() || text.starts_with("HTTP/1."), "{text}");
    // The host here never fails, so no answer may say that it did.
    assert!(!text.contains("\"code\":\"failed\""), "{text}");
    let status = text.get("HTTP/1.1 ".len()..).unwrap_or_default();
    assert!(!status.starts_with("500"), "{text}");
    for answer in text.split("\r\n\r\n").skip(1) {
        if answer.starts_with('{') {
            let end = answer.rfind('}').map_or(0, |end| end + 1);
            let body: Result<serde_json::Value, _> = serde_json::from_str(&answer[..end]);
            assert!(body.is_ok(), "{answer}");
        }
    }
    Verdict::taken(status.starts_with("200"))
}

async fn ask(requests: &[u8], piece: usize) -> Vec<u8> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (mut read, mut write) = tokio::io::split(ours);
    let answered = Cell::new(false);
    let server = serve_stream(theirs, Arc::new(Quiet), METRICS.clone(), Bounds::default());
    let client = async {
        for piece in requests.chunks(piece) {
            if write.write_all(piece).await.is_err() {
                break;
            }
        }
        // Whoever hangs up before the answer gets none.
        let whole = requests.windows(4).any(|end| end == b"\r\n\r\n");
        let (start, mut turns) = (Instant::now(), 0);
        while whole && !answered.get() && (start.elapsed() < PATIENCE || turns < TURNS) {
            tokio::task::yield_now().await;
            turns += 1;
        }
        let _ = write.shutdown().await;
    };
    let mut answers = Vec::new();
    let listener = async {
        while let Ok(1..) = read.read_buf(&mut answers).await {
            answered.set(true);
        }
    };
    tokio::join!(server, client, listener);
    answers
}

/// A host that has nothing to tell, and says back what it was asked.
struct Quiet;

fn asked(what: &impl std::fmt::Debug) -> String {
    serde_json::Value::String(format!("{what:?}")).to_string()
}

impl Backend for Quiet {
    fn status(&self) -> Status {
        Status {
            network: "regtest".to_owned(),
            version: "0".to_owned(),
            uptime_seconds: 1,
            tip: Tip::default(),
            headers: Headers::default(),
            synced: true,
            not_following: None,
            peers: Vec::new(),
            mempool: Mempool::default(),
            plugins: Vec::new(),
            reorgs: 0,
            source: None,
            config_error: None,
            needs_restart: Vec::new(),
        }
    }

    fn pool_transaction(&self, _txid: bitcoin::Txid) -> Option<PoolTransaction> {
        None
    }

    fn health(&self) -> Health {
        Health::Following
    }

    fn tip(&self) -> Tip {
        Tip::default()
    }

    fn block(&self, _id: BlockId) -> anyhow::Result<Option<BlockInfo>> {
        Ok(None)
    }

    fn plugins(&self) -> Vec<Plugin> {
        Vec::new()
    }

    fn query(
        &self,
        plugin: &str,
        path: &str,
        params: Vec<(String, String)>,
    ) -> Result<String, QueryFailure> {
        assert!(params.len() <= Bounds::default().params);
        match plugin {
            "fees" => Ok(asked(&(path, params))),
            _ => Err(QueryFailure::NoSuchPlugin(format!("no plugin {plugin}"))),
        }
    }

    fn change(
        &self,
        plugin: &str,
        path: &str,
        params: Vec<(String, String)>,
    ) -> Result<String, QueryFailure> {
        self.query(plugin, path, params)
    }

    fn is_owner(&self, token: &str) -> bool {
        token == "owner"
    }

    fn values(&self, _plugin: &str) -> Result<Values, QueryFailure> {
        Ok(Values::default())
    }

    fn manage(&self, plugin: Option<(String, PluginAction)>) -> Result<String, QueryFailure> {
        Ok(format!("{plugin:?}"))
    }

    fn peers(&self) -> Peers {
        Peers::default()
    }

    fn change_peers(&self, order: PeerOrder) -> Result<String, QueryFailure> {
        Ok(format!("{order:?}"))
    }

    fn txoutset(&self) -> Result<TxOutSet, QueryFailure> {
        Err(QueryFailure::Busy("not now".to_owned()))
    }
}
