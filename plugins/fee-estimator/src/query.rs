//! What people can ask.

use blockmill_sdk::prelude::*;

use crate::FeeEstimator;
use crate::coverage::{Coverage, State};
use crate::floor::Floor;
use crate::horizon::LONG;
use crate::pool::Pool;
use crate::projection::{self, BLOCKS, Block, ROOM};
use crate::store::Summary;

/// What is paid where there is room for all, sat/vB (mempool.space's default).
const DEFAULT_RATE: f64 = 1.0;

/// Answers a query. The instance that runs it was given no block and no pool: it learns from the summary what the one that
/// follows the chain waits for.
pub fn answer(plugin: &FeeEstimator, path: &str, params: &Params) -> Result<Json, QueryError> {
    match path {
        "estimate" => {
            params.only(&["target", "mode"])?;
            estimate(plugin, params)
        }
        "projection" => {
            params.only(&[])?;
            Ok(project(plugin))
        }
        "recommended" => {
            params.only(&[])?;
            Ok(recommended(plugin))
        }
        "" | "status" => {
            params.only(&[])?;
            Ok(status(plugin))
        }
        _ => Err(QueryError::NotFound(format!(
            "no query `{path}`: there are `estimate`, `projection`, `recommended` and `status`"
        ))),
    }
}

fn estimate(plugin: &FeeEstimator, params: &Params) -> Result<Json, QueryError> {
    let max = LONG.max_confirms();
    let target: u32 = params.number("target")?.ok_or_else(|| {
        QueryError::BadRequest("the parameter `target` is missing: the number of blocks".into())
    })?;
    if !(1..=max).contains(&target) {
        return Err(QueryError::BadRequest(format!(
            "the parameter `target` must be 1 to {max} blocks"
        )));
    }
    let mode = params.get("mode").unwrap_or("economical");
    let conservative = match mode {
        "conservative" => true,
        "economical" => false,
        other => {
            return Err(QueryError::BadRequest(format!(
                "the parameter `mode` must be `economical` or `conservative`, and is `{other}`"
            )));
        }
    };

    let summary = Summary::get().unwrap_or_default();
    // What is learnt from the pool is put together on an estimator of this query's own.
    let mut fresh = FeeEstimator::start(&StartInfo {
        settings: "{}".into(),
        height: Some(plugin.estimator.height()),
    })
    .map_err(QueryError::Failed)?;
    let estimator = &mut fresh.estimator;
    for (height, bucket, count) in &summary.waiting {
        estimator
            .unconfirmed_mut()
            .restore(*height, *bucket, *count);
    }
    if summary.height == estimator.height() {
        for (bucket, blocks) in &summary.failures {
            estimator.count_failure(*bucket, *blocks);
        }
    }

    let answer = estimator.estimate(target, conservative);
    let learnt = plugin.coverage.learnt(plugin.warmth);
    let coverage = coverage();
    let now = coverage.now(plugin.warmth);
    let estimated = answer
        .found
        .filter(|_| learnt.missing.is_none())
        .map(|(estimate, _)| estimate.rate.round() / 1_000.0);
    // The pool only lowers, and only when it is known to be complete.
    let pool = match (estimated, conservative, &now.missing) {
        (Some(_), false, None) => Some(pool_rate(plugin, answer.target, summary.time)),
        _ => None,
    };
    let rate = match (estimated, pool) {
        (Some(estimated), Some(pool)) => Some(estimated.min(pool)),
        (estimated, _) => estimated,
    };
    let reason = match answer.found {
        Some(_) => learnt
            .missing
            .as_ref()
            .map(|missing| format!("warming up: {missing}")),
        None if estimator.first_recorded == 0 => Some(
            "no block has confirmed a transaction that was seen waiting in the pool".to_string(),
        ),
        None if estimator.max_usable_target() < 2 => Some(format!(
            "transactions were seen to confirm over {} blocks so far, and 4 are needed for the shortest target",
            estimator.block_span()
        )),
        None => Some("too few transactions were seen to confirm to tell".to_string()),
    };
    let note = match answer.target {
        used if used == target || answer.found.is_none() => None,
        2 if target == 1 => {
            Some("a target of 1 block is never answered: this is the rate for 2".to_string())
        }
        used => Some(format!(
            "too few blocks were seen for {target}: this is the rate for {used}"
        )),
    };
    Ok(json!({
        "target": target,
        "answered_target": answer.target.max(2),
        "mode": mode,
        "fee_rate_sat_vb": rate,
        "estimator_sat_vb": estimated,
        "pool_sat_vb": pool,
        "warming_up": learnt.missing.is_some(),
        "coverage": shown(&coverage, &now),
        "horizon": answer.found.map(|(estimate, _)| estimate.horizon),
        "basis": answer.found.map(|(_, basis)| basis.name()),
        "enough_data": answer.found.is_some(),
        "reason": reason,
        "note": note,
        "range": answer.found.map(|(estimate, _)| json!({
            "from_sat_vb": estimate.range.start / 1_000.0,
            // The last bucket has no upper end.
            "to_sat_vb": Some(estimate.range.end / 1_000.0).filter(|end| *end < 1e9),
            "confirmed_within_target": round(estimate.range.within_target),
            "confirmed": round(estimate.range.confirmed),
            "still_waiting": estimate.range.in_mempool,
            "left_unconfirmed": round(estimate.range.left_mempool),
        })),
        "following_pool": summary.current,
        "height": estimator.height(),
    }))
}

