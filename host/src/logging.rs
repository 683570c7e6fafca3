//! The log: events with fields, one line a fact, on standard error.

use std::io::{self, Write};

use anyhow::{Context, Result};
use indicatif::MultiProgress;
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, util::SubscriberInitExt};

use crate::config::{Log, LogFormat};

/// The environment variables that may hold a filter instead of `log.level`, the first that is set.
pub const FILTER_VARIABLES: [&str; 2] = ["BLOCKMILL_LOG", "RUST_LOG"];

/// Starts the log. Lines go to standard error, above the progress bars of `bars` if some are shown.
///
/// # Errors
/// When an environment variable holds no filter, or a log was started before.
pub fn init(config: &Log, bars: MultiProgress) -> Result<()> {
    let filter = filter(&config.level, |name| std::env::var(name).ok())?;
    subscriber(
        config.format,
        filter,
        LogWriter {
            bars,
            to: io::stderr,
        },
    )
    .try_init()
    .context("failed to start the log")
}

/// The filter of the first variable that is set, else that of the configuration.
fn filter(level: &str, variable: impl Fn(&str) -> Option<String>) -> Result<EnvFilter> {
    let named = FILTER_VARIABLES
        .iter()
        .find_map(|name| Some((*name, variable(name).filter(|text| !text.is_empty())?)));
    match named {
        Some((name, text)) => EnvFilter::builder()
            .parse(&text)
            .with_context(|| format!("environment variable {name} is no log filter: \"{text}\"")),
        None => EnvFilter::builder()
            .parse(level)
            .with_context(|| format!("log.level is no log filter: \"{level}\"")),
    }
}

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    match format {
        LogFormat::Human => {
            let colours = std::io::IsTerminal::is_terminal(&io::stderr())
                && std::env::var_os("NO_COLOR").is_none();
            Box::new(lines.with_ansi(colours).with_target(false).finish())
        }
        LogFormat::Json => Box::new(lines.json().flatten_event(true).with_ansi(false).finish()),
    }
}

/// Writes each line with the progress bars taken away for so long; a bar that is drawn over a line would garble both.
struct LogWriter<W> {
    bars: MultiProgress,
    to: fn() -> W,
}

impl<'a, W: Write + 'a> MakeWriter<'a> for LogWriter<W> {
    type Writer = AboveBars<'a, W>;

    fn make_writer(&'a self) -> Self::Writer {
        AboveBars {
            bars: &self.bars,
            to: (self.to)(),
        }
    }
}

/// One line's way out.
struct AboveBars<'a, W> {
    bars: &'a MultiProgress,
    to: W,
}

impl<W: Write> Write for AboveBars<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| self.to.write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: EnvFilter) -> String {
        let lines = Lines::default();
        let to = lines.clone();
        let subscriber = subscriber(format, filter, move || to.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(height = 5, "block");
            tracing::debug!("too much");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_json_line_is_one_object_with_the_fields_in_it() {
        let text = logged(LogFormat::Json, filter("info", |_| None).unwrap());
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["height"], 5);
        assert_eq!(line["message"], "block");
        assert_eq!(line["level"], "INFO");
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn a_human_line_has_message_and_fields() {
        let text = logged(LogFormat::Human, filter("info", |_| None).unwrap());
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains("INFO") && text.contains("block height=5"),
            "{text}"
        );
    }

    #[test]
    fn a_variable_goes_before_the_configuration() {
        let both = |name: &str| {
            Some(
                if name == "BLOCKMILL_LOG" {
                    "error"
                } else {
                    "trace"
                }
                .to_owned(),
            )
        };
        assert_eq!(filter("info", both).unwrap().to_string(), "error");
        let rust_log = |name: &str| (name == "RUST_LOG").then(|| "debug".to_owned());
        assert_eq!(filter("info", rust_log).unwrap().to_string(), "debug");
        assert_eq!(
            filter("warn", |_| Some(String::new())).unwrap().to_string(),
            "warn"
        );
        let why = filter("info", |name| {
            (name == "BLOCKMILL_LOG").then(|| "a=b=c".to_owned())
        })
        .unwrap_err();
        assert!(why.to_string().contains("BLOCKMILL_LOG"), "{why}");
    }
}
