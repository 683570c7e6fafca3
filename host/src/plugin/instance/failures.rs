//! What ended a call, told from what wasmtime says of it.

use crate::plugin::budget::Budget;
use crate::plugin::error::{BudgetBroken, CallError, HostFault, NotOwner, RuleBroken};
use crate::plugin::host::Host;
use wasmtime::Trap;

/// The largest backtrace that is kept, in bytes.
const MAX_BACKTRACE: usize = 16 << 10;

/// Tells apart why a call ended early.
pub(super) fn classify(call: &'static str, error: wasmtime::Error, host: &mut Host) -> CallError {
    if error.downcast_ref::<HostFault>().is_some()
        && let Some(source) = host.fault.take()
    {
        return CallError::Host { call, source };
    }
    if error.downcast_ref::<NotOwner>().is_some() {
        return CallError::NotOwner;
    }
    let trace = error.downcast_ref::<wasmtime::WasmBacktrace>();
    let place = trace.and_then(|trace| {
        let mut names = trace.frames().iter();
        names.find_map(|frame| frame.func_name().map(str::to_owned))
    });
    let mut backtrace = trace.map(ToString::to_string).unwrap_or_default();
    backtrace.truncate(backtrace.floor_char_boundary(MAX_BACKTRACE));
    if let Some(RuleBroken(rule)) = error.downcast_ref() {
        return CallError::Rule {
            call,
            rule: rule.clone(),
            backtrace,
        };
    }
    if let Some(&BudgetBroken { budget, wanted }) = error.downcast_ref() {
        let limit = host.limits.of(budget);
        return CallError::Budget {
            call,
            budget,
            wanted,
            limit,
            backtrace,
        };
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        let place = place.map(|name| format!(" in {name}")).unwrap_or_default();
        return CallError::Trap {
            call,
            message: format!("{trap}{place}"),
            backtrace,
        };
    }
    let message = format!("{error:#}");
    if message.contains("resource limit exceeded") {
        let limit = host.limits.instances as u64;
        return CallError::Budget {
            call,
            budget: Budget::Instances,
            wanted: limit + 1,
            limit,
            backtrace,
        };
    }
    if backtrace.is_empty() && call == "instantiate" {
        // Nothing of the plugin ran: the machine did not give what an instance needs.
        let source = anyhow::anyhow!(message);
        return CallError::Host { call, source };
    }
    CallError::Trap {
        call,
        message,
        backtrace,
    }
}
