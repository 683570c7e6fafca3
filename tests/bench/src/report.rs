//! Figures, and the lines that are printed of them.

use std::time::Duration;

/// Prints Markdown as it goes, so that an interrupted run has said what it found.
#[derive(Default)]
pub struct Report(());

/// Times of the same thing, measured again and again.
#[derive(Debug, Default, Clone)]
pub struct Times(Vec<f64>);

impl Times {
    /// Adds one.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64());
    }

    /// Seconds; half of the runs took longer.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    /// Seconds of the quickest run: what it costs when nothing else runs.
    pub fn best(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

impl Report {
    /// Says what is measured on, and how busy it is.
    pub fn machine(&mut self) {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or("unknown", |(_, model)| model.trim());
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let memory = read("/proc/meminfo")
            .lines()
            .find_map(|line| {
                line.strip_prefix("MemTotal:")?
                    .trim()
                    .strip_suffix(" kB")?
                    .parse()
                    .ok()
            })
            .unwrap_or(0u64);
        self.note(&format!(
            "machine: {model}, {cores} cores, {:.0} GB; load average {}",
            memory as f64 / 1e6,
            load()
        ));
    }

    /// A line of text.
    pub fn note(&mut self, text: &str) {
        println!("\n{text}");
    }

    /// Begins a table.
    pub fn table(&mut self, columns: &[&str]) {
        println!();
        self.row(columns);
        println!("|{}", "---|".repeat(columns.len()));
    }

    /// A line of a table.
    pub fn row<S: AsRef<str>>(&mut self, cells: &[S]) {
        let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
        println!("| {} |", cells.join(" | "));
    }
}

/// How many threads wanted to run during the last minute.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .next()
        .unwrap_or("unknown")
        .to_owned()
}

/// A time in µs.
pub fn micros(seconds: f64) -> String {
    format!("{:.1} µs", seconds * 1e6)
}
