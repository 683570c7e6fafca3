//! Chains that are data: a TOML file says how a chain differs from a built-in network.
//!
//! The files of `config/chains/` are built in and known by their names; any other is named by its path.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bitcoin::hex::FromHex;
use bitcoin::{BlockHash, Work};
use serde::Deserialize;

use super::{Network, Params, UnknownNetwork, signet_magic};

/// The files that are built in, by the name that they give themselves.
pub(super) const BUILT_IN: [(&str, &str); 3] = [
    (
        "bsv-main",
        include_str!("../../../config/chains/bsv-main.toml"),
    ),
    (
        "bsv-test",
        include_str!("../../../config/chains/bsv-test.toml"),
    ),
    (
        "bsv-stn",
        include_str!("../../../config/chains/bsv-stn.toml"),
    ),
];

/// The longest name of a chain: it is part of paths and labels.
const MAX_NAME: usize = 32;
/// The longest file that is read.
const MAX_FILE: u64 = 1 << 20;

/// What a file may say. `config/chains/bsv-main.toml` explains the keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChainFile {
    name: String,
    base: String,
    magic: Option<String>,
    port: Option<u16>,
    dns_seeds: Option<Vec<String>>,
    minimum_chain_work: Option<String>,
    bech32_hrp: Option<String>,
    segwit: Option<bool>,
    max_block_size: Option<Vec<SizeStep>>,
    allow_min_difficulty: Option<bool>,
    no_retargeting: Option<bool>,
    bip34_height: Option<u32>,
    bip65_height: Option<u32>,
    bip66_height: Option<u32>,
    csv_height: Option<u32>,
    segwit_height: Option<u32>,
    halving_interval: Option<u32>,
    uahf_height: Option<u32>,
    daa_height: Option<u32>,
    pinned: Option<Vec<Pin>>,
    extended_messages: Option<bool>,
    protoconf: Option<u32>,
    signet_challenge: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SizeStep {
    from: u32,
    bytes: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    height: u32,
    hash: String,
}

/// Finds a chain by the name of a built-in file, by the name of one that was read before, or reads the file at a path.
pub(super) fn find(text: &str) -> Result<&'static Params, UnknownNetwork> {
    if let Some((_, file)) = BUILT_IN.iter().find(|(name, _)| *name == text) {
        return parse(file, text).map_err(|problem| refused(text, problem));
    }
    let is_path = text.contains(['/', '\\']) || text.ends_with(".toml");
    if !is_path {
        return known(text).ok_or_else(|| UnknownNetwork::Name(text.to_owned()));
    }
    let path = Path::new(text);
    let length = std::fs::metadata(path)
        .map_err(|error| refused(text, format!("cannot be read: {error}")))?
        .len();
    if length > MAX_FILE {
        return Err(refused(
            text,
            format!("has {length} bytes, at most {MAX_FILE}"),
        ));
    }
    let file = std::fs::read_to_string(path)
        .map_err(|error| refused(text, format!("cannot be read: {error}")))?;
    parse(&file, text).map_err(|problem| refused(text, problem))
}

fn refused(text: &str, problem: impl std::fmt::Display) -> UnknownNetwork {
    UnknownNetwork::File {
        path: text.to_owned(),
        problem: problem.to_string(),
    }
}

/// Parameters live as long as the program. A chain that is read again, as a reload does, takes no more.
static KNOWN: Mutex<Vec<(String, &'static Params)>> = Mutex::new(Vec::new());

fn known(name: &str) -> Option<&'static Params> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known
        .iter()
        .rev()
        .find(|(_, params)| params.name == name)
        .map(|(_, params)| *params)
}

/// Reads a chain file. `source` is how the configuration names it.
pub(super) fn parse(text: &str, source: &str) -> Result<&'static Params, String> {
    let key = format!("{source}\n{text}");
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, params)) = known.iter().find(|(before, _)| *before == key) {
        return Ok(params);
    }
    let params: &'static Params = Box::leak(Box::new(read(text, source)?));
    known.push((key, params));
    Ok(params)
}

