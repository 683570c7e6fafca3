//! A plugin as it was built on the day of version 0.1.0: bindings of `wit/plugin.wit` beside this file, which is a copy that
//! never changes, and no SDK that would move on with the host.
//!
//! It calls every interface that 0.1.0 has. A host of any later 0.1 must load it and run it.

#[cfg(target_family = "wasm")]
#[allow(
    unsafe_code,
    missing_docs,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing
)]
mod bindings {
    wit_bindgen::generate!({ path: "wit", world: "plugin" });
}

#[cfg(target_family = "wasm")]
mod old {
    use crate::bindings::blockmill::plugin::{chain, log, rows, state, values, volatile};
    use crate::bindings::exports::blockmill::plugin::processor::{
        Block, BlockAnswer, BlockError, ColumnKind, Descriptor, Guest, MempoolChanges, QueryError,
        StartInfo, Table, TableColumn, TableKind, WantedColumns, WantedEvents,
    };

    struct Old;

    fn count() -> u64 {
        let bytes = state::get(b"count").unwrap_or_default();
        bytes.try_into().map_or(0, u64::from_le_bytes)
    }

    fn table(name: &str, kind: TableKind) -> Table {
        let column = TableColumn {
            name: "txid".into(),
            kind: ColumnKind::Hash,
            nullable: false,
        };
        Table {
            name: name.into(),
            kind,
            columns: vec![column],
            key: vec!["txid".into()],
            indexes: vec![vec!["txid".into()]],
        }
    }

    fn hashes(txids: Vec<u8>) -> rows::Column {
        rows::Column {
            cells: rows::Cells::Hashes(txids),
            nulls: vec![],
        }
    }

    impl Guest for Old {
        fn describe() -> Descriptor {
            Descriptor {
                name: "v0-1-0".into(),
                version: "0.1.0".into(),
                description: "What a plugin of the first version did".into(),
                state_version: 1,
                columns: WantedColumns::INPUTS
                    | WantedColumns::WITNESSES
                    | WantedColumns::OUTPUTS
                    | WantedColumns::SPENT
                    | WantedColumns::RAW,
                events: WantedEvents::MEMPOOL,
                tables: vec![
                    table("old_tx", TableKind::Anchored),
                    table("old_pool", TableKind::Volatile),
                ],
                roles: vec![],
            }
        }

        fn start(info: StartInfo) -> Result<(), String> {
            log::write(
                log::Level::Info,
                &format!("{} on {}", info.settings, chain::network()),
            );
            Ok(())
        }

        fn on_block(block: Block) -> Result<BlockAnswer, BlockError> {
            let height = block.header.height;
            let columns = block.columns;
            let all = [
                columns.inputs.is_some(),
                columns.witnesses.is_some(),
                columns.outputs.is_some(),
                columns.spent.is_some(),
                block.raw.is_some(),
                chain::header(height).is_some(),
                chain::subsidy(height) > 0,
            ];
            if all.contains(&false) {
                return Err(BlockError::Failed(format!("something is missing: {all:?}")));
            }
            let txids = columns.transactions.txids;
            let txs = (txids.len() / 32) as u64;
            rows::append(0, &[hashes(txids)]);
            state::put(b"count", &(count() + txs).to_le_bytes());
            let keys = state::Keys {
                width: 1,
                ends: vec![],
                bytes: b"ab".to_vec(),
            };
            let found = state::get_many(&keys);
            if found.found != [u8::from(height > 0), 0]
                && state::scan(b"a", None, 1).keys.ends.len() != 1
            {
                return Err(BlockError::Failed("the state lost a key".into()));
            }
            state::put(b"a", &height.to_le_bytes());
            values::set("transactions", count() as f64);
            values::push("transactions_of_block", txs as f64);
            Ok(BlockAnswer { spent: None })
        }

        fn on_mempool(changes: MempoolChanges) -> Result<(), String> {
            if !changes.removed.is_empty() {
                rows::delete(1, &[hashes(changes.removed)]);
            }
            if !changes.added.transactions.txids.is_empty() {
                rows::put(1, &[hashes(changes.added.transactions.txids)]);
            }
            volatile::put(b"time", &changes.time.to_le_bytes());
            Ok(())
        }

        fn query(path: String, _params: Vec<(String, String)>) -> Result<String, QueryError> {
            match path.as_str() {
                "count" => Ok(format!(
                    "{{\"transactions\":{},\"pool\":{}}}",
                    count(),
                    volatile::get(b"time").is_some()
                )),
                _ => Err(QueryError::NotFound("ask for count".into())),
            }
        }
    }

    #[allow(unsafe_code)]
    mod exported {
        use super::Old;
        crate::bindings::export!(Old with_types_in crate::bindings);
    }
}
