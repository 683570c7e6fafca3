//! Compiling plugins: one engine and two linkers for all of them (without WASI and with an inert one), and a cache of compiled code.
//!
//! # Which files are trusted
//!
//! A compiled file is machine code. Only files that this host wrote into its own data folder are ever loaded: their name
//! holds the hash of the plugin and of the engine's settings, they are written under a temporary name and renamed when
//! they are whole, and they carry the hash of their own content, so that a torn or changed file is compiled anew instead.

use super::bindings::{Plugin, PluginPre};
use super::host::{Host, add_wasi_to_linker};
use crate::config::Wasi;
use anyhow::{Context as _, Result, anyhow, bail};
use bitcoin::hashes::{self, sha256};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Engine, Module};

/// How often the engine looks whether a call is over its time.
pub const EPOCH: Duration = Duration::from_millis(10);

/// The largest plugin file that is read, in bytes.
pub const MAX_PLUGIN_SIZE: u64 = 64 << 20;

/// The largest plugin file whose bytes are kept in memory and written into capsules.
pub(super) const MAX_KEPT: usize = 2 << 20;

/// Compiles and links plugins. Cheap to share.
pub struct PluginEngine {
    engine: Engine,
    linker: Linker<Host>,
    /// The same with an inert WASI.
    inert: Linker<Host>,
    cache: Option<PathBuf>,
    ticker: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// Calls that are going on must end: the host does.
    ending: Arc<AtomicBool>,
}

/// A plugin, compiled and linked but not yet running.
#[derive(Clone)]
pub struct Compiled {
    /// Of the file as it was read.
    pub sha256: sha256::Hash,
    /// Bytes of the file.
    pub size: u64,
    /// The file's bytes when they are at most [`MAX_KEPT`]: capsules carry them.
    wasm: Option<Arc<[u8]>>,
    /// The WASI that it was linked with.
    pub wasi: Wasi,
    /// It was compiled just now, not taken from the cache.
    fresh: bool,
    /// Core instances, memories or tables of one instance of it, of whichever there are most.
    pub(super) parts: u64,
    pub(super) pre: PluginPre<Host>,
}

impl Compiled {
    /// The file's bytes, when they are few.
    pub fn wasm(&self) -> Option<&Arc<[u8]>> {
        self.wasm.as_ref()
    }
}

