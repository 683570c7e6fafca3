//! What people can ask, and what the host's owner can change.

use blockmill_sdk::Object;
use blockmill_sdk::prelude::*;

use crate::definition::{self, BROADCAST, Definition, LISTS};
use crate::{COUNTS, MATCHES, MatchKey, Watch, name_key};

/// Matches of one answer where `limit` does not say.
const DEFAULT_LIMIT: u32 = 100;
/// Most matches of one answer.
const MAX_LIMIT: u32 = 1_000;
/// Scripts that are longer are shown by their beginning.
const SHOWN_SCRIPT: usize = 520;
/// Entries of each list of a definition that an answer shows.
const SHOWN_ITEMS: usize = 100;

/// Answers a query.
pub fn answer(plugin: &Watch, path: &str, params: &Params) -> Result<Json, QueryError> {
    match path {
        "" | "collections" => {
            params.only(&["collection"])?;
            collections(plugin, params)
        }
        "matches" => {
            params.only(&["collection", "limit", "after"])?;
            matches(plugin, params)
        }
        "unconfirmed" => {
            params.only(&["collection"])?;
            unconfirmed(plugin, params)
        }
        "add" => add(plugin, params),
        "remove" => remove(plugin, params),
        _ => Err(QueryError::NotFound(format!(
            "no query `{path}`: there are `collections`, `matches`, `unconfirmed`, `add` and `remove`"
        ))),
    }
}

/// A match as people see it.
pub fn json(
    txid: &[u8; 32],
    direction: &str,
    place: u32,
    depth: u8,
    value: u64,
    script: &[u8],
    network: &str,
) -> Object {
    let mut object = Object::new();
    object.push("txid", hex::display(txid).into());
    object.push("direction", direction.into());
    object.push("place", place.into());
    object.push("depth", u32::from(depth).into());
    object.push("value_sats", value.into());
    let shown = script.get(..SHOWN_SCRIPT).unwrap_or(script);
    object.push("script", hex::encode(shown).into());
    object.push("address", address::from_script(script, network).into());
    object
}

/// The collection that a query names.
fn named<'a>(plugin: &'a Watch, params: &Params) -> Result<&'a definition::Collection, QueryError> {
    let name = params.required("collection")?;
    let place = plugin.collections.place(name);
    place
        .and_then(|place| plugin.collections.get(place))
        .ok_or_else(|| QueryError::NotFound(format!("there is no collection `{name}`")))
}

fn collections(plugin: &Watch, params: &Params) -> Result<Json, QueryError> {
    let one = match params.get("collection") {
        Some(_) => Some(named(plugin, params)?.name.as_str()),
        None => None,
    };
    let mut list = Vec::new();
    for collection in &plugin.collections.all {
        if one.is_some_and(|one| one != collection.name) {
            continue;
        }
        let mut object = Object::new();
        object.push("name", collection.name.as_str().into());
        object.push("descendants", collection.definition.descendants.into());
        for ((name, _), items) in LISTS.iter().zip(&collection.definition.lists) {
            object.push(*name, (items.len() as u64).into());
            if one.is_some() {
                let shown: Vec<&str> = items.iter().take(SHOWN_ITEMS).map(String::as_str).collect();
                object.push(format!("first_{name}"), shown.into());
            }
        }
        let added: usize = collection.runtime.lists.iter().map(Vec::len).sum();
        object.push("added_by_queries", (added as u64).into());
        let matches = COUNTS.get(&name_key(&collection.name))?.unwrap_or(0);
        object.push("matches", matches.into());
        list.push(object);
    }
    Ok(json!({ "height": plugin.height, "collections": list }))
}

