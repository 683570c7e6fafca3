//! Another host than the one in memory, for a plugin that runs natively: the benchmark puts the real stores here, to compare
//! a plugin in its sandbox with the same plugin outside of one.

use std::cell::RefCell;
use std::rc::Rc;

use crate::bindings::blockmill::plugin::log::Level;
use crate::bindings::blockmill::plugin::rows::Column;
use crate::bindings::blockmill::plugin::state::{FoundValues, Keys, Page};
use crate::wire::{BlockHeader, Pieces};

/// Every function that a plugin may call, as in the WIT.
#[allow(missing_docs)]
pub trait Functions {
    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>>;
    fn put(&mut self, key: &[u8], value: &[u8]);
    fn delete(&mut self, key: &[u8]);
    fn take(&mut self, key: &[u8]) -> Option<Vec<u8>>;
    fn get_many(&mut self, keys: &Keys) -> FoundValues;
    fn put_many(&mut self, keys: &Keys, values: &Pieces);
    fn delete_many(&mut self, keys: &Keys);
    fn take_many(&mut self, keys: &Keys) -> FoundValues;
    fn scan(&mut self, prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Page;
    fn volatile_get(&mut self, key: &[u8]) -> Option<Vec<u8>>;
    fn volatile_put(&mut self, key: &[u8], value: &[u8]);
    fn volatile_delete(&mut self, key: &[u8]);
    fn append(&mut self, table: u32, columns: &[Column]);
    fn put_rows(&mut self, table: u32, columns: &[Column]);
    fn delete_rows(&mut self, table: u32, key: &[Column]);
    fn set_value(&mut self, name: &str, value: f64);
    fn push_value(&mut self, name: &str, value: f64);
    fn log(&mut self, level: Level, message: &str);
    fn network(&mut self) -> String;
    fn subsidy(&mut self, height: u32) -> u64;
    fn header(&mut self, height: u32) -> Option<BlockHeader>;
    fn sigop_costs(&mut self) -> Vec<u32> {
        panic!("trap: what came into the pool is asked about in on-mempool and nowhere else");
    }
    fn change_setting(&mut self, _name: &str, _value: Option<&str>) {
        panic!("trap: only a query changes settings");
    }
}

thread_local! {
    static FUNCTIONS: RefCell<Option<Rc<RefCell<dyn Functions>>>> = const { RefCell::new(None) };
}

/// From now on this thread's plugins call `functions`; the harness again after `None`.
pub fn install(functions: Option<Rc<RefCell<dyn Functions>>>) {
    FUNCTIONS.with(|slot| *slot.borrow_mut() = functions);
}

/// What the installed host answers, if there is one.
pub(super) fn given<R>(call: impl FnOnce(&mut dyn Functions) -> R) -> Option<R> {
    FUNCTIONS.with(|slot| {
        let slot = slot.borrow();
        let functions = slot.as_ref()?;
        Some(call(&mut *functions.borrow_mut()))
    })
}
