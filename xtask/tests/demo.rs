//! The demo, as a person starts it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use xtask::process::Process;

/// More than the demo plays, because it builds what is missing first.
const LIMIT: Duration = Duration::from_secs(600);

fn demo(folder: &Path, args: &[&str]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command
        .arg("demo")
        .args(args)
        .arg("--folder")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    Process::spawn("the demo", &mut command).unwrap()
}

fn children(process: &Process) -> Vec<String> {
    let pid = process.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().map(str::to_owned).collect()
}

/// What `process` prints, line by line, until its end.
fn lines(process: &mut Process) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    let stdout = BufReader::new(process.take_stdout().unwrap());
    thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            println!("{line}");
            let _ = sender.send(line);
        }
    });
    lines
}

#[test]
fn a_short_demo_has_blocks_and_a_reorg_and_ends_with_equal_coin_sets() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = demo(folder.path(), &["--for", "12s", "--seed", "5"]);
    let lines = lines(&mut process);
    let status = process.wait(LIMIT).unwrap().expect("it ends by itself");
    let lines: Vec<String> = lines.iter().collect();
    assert!(status.success(), "{status}");
    let has = |text: &str| lines.iter().any(|line| line.contains(text));
    let lines_of_blocks = lines.iter().filter(|line| line.contains("utxo-tracker 13"));
    assert!(lines_of_blocks.count() >= 2, "a line a block");
    assert!(has(" left for "), "a reorg");
    assert!(has("host and devnet agree"));
    let rows = lines
        .iter()
        .find(|line| line.trim_start().starts_with("rows        "));
    assert!(!rows.unwrap().contains(" 0 written"), "{rows:?}");
}

#[test]
fn ctrl_c_ends_the_demo_with_everything_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = demo(folder.path(), &[]);
    let lines = lines(&mut process);
    while !lines
        .recv_timeout(LIMIT)
        .unwrap()
        .contains("utxo-tracker 131")
    {}
    let started = children(&process);
    assert_eq!(started.len(), 2, "the devnet and the host");
    let pid = Pid::from_raw(process.id() as i32).unwrap();
    // A person presses it again when nothing seems to happen.
    for _ in 0..3 {
        kill_process(pid, Signal::INT).unwrap();
        thread::sleep(Duration::from_millis(50));
    }
    let status = process.wait(Duration::from_secs(60)).unwrap();
    assert!(status.expect("it ends").success());
    for child in started {
        assert!(!Path::new("/proc").join(&child).exists(), "{child}");
    }
}
