//! The data folder: whose network it is, in which format, and who holds it.
//!
//! ```text
//! DATA_DIR/blockmill.lock   held by the running process
//! DATA_DIR/format.toml      format, network, genesis: written once, checked before anything else is touched
//! DATA_DIR/state/           the state store
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use super::error::StoreError;

/// The newest format that this program reads and writes.
const FORMAT: u32 = 1;
const MARKER: &str = "format.toml";
const LOCK: &str = "blockmill.lock";

/// A data folder, locked for this process as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    network: String,
    _lock: File,
}

/// What the marker file says.
struct Marker {
    format: u32,
    network: String,
    genesis: Option<String>,
}

impl DataDir {
    /// Takes a folder for a network, and makes it where it does not exist. Another network's or a newer program's folder is
    /// refused before anything is written to it.
    pub fn open(path: &Path, network: &str) -> Result<Self, StoreError> {
        check(path, network)?;
        std::fs::create_dir_all(path).map_err(io("create", path))?;
        let lock = lock(path)?;
        // Again: another process may have made it meanwhile.
        if check(path, network)?.is_none() {
            write_marker(
                path,
                &Marker {
                    format: FORMAT,
                    network: network.to_owned(),
                    genesis: None,
                },
            )?;
        }
        Ok(Self {
            path: path.to_owned(),
            network: network.to_owned(),
            _lock: lock,
        })
    }

    /// Takes a folder that must exist already, of a host that is not running: nothing is created in it.
    pub fn open_existing(path: &Path, network: &str) -> Result<Self, StoreError> {
        if check(path, network)?.is_none() {
            return Err(StoreError::NoData {
                path: path.to_owned(),
            });
        }
        let lock = lock(path)?;
        Ok(Self {
            path: path.to_owned(),
            network: network.to_owned(),
            _lock: lock,
        })
    }

    /// Ties the folder to a chain's genesis hash (as displayed) the first time, and refuses another one from then on.
    pub fn bind_genesis(&self, genesis: &str) -> Result<(), StoreError> {
        let marker = read_marker(&self.path)?.ok_or_else(|| StoreError::NoData {
            path: self.path.clone(),
        })?;
        match marker.genesis {
            Some(found) if found == genesis => Ok(()),
            Some(found) => Err(StoreError::OtherNetwork {
                path: self.path.clone(),
                found,
                wanted: genesis.to_owned(),
            }),
            None => write_marker(
                &self.path,
                &Marker {
                    genesis: Some(genesis.to_owned()),
                    ..marker
                },
            ),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The network whose data it holds.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// Where the state store lives.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
            path: folder.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(io("lock", &path)(source)),
    }
}

/// Reads the marker, if there is one, and refuses what this process must not use.
fn check(folder: &Path, network: &str) -> Result<Option<Marker>, StoreError> {
    let marker = read_marker(folder)?;
    if let Some(marker) = &marker {
        if marker.format > FORMAT {
            let (found, supported) = (marker.format, FORMAT);
            return Err(StoreError::NewerVersion {
                path: folder.to_owned(),
                found,
                supported,
            });
        }
        if marker.network != network {
            let (found, wanted) = (marker.network.clone(), network.to_owned());
            return Err(StoreError::OtherNetwork {
                path: folder.to_owned(),
                found,
                wanted,
            });
        }
    }
    Ok(marker)
}

fn read_marker(folder: &Path) -> Result<Option<Marker>, StoreError> {
    let path = folder.join(MARKER);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("read", &path)(error)),
    };
    let bad = |why: String| StoreError::BadMarker {
        path: path.clone(),
        why,
    };
    let mut marker = Marker {
        format: 0,
        network: String::new(),
        genesis: None,
    };
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| bad(format!("no '=' in {line:?}")))?;
        let value = value.trim().trim_matches('"');
        match key.trim() {
            "format" => {
                marker.format = value
                    .parse()
                    .map_err(|_| bad(format!("format {value:?}")))?
            }
            "network" => marker.network = value.to_owned(),
            "genesis" => marker.genesis = Some(value.to_owned()),
            // A newer format may say more.
            _ => {}
        }
    }
    if marker.format == 0 || (marker.format <= FORMAT && marker.network.is_empty()) {
        return Err(bad("no format or no network".to_owned()));
    }
    Ok(Some(marker))
}

/// Writes the marker, whole or not at all.
fn write_marker(folder: &Path, marker: &Marker) -> Result<(), StoreError> {
    let path = folder.join(MARKER);
    let mut text = format!(
        "# Written by blockmill: whose data this folder holds.\nformat = {}\nnetwork = \"{}\"\n",
        marker.format, marker.network
    );
    if let Some(genesis) = &marker.genesis {
        text.push_str(&format!("genesis = \"{genesis}\"\n"));
    }
    crate::whole_file::replace(&path, text.as_bytes()).map_err(io("write", &path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_folder_of_another_network_is_refused_and_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        assert!(matches!(
            DataDir::open_existing(&path, "regtest"),
            Err(StoreError::NoData { .. })
        ));
        assert!(!path.exists());
        let first = DataDir::open(&path, "regtest").unwrap();
        first.bind_genesis("aa").unwrap();
        first.bind_genesis("aa").unwrap();
        assert!(matches!(
            first.bind_genesis("bb"),
            Err(StoreError::OtherNetwork { .. })
        ));
        drop(first);
        let before = std::fs::read(path.join(MARKER)).unwrap();
        let refused = DataDir::open(&path, "mainnet").unwrap_err();
        assert!(
            matches!(&refused, StoreError::OtherNetwork { found, wanted, .. } if found == "regtest" && wanted == "mainnet")
        );
        assert_eq!(std::fs::read(path.join(MARKER)).unwrap(), before);
        DataDir::open_existing(&path, "regtest").unwrap();
    }

    #[test]
    fn a_folder_is_held_by_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::open(dir.path(), "regtest").unwrap();
        assert!(matches!(
            DataDir::open(dir.path(), "regtest"),
            Err(StoreError::Locked { .. })
        ));
        assert!(matches!(
            DataDir::open_existing(dir.path(), "regtest"),
            Err(StoreError::Locked { .. })
        ));
        drop(held);
        DataDir::open(dir.path(), "regtest").unwrap();
    }

    #[test]
    fn a_newer_or_damaged_marker_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join(MARKER),
            "format = 2\nnetwork = \"regtest\"\n",
        )
        .unwrap();
        let newer = DataDir::open(dir.path(), "regtest").unwrap_err();
        assert!(matches!(
            newer,
            StoreError::NewerVersion {
                found: 2,
                supported: 1,
                ..
            }
        ));
        assert!(!dir.path().join(LOCK).exists());
        for text in [
            "",
            "format = 1",
            "network = \"regtest\"",
            "format = x",
            "nonsense",
        ] {
            std::fs::write(dir.path().join(MARKER), text).unwrap();
            assert!(
                matches!(
                    DataDir::open(dir.path(), "regtest"),
                    Err(StoreError::BadMarker { .. })
                ),
                "{text:?}"
            );
        }
    }
}
