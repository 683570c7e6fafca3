//! What people can ask.

use blockmill_sdk::prelude::*;

use crate::UtxoTracker;
use crate::coin::{self, Coin};
use crate::index::{self, HASH_WIDTH};

/// Coins of one answer where `limit` does not say.
const DEFAULT_LIMIT: u32 = 100;

/// Most coins of one answer.
const MAX_LIMIT: u32 = 1_000;

/// Answers a query.
pub fn answer(plugin: &UtxoTracker, path: &str, params: &Params) -> Result<Json, QueryError> {
    match path {
        "" | "totals" => {
            params.only(&[])?;
            Ok(plugin.totals().json())
        }
        "coin" => {
            params.only(&["txid", "vout"])?;
            coin(plugin, params)
        }
        "coins" => {
            params.only(&["address", "script", "limit", "after"])?;
            coins(plugin, params)
        }
        "balance" => {
            params.only(&["address", "script"])?;
            balance(plugin, params)
        }
        _ => Err(QueryError::NotFound(format!(
            "no query `{path}`: there are `coin`, `coins`, `balance` and `totals`"
        ))),
    }
}

fn coin(plugin: &UtxoTracker, params: &Params) -> Result<Json, QueryError> {
    let txid = params.hash("txid")?;
    let vout: u32 = params
        .number("vout")?
        .ok_or_else(|| QueryError::BadRequest("the parameter `vout` is missing".into()))?;
    let bytes = state::get(&coin::key(&txid, vout)).ok_or_else(|| {
        QueryError::NotFound(format!(
            "{}:{vout} is not in the coin set: it never was, or is spent",
            hex::display(&txid)
        ))
    })?;
    let coin = read(&bytes)?;
    let mut answer = coin.json(&txid, vout, plugin.height());
    if let Json::Object(fields) = &mut answer {
        fields.insert("script".into(), hex::encode(coin.script).into());
        fields.insert(
            "address".into(),
            address::from_script(coin.script, &chain::network()).into(),
        );
    }
    Ok(answer)
}

fn read(bytes: &[u8]) -> Result<Coin<'_>, QueryError> {
    Coin::read(bytes).ok_or_else(|| QueryError::Failed("a coin in the state is too short".into()))
}

/// The script that the query names, by itself or by its address.
fn script(plugin: &UtxoTracker, params: &Params) -> Result<Vec<u8>, QueryError> {
    if !plugin.has_index() {
        return Err(QueryError::BadRequest(
            "coins by address need the index: set `index = true` in [plugins.utxo-tracker.settings] and rebuild the \
             plugin's state"
                .into(),
        ));
    }
    match (params.get("address"), params.get("script")) {
        (Some(text), None) => {
            let network = chain::network();
            address::to_script(text, &network).ok_or_else(|| {
                QueryError::BadRequest(format!("`{text}` is not an address of {network}"))
            })
        }
        (None, Some(text)) => hex::decode(text).ok_or_else(|| {
            QueryError::BadRequest(format!(
                "the parameter `script` is not hexadecimal: `{text}`"
            ))
        }),
        _ => Err(QueryError::BadRequest(
            "give either `address` or `script`".into(),
        )),
    }
}

/// Txid and output index at the end of a key of the index.
fn outpoint(key: &[u8]) -> Option<([u8; 32], u32)> {
    let (txid, vout) = key.get(1 + HASH_WIDTH..)?.split_first_chunk()?;
    Some((*txid, u32::from_be_bytes(vout.try_into().ok()?)))
}

fn coins(plugin: &UtxoTracker, params: &Params) -> Result<Json, QueryError> {
    let script = script(plugin, params)?;
    let limit = params.number("limit")?.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(QueryError::BadRequest(format!(
            "the parameter `limit` must be 1 to {MAX_LIMIT}"
        )));
    }
    let prefix = index::prefix(&script);
    let after = match params.get("after") {
        None => None,
        Some(text) => Some(after(&prefix, text)?),
    };
    let page = state::scan(&prefix, after.as_deref(), limit);
    let mut coins = Vec::with_capacity(page.keys.len());
    let mut last = None;
    for (key, value) in page.iter() {
        let (txid, vout) = outpoint(key)
            .ok_or_else(|| QueryError::Failed("a key of the index is too short".into()))?;
        coins.push(read(value)?.json(&txid, vout, plugin.height()));
        last = Some(OutPoint { txid: &txid, vout }.to_string());
    }
    Ok(json!({
        "script": hex::encode(&script),
        "coins": coins,
        // What to give as `after` for the next page.
        "next": last.filter(|_| page.more),
    }))
}

/// The key behind which a page begins, out of `txid:vout`.
fn after(prefix: &[u8], text: &str) -> Result<Vec<u8>, QueryError> {
    let wrong = || {
        QueryError::BadRequest(format!(
            "the parameter `after` is not `txid:vout`: `{text}`"
        ))
    };
    let (txid, vout) = text.split_once(':').ok_or_else(wrong)?;
    let txid = hex::parse_hash(txid).ok_or_else(wrong)?;
    let vout: u32 = vout.parse().map_err(|_| wrong())?;
    Ok([prefix, &txid, &vout.to_be_bytes()].concat())
}

fn balance(plugin: &UtxoTracker, params: &Params) -> Result<Json, QueryError> {
    let script = script(plugin, params)?;
    let (mut coins, mut sats, mut immature) = (0u64, 0u64, 0u64);
    let mut broken = false;
    state::scan_all(&index::prefix(&script), |_, value| {
        let Some(coin) = Coin::read(value) else {
            broken = true;
            return false;
        };
        coins += 1;
        sats += coin.value;
        if coin.coinbase && !plugin.is_mature(&coin) {
            immature += coin.value;
        }
        true
    });
    if broken {
        return Err(QueryError::Failed(
            "an entry of the index is too short".into(),
        ));
    }
    Ok(json!({
        "script": hex::encode(&script),
        "address": address::from_script(&script, &chain::network()),
        "balance_sats": sats,
        "immature_sats": immature,
        "coins": coins,
    }))
}