fn coverage() -> Coverage {
    Coverage::default().with_recent()
}

/// For people: how much of the last blocks was in the pool.
fn shown(coverage: &Coverage, now: &State) -> Json {
    let last = coverage.last();
    json!({
        "blocks": now.blocks,
        "percent": now.percent.map(round),
        "last_block": last.map(|(height, txs, seen)| json!({
            "height": height,
            "transactions": txs,
            "seen": seen,
        })),
        "listening_since": Some(coverage.since).filter(|since| *since > 0),
        "missing": now.missing.clone(),
    })
}

/// The next blocks, and how many transactions are behind them.
fn blocks() -> (Vec<Block>, usize, usize) {
    let txs = Pool::get().unwrap_or_default();
    let (blocks, left) = projection::project(&txs, BLOCKS, ROOM);
    (blocks, txs.len(), left)
}

/// The pool's floor, sat/vB.
fn minimum(plugin: &FeeEstimator, time: u64) -> f64 {
    (plugin.min_fee as f64).max(Floor::get().at(time)) / 1_000.0
}

/// What the pool says of a target: the median of the last block but one that is waited for, or the floor where that is not
/// full.
fn pool_rate(plugin: &FeeEstimator, target: u32, time: u64) -> f64 {
    let (blocks, ..) = blocks();
    let place = (target.max(2) as usize - 2).min(BLOCKS - 1);
    let full = blocks.get(place).filter(|block| block.vsize() > 500_000.0);
    let rate = full.map_or(0.0, |block| projection::median(&block.rates()));
    rate.max(minimum(plugin, time))
}

fn project(plugin: &FeeEstimator) -> Json {
    let summary = Summary::get().unwrap_or_default();
    let coverage = coverage();
    let now = coverage.now(plugin.warmth);
    if now.missing.is_some() {
        return json!({
            "warming_up": true,
            "coverage": shown(&coverage, &now),
            "blocks": None::<f64>,
        });
    }
    let (blocks, txs, left) = blocks();
    let shown_blocks: Vec<Json> = blocks
        .iter()
        .map(|block| {
            let rates = block.rates();
            let at = |percent: usize| {
                let place = (rates.len().saturating_sub(1)) * percent / 100;
                rates.get(place).copied().map(round)
            };
            json!({
                "transactions": block.txs.len() as u32,
                "vsize": block.vsize(),
                "weight": block.weight,
                "sigops": block.sigops,
                "fees_sat": block.fees,
                "median_sat_vb": round(projection::median(&rates)),
                "range_sat_vb": [0, 10, 25, 50, 75, 90, 100].map(at).to_vec(),
            })
        })
        .collect();
    json!({
        "warming_up": false,
        "coverage": shown(&coverage, &now),
        "height": summary.height,
        "time": summary.time,
        "pool": txs as u32,
        "blocks": shown_blocks,
        "left_over": left as u32,
    })
}

fn recommended(plugin: &FeeEstimator) -> Json {
    let summary = Summary::get().unwrap_or_default();
    let coverage = coverage();
    let now = coverage.now(plugin.warmth);
    let warm = now.missing.is_none();
    let rates = warm.then(|| {
        let (blocks, ..) = blocks();
        projection::recommend(&blocks, minimum(plugin, summary.time), DEFAULT_RATE)
    });
    json!({
        "warming_up": !warm,
        "coverage": shown(&coverage, &now),
        "fastest_sat_vb": rates.map(|rates| rates.fastest),
        "half_hour_sat_vb": rates.map(|rates| rates.half_hour),
        "hour_sat_vb": rates.map(|rates| rates.hour),
        "economy_sat_vb": rates.map(|rates| rates.economy),
        "minimum_sat_vb": rates.map(|rates| rates.minimum),
    })
}

/// Two digits behind the point.
fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn status(plugin: &FeeEstimator) -> Json {
    let summary = Summary::get().unwrap_or_default();
    let waited_for: u32 = summary.waiting.iter().map(|(_, _, count)| count).sum();
    let coverage = coverage();
    let now = coverage.now(plugin.warmth);
    json!({
        "warming_up": now.missing.is_some(),
        "coverage": shown(&coverage, &now),
        "height": plugin.estimator.height(),
        "following_pool": summary.current,
        "pool": Pool::get().map_or(0, |txs| txs.len() as u32),
        "waited_for": waited_for,
        "blocks_watched": plugin.estimator.block_span(),
        "longest_target": plugin.estimator.max_usable_target(),
        "last_change": summary.time,
    })
}
