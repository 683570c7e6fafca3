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
    // Where the network is a file, that file is not the input's.
    let names_a_file = |text: &str| text.contains(['/', '\\']) || text.ends_with(".toml");
    let file_of_network = std::str::from_utf8(file)
        .ok()
        .and_then(|text| text.parse::<toml::Table>().ok())
        .and_then(|table| table.get("network")?.as_str().map(names_a_file));
    if file_of_network == Some(true) {
        return Verdict::Refused;
    }
    let environment: Vec<(OsString, OsString)> = String::from_utf8_lossy(environment)
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(_, value)| !names_a_file(value.trim().trim_matches('"')))
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
