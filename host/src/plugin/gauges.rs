//! Named numbers that plugins show: gauges and short series, in memory only.

use crate::metrics::PluginMetrics;
use crate::status::{Point, Values};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Gauges, and series, that a plugin may have.
const MAX_NAMES: usize = 1_000;
/// Points that a series keeps.
const MAX_POINTS: usize = 1_000;

#[derive(Default)]
struct Named {
    gauges: BTreeMap<String, f64>,
    series: BTreeMap<String, VecDeque<Point>>,
}

/// The numbers of one plugin.
#[derive(Clone)]
pub struct Gauges {
    named: Arc<Mutex<Named>>,
    metrics: PluginMetrics,
}

impl Gauges {
    /// No numbers yet; gauges are shown among the metrics too.
    pub fn new(metrics: PluginMetrics) -> Self {
        Self {
            named: Arc::default(),
            metrics,
        }
    }

    /// What else is measured of the plugin.
    pub(super) fn metrics(&self) -> &PluginMetrics {
        &self.metrics
    }

    pub(super) fn set(&self, name: &str, value: f64) -> Result<(), String> {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        check(name, named.gauges.contains_key(name), named.gauges.len())?;
        named.gauges.insert(name.to_owned(), value);
        self.metrics.set_value(name, value);
        Ok(())
    }

    pub(super) fn push(
        &self,
        name: &str,
        height: u32,
        time: u32,
        value: f64,
    ) -> Result<(), String> {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        check(name, named.series.contains_key(name), named.series.len())?;
        let points = named.series.entry(name.to_owned()).or_default();
        // After a reorg the same heights come again.
        while points.back().is_some_and(|last| last.height >= height) {
            points.pop_back();
        }
        if points.len() == MAX_POINTS {
            points.pop_front();
        }
        points.push_back(Point {
            height,
            time,
            value,
        });
        Ok(())
    }

    /// All gauges and series by name.
    pub fn values(&self) -> Values {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let points = |points: &VecDeque<Point>| points.iter().copied().collect();
        Values {
            gauges: named.gauges.clone(),
            series: named
                .series
                .iter()
                .map(|(name, all)| (name.clone(), points(all)))
                .collect(),
        }
    }
}

fn check(name: &str, known: bool, names: usize) -> Result<(), String> {
    let fits = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
    if !fits {
        return Err(format!(
            "{name:?} is no name for a value: 1 to 64 lower-case letters, digits and `_`"
        ));
    }
    if !known && names >= MAX_NAMES {
        return Err(format!("more than {MAX_NAMES} named values"));
    }
    Ok(())
}
