//! Values that have the right type and are still wrong.

use std::{fs::File, io::Read, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::chain::sync::MAX_ADDED;
use crate::logging;
use crate::plugin::is_plugin_name;

use super::{Config, ConfigError, KeepBlocks, MinimumWork, Origin, SourceKind, units::size};

/// BIP14: what may stand in a comment without ending it; and Core's bound on the whole user agent leaves room for this.
const MAX_COMMENT: usize = 128;

/// What a 32-bit guest can address.
const MAX_MEMORY: u64 = 1 << 32;

/// Less than this holds no plugin at all: the stack alone takes 1 MiB.
const MIN_MEMORY: u64 = 2 << 20;

pub(super) fn values(config: &Config) -> Result<(), ConfigError> {
    let wrong = |key: &str, problem: &str, hint: &str| Err(config.error(key, problem, hint));

    if config.data_dir.as_os_str().is_empty() {
        return wrong(
            "data_dir",
            "it is empty",
            "give a folder, such as \"~/.blockmill\"",
        );
    }
    if let Err(why) = logging::parse(&config.log.level) {
        let problem = format!("\"{}\" is no log filter ({why})", config.log.level);
        return wrong("log.level", &problem, logging::FILTER_HINT);
    }

    let peers = &config.peers;
    let named = |key, list: &'_ [String]| {
        let entries = list.iter().enumerate();
        let entries = entries.map(|(index, peer)| (format!("peers.{key}.{index}"), peer.clone()));
        entries.collect::<Vec<_>>()
    };
    let mut peer_lists = named("connect", &peers.connect);
    peer_lists.extend(named("add", &peers.add));
    for (key, peer) in &peer_lists {
        if let Err(problem) = address(peer, config.network.params().default_port) {
            let hint = format!(
                "give \"host:port\", such as \"127.0.0.1:{}\"",
                config.network.params().default_port
            );
            return wrong(key, &problem, &hint);
        }
        let host = peer.split(':').next().unwrap_or_default();
        if peers.proxy.is_none() && host.to_ascii_lowercase().ends_with(".onion") {
            return wrong(
                key,
                &format!("\"{peer}\" can be reached through Tor only"),
                "set peers.proxy, such as \"127.0.0.1:9050\"",
            );
        }
    }
    if peers.add.len() > MAX_ADDED {
        let problem = format!("{} peers are more than {MAX_ADDED}", peers.add.len());
        return wrong("peers.add", &problem, "name fewer");
    }
    if !peers.listen.is_empty() && config.peer_listen().is_none() {
        let problem = format!("\"{}\" is no address to listen at", peers.listen);
        let hint = format!(
            "give \"ip:port\", such as \"0.0.0.0:{}\", or nothing",
            config.network.params().default_port
        );
        return wrong("peers.listen", &problem, &hint);
    }
    for (key, count) in [
        ("peers.max_incoming", peers.max_incoming),
        (
            "peers.max_incoming_per_address",
            peers.max_incoming_per_address,
        ),
    ] {
        at_least_one(config, key, count.into())?;
    }
    at_least_one(config, "peers.incoming_rate", clipped(peers.incoming_rate))?;
    at_least_one(config, "peers.max_outbound", peers.max_outbound.into())?;
    for (key, span) in [
        ("peers.connect_timeout", peers.connect_timeout),
        ("peers.proxy_timeout", peers.proxy_timeout),
        ("peers.handshake_timeout", peers.handshake_timeout),
        ("peers.ping_interval", peers.ping_interval),
        ("peers.silence_timeout", peers.silence_timeout),
        ("peers.headers_timeout", peers.headers_timeout),
        ("peers.headers_sync_timeout", peers.headers_sync_timeout),
        ("peers.lag_timeout", peers.lag_timeout),
        ("peers.block_timeout", peers.block_timeout),
        ("peers.feeler_interval", peers.feeler_interval),
        ("peers.address_answer_life", peers.address_answer_life),
        ("peers.addresses_again", peers.addresses_again),
        ("peers.save_interval", peers.save_interval),
        ("peers.ban_first", peers.ban_first),
        ("peers.stall_timeout", peers.stall_timeout),
        ("peers.stale_tip_timeout", peers.stale_tip_timeout),
        ("peers.stream_patience", peers.stream_patience),
        ("peers.late_tick", peers.late_tick),
        ("peers.reconnect_pause", peers.reconnect_pause),
        ("database.flush_interval", config.database.flush_interval),
        ("mempool.expiry", config.mempool.expiry),
        ("plugins.retry_pause", config.plugins.retry_pause),
    ] {
        not_zero(config, key, span)?;
    }
    for (most_key, most, least_key, least) in [
        (
            "peers.stall_timeout_max",
            peers.stall_timeout_max,
            "peers.stall_timeout",
            peers.stall_timeout,
        ),
        (
            "peers.reconnect_pause_max",
            peers.reconnect_pause_max,
            "peers.reconnect_pause",
            peers.reconnect_pause,
        ),
        (
            "peers.ban_second",
            peers.ban_second,
            "peers.ban_first",
            peers.ban_first,
        ),
        (
            "peers.silence_timeout",
            peers.silence_timeout,
            "peers.ping_interval",
            peers.ping_interval,
        ),
        (
            "plugins.retry_pause_max",
            config.plugins.retry_pause_max,
            "plugins.retry_pause",
            config.plugins.retry_pause,
        ),
    ] {
        if most < least {
            let (most, least) = (
                humantime::format_duration(most),
                humantime::format_duration(least),
            );
            // the one that somebody set is the one to talk about
            if config.origin(most_key) == Origin::Default {
                let problem = format!("{least} is more than {most_key}, which is {most}");
                return wrong(least_key, &problem, "give less here, or more there");
            }
            let problem = format!("{most} is less than {least_key}, which is {least}");
            return wrong(most_key, &problem, "give more here, or less there");
        }
    }
    let comment = &peers.user_agent_comment;
    if comment.len() > MAX_COMMENT
        || !comment
            .chars()
            .all(|c| c.is_ascii_graphic() && !"/():".contains(c) || c == ' ')
    {
        let hint = format!(
            "give at most {MAX_COMMENT} letters, digits, blanks and signs without / ( ) and :"
        );
        return wrong(
            "peers.user_agent_comment",
            "it cannot stand in a user agent (BIP14)",
            &hint,
        );
    }

    let path = config.source.path.as_os_str();
    if config.source.kind == SourceKind::BlocksDir && path.is_empty() {
        return wrong(
            "source.path",
            "it is empty, and source.kind is \"blocks-dir\"",
            "give Bitcoin Core's block folder, such as \"~/.bitcoin/blocks\"",
        );
    }
    if config.source.kind == SourceKind::Peers && !path.is_empty() {
        return wrong(
            "source.path",
            "it is given, and source.kind is \"peers\"",
            "give source.kind = \"blocks-dir\" too, or no path",
        );
    }
    at_least_one(config, "chain.undo_depth", config.chain.undo_depth)?;
    at_least_one(
        config,
        "chain.download_window",
        config.chain.download_window,
    )?;
    at_least_one(
        config,
        "chain.blocks_per_peer",
        config.chain.blocks_per_peer.into(),
    )?;
    at_least_one(config, "api.max_queries", config.api.max_queries.into())?;

    if !config.database.url.starts_with("sqlite:") {
        let problem = format!(
            "\"{}\" is no database that this build knows",
            config.database.url
        );
        return wrong("database.url", &problem, "give \"sqlite:PATH\"");
    }

    memory(config, "plugins.memory_limit", config.plugins.memory_limit)?;
    not_zero(
        config,
        "plugins.block_time_limit",
        config.plugins.block_time_limit,
    )?;
    not_zero(
        config,
        "plugins.query_time_limit",
        config.plugins.query_time_limit,
    )?;
    for (key, count) in [
        ("table_limit", config.plugins.table_limit),
        ("instance_limit", config.plugins.instance_limit),
    ] {
        at_least_one(config, &format!("plugins.{key}"), clipped(count))?;
    }
    at_least_one(
        config,
        "plugins.quarantine_after",
        config.plugins.quarantine_after,
    )?;
    memory(
        config,
        "plugins.query_memory_limit",
        config.plugins.query_memory_limit,
    )?;
    for (name, plugin) in &config.plugin {
        let key = format!("plugins.{name}");
        if !is_plugin_name(name) {
            return wrong(
                &key,
                &format!("\"{name}\" is no name of a plugin"),
                "names have 1 to 32 lower-case letters, digits and -, and begin with a letter",
            );
        }
        if plugin
            .file
            .as_ref()
            .is_some_and(|file| file.as_os_str().is_empty())
        {
            return wrong(
                &format!("{key}.file"),
                "it is empty",
                &format!("give a file, such as \"{name}.wasm\""),
            );
        }
        if let Some(sha256) = &plugin.sha256
            && (sha256.len() != 64
                || !sha256
                    .bytes()
                    .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')))
        {
            return wrong(
                &format!("{key}.sha256"),
                &format!("\"{sha256}\" is no SHA-256"),
                "give 64 lower-case hexadecimal digits, as sha256sum prints them",
            );
        }
        if let Some(bytes) = plugin.memory_limit {
            memory(config, &format!("{key}.memory_limit"), bytes)?;
        }
        if let Some(bytes) = plugin.query_memory_limit {
            memory(config, &format!("{key}.query_memory_limit"), bytes)?;
        }
        for (limit, count) in [
            ("table_limit", plugin.table_limit),
            ("instance_limit", plugin.instance_limit),
        ] {
            if let Some(count) = count {
                at_least_one(config, &format!("{key}.{limit}"), clipped(count))?;
            }
        }
        for (limit, span) in [
            ("block_time_limit", plugin.block_time_limit),
            ("query_time_limit", plugin.query_time_limit),
        ] {
            if let Some(span) = span {
                not_zero(config, &format!("{key}.{limit}"), span)?;
            }
        }
    }
    Ok(())
}

fn at_least_one(config: &Config, key: &str, value: u32) -> Result<(), ConfigError> {
    if value == 0 {
        return Err(config.error(key, "0 is too small", "give 1 or more"));
    }
    Ok(())
}

/// A count as far as it matters here.
fn clipped(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn not_zero(config: &Config, key: &str, span: Duration) -> Result<(), ConfigError> {
    if span.is_zero() {
        return Err(config.error(
            key,
            "it cannot be nothing",
            "give a duration such as \"2s\" or \"20m\"",
        ));
    }
    Ok(())
}

fn memory(config: &Config, key: &str, bytes: u64) -> Result<(), ConfigError> {
    if (MIN_MEMORY..=MAX_MEMORY).contains(&bytes) {
        return Ok(());
    }
    let problem = format!("{} is not possible for an instance", size::format(bytes));
    Err(config.error(
        key,
        problem,
        format!(
            "give {} to {}",
            size::format(MIN_MEMORY),
            size::format(MAX_MEMORY)
        ),
    ))
}

pub(super) fn plugin_files(config: &Config) -> Result<(), ConfigError> {
    for plugin in config.enabled_plugins() {
        let named = config
            .plugin
            .get(&plugin.name)
            .is_some_and(|plugin| plugin.file.is_some());
        let key = format!(
            "plugins.{}{}",
            plugin.name,
            if named { ".file" } else { "" }
        );
        let file = plugin.file.display();
        // a folder opens on Unix, and fails only when read
        let read = File::open(&plugin.file).and_then(|mut file| file.read(&mut [0; 4]));
        if let Err(why) = read {
            let (problem, hint) = match why.kind() {
                std::io::ErrorKind::NotFound => (
                    format!("there is no plugin file {file}"),
                    format!(
                        "put it there, name another `file` or `plugins.dir`, or set plugins.{}.enabled = false",
                        plugin.name
                    ),
                ),
                _ => (
                    format!("cannot read the plugin file {file} ({why})"),
                    "it must be a file that this user may read".to_owned(),
                ),
            };
            return Err(config.error(&key, problem, hint));
        }
    }
    Ok(())
}

/// `host:port`, `host`, `[ipv6]:port`, `[ipv6]` or a bare IPv6 address, as (host, port).
pub(super) fn address(text: &str, default_port: u16) -> Result<(String, u16), String> {
    let wrong = || format!("\"{text}\" is no address of a peer");
    let port = |text: &str| {
        text.parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(wrong)
    };
    if let Ok(bare) = text.parse::<std::net::Ipv6Addr>() {
        return Ok((bare.to_string(), default_port));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
        return match rest.strip_prefix(':') {
            Some(digits) => Ok((host.to_owned(), port(digits)?)),
            None if rest.is_empty() => Ok((host.to_owned(), default_port)),
            None => Err(wrong()),
        };
    }
    let (host, port) = match text.split_once(':') {
        Some((host, digits)) => (host, port(digits)?),
        None => (text, default_port),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if host.is_empty() || !host.chars().all(allowed) {
        return Err(wrong());
    }
    Ok((host.to_owned(), port))
}

impl<'de> Deserialize<'de> for KeepBlocks {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "all" {
            return Ok(Self::All);
        }
        size::parse(&text).map(Self::Bytes).map_err(|_| {
            D::Error::custom(format!(
                "\"{text}\" is neither \"all\" nor a size such as \"10 GB\""
            ))
        })
    }
}

impl Serialize for KeepBlocks {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => to.serialize_str("all"),
            Self::Bytes(bytes) => to.serialize_str(&size::format(*bytes)),
        }
    }
}

impl<'de> Deserialize<'de> for MinimumWork {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "default" {
            return Ok(Self::Default);
        }
        work(&text).map(Self::Work).ok_or_else(|| {
            D::Error::custom(format!(
                "\"{text}\" is neither \"default\" nor a hexadecimal number of at most 64 digits"
            ))
        })
    }
}

impl Serialize for MinimumWork {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Default => to.serialize_str("default"),
            Self::Work(work) => {
                let text: String = work.iter().map(|byte| format!("{byte:02x}")).collect();
                to.serialize_str(&text)
            }
        }
    }
}

fn work(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.is_empty()
        || digits.len() > 64
        || !digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    {
        return None;
    }
    let padded = format!("{digits:0>64}");
    let mut work = [0; 32];
    for (byte, pair) in work.iter_mut().zip(padded.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(work)
}
