//! Reading a snapshot into an empty state.

use std::fs::File;
use std::io::BufReader;

use super::SnapshotError;
use super::export::{displayed, hex, internal};
use super::format::{Header, SnapshotReader};
use super::known;
use crate::network::Params;
use crate::store::{StateStore, txoutset};

/// What the state is to be of.
pub struct Wanted<'a> {
    /// The chain.
    pub params: &'static Params,
    /// The plugin's name.
    pub plugin: &'a str,
    /// The state version of its component here.
    pub state_version: u32,
    /// Whether it has the role `coins`.
    pub coins: bool,
    /// What the coins, or the state, must hash to: `muhash` or `hash_serialized_3` of Bitcoin Core, as displayed, or the state hash.
    pub expect: Option<&'a str>,
}

/// Who says that the state is that of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vouched {
    /// The hash that was given.
    Expected,
    /// The hash that is built in for this block.
    BuiltIn,
    /// Nobody but the file.
    Nobody,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// What the file said of itself.
    pub header: Header,
    /// Bitcoin Core's hashes of the coins as they are now in the state, as displayed.
    pub muhash: Option<String>,
    /// See `muhash`.
    pub hash_serialized_3: Option<String>,
    /// Who says that it is right.
    pub vouched: Vouched,
}

impl Imported {
    /// Hash of the last block in it, as displayed.
    pub fn block(&self) -> String {
        displayed(self.header.cursor.hash)
    }
}

/// Opens a file and compares what it says of itself with what is wanted.
///
/// # Errors
///
/// When it is no snapshot, or of something else.
pub fn open(
    file: File,
    wanted: &Wanted<'_>,
) -> Result<SnapshotReader<BufReader<File>>, SnapshotError> {
    let reader = SnapshotReader::open(BufReader::with_capacity(1 << 20, file))?;
    let header = reader.header();
    let other = |problem: String| Err(SnapshotError::Other(problem));
    if header.magic != wanted.params.magic {
        let whose = crate::network::Network::ALL
            .into_iter()
            .find(|network| network.params().magic == header.magic);
        let whose = whose.map_or_else(
            || "another network".to_owned(),
            |network| network.to_string(),
        );
        return other(format!(
            "the file is of {whose}, and the network here is {}",
            wanted.params.name
        ));
    }
    if header.plugin != wanted.plugin {
        return other(format!(
            "the file is of the plugin {:?}, not {:?}",
            header.plugin, wanted.plugin
        ));
    }
    if header.state_version != wanted.state_version {
        return other(format!(
            "the file is of state version {}, and {} here has {}",
            header.state_version, wanted.plugin, wanted.state_version
        ));
    }
    if wanted.coins != header.coins.is_some() {
        return other(
            "one of the file and the plugin here has the role \"coins\", the other has not"
                .to_owned(),
        );
    }
    // A wrong claim about a known block is refused before anything is read.
    if let Some(known) = known::at(wanted.params.network(), header.cursor.height)
        && wanted.coins
        && (known.block != displayed(header.cursor.hash)
            || header.coins != internal(known.hash_serialized_3))
    {
        let coins = header.coins.map_or_else(|| "none".to_owned(), displayed);
        return other(format!(
            "block {} of {} has the hash {}, and its coins {}; the file says {} and {coins}: it is of another chain",
            known.height,
            known.network,
            known.block,
            known.hash_serialized_3,
            displayed(header.cursor.hash)
        ));
    }
    Ok(reader)
}

/// Reads a file into the state `lane` of the store, whose entries are replaced. After an error that state is empty.
///
/// # Errors
///
/// When the file is not whole, or not what was expected, or the store fails.
pub fn import(
    file: File,
    wanted: &Wanted<'_>,
    store: &StateStore,
    lane: &str,
) -> Result<Imported, SnapshotError> {
    let reader = open(file, wanted)?;
    let header = reader.header().clone();
    {
        let mut state = store.lane(lane)?;
        state.load(header.cursor, |loading| {
            reader.entries(|key, value| Ok(loading.put(key, value)?))
        })?;
    }
    let checked = check(&header, wanted, store, lane);
    if checked.is_err() {
        store.lane(lane)?.reset()?;
    }
    checked
}

/// Hashes the coins as they lie in the state.
fn check(
    header: &Header,
    wanted: &Wanted<'_>,
    store: &StateStore,
    lane: &str,
) -> Result<Imported, SnapshotError> {
    let other = |problem: String| Err(SnapshotError::Other(problem));
    let mut set = None;
    if wanted.coins {
        let snapshot = store.snapshot(lane)?;
        let snapshot = snapshot.ok_or(SnapshotError::Damaged("its state is gone"))?;
        set = txoutset(&snapshot, |_| true)?;
        let coins = set.as_ref().map(|set| set.hash_serialized_3.as_str());
        if coins.and_then(internal) != header.coins {
            return Err(SnapshotError::Damaged("its coins have another hash"));
        }
    }
    let vouched = match wanted.expect {
        Some(expect) => {
            let state = hex(header.state_hash);
            let has = set.as_ref().map_or_else(Vec::new, |set| {
                vec![set.muhash.as_str(), set.hash_serialized_3.as_str()]
            });
            if expect != state && !has.contains(&expect) {
                let mut has: Vec<String> = has.into_iter().map(str::to_owned).collect();
                has.push(state);
                return other(format!(
                    "the state does not hash to {expect}, but to {}",
                    has.join(", ")
                ));
            }
            Vouched::Expected
        }
        None if wanted.coins
            && known::at(wanted.params.network(), header.cursor.height).is_some() =>
        {
            Vouched::BuiltIn
        }
        None => Vouched::Nobody,
    };
    Ok(Imported {
        header: header.clone(),
        muhash: set.as_ref().map(|set| set.muhash.clone()),
        hash_serialized_3: set.map(|set| set.hash_serialized_3),
        vouched,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use std::io::{Seek as _, Write as _};

    use super::*;
    use crate::network::Network;
    use crate::store::Cursor;

    const COINS: &str = "a2a5521b1b5ab65f67818e5e8eccabb7171a517f9e2382208f77687310768f96";
    const BLOCK: &str = "0000000000000000000320283a032748cef8227873ff4872689bf23f1cda83a5";
    const OTHER: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

    /// What is said of a file of the main network whose header claims this block and these coins.
    fn said(height: u32, block: &str, coins: &str) -> Result<(), String> {
        let header = Header {
            magic: Network::Mainnet.params().magic,
            plugin: "utxo-tracker".to_owned(),
            state_version: 1,
            component: [3; 32],
            cursor: Cursor {
                height,
                hash: internal(block).unwrap(),
            },
            entries: 0,
            state_hash: [4; 32],
            coins: internal(coins),
        };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&header.encode()).unwrap();
        file.rewind().unwrap();
        let wanted = Wanted {
            params: Network::Mainnet.params(),
            plugin: "utxo-tracker",
            state_version: 1,
            coins: true,
            expect: None,
        };
        let opened = open(file, &wanted);
        opened.map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_claim_about_a_block_whose_coins_are_known_is_compared_with_what_core_has() {
        assert_eq!(said(840_000, BLOCK, COINS), Ok(()));
        // Of this height nothing is known.
        assert_eq!(said(840_001, OTHER, OTHER), Ok(()));
        for (block, coins) in [(OTHER, COINS), (BLOCK, OTHER)] {
            let error = said(840_000, block, coins).unwrap_err();
            for hash in [BLOCK, COINS, OTHER] {
                assert!(error.contains(hash), "{error}");
            }
            assert!(error.contains("840000"), "{error}");
        }
    }
}
