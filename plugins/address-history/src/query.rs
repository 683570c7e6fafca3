//! What people can ask.

use blockmill_sdk::Object;
use blockmill_sdk::prelude::*;

use crate::AddressHistory;
use crate::entries::{self, BALANCES, EntryKey, HISTORY, NEXT, Number, ScriptHash, TRANSACTIONS};
use crate::pool::{self, MAX_LISTED, Unconfirmed};

/// Transactions of one answer where `limit` does not say.
const DEFAULT_LIMIT: u32 = 100;
/// Most transactions of one answer.
const MAX_LIMIT: u32 = 1_000;

/// Answers a query.
pub fn answer(plugin: &AddressHistory, path: &str, params: &Params) -> Result<Json, QueryError> {
    match path {
        "" | "status" => {
            params.only(&[])?;
            let heard = pool::heard();
            Ok(json!({
                "height": plugin.height,
                "transactions": NEXT.get()?.unwrap_or(0),
                "pool_height": heard.map(|(height, _)| height),
                "scripts_without_room": heard.map(|(_, missing)| missing),
            }))
        }
        "history" => {
            params.only(&["address", "script", "scripthash", "limit", "after"])?;
            history(params)
        }
        "unconfirmed" => {
            params.only(&["address", "script", "scripthash"])?;
            let unconfirmed = pool::of_script(&script(params)?);
            Ok(
                json!({ "unconfirmed": sums(&unconfirmed), "transactions": listed(&unconfirmed, MAX_LISTED) }),
            )
        }
        "balance" => {
            params.only(&["address", "script", "scripthash"])?;
            balance(params)
        }
        _ => Err(QueryError::NotFound(format!(
            "no query `{path}`: there are `history`, `balance`, `unconfirmed` and `status`"
        ))),
    }
}

/// The script that a query names, by its address, itself or its hash.
fn script(params: &Params) -> Result<ScriptHash, QueryError> {
    match (
        params.get("address"),
        params.get("script"),
        params.get("scripthash"),
    ) {
        (Some(text), None, None) => {
            let network = chain::network();
            let script = address::to_script(text, &network);
            script.map(|script| entries::hash(&script)).ok_or_else(|| {
                QueryError::BadRequest(format!("`{text}` is not an address of {network}"))
            })
        }
        (None, Some(text), None) => {
            let script = hex::decode(text);
            script.map(|script| entries::hash(&script)).ok_or_else(|| {
                QueryError::BadRequest(format!(
                    "the parameter `script` is not hexadecimal: `{text}`"
                ))
            })
        }
        (None, None, Some(_)) => Ok(entries::shorten(&params.hash("scripthash")?)),
        _ => Err(QueryError::BadRequest(
            "give one of `address`, `script` and `scripthash`".into(),
        )),
    }
}

fn history(params: &Params) -> Result<Json, QueryError> {
    let script = script(params)?;
    let limit = params.number("limit")?.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(QueryError::BadRequest(format!(
            "the parameter `limit` must be 1 to {MAX_LIMIT}"
        )));
    }
    let after = params.number("after")?.map(|number| EntryKey {
        script,
        number: Number(number),
    });
    let (page, more) = HISTORY.page_under(&script, after.as_ref(), limit)?;
    let mut transactions = Vec::with_capacity(page.len());
    for (key, moved) in &page {
        let record = TRANSACTIONS
            .get(&key.number)?
            .ok_or_else(|| QueryError::Failed("a transaction of the history is missing".into()))?;
        let mut object = entry(&record.txid, moved.received.0, moved.sent.0);
        object.push("height", record.height.into());
        object.push(
            "time",
            chain::header(record.height)
                .map(|header| header.time)
                .into(),
        );
        object.push("number", key.number.0.into());
        transactions.push(object);
    }
    // The first page begins with what is not confirmed.
    let unconfirmed = match after {
        None => listed(&pool::of_script(&script), limit as usize),
        Some(_) => Vec::new(),
    };
    let next = page.last().filter(|_| more).map(|(key, _)| key.number.0);
    Ok(json!({
        "unconfirmed": unconfirmed,
        // Newest first.
        "transactions": transactions,
        // What to give as `after` for the next page.
        "next": next,
    }))
}

fn balance(params: &Params) -> Result<Json, QueryError> {
    let script = script(params)?;
    let sum = BALANCES.get(&script)?.unwrap_or_default();
    let heard = pool::heard();
    let unconfirmed = heard.map(|_| sums(&pool::of_script(&script)));
    Ok(json!({
        "balance_sats": sum.received.0.saturating_sub(sum.sent.0),
        "received_sats": sum.received.0,
        "sent_sats": sum.sent.0,
        "transactions": sum.txs.0,
        // Null where the pool is not followed, or was not heard of yet.
        "unconfirmed": unconfirmed,
    }))
}

/// What the pool would add to and take from the balance.
fn sums(unconfirmed: &Unconfirmed) -> Json {
    json!({
        "received_sats": unconfirmed.received,
        "sent_sats": unconfirmed.sent,
        "transactions": unconfirmed.txs,
    })
}

fn entry(txid: &[u8; 32], received: u64, sent: u64) -> Object {
    let mut object = Object::new();
    object.push("txid", hex::display(txid).into());
    object.push("received_sats", received.into());
    object.push("sent_sats", sent.into());
    object
}

fn listed(unconfirmed: &Unconfirmed, limit: usize) -> Vec<Object> {
    let entries = pool::listed(unconfirmed).into_iter().take(limit);
    entries
        .map(|(txid, received, sent)| entry(&txid, received, sent))
        .collect()
}
