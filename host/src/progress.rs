//! How far the sync is: a bar on a terminal, a log line now and then elsewhere.

use std::{
    collections::VecDeque,
    io::IsTerminal,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a line is logged where no bar is shown.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// How often the bar is told anything; indicatif draws it at most 20 times a second anyway.
const BAR_INTERVAL: Duration = Duration::from_millis(100);

/// The rate is that of the last so much time: long enough to be calm, short enough to follow what blocks are like here.
const RATE_WINDOW: Duration = Duration::from_secs(30);

/// How often a point is kept for the rate.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

// the message is cut where the terminal ends: a bar of two lines could not be taken away
const BAR: &str = "{bar:16.cyan/blue} {percent:>3}%  {wide_msg}";

/// Where the sync is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Height that the slowest plugin has reached.
    pub height: u32,
    /// Height of the best chain of headers.
    pub target: u32,
    /// Transactions taken in since the start.
    pub transactions: u64,
}

/// Shows how far the sync is. Cheap to clone and to call: for every block, from any thread.
#[derive(Clone)]
pub struct Progress {
    bars: MultiProgress,
    shown: bool,
    sync: Arc<Mutex<Option<Sync>>>,
}

/// One sync: from when the host falls behind until it has the tip.
struct Sync {
    bar: Option<ProgressBar>,
    samples: VecDeque<(Instant, Position)>,
    said: Instant,
}

/// What is said about a sync.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Report {
    position: Position,
    blocks_per_second: f64,
    transactions_per_second: f64,
    left: Option<Duration>,
}

impl Progress {
    /// Shows a bar if standard error is a terminal, and lines in the log if not.
    pub fn new() -> Self {
        Self::with_bar(std::io::stderr().is_terminal())
    }

    /// Shows a bar or lines, as said.
    pub fn with_bar(shown: bool) -> Self {
        let target = if shown {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            bars: MultiProgress::with_draw_target(target),
            shown,
            sync: Arc::default(),
        }
    }

    /// What the log must write above. See [`crate::logging::init`].
    pub fn bars(&self) -> MultiProgress {
        self.bars.clone()
    }

    /// The sync has come so far.
    pub fn update(&self, position: Position) {
        self.update_at(Instant::now(), position);
    }

