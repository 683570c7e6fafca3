//! Peers: who is connected, who is banned, and the owner's orders about them.

use std::time::Duration;

use axum::{
    extract::{Path, Query, State, rejection::PathRejection, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde_json::json;

use super::{
    Backend,
    answer::{Refusal, json},
    routes::{Host, owner_only},
};
use crate::chain::sync::bans::Subnet;

/// How long who is banned without a word about it stays so.
const DEFAULT_BAN: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest ban that is not for good: a hundred years.
const MAX_BAN: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// What the owner can have done with peers: `POST /api/v1/peers/{ban, unban, add, drop}?address=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerOrder {
    /// `ban`, with `for` (a duration such as `2h`, or `ever`) and `reason`.
    Ban {
        /// Whom.
        subnet: Subnet,
        /// For how long; none is for good.
        time: Option<Duration>,
        /// Why, for people.
        reason: String,
    },
    /// `unban`
    Unban {
        /// Whom.
        subnet: Subnet,
    },
    /// `add`
    Add {
        /// `host:port` or `host`.
        address: String,
    },
    /// `drop`
    Drop {
        /// An address with its port, or the number of a connection.
        peer: String,
    },
}

impl PeerOrder {
    /// Reads an order from its word and its parameters.
    ///
    /// # Errors
    ///
    /// What is wrong, for people. None when there is no such word.
    pub fn parse(word: &str, params: &[(String, String)]) -> Option<Result<Self, String>> {
        let known: &[&str] = match word {
            "ban" => &["address", "for", "reason"],
            "unban" | "add" | "drop" => &["address"],
            _ => return None,
        };
        Some(Self::read(word, known, params))
    }

    fn read(word: &str, known: &[&str], params: &[(String, String)]) -> Result<Self, String> {
        if let Some((name, _)) = params
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            return Err(format!("{word} takes no parameter {name:?}"));
        }
        let given = |wanted: &str| {
            let mut found = params.iter().filter(|(name, _)| name == wanted);
            found.next().map(|(_, value)| value.trim())
        };
        let address = given("address").filter(|address| !address.is_empty());
        let address = address.ok_or_else(|| format!("{word} takes an address"))?;
        let subnet = || address.parse::<Subnet>().map_err(|why| why.to_string());
        match word {
            "ban" => Ok(Self::Ban {
                subnet: subnet()?,
                time: given("for").map_or(Ok(Some(DEFAULT_BAN)), ban_time)?,
                reason: given("reason").unwrap_or("by the operator").to_owned(),
            }),
            "unban" => Ok(Self::Unban { subnet: subnet()? }),
            "add" => Ok(Self::Add {
                address: address.to_owned(),
            }),
            _ => Ok(Self::Drop {
                peer: address.to_owned(),
            }),
        }
    }
}

/// `ever`, or a duration.
fn ban_time(text: &str) -> Result<Option<Duration>, String> {
    if text == "ever" {
        return Ok(None);
    }
    let wrong = || {
        format!(
            "\"{text}\" is no time to be banned for: give a duration such as \"2h\", or \"ever\""
        )
    };
    let time = humantime::parse_duration(text).map_err(|_| wrong())?;
    match time >= Duration::from_secs(1) && time <= MAX_BAN {
        true => Ok(Some(time)),
        false => Err(wrong()),
    }
}

pub(super) async fn peers<B: Backend>(State(host): Host<B>) -> Result<Response, Refusal> {
    Ok(json(StatusCode::OK, &host.short(B::peers).await?))
}

pub(super) async fn change_peers<B: Backend>(
    State(host): Host<B>,
    word: Result<Path<String>, PathRejection>,
    params: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    owner_only(&host, &headers)?;
    let Path(word) = word.map_err(|why| Refusal::bad_request(why.body_text()))?;
    let Query(params) = params.map_err(|why| Refusal::bad_request(why.body_text()))?;
    let order = PeerOrder::parse(&word, &params)
        .ok_or_else(|| Refusal::not_found(format!("nobody can {word} a peer")))?
        .map_err(Refusal::bad_request)?;
    let done = host
        .changed(move |backend| backend.change_peers(order))
        .await?;
    Ok(json(StatusCode::OK, &json!({ "done": done })))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    fn parse(word: &str, params: &[(&str, &str)]) -> Result<PeerOrder, String> {
        let params: Vec<_> = params
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        PeerOrder::parse(word, &params).unwrap()
    }

    #[test]
    fn orders_are_read_and_what_is_wrong_with_them_is_said() {
        assert!(PeerOrder::parse("praise", &[]).is_none());
        let ban = parse("ban", &[("address", "192.0.2.7/24"), ("for", "2h 30m")]).unwrap();
        let wanted = PeerOrder::Ban {
            subnet: "192.0.2.0/24".parse().unwrap(),
            time: Some(Duration::from_secs(9_000)),
            reason: "by the operator".to_owned(),
        };
        assert_eq!(ban, wanted);
        let ever = [("address", "::1"), ("for", "ever"), ("reason", "noise")];
        assert!(
            matches!(parse("ban", &ever).unwrap(), PeerOrder::Ban { time: None, reason, .. } if reason == "noise")
        );
        let day = parse("ban", &[("address", "::1")]).unwrap();
        assert!(matches!(
            day,
            PeerOrder::Ban {
                time: Some(DEFAULT_BAN),
                ..
            }
        ));
        for (word, params, why) in [
            ("ban", vec![("address", "example.org")], "no IP address"),
            ("ban", vec![], "takes an address"),
            ("ban", vec![("address", " ")], "takes an address"),
            ("ban", vec![("address", "::1"), ("for", "soon")], "no time"),
            ("ban", vec![("address", "::1"), ("for", "0s")], "no time"),
            (
                "ban",
                vec![("address", "::1"), ("for", "900years")],
                "no time",
            ),
            ("unban", vec![("address", "1.2.3.4/40")], "no IP address"),
            (
                "drop",
                vec![("address", "1"), ("for", "1h")],
                "no parameter \"for\"",
            ),
        ] {
            let error = parse(word, &params).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
