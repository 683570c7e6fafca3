//! Asks a running host through its API.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    config::{Config, ConfigError},
    status::ErrorBody,
};

const CONNECT_TIME: Duration = Duration::from_secs(5);

/// A little more than the host itself allows for anything but the coin set.
const ANSWER_TIME: Duration = Duration::from_secs(60 * 10);

/// The coin set of mainnet is walked in minutes on a fast disk; on a slow one this is not too long.
const SLOW_ANSWER_TIME: Duration = Duration::from_secs(60 * 60);

/// The largest answer that is read; plugins may give big ones.
const MAX_ANSWER: u64 = 1 << 30;

/// Nothing listens at the address of the API.
#[derive(Debug, thiserror::Error)]
#[error(
    "no host answers at {0}: is `blockmill run` running, and is its api.listen (or --api-listen) this address?"
)]
pub(super) struct Unanswered(SocketAddr);

/// What the host said is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{message} ({code})")]
struct Refused {
    code: String,
    message: String,
}

/// The API of one host.
pub(super) struct Client {
    address: SocketAddr,
    agent: ureq::Agent,
}

impl Client {
    pub fn of(config: &Config) -> Result<Self, ConfigError> {
        if !config.api.enabled {
            return Err(config.error(
                "api.enabled",
                "the API is switched off, so no host can be asked",
                "set it to true",
            ));
        }
        let mut address = config.api.listen;
        if address.port() == 0 {
            let hint = "give the port that the host says at its start, with --api-listen";
            return Err(config.error(
                "api.listen",
                "port 0 names no host that could be asked",
                hint,
            ));
        }
        // what listens everywhere is asked here
        match address.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        let agent = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_TIME))
            .build()
            .into();
        Ok(Self { address, agent })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The JSON text at a path.
    pub fn get(&self, path: &str, params: &[(String, String)]) -> Result<String> {
        self.get_within(path, params, ANSWER_TIME)
    }

    /// As [`Client::get`], from the host's owner, whose question may change something.
    pub fn post(&self, path: &str, params: &[(String, String)], token: &str) -> Result<String> {
        self.post_within(path, params, token, ANSWER_TIME)
    }

    /// As [`Client::post`], for what takes long.
    pub fn post_slow(
        &self,
        path: &str,
        params: &[(String, String)],
        token: &str,
    ) -> Result<String> {
        self.post_within(path, params, token, SLOW_ANSWER_TIME)
    }

    fn post_within(
        &self,
        path: &str,
        params: &[(String, String)],
        token: &str,
        time: Duration,
    ) -> Result<String> {
        let mut request = self.agent.post(format!("http://{}{path}", self.address));
        for (name, value) in params {
            request = request.query(name, value);
        }
        let sent = request
            .header("authorization", format!("Bearer {token}"))
            .config()
            .timeout_global(Some(time))
            .build()
            .send_empty();
        self.text(path, sent)
    }

    /// As [`Client::get`], for what takes long.
    pub fn get_slow(&self, path: &str) -> Result<String> {
        self.get_within(path, &[], SLOW_ANSWER_TIME)
    }

    fn get_within(
        &self,
        path: &str,
        params: &[(String, String)],
        time: Duration,
    ) -> Result<String> {
        let mut request = self.agent.get(format!("http://{}{path}", self.address));
        for (name, value) in params {
            request = request.query(name, value);
        }
        let sent = request.config().timeout_global(Some(time)).build().call();
        self.text(path, sent)
    }

    fn text(
        &self,
        path: &str,
        sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<String> {
        let mut response = match sent {
            Ok(response) => response,
            Err(why) if is_unanswered(&why) => return Err(Unanswered(self.address).into()),
            Err(why) => {
                return Err(
                    anyhow!(why).context(format!("failed to ask the host at {}", self.address))
                );
            }
        };
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_string()
            .with_context(|| {
                format!("failed to read the answer of the host at {}", self.address)
            })?;
        if response.status().is_success() {
            return Ok(text);
        }
        match serde_json::from_str::<ErrorBody>(&text) {
            Ok(ErrorBody { error }) => Err(anyhow!(Refused {
                code: error.code,
                message: error.message
            })
            .context(format!("the host refused {path}"))),
            Err(_) => bail!(
                "what answers at {} is no blockmill: {}",
                self.address,
                response.status()
            ),
        }
    }
}

fn is_unanswered(why: &ureq::Error) -> bool {
    match why {
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => true,
        ureq::Error::Timeout(ureq::Timeout::Connect) => true,
        ureq::Error::Io(why) => why.kind() == std::io::ErrorKind::ConnectionRefused,
        _ => false,
    }
}

/// A path with all that cannot stand in one escaped; slashes stay.
pub(super) fn path(text: &str) -> String {
    text.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// One segment of a path, escaped.
pub(super) fn segment(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                escaped.push(char::from(byte))
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
