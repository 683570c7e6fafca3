//! What the demo prints.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::devnet::CoinSet;
use super::host;
use crate::workspace;

/// Says what a person can look at while it runs.
pub fn where_to_look(root: &Path, program: &Path, folder: &Path, api: SocketAddr, devnet: &str) {
    let program = workspace::shown(root, program);
    let shown = |path: &Path| workspace::shown(root, path);
    let database = shown(&host::database_path(folder));
    let config = shown(&host::config_path(folder));
    println!(
        "
Where to look, in another terminal:

  state       {program} status --config {config}
  API         curl -s http://{api}/api/v1/status
              curl -s http://{api}/api/v1/blocks/110
  plugins     curl -s http://{api}/api/v1/plugins/utxo-tracker/query/totals
              curl -s 'http://{api}/api/v1/plugins/fee-estimator/query/estimate?target=6'
  rows        sqlite3 -box {database} \\
                'SELECT height, hash, tx_count, total_fees FROM block_view ORDER BY height DESC LIMIT 5'
  metrics     curl -s http://{api}/metrics
  devnet      a peer at {devnet}, for another host of yours
  host's log  {log}
",
        log = shown(&host::log_path(folder)),
    );
}

/// The head of the lines that follow.
pub fn table_head(limit: Option<Duration>) {
    match limit {
        Some(limit) => println!(
            "{:.0} s of blocks, payments and a reorg; Ctrl-C ends it sooner.",
            limit.as_secs_f64()
        ),
        None => println!("Blocks, payments, and a reorg every minute; Ctrl-C ends it."),
    }
    println!(
        "\n{:>8}  {:>6}  {:>5}  {:>12}  {:>9}  {:>5}  plugins at",
        "time", "block", "txs", "fees", "committed", "pool"
    );
}

/// A line for a block. `pool` is what the host's pool holds now.
pub fn block(at: Duration, event: &Value, pool: Option<u64>) {
    let number = |field: &str| event.get(field).and_then(Value::as_u64);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let committed = event.get("committed_ms").and_then(Value::as_f64);
    let plugins = event
        .get("plugins")
        .and_then(Value::as_str)
        .unwrap_or_default();
    println!(
        "{}  {:>6}  {:>5}  {:>12}  {:>9}  {:>5}  {}",
        time(at),
        or_none(number("height").map(|height| height.to_string())),
        or_none(number("txs").map(grouped)),
        or_none(number("fees_sat").map(|fees| format!("{} sat", grouped(fees)))),
        or_none(committed.map(|ms| format!("{ms:.0} ms"))),
        or_none(pool.map(grouped)),
        plugins.replace(' ', ", ").replace('@', " "),
    );
}

/// A line for what the devnet did in a reorg.
pub fn reorg(at: Duration, what: &Value) {
    let count = |field: &str| {
        what.get(field)
            .and_then(Value::as_array)
            .map_or(0, Vec::len) as u64
    };
    let fork = what.get("fork_height").and_then(Value::as_u64).unwrap_or(0);
    println!(
        "{}  {:>6}  {} to {} left for {} to {}: {} transactions confirm again, {} return to the pool, {} are double-spent",
        time(at),
        "reorg",
        fork + 1,
        fork + count("abandoned"),
        fork + 1,
        fork + count("added"),
        count("confirmed_again"),
        count("returned"),
        count("replaced") + count("dropped"),
    );
}

/// How far back the host took a plugin.
pub fn rewound(event: &Value) -> String {
    let height = |field: &str| match event.get(field).and_then(Value::as_u64) {
        Some(height) => height.to_string(),
        None => "nothing".to_owned(),
    };
    let plugin = event
        .get("plugin")
        .and_then(Value::as_str)
        .unwrap_or_default();
    format!("{plugin} {} → {}", height("from"), height("to"))
}

/// A line for the plugins that the host took back.
pub fn all_rewound(at: Duration, plugins: &[String]) {
    println!("{}  {:>6}  {}", time(at), "rewind", plugins.join(", "));
}

/// A line for a warning or an error of the host.
pub fn trouble(at: Duration, event: &Value) {
    let text = |field: &str| event.get(field).and_then(Value::as_str).unwrap_or_default();
    let fields = event.as_object().into_iter().flatten();
    let fields: Vec<String> = fields
        .filter(|(name, _)| !["message", "level", "timestamp", "target"].contains(&name.as_str()))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    println!(
        "{}  {:>6}  {} {}",
        time(at),
        text("level").to_lowercase(),
        text("message"),
        fields.join(" ")
    );
}

