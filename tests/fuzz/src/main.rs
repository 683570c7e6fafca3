//! Writes the seeds of all corpora anew: `cargo run -p blockmill-fuzz`. What else is in them stays.
//!
//! With a target and files it runs the target on each of them, as libFuzzer does: `cargo run -p blockmill-fuzz -- block FILE…`

use anyhow::{Context, Result};
use blockmill_fuzz::{Target, corpus, seeds};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    if let Some(name) = arguments.next() {
        let target = Target::find(&name).context("there is no such target")?;
        for file in arguments {
            let data = std::fs::read(&file).with_context(|| format!("failed to read {file}"))?;
            println!("{file}: {:?}", target.run(&data));
        }
        return Ok(());
    }
    for (target, name, bytes) in seeds::all() {
        let folder = corpus::folder().join(target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}
