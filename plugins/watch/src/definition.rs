//! What a collection watches, as it stands in the settings.

use blockmill_sdk::prelude::*;
use blockmill_sdk::{Object, sort};
use regex_lite::{Regex, RegexBuilder};

/// Collections, the one named [`BROADCAST`] included.
pub const MAX_COLLECTIONS: usize = 100;
/// Characters of a collection's name: lower-case letters, digits, `-` and `_`.
pub const MAX_NAME: usize = 32;
/// Scripts and transactions of all collections.
pub const MAX_ITEMS: usize = 100_000;
/// Patterns of all collections: each costs time for every output.
pub const MAX_PATTERNS: usize = 32;
/// Characters of a pattern.
const MAX_PATTERN: usize = 256;
/// Bytes of a compiled pattern.
const PATTERN_SIZE: usize = 64 << 10;

/// The collection that is always there: for the txids of what is broadcast through the host.
pub const BROADCAST: &str = "broadcast";

/// The lists of a definition: their names in the settings, and those of the parameters that add to them.
pub const LISTS: [(&str, &str); 4] = [
    ("addresses", "address"),
    ("scripts", "script"),
    ("patterns", "pattern"),
    ("txids", "txid"),
];

/// What a collection watches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definition {
    /// As they were given, in the order of [`LISTS`].
    pub lists: [Vec<String>; 4],
    /// Whether outputs of transactions that spend a watched output are watched too.
    pub descendants: bool,
}

impl Definition {
    /// Reads a definition; the error says what is wrong with it.
    pub fn read(collection: &str, json: &Json) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("the collection `{collection}`: {what}"));
        let Some(object) = json.as_object() else {
            return wrong("its definition is no table");
        };
        let mut definition = Definition::default();
        for (key, value) in object.iter() {
            let place = LISTS.iter().position(|(name, _)| *name == key);
            let list = place.and_then(|place| definition.lists.get_mut(place));
            match (list, value) {
                (Some(list), Json::Array(items)) => {
                    for item in items {
                        let Some(text) = item.as_str() else {
                            return wrong(&format!("`{key}` must be a list of texts"));
                        };
                        list.push(text.into());
                    }
                }
                (Some(_), _) => return wrong(&format!("`{key}` must be a list of texts")),
                (None, Json::Bool(value)) if key == "descendants" => {
                    definition.descendants = *value
                }
                (None, _) if key == "descendants" => {
                    return wrong("`descendants` must be true or false");
                }
                (None, _) => {
                    return wrong(&format!(
                        "unknown key `{key}`: there are addresses, scripts, patterns, txids and descendants"
                    ));
                }
            }
        }
        Ok(definition)
    }

    /// As it stands in the settings.
    pub fn json(&self) -> Json {
        let mut object = Object::new();
        for ((name, _), list) in LISTS.iter().zip(&self.lists) {
            object.insert((*name).into(), list.clone().into());
        }
        object.insert("descendants".into(), self.descendants.into());
        object.into()
    }

    /// Adds what another definition of the same collection has.
    pub fn join(&mut self, other: Definition) {
        for (list, more) in self.lists.iter_mut().zip(other.lists) {
            for item in more {
                if !list.contains(&item) {
                    list.push(item);
                }
            }
        }
        self.descendants |= other.descendants;
    }

    /// True when nothing is watched.
    pub fn is_empty(&self) -> bool {
        self.lists.iter().all(Vec::is_empty)
    }
}

/// Whether this can be the name of a collection.
pub fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    (1..=MAX_NAME).contains(&name.len()) && name.chars().all(fits)
}

/// A collection, ready to be matched.
#[derive(Debug)]
pub struct Collection {
    /// Its name.
    pub name: String,
    /// All that it watches.
    pub definition: Definition,
    /// What of it was added by queries.
    pub runtime: Definition,
}

/// Every collection, and which of them watches a script.
#[derive(Debug, Default)]
pub struct Collections {
    /// In the order of their names.
    pub all: Vec<Collection>,
    /// Sorted.
    scripts: Vec<(Vec<u8>, u16)>,
    /// Sorted; internal byte order.
    txids: Vec<([u8; 32], u16)>,
    patterns: Vec<(Regex, u16)>,
    network: String,
}