/// The figures of a whole demo.
pub struct Summary {
    /// How long it played.
    pub shown: Duration,
    /// The devnet's height at the end.
    pub height: u64,
    /// How much it grew while the demo played.
    pub mined: u64,
    /// Blocks that reorgs left behind.
    pub replaced: u64,
    /// How many reorgs.
    pub reorgs: u64,
    /// Transactions in those blocks.
    pub transactions: u64,
    /// Fees of those blocks in sat.
    pub fees: u64,
    /// Rows written since the start.
    pub rows: u64,
    /// Where.
    pub database: String,
    /// Transactions in the pool of the host and of the devnet.
    pub pools: (u64, u64),
    /// What the fee estimator says of six blocks.
    pub estimate: Option<Value>,
}

impl Summary {
    /// Prints them.
    pub fn print(&self) {
        println!("\nSummary of {:.0} s\n", self.shown.as_secs_f64());
        println!(
            "  blocks      {}, {} of them new; {} left behind in {}",
            grouped(self.height),
            grouped(self.mined),
            grouped(self.replaced),
            counted(self.reorgs, "reorg"),
        );
        println!(
            "  txs         {} in the new blocks, with {} sat of fees",
            grouped(self.transactions),
            grouped(self.fees)
        );
        println!(
            "  pool        {} transactions in the host's, {} in the devnet's",
            grouped(self.pools.0),
            grouped(self.pools.1)
        );
        println!(
            "  rows        {} written to {}",
            grouped(self.rows),
            self.database
        );
        println!("  fee rate    {}", fee_rate(self.estimate.as_ref()));
    }
}

fn fee_rate(estimate: Option<&Value>) -> String {
    let field = |name: &str| estimate.and_then(|estimate| estimate.get(name));
    if let Some(rate) = field("fee_rate_sat_vb").and_then(Value::as_f64) {
        let target = field("answered_target")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        return format!(
            "{rate:.1} sat/vB to confirm within {}",
            counted(target, "block")
        );
    }
    match field("reason").and_then(Value::as_str) {
        Some(reason) => format!("not known yet: {reason}"),
        None => "not known: the estimator does not answer".to_owned(),
    }
}

/// Both coin sets side by side, and whether they agree.
pub fn comparison(host: Option<&CoinSet>, devnet: &CoinSet) {
    let cells = |set: &CoinSet| {
        [
            ("height", grouped(set.height)),
            ("bestblock", set.bestblock.clone()),
            ("coins", grouped(set.txouts)),
            ("total", format!("{} sat", grouped(set.total_sats))),
            ("muhash", set.muhash.clone()),
            ("hash_serialized_3", set.hash_serialized_3.clone()),
        ]
    };
    println!("\nThe set of unspent outputs\n");
    let theirs = cells(devnet);
    let Some(host) = host else {
        println!("  the host does not say: no block was stored\n");
        return;
    };
    let mut equal = true;
    for ((name, ours), (_, theirs)) in cells(host).into_iter().zip(theirs) {
        println!("  {name:<18}  host    {ours}");
        println!(
            "  {:<18}  devnet  {theirs}{}",
            "",
            if ours == theirs { "" } else { "   DIFFERENT" }
        );
        equal &= ours == theirs;
    }
    println!();
    println!(
        "{}",
        if equal {
            "host and devnet agree"
        } else {
            "host and devnet DO NOT AGREE"
        }
    );
}

fn time(at: Duration) -> String {
    format!("{:>6.1} s", at.as_secs_f64())
}

/// `1 block`, `2 blocks`
fn counted(count: u64, what: &str) -> String {
    format!(
        "{} {what}{}",
        grouped(count),
        if count == 1 { "" } else { "s" }
    )
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(12_345_678), "12,345,678");
    }

    #[test]
    fn an_estimate_that_is_missing_says_why() {
        let found = json!({ "fee_rate_sat_vb": 2.25, "answered_target": 6 });
        assert_eq!(
            fee_rate(Some(&found)),
            "2.2 sat/vB to confirm within 6 blocks"
        );
        let none = json!({ "fee_rate_sat_vb": null, "reason": "too few" });
        assert_eq!(fee_rate(Some(&none)), "not known yet: too few");
        assert!(fee_rate(None).contains("does not answer"));
    }

    #[test]
    fn a_plugin_that_starts_anew_went_back_to_nothing() {
        let event = json!({ "plugin": "a", "from": 12, "to": null });
        assert_eq!(rewound(&event), "a 12 → nothing");
    }
}
