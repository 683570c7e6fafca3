//! What people can ask.

use blockmill_sdk::prelude::*;

use crate::FeeEstimator;
use crate::horizon::LONG;
use crate::store::Summary;

/// Answers a query. The instance that runs it was given no block and no pool: it learns from the summary what the one that
/// follows the chain waits for.
pub fn answer(plugin: &FeeEstimator, path: &str, params: &Params) -> Result<Json, QueryError> {
    match path {
        "estimate" => {
            params.only(&["target", "mode"])?;
            estimate(plugin, params)
        }
        "" | "status" => {
            params.only(&[])?;
            Ok(status(plugin))
        }
        _ => Err(QueryError::NotFound(format!(
            "no query `{path}`: there are `estimate` and `status`"
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
    let rate = answer.found.map(|(estimate, _)| estimate.rate.round());
    let reason = match answer.found {
        Some(_) => None,
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
        "fee_rate_sat_vb": rate.map(|rate| rate / 1_000.0),
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

/// Two digits behind the point.
fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn status(plugin: &FeeEstimator) -> Json {
    let summary = Summary::get().unwrap_or_default();
    let waited_for: u32 = summary.waiting.iter().map(|(_, _, count)| count).sum();
    json!({
        "height": plugin.estimator.height(),
        "following_pool": summary.current,
        "waited_for": waited_for,
        "blocks_watched": plugin.estimator.block_span(),
        "longest_target": plugin.estimator.max_usable_target(),
        "last_change": summary.time,
    })
}
