//! Signature operations of a transaction, as consensus counts them (Core's `GetTransactionSigOpCost`).
//!
//! Not the crate's `total_sigop_cost`: it remembers a number over operations that do not push one, and so counts a
//! `OP_CHECKMULTISIG` right behind another as the number before both (Core: 20), and it asks twice for each script.

use bitcoin::opcodes::all::{
    OP_CHECKMULTISIG, OP_CHECKMULTISIGVERIFY, OP_CHECKSIG, OP_CHECKSIGVERIFY, OP_PUSHNUM_1,
    OP_PUSHNUM_16,
};
use bitcoin::script::Instruction;
use bitcoin::{Script, ScriptBuf, Transaction};

/// What an operation costs that is not in a witness (Core's `WITNESS_SCALE_FACTOR`).
const NOT_WITNESS: u64 = 4;

/// Keys of a multisignature whose number is not told (Core's `MAX_PUBKEYS_PER_MULTISIG`).
const MAX_KEYS: u64 = 20;

/// The longest script that is a witness program; one for P2SH is shorter.
const LONGEST_PROGRAM: usize = 42;

/// What of a spent output's script counts: nothing of one that refers to no other script.
pub(super) fn counted(script: ScriptBuf) -> ScriptBuf {
    match script.len() <= LONGEST_PROGRAM {
        true => script,
        false => ScriptBuf::new(),
    }
}

/// The cost of a transaction, given the script that each of its inputs spends, in their order.
pub(super) fn cost<'a>(tx: &Transaction, spent: impl Iterator<Item = &'a Script>) -> u64 {
    let inputs = tx.input.iter().map(|input| input.script_sig.as_script());
    let outputs = tx
        .output
        .iter()
        .map(|output| output.script_pubkey.as_script());
    let own: u64 = inputs
        .chain(outputs)
        .map(|script| count(script, false))
        .sum();
    let of_spent: u64 = tx
        .input
        .iter()
        .zip(spent)
        .map(|(input, spent)| {
            let (base, program) = if spent.is_p2sh() {
                let redeem = last_push(&input.script_sig);
                (redeem.map_or(0, |script| count(script, true)), redeem)
            } else {
                (0, Some(spent))
            };
            let witness = match program {
                Some(program) if program.is_p2wpkh() => 1,
                Some(program) if program.is_p2wsh() => {
                    let script = input.witness.last().map(Script::from_bytes);
                    script.map_or(0, |script| count(script, true))
                }
                // Taproot has a budget of its own in each witness.
                _ => 0,
            };
            base * NOT_WITNESS + witness
        })
        .sum();
    own * NOT_WITNESS + of_spent
}

/// The operations of a script up to the first byte that is none (Core's `GetSigOpCount`). `accurate`: a multisignature is as
/// many as the number right before it says.
fn count(script: &Script, accurate: bool) -> u64 {
    let mut found = 0;
    let mut number = None;
    for instruction in script.instructions().map_while(Result::ok) {
        let Instruction::Op(op) = instruction else {
            number = None;
            continue;
        };
        if op == OP_CHECKSIG || op == OP_CHECKSIGVERIFY {
            found += 1;
        } else if op == OP_CHECKMULTISIG || op == OP_CHECKMULTISIGVERIFY {
            found += number.filter(|_| accurate).unwrap_or(MAX_KEYS);
        }
        let (first, last) = (OP_PUSHNUM_1.to_u8(), OP_PUSHNUM_16.to_u8());
        number = (first..=last)
            .contains(&op.to_u8())
            .then(|| u64::from(op.to_u8() - first) + 1);
    }
    found
}

/// What a script pushes last: the redeem script of P2SH. None when it does anything else than push, or does not end.
fn last_push(script: &Script) -> Option<&Script> {
    if !script.is_push_only() {
        return None;
    }
    match script.instructions().last()? {
        Ok(Instruction::PushBytes(bytes)) => Some(Script::from_bytes(bytes.as_bytes())),
        _ => None,
    }
}