/// The parameters in the text of a chain file, which no later name stands for. `source` is how messages name it.
///
/// # Errors
///
/// What is wrong with it, for people.
pub fn read(text: &str, source: &str) -> Result<Params, String> {
    let file: ChainFile = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(String::new(), |span| {
            let before = text.get(..span.start).unwrap_or_default();
            format!("line {}: ", before.matches('\n').count() + 1)
        });
        format!("{at}{}", error.message())
    })?;
    file.into_params(source)
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn hex(key: &str, text: &str) -> Result<Vec<u8>, String> {
    Vec::from_hex(text).map_err(|_| format!("key `{key}`: {text:?} is not hexadecimal"))
}

fn work(text: &str) -> Result<Work, String> {
    let bad = || format!("key `minimum_chain_work`: {text:?} is no hexadecimal number of 256 bits");
    if text.is_empty() || text.len() > 64 {
        return Err(bad());
    }
    Work::from_unprefixed_hex(text).map_err(|_| bad())
}

impl ChainFile {
    fn into_params(self, source: &str) -> Result<Params, String> {
        let name_is_fit = !self.name.is_empty()
            && self.name.len() <= MAX_NAME
            && self
                .name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !name_is_fit {
            return Err(format!(
                "key `name`: {:?}; give up to {MAX_NAME} small letters, digits and dashes",
                self.name
            ));
        }
        let taken = Network::ALL
            .iter()
            .any(|network| network.name() == self.name)
            || (BUILT_IN.iter().any(|(name, _)| *name == self.name) && source != self.name);
        if taken {
            return Err(format!(
                "key `name`: {:?} is a chain that is built in; give another",
                self.name
            ));
        }
        let base = Network::ALL
            .into_iter()
            .find(|network| network.name() == self.base)
            .ok_or_else(|| {
                format!(
                    "key `base`: {:?}; give mainnet, testnet3, testnet4, signet or regtest",
                    self.base
                )
            })?;
        let mut params = Params::of(base).clone();
        params.base = base;
        let own_challenge = self.signet_challenge.is_some();
        if let Some(challenge) = &self.signet_challenge {
            let challenge = hex("signet_challenge", challenge)?;
            if challenge.is_empty() || challenge.len() > 10_000 {
                return Err("key `signet_challenge`: give a script of 1 to 10,000 bytes".into());
            }
            if base != Network::Signet {
                return Err(
                    "key `signet_challenge`: only a chain with `base = \"signet\"` has one".into(),
                );
            }
            params.magic = signet_magic(&challenge);
            params.signet_challenge = Some(challenge);
            params.dns_seeds = &[];
            params.minimum_chain_work = super::work(0, 0);
        }
        if let Some(magic) = &self.magic {
            let magic: [u8; 4] = hex("magic", magic)?
                .try_into()
                .map_err(|_| format!("key `magic`: {magic:?} is not four bytes"))?;
            if own_challenge && magic != params.magic {
                return Err(
                    "key `magic`: a signet's is the hash of its challenge; leave it away".into(),
                );
            }
            params.magic = magic;
        }
        if let Some(port) = self.port {
            if port == 0 {
                return Err("key `port`: give a port from 1".into());
            }
            params.default_port = port;
        }
        if let Some(seeds) = self.dns_seeds {
            if let Some(bad) = seeds
                .iter()
                .find(|seed| seed.is_empty() || seed.contains(char::is_whitespace))
            {
                return Err(format!("key `dns_seeds`: {bad:?} is no host name"));
            }
            let seeds: Vec<&'static str> = seeds.into_iter().map(leak).collect();
            params.dns_seeds = Box::leak(seeds.into_boxed_slice());
        }
        if let Some(text) = &self.minimum_chain_work {
            params.minimum_chain_work = work(text)?;
        }
        if let Some(hrp) = self.bech32_hrp {
            if hrp.is_empty()
                || hrp.len() > 83
                || !hrp.bytes().all(|byte| byte.is_ascii_lowercase())
            {
                return Err(format!("key `bech32_hrp`: {hrp:?}; give small letters"));
            }
            params.bech32_hrp = leak(hrp);
        }
        params.segwit = self.segwit.unwrap_or(params.segwit);
        for (slot, given) in [
            (&mut params.bip34_height, self.bip34_height),
            (&mut params.bip65_height, self.bip65_height),
            (&mut params.bip66_height, self.bip66_height),
            (&mut params.csv_height, self.csv_height),
            (&mut params.segwit_height, self.segwit_height),
        ] {
            *slot = given.unwrap_or(*slot);
        }
        if !params.segwit {
            if self.segwit_height.is_some() {
                return Err("key `segwit_height`: the chain has `segwit = false`".into());
            }
            params.segwit_height = u32::MAX;
        }
        if let Some(interval) = self.halving_interval {
            if interval == 0 {
                return Err("key `halving_interval`: give 1 or more".into());
            }
            params.halving_interval = interval;
        }
        params.allow_min_difficulty = self
            .allow_min_difficulty
            .unwrap_or(params.allow_min_difficulty);
        params.no_retargeting = self.no_retargeting.unwrap_or(params.no_retargeting);
        params.max_block_sizes = sizes(self.max_block_size.unwrap_or_default(), params.segwit)?;
        (params.uahf_height, params.daa_height) = (self.uahf_height, self.daa_height);
        if let Some(daa) = self.daa_height {
            // The window reaches 147 blocks back; the node that the rule is from wants a whole old period.
            if daa < super::RETARGET_INTERVAL && !params.no_retargeting {
                return Err(format!(
                    "key `daa_height`: {daa}; give {} or more",
                    super::RETARGET_INTERVAL
                ));
            }
            if self.uahf_height.is_some_and(|uahf| uahf > daa) {
                return Err("key `daa_height`: it is before `uahf_height`".into());
            }
        }
        params.pinned = self
            .pinned
            .unwrap_or_default()
            .into_iter()
            .map(|pin| {
                let hash: BlockHash = pin
                    .hash
                    .parse()
                    .map_err(|_| format!("key `pinned`: {:?} is no block hash", pin.hash))?;
                Ok((pin.height, hash))
            })
            .collect::<Result<Vec<_>, String>>()?;
        params.extended_messages = self.extended_messages.unwrap_or(false);
        params.protoconf = self.protoconf.filter(|length| *length > 0);
        if params.protoconf.is_some_and(|length| length < 1_048_576) {
            return Err(
                "key `protoconf`: the least that may be said is 1048576 (0 says nothing)".into(),
            );
        }
        params.name = leak(self.name);
        params.source = leak(source.to_owned());
        Ok(params)
    }
}

