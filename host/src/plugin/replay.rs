//! A failed call run again from its capsule, without the host: by the same engine, under the same limits.

use super::budget::Limits;
use super::capsule::{At, Capsule, Given};
use super::capsule_state::{CapsuleState, CapsuleStateError};
use super::descriptor::Descriptor;
use super::engine::{Compiled, PluginEngine};
use super::error::CallError;
use super::gauges::Gauges;
use super::host::{CapsuleSpace, Space, Surroundings, Watched};
use super::instance::{BlockInput, Instance, MempoolInput, QueryError};
use super::volatile::Volatile;
use crate::config::Wasi;
use crate::frame::Frame;
use crate::metrics::Metrics;
use crate::network::{Network, Params};
use crate::store::{Cursor, RowBuffer, RowStore};
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// The kind of failure in a word.
    pub class: String,
    pub message: String,
    /// Functions, innermost first.
    pub backtrace: String,
}

/// What a call that succeeded has left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Wrote {
    /// State keys that were set, and removed.
    pub keys_set: usize,
    pub keys_removed: usize,
    /// Rows by table.
    pub rows: BTreeMap<String, usize>,
    /// The answer to a query.
    pub answer: Option<String>,
}

/// What came of running a call again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replayed {
    pub plugin: String,
    /// The version of the component that was run, and the SHA-256 of its file.
    pub version: String,
    pub component: String,
    /// It is the component that failed.
    pub same_component: bool,
    pub call: String,
    pub block: Option<At>,
    /// The failure in the capsule.
    pub was: Failed,
    /// How it failed now; none when it did not.
    pub failed: Option<Failed>,
    /// It failed for the same cause.
    pub same_failure: bool,
    /// It could not be run to its end: it reads what the capsule does not hold.
    pub missing: bool,
    /// What it left, when it did not fail.
    pub wrote: Option<Wrote>,
}

impl Replayed {
    /// Whether the call succeeds now.
    pub fn is_mended(&self) -> bool {
        self.failed.is_none()
    }
}

/// Runs the call of a capsule again, with its own component or with another.
///
/// # Errors
///
/// When it cannot be run at all: there is no component, or the capsule lacks what the call is to be given.
pub fn replay(capsule: Capsule, with: Option<&Path>) -> Result<Replayed> {
    let engine = PluginEngine::new()?;
    let compiled = match (with, &capsule.wasm) {
        (Some(path), _) => engine.load(path, Wasi::Inert)?,
        (None, Some(wasm)) => engine.compile(wasm, Wasi::Inert)?,
        (None, None) => bail!(
            "the capsule does not hold its component, {} {} of {} bytes, because it is too large: give its file with --with, or \
             a mended one; its sha256 is {}, and the host keeps it as components/{}.wasm in its data folder",
            capsule.header.plugin,
            capsule.header.version,
            capsule.header.component_bytes,
            capsule.header.component,
            capsule.header.component
        ),
    };
    let descriptor = Instance::describe(&engine, &compiled)?;
    ensure!(
        descriptor.name == capsule.header.plugin,
        "the component is the plugin {}, the capsule is of {}",
        descriptor.name,
        capsule.header.plugin
    );
    let header = capsule.header.clone();
    let component = compiled.sha256.to_string();
    let outcome = run(&engine, &compiled, &descriptor, capsule)?;
    let was = Failed {
        class: header.class,
        message: header.message,
        backtrace: header.backtrace,
    };
    let mut replayed = Replayed {
        plugin: header.plugin,
        version: descriptor.version,
        same_component: component == header.component,
        component,
        call: header.call,
        block: header.block,
        was,
        failed: None,
        same_failure: false,
        missing: false,
        wrote: None,
    };
    match outcome {
        Ok(wrote) => replayed.wrote = Some(wrote),
        Err(error) => {
            let missing = missing(&error);
            replayed.missing = missing.is_some();
            replayed.same_failure = !replayed.missing
                && error.class().as_str() == replayed.was.class
                && error.cause() == header.cause;
            let mut message = missing.unwrap_or_else(|| error.to_string());
            if replayed.missing && !header.recorded {
                message.push_str(
                    " (it is of the first failure, before what the plugin reads was recorded)",
                );
            }
            replayed.failed = Some(Failed {
                class: error.class().as_str().to_owned(),
                message,
                backtrace: error.backtrace().to_owned(),
            });
        }
    }
    Ok(replayed)
}

/// The message of a read that the capsule has no answer to.
fn missing(error: &CallError) -> Option<String> {
    let CallError::Host { call, source } = error else {
        return None;
    };
    let missing = source.downcast_ref::<CapsuleStateError>()?;
    Some(format!("{call} {missing}"))
}