    /// The sync is over, or the host ends: the bar goes away.
    pub fn finish(&self) {
        let sync = self
            .sync
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(bar) = sync.and_then(|sync| sync.bar) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    fn update_at(&self, now: Instant, position: Position) {
        let mut slot = self.sync.lock().unwrap_or_else(PoisonError::into_inner);
        let sync = slot
            .get_or_insert_with(|| Sync::new(now, position, self.shown.then(|| bar(&self.bars))));
        let Some(report) = sync.update(now, position) else {
            return;
        };
        match &sync.bar {
            Some(bar) => {
                bar.set_length(report.position.target.into());
                bar.set_position(report.position.height.into());
                bar.set_message(report.text());
            }
            None => {
                // a subscriber may call back into us
                drop(slot);
                report.log();
            }
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

fn bar(bars: &MultiProgress) -> ProgressBar {
    let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
    bars.add(ProgressBar::new(0).with_style(style.progress_chars("=> ")))
}

impl Sync {
    fn new(now: Instant, position: Position, bar: Option<ProgressBar>) -> Self {
        Self {
            bar,
            samples: VecDeque::from([(now, position)]),
            said: now,
        }
    }

    /// Takes note of a position, and gives a report when one is due.
    fn update(&mut self, now: Instant, position: Position) -> Option<Report> {
        let fresh = |at: &Instant| now.saturating_duration_since(*at) < SAMPLE_INTERVAL;
        if !self.samples.back().is_some_and(|(at, _)| fresh(at)) {
            self.samples.push_back((now, position));
        }
        let old = |at: Instant| now.saturating_duration_since(at) > RATE_WINDOW;
        while self.samples.len() > 1 && self.samples.front().is_some_and(|(at, _)| old(*at)) {
            self.samples.pop_front();
        }
        let interval = if self.bar.is_some() {
            BAR_INTERVAL
        } else {
            LINE_INTERVAL
        };
        if now.saturating_duration_since(self.said) < interval {
            return None;
        }
        self.said = now;
        Some(self.report(now, position))
    }

    fn report(&self, now: Instant, position: Position) -> Report {
        let (since, first) = self.samples.front().copied().unwrap_or((now, position));
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        // a reorg takes the height back; that is no negative rate
        let per_second = |count: u64| {
            if seconds > 0.0 {
                count as f64 / seconds
            } else {
                0.0
            }
        };
        let blocks_per_second = per_second(position.height.saturating_sub(first.height).into());
        let missing = position.target.saturating_sub(position.height);
        let left = (blocks_per_second > 0.0)
            .then(|| {
                Duration::try_from_secs_f64((f64::from(missing) / blocks_per_second).ceil()).ok()
            })
            .flatten();
        Report {
            position,
            blocks_per_second,
            transactions_per_second: per_second(
                position.transactions.saturating_sub(first.transactions),
            ),
            left,
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let Position { height, target, .. } = self.position;
        let left = self.left.map_or("unknown".to_owned(), coarse);
        format!(
            "{height} of {target}  {left} left  {} blocks/s  {:.0} tx/s",
            rate(self.blocks_per_second),
            self.transactions_per_second,
        )
    }

    fn log(&self) {
        tracing::info!(
            height = self.position.height,
            of = self.position.target,
            blocks_per_second = %rate(self.blocks_per_second),
            tx_per_second = self.transactions_per_second.round(),
            left = %self.left.map_or("unknown".to_owned(), coarse),
            "syncing"
        );
    }
}

/// A rate with as many digits as matter.
fn rate(per_second: f64) -> String {
    if per_second >= 10.0 {
        format!("{per_second:.0}")
    } else {
        format!("{per_second:.1}")
    }
}

/// A duration in its two biggest units.
pub(crate) fn coarse(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    fn at(height: u32) -> Position {
        Position {
            height,
            target: 10_000,
            transactions: u64::from(height) * 10,
        }
    }

    #[test]
    fn a_line_is_due_every_ten_seconds_with_rate_and_time_left() {
        let start = Instant::now();
        let mut sync = Sync::new(start, at(0), None);
        let mut reports = Vec::new();
        // 100 blocks a second for 25 seconds
        for tick in 1..=250 {
            reports.extend(sync.update(
                start + Duration::from_millis(tick * 100),
                at(tick as u32 * 10),
            ));
        }
        assert_eq!(reports.len(), 2);
        let report = reports[1];
        assert_eq!(report.position.height, 2_000);
        assert!((report.blocks_per_second - 100.0).abs() < 1.0, "{report:?}");
        assert!(
            (report.transactions_per_second - 1_000.0).abs() < 10.0,
            "{report:?}"
        );
        assert_eq!(report.left, Some(Duration::from_secs(80)));
        assert_eq!(
            report.text(),
            "2000 of 10000  1 min 20 s left  100 blocks/s  1000 tx/s"
        );
    }

    #[test]
    fn the_rate_is_that_of_the_last_half_minute() {
        let start = Instant::now();
        let mut sync = Sync::new(start, at(0), None);
        let mut last = None;
        for second in 1..=120_u32 {
            // fast for a minute, then one block a second
            let height = if second <= 60 {
                second * 100
            } else {
                6_000 + (second - 60)
            };
            last = sync
                .update(start + Duration::from_secs(second.into()), at(height))
                .or(last);
        }
        let report = last.unwrap();
        assert!((report.blocks_per_second - 1.0).abs() < 0.1, "{report:?}");
        assert!(
            sync.samples.len() <= 62,
            "points that are too old are let go"
        );
    }

    #[test]
    fn a_reorg_and_a_standstill_give_no_nonsense() {
        let start = Instant::now();
        let mut sync = Sync::new(start, at(500), None);
        let report = sync.update(start + LINE_INTERVAL, at(400)).unwrap();
        assert_eq!((report.blocks_per_second, report.left), (0.0, None));
        assert!(report.text().contains("unknown left"));
        // the same moment twice, and a clock that stands
        let mut sync = Sync::new(start, at(0), None);
        assert_eq!(sync.update(start, at(1)), None);
        assert_eq!(sync.report(start, at(1)).blocks_per_second, 0.0);
    }

    #[test]
    fn a_bar_shows_the_position_and_goes_away() {
        let progress = Progress::with_bar(false);
        let start = Instant::now();
        {
            let mut slot = progress.sync.lock().unwrap();
            *slot = Some(Sync::new(start, at(0), Some(bar(&progress.bars))));
        }
        progress.update_at(start + Duration::from_secs(1), at(100));
        let shown = progress
            .sync
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .bar
            .clone()
            .unwrap();
        assert_eq!((shown.position(), shown.length()), (100, Some(10_000)));
        assert_eq!(
            shown.message(),
            "100 of 10000  1 min 39 s left  100 blocks/s  1000 tx/s"
        );
        progress.finish();
        assert!(shown.is_finished());
        assert!(progress.sync.lock().unwrap().is_none());
    }

    #[test]
    fn long_times_are_said_coarsely() {
        for (seconds, text) in [
            (5, "5 s"),
            (65, "1 min 5 s"),
            (3_700, "1 h 1 min"),
            (93_784, "1 d 2 h"),
        ] {
            assert_eq!(coarse(Duration::from_secs(seconds)), text);
        }
    }
}
