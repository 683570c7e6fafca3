//! The configuration: a file, an environment, flags.

use std::ffi::OsString;

use blockmill::config::{Config, Overrides};

use super::Verdict;
use crate::{memory, shapes};

/// The file; behind a zero byte, if there is one, variables of the environment as lines of `NAME=VALUE`.
pub fn run(data: &[u8]) -> Verdict {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (file, environment) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    // A chain file or a folder that an input names is not its own.
    if file.windows(2).any(|pair| pair == b"./") || file.windows(5).any(|part| part == b".toml") {
        return Verdict::Refused;
    }
    let environment: Vec<(OsString, OsString)> = String::from_utf8_lossy(environment)
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(_, value)| !value.contains('/'))
        .map(|(name, value)| (format!("BLOCKMILL_{name}").into(), value.into()))
        .collect();
    let path = shapes::scratch().join("blockmill.toml");
    std::fs::write(&path, file).expect("a file");
    let read = || Config::from_sources(Some(&path), environment.clone(), &Overrides::new());
    memory::bounded((16 << 20) + 4_000 * data.len(), || match read() {
        Ok(config) => {
            let again = read().expect("it was good before");
            assert!(config.changed_keys(&again).is_empty());
            let _ = (config.peer_addresses(), config.added_peers());
            for plugin in config.enabled_plugins() {
                assert!(blockmill::plugin::is_plugin_name(&plugin.name));
            }
            Verdict::Taken
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            Verdict::Refused
        }
    })
}
