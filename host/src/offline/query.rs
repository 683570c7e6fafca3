//! Queries that a test asks in the end.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Map, Value};

/// The most queries that a test asks.
const MAX_QUERIES: usize = 1_000;

/// A query: `PATH` or `PATH={"name": value, …}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// As it was written.
    pub text: String,
    pub(super) path: String,
    pub(super) params: Vec<(String, String)>,
}

/// A query and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AskedQuery {
    /// The query as it was written.
    pub query: String,
    /// The answer, JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Value>,
    /// Why the plugin refuses the query, which is an answer too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Question {
    /// Reads a query as it is written after `--query`.
    ///
    /// # Errors
    ///
    /// When what is behind the `=` is no JSON object of strings, numbers and truth values.
    pub fn parse(text: &str) -> Result<Self> {
        let (path, params) = match text.split_once('=') {
            Some((path, json)) => (path, json),
            None => (text, "{}"),
        };
        let example =
            r#"a query is written PATH or PATH={"name": value}, such as block={"height": 5}"#;
        let params: Map<String, Value> = serde_json::from_str(params).context(example)?;
        let params = params.into_iter().map(|(name, value)| {
            Ok(match value {
                Value::String(text) => (name, text),
                Value::Number(_) | Value::Bool(_) => (name, value.to_string()),
                _ => bail!("{name} is neither text nor a number nor true or false: {example}"),
            })
        });
        Ok(Self {
            text: text.trim().to_owned(),
            path: path.trim().to_owned(),
            params: params.collect::<Result<_>>()?,
        })
    }

    /// Reads a file of queries, one a line; empty lines and such that begin with `#` are passed over.
    ///
    /// # Errors
    ///
    /// When a line is no query, or there are too many.
    pub fn parse_file(text: &str) -> Result<Vec<Self>> {
        let mut queries = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if queries.len() == MAX_QUERIES {
                bail!("there are more than {MAX_QUERIES} queries");
            }
            queries.push(Self::parse(line).with_context(|| format!("line {number}"))?);
        }
        Ok(queries)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_query_is_a_path_and_its_parameters() {
        let query = Question::parse(r#"block={"height": 5, "of": "a=b", "all": true}"#).unwrap();
        assert_eq!(query.path, "block");
        let params: Vec<(&str, &str)> = query
            .params
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(params, [("all", "true"), ("height", "5"), ("of", "a=b")]);
        assert_eq!(Question::parse("a/b").unwrap().params, []);
        for wrong in [
            "block=5",
            "block={",
            r#"block={"a": [1]}"#,
            r#"block={"a": null}"#,
        ] {
            let error = format!("{:#}", Question::parse(wrong).unwrap_err());
            assert!(error.contains("such as"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_file_has_one_a_line() {
        let queries = Question::parse_file("# all\n\nstatus\n  days={\"limit\": 2}\n").unwrap();
        assert_eq!(queries.len(), 2);
        assert_eq!(queries[1].text, "days={\"limit\": 2}");
        let error = Question::parse_file("status\nblock=x\n").unwrap_err();
        assert!(format!("{error:#}").starts_with("line 2: "), "{error:#}");
    }
}