fn sizes(steps: Vec<SizeStep>, segwit: bool) -> Result<Vec<(u32, u64)>, String> {
    let key = "key `max_block_size`";
    if steps.is_empty() {
        return match segwit {
            true => Ok(Vec::new()),
            false => Err(format!(
                "{key}: a chain without segregated witness needs it"
            )),
        };
    }
    if segwit {
        return Err(format!(
            "{key}: the weight bounds the blocks of a chain with segregated witness"
        ));
    }
    let steps: Vec<_> = steps
        .into_iter()
        .map(|step| (step.from, step.bytes))
        .collect();
    if steps.first().is_none_or(|(from, _)| *from != 0) {
        return Err(format!("{key}: the first step must be `from = 0`"));
    }
    let ascend = steps
        .windows(2)
        .all(|pair| matches!(pair, [(a, _), (b, _)] if a < b));
    if !ascend {
        return Err(format!("{key}: the steps must rise"));
    }
    match steps
        .iter()
        .find(|(_, bytes)| !(1_000..=u64::from(u32::MAX)).contains(bytes))
    {
        Some((_, bytes)) => Err(format!(
            "{key}: {bytes}; give 1000 to {} (the framing of the block log)",
            u32::MAX
        )),
        None => Ok(steps),
    }
}

#[cfg(test)]
mod tests;
