//! Lists what waits in the pool. Honest, but for the setting `numbers`, with which a row says as which one its instance heard
//! of it, and for the query `calls`, which says how often the instance was told: both are gone with the instance.

use std::collections::BTreeSet;

use blockmill_sdk::prelude::*;
use blockmill_sdk::rows::{Column, Hash, Integer};
use blockmill_sdk::{table, volatile};

table! {
    /// What waits.
    pub table Waiting of WaitingRow: Volatile "hearsay_waiting" {
        txid: Hash,
        fee: Integer,
    }
    key [txid];
    indexes [];
}

/// The plugin.
pub struct Hearsay {
    numbers: bool,
    heard: i64,
    calls: u64,
    waiting: BTreeSet<[u8; 32]>,
    rows: Waiting,
}

impl Processor for Hearsay {
    fn describe() -> Descriptor {
        Descriptor::new("hearsay", env!("CARGO_PKG_VERSION"), "Lists what waits")
            .wants_mempool()
            .table::<Waiting>()
    }

    fn start(info: &StartInfo) -> Result<Self, String> {
        let mut settings = info.settings()?;
        let numbers = settings.bool("numbers", false)?;
        settings.finish()?;
        Ok(Self {
            numbers,
            heard: 0,
            calls: 0,
            waiting: BTreeSet::new(),
            rows: Waiting::of::<Self>(),
        })
    }

    fn on_mempool(&mut self, changes: &MempoolChanges) -> Result<(), String> {
        self.calls += 1;
        if changes.reset() {
            self.waiting.clear();
        }
        let gone: Vec<u8> = changes.removed().flat_map(|(txid, _)| *txid).collect();
        for (txid, _) in changes.removed() {
            self.waiting.remove(txid);
        }
        self.rows.delete(&[Column::hashes(gone)]);
        for entry in changes.added() {
            self.heard += 1;
            self.waiting.insert(*entry.txid());
            self.rows.push(WaitingRow {
                txid: entry.txid(),
                fee: match self.numbers {
                    true => self.heard,
                    false => entry.fee() as i64,
                },
            });
        }
        self.rows.flush();
        volatile::put(b"calls", &self.calls.to_le_bytes());
        volatile::put(b"waiting", &(self.waiting.len() as u64).to_le_bytes());
        Ok(())
    }

    fn query(&self, path: &str, params: &Params) -> Result<Json, QueryError> {
        let number = |key: &[u8]| {
            let bytes = volatile::get(key).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        match path {
            "waiting" => {
                params.only(&["times"])?;
                let times: u64 = params.number("times")?.unwrap_or(1);
                Ok(json!({ "waiting": number(b"waiting") * times }))
            }
            "calls" => Ok(json!({ "calls": number(b"calls") })),
            "panic" => panic!("asked for it"),
            _ => Err(QueryError::NotFound("no such query".into())),
        }
    }
}

export_plugin!(Hearsay);
