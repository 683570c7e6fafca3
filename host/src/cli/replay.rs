//! `blockmill plugin replay`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::plugin::{self, Capsule, Replayed};

/// The largest capsule that is read, in bytes.
const MAX_CAPSULE: u64 = 1 << 30;

pub(super) fn replay(
    out: &mut dyn Write,
    path: &Path,
    with: Option<&Path>,
    json: bool,
) -> Result<()> {
    let reading = || format!("failed to read the capsule {}", path.display());
    let length = std::fs::metadata(path).with_context(reading)?.len();
    if length > MAX_CAPSULE {
        bail!(
            "{} has {length} bytes, no capsule is so large",
            path.display()
        );
    }
    let bytes = std::fs::read(path).with_context(reading)?;
    let capsule =
        Capsule::decode(&bytes).with_context(|| format!("{} cannot be used", path.display()))?;
    let kept = kept(path, &capsule);
    let replayed = plugin::replay(capsule, with.or(kept.as_deref()))
        .with_context(|| format!("the call of {} cannot be run", path.display()))?;
    if json {
        writeln!(out, "{}", serde_json::to_string(&replayed)?)?;
    } else {
        show(out, &replayed)?;
    }
    match &replayed.failed {
        None => Ok(()),
        Some(_) if replayed.missing => bail!("the capsule does not tell whether it is mended"),
        Some(_) if replayed.same_failure => bail!("it still fails"),
        Some(_) => bail!("it fails for another cause"),
    }
}

/// The component of a capsule that was too small for it, where the host that wrote it keeps what it runs.
fn kept(path: &Path, capsule: &Capsule) -> Option<PathBuf> {
    let name = format!("{}.wasm", capsule.header.component);
    let data = path.parent()?.parent()?;
    let file = data.join("components").join(name);
    (capsule.wasm.is_none() && file.is_file()).then_some(file)
}

fn show(out: &mut dyn Write, replayed: &Replayed) -> Result<()> {
    let which = match replayed.same_component {
        true => "the component that failed",
        false => "another component",
    };
    writeln!(
        out,
        "plugin     {} {}, {which}",
        replayed.plugin, replayed.version
    )?;
    writeln!(out, "component  {}", replayed.component)?;
    match &replayed.block {
        Some(block) => writeln!(
            out,
            "call       {} with block {} ({})",
            replayed.call, block.height, block.hash
        )?,
        None => writeln!(out, "call       {}", replayed.call)?,
    }
    writeln!(
        out,
        "then       {}: {}",
        replayed.was.class, replayed.was.message
    )?;
    if let Some(failed) = &replayed.failed {
        writeln!(out, "now        {}: {}", failed.class, failed.message)?;
        write!(out, "{}", indented(&failed.backtrace))?;
    }
    if let Some(wrote) = &replayed.wrote {
        writeln!(
            out,
            "now        it succeeds: {} keys set, {} removed",
            wrote.keys_set, wrote.keys_removed
        )?;
        for (table, rows) in &wrote.rows {
            writeln!(out, "rows       {rows} in {table}")?;
        }
        if let Some(answer) = &wrote.answer {
            writeln!(out, "answer     {answer}")?;
        }
    }
    Ok(())
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("           {line}\n"))
        .collect()
}