fn matches(plugin: &Watch, params: &Params) -> Result<Json, QueryError> {
    let collection = named(plugin, params)?;
    let limit = params.number("limit")?.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(QueryError::BadRequest(format!(
            "the parameter `limit` must be 1 to {MAX_LIMIT}"
        )));
    }
    let name = name_key(&collection.name);
    let after = params.number("after")?.map(|number: u32| MatchKey {
        collection: name,
        before_last: u32::MAX - number,
    });
    let (page, more) = MATCHES.page_under(&name, after.as_ref(), limit)?;
    let next = page
        .last()
        .filter(|_| more)
        .map(|(key, _)| u32::MAX - key.before_last);
    let matches: Vec<Object> = page
        .iter()
        .map(|(key, record)| {
            let direction = ["in", "out", "tx"].get(usize::from(record.direction));
            let mut object = json(
                &record.txid,
                direction.unwrap_or(&""),
                record.place,
                record.depth,
                record.value,
                &record.script,
                &plugin.network,
            );
            object.push("height", record.height.into());
            object.push("position", record.position.into());
            object.push("number", (u32::MAX - key.before_last).into());
            object
        })
        .collect();
    Ok(json!({
        "collection": collection.name.as_str(),
        "matches": matches,
        // What to give as `after` for the next page.
        "next": next,
    }))
}

fn unconfirmed(plugin: &Watch, params: &Params) -> Result<Json, QueryError> {
    let collection = named(plugin, params)?;
    match volatile::get(collection.name.as_bytes()) {
        Some(text) => {
            let text = String::from_utf8_lossy(&text);
            Json::parse(&text).map_err(QueryError::Failed)
        }
        None => Ok(json!({
            "collection": collection.name.as_str(),
            "count": null,
            "matches": [],
            "left_out": 0,
        })),
    }
}

/// What a query adds or removes.
fn given(params: &Params) -> Result<Definition, QueryError> {
    params.only(&[
        "collection",
        "address",
        "script",
        "pattern",
        "txid",
        "descendants",
    ])?;
    let mut given = Definition::default();
    for ((_, parameter), list) in LISTS.iter().zip(&mut given.lists) {
        list.extend(params.all(parameter).map(str::to_string));
    }
    given.descendants = match params.get("descendants") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            return Err(QueryError::BadRequest(
                "the parameter `descendants` must be true or false".into(),
            ));
        }
    };
    Ok(given)
}

fn add(plugin: &Watch, params: &Params) -> Result<Json, QueryError> {
    let name = params.required("collection")?;
    if !definition::is_name(name) {
        return Err(QueryError::BadRequest(format!(
            "`{name}` is no name of a collection: 1 to {} lower-case letters, digits, `-` and `_`",
            definition::MAX_NAME
        )));
    }
    let given = given(params)?;
    if given.is_empty() && params.get("descendants").is_none() {
        return Err(QueryError::BadRequest(
            "give `address`, `script`, `pattern`, `txid` or `descendants`".into(),
        ));
    }
    let there = plugin.collections.place(name);
    let mut definition = there
        .and_then(|place| plugin.collections.get(place))
        .map_or_else(Definition::default, |collection| collection.runtime.clone());
    definition.join(given);
    if params.get("descendants") == Some("false") {
        definition.descendants = false;
    }
    // The host asks `start` whether it takes this, before it counts.
    runtime::set(name, &definition.json());
    Ok(json!({ "collection": name, "added_by_queries": definition.json() }))
}

fn remove(plugin: &Watch, params: &Params) -> Result<Json, QueryError> {
    let collection = named(plugin, params)?;
    let given = given(params)?;
    let mut left = collection.runtime.clone();
    if left == Definition::default() {
        return Err(QueryError::BadRequest(format!(
            "nothing was added to `{}` by a query: what the configuration names is removed there",
            collection.name
        )));
    }
    if given.is_empty() {
        left = Definition::default();
    }
    for (list, gone) in left.lists.iter_mut().zip(&given.lists) {
        for item in gone {
            if !list.contains(item) {
                return Err(QueryError::BadRequest(format!(
                    "`{item}` was not added to the collection by a query: what the configuration names is removed there"
                )));
            }
        }
        list.retain(|item| !gone.contains(item));
    }
    let name = collection.name.as_str();
    if left.is_empty() {
        runtime::remove(name);
        let configured = collection.definition != collection.runtime || name == BROADCAST;
        return Ok(json!({ "collection": name, "removed": !configured, "added_by_queries": null }));
    }
    runtime::set(name, &left.json());
    Ok(json!({ "collection": name, "removed": false, "added_by_queries": left.json() }))
}