impl PluginEngine {
    /// An engine without a cache.
    ///
    /// # Errors
    ///
    /// When the machine is not one that the compiler knows.
    pub fn new() -> Result<Self> {
        let mut config = Config::new();
        config
            .concurrency_support(false)
            .epoch_interruption(true)
            .wasm_component_model(true)
            // The same blocks must give the same state on every machine.
            .cranelift_nan_canonicalization(true)
            .wasm_relaxed_simd(false)
            .max_wasm_stack(1 << 20);
        let engine = Engine::new(&config).map_err(anyhow::Error::from)?;
        let mut linker = Linker::new(&engine);
        Plugin::add_to_linker::<_, HasSelf<_>>(&mut linker, |host| host)
            .map_err(anyhow::Error::from)?;
        let mut inert = linker.clone();
        add_wasi_to_linker(&mut inert).map_err(anyhow::Error::from)?;
        let stop = Arc::new(AtomicBool::new(false));
        let ticker = {
            let (engine, stop) = (engine.weak(), stop.clone());
            std::thread::Builder::new()
                .name("epochs".into())
                .spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        std::thread::sleep(EPOCH);
                        match engine.upgrade() {
                            Some(engine) => engine.increment_epoch(),
                            None => break,
                        }
                    }
                })?
        };
        Ok(Self {
            engine,
            linker,
            inert,
            cache: None,
            ticker: Some(ticker),
            stop,
            ending: Arc::default(),
        })
    }

    /// Names the folder of compiled code: what is there is used, and [`PluginEngine::keep`] adds to it. Nothing is
    /// written yet.
    pub fn set_cache(&mut self, folder: PathBuf) {
        self.cache = Some(folder);
    }

    /// Reads, checks and compiles a plugin file: a component, or a core module that carries its component type.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is not WebAssembly, has no component type, or imports what no plugin is given: the
    /// message says which import was refused.
    pub fn load(&self, path: &Path, wasi: Wasi) -> Result<Compiled> {
        let size = std::fs::metadata(path)
            .with_context(|| format!("failed to read the plugin {}", path.display()))?
            .len();
        if size > MAX_PLUGIN_SIZE {
            bail!(
                "the plugin {} has {size} bytes, at most {MAX_PLUGIN_SIZE} are read",
                path.display()
            );
        }
        let bytes = std::fs::read(path)
            .with_context(|| format!("failed to read the plugin {}", path.display()))?;
        self.compile(&bytes, wasi)
            .with_context(|| format!("the plugin {} cannot be used", path.display()))
    }

    /// As [`PluginEngine::load`], from bytes in memory.
    ///
    /// # Errors
    ///
    /// As [`PluginEngine::load`].
    pub fn compile(&self, bytes: &[u8], wasi: Wasi) -> Result<Compiled> {
        let sha256 = hash_of(bytes);
        let cached = self.cached(&sha256);
        let fresh = cached.is_none();
        let encoded = self.as_component(bytes)?;
        let component = match cached {
            Some(component) => component,
            None => Component::from_binary(&self.engine, &encoded)
                .map_err(|e| anyhow!("{e:#}"))
                .context("failed to compile it")?,
        };
        let parts = super::parts::largest(&encoded, &component)?;
        let linker = match wasi {
            Wasi::None => &self.linker,
            Wasi::Inert => &self.inert,
        };
        let pre = linker
            .instantiate_pre(&component)
            .map_err(|error| refused_import(&error, wasi))?;
        let pre = PluginPre::new(pre).map_err(|e| {
            anyhow!("it does not export what wit/plugin.wit asks of a plugin: {e:#}")
        })?;
        Ok(Compiled {
            sha256,
            size: bytes.len() as u64,
            wasm: (bytes.len() <= MAX_KEPT).then(|| bytes.into()),
            wasi,
            fresh,
            parts,
            pre,
        })
    }

    /// A component as it is; a core module encoded into the component that it says it is.
    fn as_component(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        // Layer 1 in the version field makes a component, layer 0 a core module.
        match bytes.get(..8) {
            Some([0, b'a', b's', b'm', _, _, 1, 0]) => return Ok(bytes.to_vec()),
            Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => {}
            _ => bail!("it is not WebAssembly (the file does not begin with \\0asm)"),
        }
        // The encoder takes a module for whole.
        Module::validate(&self.engine, bytes)
            .map_err(|e| anyhow!("it is no valid WebAssembly: {e:#}"))?;
        let encode = || {
            wit_component::ComponentEncoder::default()
                .module(bytes)
                .and_then(|encoder| encoder.validate(true).encode())
        };
        // Custom sections are not validated, and the encoder takes some of them for granted too.
        let encoded = std::panic::catch_unwind(encode)
            .map_err(|_| anyhow!("its component type is damaged"))?;
        encoded.map_err(|e| {
            refused_import_text(&format!("{e:#}")).map_or_else(
                || anyhow!("it carries no component type of a Blockmill plugin: {e:#}"),
                |t| anyhow!(t),
            )
        })
    }

    /// Ends every call that is going on, as if its time were over: the host is ending.
    pub fn interrupt(&self) {
        self.ending.store(true, Ordering::Relaxed);
        for _ in 0..1_000_000 {
            self.engine.increment_epoch();
        }
    }

    pub(super) fn ending(&self) -> Arc<AtomicBool> {
        self.ending.clone()
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    fn cache_path(&self, sha256: &sha256::Hash) -> Option<PathBuf> {
        let mut hasher = DefaultHasher::new();
        self.engine
            .precompile_compatibility_hash()
            .hash(&mut hasher);
        Some(
            self.cache
                .as_ref()?
                .join(format!("{sha256}-{:016x}.cwasm", hasher.finish())),
        )
    }

    /// Compiled code from an earlier run, if it is there and whole.
    fn cached(&self, sha256: &sha256::Hash) -> Option<Component> {
        let kept = std::fs::read(self.cache_path(sha256)?).ok()?;
        let (code, seal) = kept.split_last_chunk::<32>()?;
        if hashes::Hash::as_byte_array(&hash_of(code)) != seal {
            return None;
        }
        #[allow(unsafe_code)]
        // SAFETY: `deserialize` runs what it is given as machine code, so the bytes must come from `serialize` of an
        // engine with the same settings. They do: the file is in the host's own data folder, was written by `keep`
        // below and nobody else, its name holds the engine's compatibility hash, and its content is whole.
        let component = unsafe { Component::deserialize(&self.engine, code) };
        component.ok()
    }

    /// Keeps compiled code for the next start. A full disk only costs that start some time.
    pub fn keep(&self, compiled: &Compiled) {
        let path = self.cache_path(&compiled.sha256);
        let Some(path) = path.filter(|_| compiled.fresh) else {
            return;
        };
        let kept = compiled
            .pre
            .instance_pre()
            .component()
            .serialize()
            .map_err(anyhow::Error::from)
            .and_then(|mut code| {
                let seal = hash_of(&code);
                code.extend_from_slice(hashes::Hash::as_byte_array(&seal));
                std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
                let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
                std::fs::write(&unfinished, code)?;
                std::fs::rename(&unfinished, &path)?;
                Ok(())
            });
        if let Err(error) = kept {
            tracing::warn!(path = %path.display(), %error, "compiled plugin code was not kept");
        }
    }
}

impl Drop for PluginEngine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(ticker) = self.ticker.take() {
            let _ = ticker.join();
        }
    }
}

