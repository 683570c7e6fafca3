//! The log: events with fields, one line a fact, on standard error.

use std::io::{self, Write};

use anyhow::{Context, Result};
use indicatif::MultiProgress;
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, ParseError},
    fmt::MakeWriter,
    util::SubscriberInitExt,
};

use crate::config::{ConfigError, Log, LogFormat, Origin};

/// The environment variables that may hold a filter instead of `log.level`, the first that is set.
pub const FILTER_VARIABLES: [&str; 2] = ["BLOCKMILL_LOG", "RUST_LOG"];

/// What a filter looks like, for a person who wrote another.
pub(crate) const FILTER_HINT: &str =
    "give error, warn, info, debug or trace, or a filter such as \"warn,blockmill::chain=debug\"";

/// Target of the events that plugins write.
pub const PLUGIN_TARGET: &str = "plugin";

/// Starts the log. Lines go to standard error, above the progress bars of `bars` if some are shown.
///
/// # Errors
/// A [`ConfigError`] when an environment variable holds no filter; another when a log was started before.
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
fn filter(
    level: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<EnvFilter, ConfigError> {
    let named = FILTER_VARIABLES.iter().find_map(|name| {
        let text = variable(name).filter(|text| !text.is_empty())?;
        Some((Origin::Environment((*name).to_owned()), None, text))
    });
    let (origin, key, text) = named.unwrap_or_else(|| {
        let key = Some("log.level".to_owned());
        (Origin::Default, key, level.to_owned())
    });
    parse(&text).map_err(|why| ConfigError {
        origin,
        key,
        problem: format!("\"{text}\" is no log filter ({why})"),
        hint: Some(FILTER_HINT.to_owned()),
    })
}

/// A filter from its text. A level alone is meant for our own events and those of plugins: storage engines and compilers are
/// talkative, and only their warnings are of use.
///
/// # Errors
/// When the text is no filter.
pub(crate) fn parse(text: &str) -> Result<EnvFilter, ParseError> {
    let text = text.trim();
    let whole = match text.parse::<LevelFilter>() {
        Ok(level) if level > LevelFilter::WARN => {
            format!("warn,blockmill={level},{PLUGIN_TARGET}={level}")
        }
        _ => text.to_owned(),
    };
    EnvFilter::builder().parse(whole)
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
            tracing::info!(target: "fjall", "somebody else's");
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
        let shown = |level: &str, variable: &dyn Fn(&str) -> Option<String>| {
            filter(level, variable).unwrap().to_string()
        };
        assert_eq!(shown("info", &both), "error");
        let rust_log = |name: &str| (name == "RUST_LOG").then(|| "debug".to_owned());
        let text = shown("info", &rust_log);
        let mut parts: Vec<&str> = text.split(',').collect();
        parts.sort_unstable();
        assert_eq!(parts, ["blockmill=debug", "plugin=debug", "warn"]);
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

    /// A terminal that writes down what is done to it, in one list with the log's lines.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<Vec<String>>>);

    impl Screen {
        fn note(&self, what: impl Into<String>) -> io::Result<()> {
            self.0.lock().unwrap().push(what.into());
            Ok(())
        }
    }

    impl indicatif::TermLike for Screen {
        fn width(&self) -> u16 {
            80
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            if text.trim().is_empty() {
                Ok(())
            } else {
                self.note(format!("bar {}", text.trim()))
            }
        }

        fn clear_line(&self) -> io::Result<()> {
            self.note("clear")
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Where the log goes in the test below; the writer of the log cannot hold anything.
    static LOG_LINES: Mutex<Option<Screen>> = Mutex::new(None);

    struct ToScreen;

    impl Write for ToScreen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8_lossy(bytes).trim().to_owned();
            LOG_LINES
                .lock()
                .unwrap()
                .as_ref()
                .unwrap()
                .note(format!("log {text}"))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_takes_the_bar_away_and_puts_it_back() {
        let screen = Screen::default();
        *LOG_LINES.lock().unwrap() = Some(screen.clone());
        let target =
            indicatif::ProgressDrawTarget::term_like_with_hz(Box::new(screen.clone()), 255);
        let bars = MultiProgress::with_draw_target(target);
        let bar = bars.add(indicatif::ProgressBar::new(10));
        bar.tick();
        let subscriber = subscriber(
            LogFormat::Json,
            filter("info", |_| None).unwrap(),
            LogWriter {
                bars,
                to: || ToScreen,
            },
        );
        screen.0.lock().unwrap().clear();
        tracing::subscriber::with_default(subscriber, || tracing::info!("a line"));
        let seen = screen.0.lock().unwrap().clone();
        let place = |what: &str| {
            seen.iter()
                .position(|done| done.starts_with(what))
                .unwrap_or_else(|| panic!("no {what} in {seen:?}"))
        };
        assert!(
            place("clear") < place("log ") && place("log ") < place("bar "),
            "{seen:?}"
        );
        assert_eq!(
            seen.iter().filter(|done| done.starts_with("log ")).count(),
            1,
            "a line is written at once: {seen:?}"
        );
    }
}