/// Runs the call; the outer error is ours, the inner one the plugin's.
fn run(
    engine: &PluginEngine,
    compiled: &Compiled,
    descriptor: &Descriptor,
    capsule: Capsule,
) -> Result<Result<Wrote, CallError>> {
    let Capsule {
        header,
        given,
        reads,
        ..
    } = capsule;
    let network: Network = serde_json::from_value(header.network.clone().into())
        .with_context(|| format!("the network {:?} is not known", header.network))?;
    let limits = Limits::from_keys(&header.limits);
    let volatile = Volatile::default();
    for (key, value) in &reads.volatile {
        if let Some(value) = value {
            volatile.put(key.clone(), value);
        }
    }
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), &header.network);
    let surroundings = Arc::new(Surroundings {
        name: header.plugin.clone(),
        params: Params::of(network),
        feed: Arc::new(reads.headers.clone()),
        volatile,
        gauges: Gauges::new(metrics.plugin(&header.plugin)),
        watched: Watched::default(),
    });
    // A reset of the pool begins with an empty space: what was not read is not there.
    let reset = matches!(&given, Given::Mempool { header, .. } if header.reset);
    let known = (!reset).then(|| reads.volatile.keys().cloned().collect());
    let space = CapsuleSpace {
        volatile: known,
        state: CapsuleState::new(reads),
        rows: RowBuffer::new(&descriptor.tables),
    };
    let cursor = header.cursor.as_ref().and_then(At::position);
    if let Given::Query { path, params } = &given {
        let params: Vec<(&str, &str)> = params
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let space = Space::Capsule(Box::new(space));
        let answer = Instance::ask(
            engine,
            compiled,
            surroundings,
            space,
            cursor,
            &header.settings,
            limits,
            path,
            &params,
            // Whoever asked then: nothing is changed here.
            Some(&mut Vec::new()),
        );
        return Ok(match answer {
            Ok(answer) => Ok(Wrote {
                answer: Some(answer),
                ..Wrote::default()
            }),
            Err(QueryError::Call(error)) => Err(error),
            Err(
                QueryError::NotFound(message)
                | QueryError::BadRequest(message)
                | QueryError::Failed(message),
            ) => Err(CallError::Failed {
                call: "query",
                message,
            }),
        });
    }
    let started = Instance::for_capsule(
        engine,
        compiled,
        surroundings,
        space,
        &header.settings,
        cursor,
        limits,
    );
    let mut instance = match started {
        Ok(instance) => instance,
        Err(error) => return Ok(Err(error)),
    };
    let ran = match &given {
        Given::Block {
            position,
            median_time,
            raw,
            spent,
        } => {
            // The other columns are made of the block.
            ensure!(
                spent.is_some() || !descriptor.columns.spent,
                "the component asks for the column `spent`, which the capsule does not hold: {} {}, which failed, did not \
                 ask for it; let it fail again in a host with this component",
                header.plugin,
                header.version
            );
            let frame =
                Frame::decode(raw.clone()).context("the block in the capsule is damaged")?;
            let input = BlockInput {
                position: *position,
                frame: &frame,
                median_time: *median_time,
                spent: spent.as_deref(),
            };
            match instance.on_block(&input, descriptor.columns) {
                Ok(None) if descriptor.coins => Err(CallError::no_spent()),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            }
        }
        Given::Mempool { header, changes } => {
            let input = MempoolInput {
                changes,
                reset: header.reset,
                time: header.time,
                height: header.height,
                current: header.current,
            };
            instance.on_mempool(&input, descriptor.columns)
        }
        Given::Start | Given::Query { .. } => Ok(()),
    };
    let Some(space) = instance.capsule_space_mut() else {
        return Ok(ran.map(|()| Wrote::default()));
    };
    let (keys_set, keys_removed) = space.state.changes();
    let wrote = Wrote {
        keys_set,
        keys_removed,
        rows: space.rows.rows_by_table(),
        answer: None,
    };
    if let Err(error) = ran {
        return Ok(Err(error));
    }
    let stored = store(&given, descriptor, &mut space.rows)?;
    Ok(stored.map(|()| wrote))
}

/// Puts the rows that the call left into a database of their own, to see whether it takes them. Rows of other blocks cannot
/// be in their way: the height is a part of every key of an anchored table, and rows of the pool replace one another.
fn store(
    given: &Given,
    descriptor: &Descriptor,
    rows: &mut RowBuffer,
) -> Result<Result<(), CallError>> {
    let (call, cursor) = match given {
        Given::Block { position, .. } => ("on-block", Some(Cursor::from(*position))),
        Given::Mempool { .. } => ("on-mempool", None),
        Given::Start | Given::Query { .. } => return Ok(Ok(())),
    };
    let folder = tempfile::tempdir().context("failed to make a folder for the rows")?;
    let database = folder.path().join("rows.sqlite");
    let store = RowStore::open(&format!("sqlite:{}", database.display()))?;
    store.register(&descriptor.name, &descriptor.tables)?;
    match store.flush(&descriptor.name, rows, cursor) {
        Ok(()) => Ok(Ok(())),
        Err(refused) if refused.is_plugins_fault() => Ok(Err(CallError::rows(call, &refused))),
        Err(error) => Err(error.into()),
    }
}