/// What is said of any import that is refused.
const NOTHING_ELSE: &str = "A plugin may import the interfaces of wit/plugin.wit and nothing else: no WASI, no clock, no \
                            files, no network";

fn refused_import(error: &wasmtime::Error, wasi: Wasi) -> anyhow::Error {
    let error = format!("{error:#}");
    let rule = match wasi {
        Wasi::None if error.contains("wasi:") => {
            ". A component whose toolchain makes it import WASI is accepted, with no files, no network and the block's \
             time, when its table in the configuration says wasi = \"inert\""
        }
        Wasi::None => "",
        Wasi::Inert => {
            ". With wasi = \"inert\" it may also import WASI 0.2, but for wasi:http, which the toolchain can leave out"
        }
    };
    anyhow!("it imports what no plugin is given: {error}. {NOTHING_ELSE}{rule}")
}

/// The encoder's words for an import that the component type does not have.
fn refused_import_text(error: &str) -> Option<String> {
    error
        .contains("import")
        .then(|| format!("it imports what no plugin is given: {error}. {NOTHING_ELSE}"))
}

/// The hash that names a plugin's file.
pub fn hash_of(bytes: &[u8]) -> sha256::Hash {
    hashes::Hash::hash(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use wasmtime::{Instance, Module, Store};

    const MAGIC: &[u8] = b"\0asm\x01\0\0\0";
    /// Type 0 takes and gives nothing; function 0 has it.
    const ONE_FUNCTION: &[u8] = &[1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0];

    fn compiles(sections: &[&[u8]]) -> Result<Module, String> {
        let engine = PluginEngine::new().unwrap();
        let bytes = [MAGIC, &sections.concat()].concat();
        Module::new(engine.engine(), bytes).map_err(|error| format!("{error:#}"))
    }

    /// The code section of function 0: two zero vectors, an instruction, `drop`.
    fn on_two_vectors(instruction: &[u8]) -> Vec<u8> {
        let vector = [&[0xfd, 0x0c][..], &[0; 16]].concat();
        let body = [&[0], &vector[..], &vector, instruction, &[0x1a, 0x0b]].concat();
        let length = body.len() as u8;
        [&[10, length + 2, 1, length][..], &body].concat()
    }

    #[test]
    fn what_depends_on_the_machine_is_refused() {
        // i8x16.swizzle is the same everywhere, i8x16.relaxed_swizzle is not.
        compiles(&[ONE_FUNCTION, &on_two_vectors(&[0xfd, 0x0e])]).unwrap();
        let relaxed = compiles(&[ONE_FUNCTION, &on_two_vectors(&[0xfd, 0x80, 0x02])]).unwrap_err();
        assert!(relaxed.contains("relaxed"), "{relaxed}");
        compiles(&[&[5, 3, 1, 0, 1]]).unwrap();
        let shared = compiles(&[&[5, 4, 1, 3, 1, 1]]).unwrap_err();
        assert!(
            shared.contains("shared") || shared.contains("threads"),
            "{shared}"
        );
    }

    #[test]
    fn a_nan_has_the_same_bits_whatever_it_was_made_of() {
        // () -> i64, exported as "f": the bits of a + b.
        let bits_of = |a: f64, b: f64| {
            let body = [
                &[0, 0x44][..],
                &a.to_le_bytes(),
                &[0x44],
                &b.to_le_bytes(),
                &[0xa0, 0xbd, 0x0b],
            ]
            .concat();
            let length = body.len() as u8;
            let sections = [
                &[
                    1, 5, 1, 0x60, 0, 1, 0x7e, 3, 2, 1, 0, 7, 5, 1, 1, b'f', 0, 0,
                ][..],
                &[10, length + 2, 1, length],
                &body,
            ]
            .concat();
            let engine = PluginEngine::new().unwrap();
            let module = Module::new(engine.engine(), [MAGIC, &sections].concat()).unwrap();
            let mut store = Store::new(engine.engine(), ());
            store.set_epoch_deadline(1_000);
            let instance = Instance::new(&mut store, &module, &[]).unwrap();
            let run = instance.get_typed_func::<(), i64>(&mut store, "f").unwrap();
            run.call(&mut store, ()).unwrap() as u64
        };
        assert_eq!(f64::from_bits(bits_of(1.5, 2.0)), 3.5);
        let canonical = 0x7ff8_0000_0000_0000;
        for payload in [
            0x7ff8_0000_0000_1234,
            0xfff8_0000_0000_0001,
            0x7ff4_0000_0000_0001,
        ] {
            assert_eq!(bits_of(f64::from_bits(payload), 1.0), canonical);
            assert_eq!(bits_of(1.0, f64::from_bits(payload)), canonical);
        }
        assert_eq!(bits_of(f64::INFINITY, f64::NEG_INFINITY), canonical);
    }
}
