//! How a plugin's type becomes the exports of its component. Written by [`export_plugin!`](crate::export_plugin); nothing
//! here is called by hand.

use std::cell::RefCell;

use crate::bindings::blockmill::plugin::types::{
    Block as WireBlock, MempoolChanges as WireMempoolChanges,
};
pub use crate::bindings::exports::blockmill::plugin::migration::Guest as MigrationGuest;
pub use crate::bindings::exports::blockmill::plugin::parts::Guest as PartsGuest;
pub use crate::bindings::exports::blockmill::plugin::processor::Guest;
use crate::{
    Block, BlockAnswer, BlockError, MempoolChanges, Params, Part, Processor, QueryError, StartInfo,
    log,
};

/// The one instance of the plugin in this instance of its component.
pub type Slot<P> = RefCell<Option<P>>;

const NOT_STARTED: &str = "the host called the plugin before `start`";

/// `start`
pub fn start<P: Processor>(slot: &Slot<P>, info: StartInfo) -> Result<(), String> {
    // A trap's cause is otherwise lost: a sandbox has no standard error.
    std::panic::set_hook(Box::new(|panic| {
        log::write(log::Level::Error, &panic.to_string());
    }));
    *slot.borrow_mut() = Some(P::start(&info)?);
    Ok(())
}

/// `migrate`
pub fn migrate<P: Processor>(from: u32) -> Result<bool, String> {
    P::migrate(from)
}

/// `on-block`
pub fn on_block<P: Processor>(slot: &Slot<P>, block: WireBlock) -> Result<BlockAnswer, BlockError> {
    let block = Block::new(block).map_err(|malformed| BlockError::Failed(malformed.to_string()))?;
    match slot.borrow_mut().as_mut() {
        Some(plugin) => plugin.on_block(&block),
        None => Err(BlockError::Failed(NOT_STARTED.into())),
    }
}

/// `on-part`
pub fn on_part<P: Processor>(
    slot: &Slot<P>,
    part: WireBlock,
    place: Part,
) -> Result<BlockAnswer, BlockError> {
    let part = Block::part(part, place.first)
        .map_err(|malformed| BlockError::Failed(malformed.to_string()))?;
    match slot.borrow_mut().as_mut() {
        Some(plugin) => plugin.on_part(&part, &place),
        None => Err(BlockError::Failed(NOT_STARTED.into())),
    }
}

/// `on-mempool`
pub fn on_mempool<P: Processor>(slot: &Slot<P>, changes: WireMempoolChanges) -> Result<(), String> {
    let changes = MempoolChanges::new(changes).map_err(|malformed| malformed.to_string())?;
    match slot.borrow_mut().as_mut() {
        Some(plugin) => plugin.on_mempool(&changes),
        None => Err(NOT_STARTED.into()),
    }
}

/// `query`
pub fn query<P: Processor>(
    slot: &Slot<P>,
    path: &str,
    params: Vec<(String, String)>,
) -> Result<String, QueryError> {
    match slot.borrow().as_ref() {
        Some(plugin) => plugin
            .query(path, &Params::new(params))
            .map(|json| json.to_string()),
        None => Err(QueryError::Failed(NOT_STARTED.into())),
    }
}

/// Makes a [`Processor`] the plugin of this crate. Once a crate, at its root.
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, missing_docs)]
        const _: () = {
            use $crate::bindings::blockmill::plugin::types as wire;
            use $crate::bindings::exports::blockmill::plugin::processor as processor;

            ::std::thread_local! {
                static INSTANCE: $crate::export::Slot<$plugin> = const { ::std::cell::RefCell::new(None) };
            }

            struct Exported;

            impl $crate::export::Guest for Exported {
                fn describe() -> processor::Descriptor {
                    <$plugin as $crate::Processor>::describe()
                }
                fn start(info: processor::StartInfo) -> Result<(), String> {
                    INSTANCE.with(|slot| $crate::export::start(slot, info))
                }
                fn on_block(block: wire::Block) -> Result<processor::BlockAnswer, processor::BlockError> {
                    INSTANCE.with(|slot| $crate::export::on_block(slot, block))
                }
                fn on_mempool(changes: wire::MempoolChanges) -> Result<(), String> {
                    INSTANCE.with(|slot| $crate::export::on_mempool(slot, changes))
                }
                fn query(path: String, params: Vec<(String, String)>) -> Result<String, processor::QueryError> {
                    INSTANCE.with(|slot| $crate::export::query(slot, &path, params))
                }
            }

            impl $crate::export::MigrationGuest for Exported {
                fn migrate(from: u32) -> Result<bool, String> {
                    $crate::export::migrate::<$plugin>(from)
                }
            }

            impl $crate::export::PartsGuest for Exported {
                fn takes_parts() -> bool {
                    <$plugin as $crate::Processor>::TAKES_PARTS
                }
                fn on_part(
                    part: wire::Block,
                    first: u32,
                    transactions: u32,
                    last: bool,
                ) -> Result<processor::BlockAnswer, processor::BlockError> {
                    let place = $crate::Part { first, transactions, last };
                    INSTANCE.with(|slot| $crate::export::on_part(slot, part, place))
                }
            }

            $crate::bindings::export_processor!(Exported with_types_in $crate::bindings);
        };
    };
}
