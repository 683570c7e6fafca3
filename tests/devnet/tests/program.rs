//! The program: its one line of output, its control socket, its end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

struct Program {
    child: Child,
    control: BufReader<TcpStream>,
    p2p: String,
}

impl Program {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_devnet"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let control = TcpStream::connect(ready["control"].as_str().unwrap()).unwrap();
        control
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let p2p = ready["p2p"].as_str().unwrap().to_owned();
        Self {
            child,
            control: BufReader::new(control),
            p2p,
        }
    }

    fn ask(&mut self, request: &Value) -> Value {
        self.say(&request.to_string())
    }

    fn say(&mut self, line: &str) -> Value {
        self.control
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        self.control.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    fn end(mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                break;
            }
            assert!(Instant::now() < deadline, "still running");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(TcpStream::connect(&self.p2p).is_err());
    }
}

#[test]
fn the_control_socket_does_what_it_is_told_and_stop_ends_the_program() {
    let mut program = Program::start(&["--seed", "9", "--blocks", "110", "--simulated-time"]);
    let status = program.ask(&json!({"do": "status"}));
    assert_eq!(
        (&status["height"], &status["mempool"]),
        (&json!(110), &json!(0))
    );
    assert_eq!(status["clients"], json!([]));

    let filled = program.ask(&json!({"do": "fill", "n": 15}));
    assert_eq!(filled, json!({"added": 15, "mempool": 15}));
    let replaced = program.ask(&json!({"do": "replace", "n": 2}));
    assert_eq!(
        replaced["replaced"].as_array().unwrap().len(),
        2,
        "{replaced}"
    );
    let mined = program.ask(&json!({"do": "mine", "n": 2}));
    assert_eq!(mined["height"], 112);
    assert_eq!(mined["blocks"][1], mined["tip"]);
    let reorg = program.ask(&json!({"do": "reorg", "depth": 3, "length": 4}));
    assert_eq!(reorg["fork_height"], 109);
    assert_eq!(reorg["added"].as_array().unwrap().len(), 4, "{reorg}");
    let utxo = program.ask(&json!({"do": "utxo"}));
    assert_eq!(
        (&utxo["height"], &utxo["bestblock"]),
        (&json!(113), &reorg["added"][3])
    );
    assert_eq!(utxo["muhash"].as_str().unwrap().len(), 64);
    let block = program.ask(&json!({"do": "block"}));
    assert_eq!(block["height"], 114);

    let liar = json!({"do": "listen", "user_agent": "/liar/", "behaviour": {"stall": true}});
    let addr = program.ask(&liar)["p2p"].as_str().unwrap().to_owned();
    TcpStream::connect(&addr).unwrap();
    assert_eq!(
        program.ask(&json!({"do": "behave", "addr": addr})),
        json!({})
    );
    assert_eq!(
        program.ask(&json!({"do": "limit", "height": 50}))["height"],
        50
    );
    assert_eq!(program.ask(&json!({"do": "limit"}))["height"], 114);

    // Nothing said wrongly ends the conversation.
    for wrong in ["", "{}", "no", r#"{"do":"sing"}"#, r#"{"do":"mine","m":1}"#] {
        if !wrong.is_empty() {
            assert!(program.say(wrong)["error"].is_string(), "{wrong}");
        }
    }
    let refused = program.ask(&json!({"do": "reorg", "depth": 3, "length": 3}));
    assert!(
        refused["error"].as_str().unwrap().contains("outweigh"),
        "{refused}"
    );
    assert_eq!(
        program.ask(&json!({"do": "stop"})),
        json!({"stopping": true})
    );
    program.end();
}

#[test]
fn sigterm_ends_the_program_with_success() {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/regtest");
    let main = format!("{data}/main.dat");
    let pool = format!("{data}/mempool.hex");
    let mut program = Program::start(&["--serve", &main, "--mempool", &pool]);
    let status = program.ask(&json!({"do": "status"}));
    assert_eq!(
        (&status["height"], &status["mempool"]),
        (&json!(130), &json!(60))
    );
    let loaded = program.ask(&json!({"do": "load", "file": format!("{data}/branch.dat")}));
    assert_eq!(
        (&loaded["height"], &loaded["mempool"]),
        (&json!(132), &json!(1_319))
    );
    let id = program.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    program.end();
}