impl Collections {
    /// Puts together what the configuration and queries define.
    pub fn new(configured: &Object, runtime: &Object, network: &str) -> Result<Self, String> {
        let mut names: Vec<&str> = configured
            .iter()
            .chain(runtime.iter())
            .map(|(name, _)| name)
            .collect();
        names.push(BROADCAST);
        sort::by(&mut names, Ord::cmp);
        names.dedup();
        if names.len() > MAX_COLLECTIONS {
            return Err(format!("more than {MAX_COLLECTIONS} collections"));
        }
        let mut collections = Collections {
            network: network.into(),
            ..Collections::default()
        };
        for (place, name) in names.into_iter().enumerate() {
            if !is_name(name) {
                return Err(format!(
                    "`{name}` is no name of a collection: 1 to {MAX_NAME} lower-case letters, digits, `-` and `_`"
                ));
            }
            let part = |of: &Object| match of.get(name) {
                Some(json) => Definition::read(name, json),
                None => Ok(Definition::default()),
            };
            let (mut definition, added) = (part(configured)?, part(runtime)?);
            definition.join(added.clone());
            collections.take_in(name, &definition, place as u16)?;
            collections.all.push(Collection {
                name: name.into(),
                definition,
                runtime: added,
            });
        }
        sort::by(&mut collections.scripts, Ord::cmp);
        collections.scripts.dedup();
        sort::by(&mut collections.txids, Ord::cmp);
        collections.txids.dedup();
        if collections.scripts.len() + collections.txids.len() > MAX_ITEMS {
            return Err(format!("more than {MAX_ITEMS} scripts and transactions"));
        }
        if collections.patterns.len() > MAX_PATTERNS {
            return Err(format!("more than {MAX_PATTERNS} patterns"));
        }
        Ok(collections)
    }

    fn take_in(&mut self, name: &str, definition: &Definition, place: u16) -> Result<(), String> {
        let wrong = |text: &str, what: &str| format!("the collection `{name}`: `{text}` {what}");
        let [addresses, scripts, patterns, txids] = &definition.lists;
        for text in addresses {
            let script = address::to_script(text, &self.network)
                .ok_or_else(|| wrong(text, &format!("is not an address of {}", self.network)))?;
            self.scripts.push((script, place));
        }
        for text in scripts {
            let script = hex::decode(text).ok_or_else(|| wrong(text, "is not hexadecimal"))?;
            self.scripts.push((script, place));
        }
        for text in patterns {
            if text.len() > MAX_PATTERN {
                return Err(wrong(
                    text,
                    &format!("has more than {MAX_PATTERN} characters"),
                ));
            }
            let pattern = RegexBuilder::new(text)
                .size_limit(PATTERN_SIZE)
                .build()
                .map_err(|_| wrong(text, "is no regular expression, or too large a one"))?;
            self.patterns.push((pattern, place));
        }
        for text in txids {
            let txid = hex::parse_hash(text).ok_or_else(|| wrong(text, "is no txid"))?;
            self.txids.push((txid, place));
        }
        Ok(())
    }

    /// Calls `found` with the place of each collection that watches a script; one that does so in two ways comes twice.
    pub fn of_script(&self, script: &[u8], mut found: impl FnMut(u16)) {
        each(
            &self.scripts,
            |watched| watched.as_slice().cmp(script),
            &mut found,
        );
        if self.patterns.is_empty() {
            return;
        }
        let hex = hex::encode(script);
        let address = address::from_script(script, &self.network);
        for (pattern, place) in &self.patterns {
            if pattern.is_match(&hex) || address.as_ref().is_some_and(|text| pattern.is_match(text))
            {
                found(*place);
            }
        }
    }

    /// Calls `found` with the place of each collection that watches a transaction.
    pub fn of_txid(&self, txid: &[u8; 32], mut found: impl FnMut(u16)) {
        each(&self.txids, |watched| watched.cmp(txid), &mut found);
    }

    /// The collection at a place.
    pub fn get(&self, place: u16) -> Option<&Collection> {
        self.all.get(usize::from(place))
    }

    /// The place of a collection.
    pub fn place(&self, name: &str) -> Option<u16> {
        let place = self
            .all
            .iter()
            .position(|collection| collection.name == name)?;
        Some(place as u16)
    }
}

/// Calls `found` with the places of all entries that are equal, in a sorted list.
fn each<K>(
    list: &[(K, u16)],
    mut order: impl FnMut(&K) -> std::cmp::Ordering,
    found: &mut impl FnMut(u16),
) {
    let first = list.partition_point(|(key, _)| order(key).is_lt());
    let rest = list.get(first..).unwrap_or_default();
    for (_, place) in rest.iter().take_while(|(key, _)| order(key).is_eq()) {
        found(*place);
    }
}
