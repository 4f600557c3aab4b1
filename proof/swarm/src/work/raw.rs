//! Threads that end without their destructors, holding locks or in the midst of an operation, in a
//! process that lives on.
//!
//! Nothing of the process itself may be locked at these moments, or its other threads would wait
//! for ever, as they would for a thread that ended inside the C library: so the ends are where a
//! call runs a function of its caller, and where a guard is held.

use dsm_core::lock::Patience;
use dsm_registry::Entry;

use super::{locks, names, objects, tables};
use crate::board::{LOCKS, NAMES};
use crate::plan::Raw;
use crate::thread::Thread;
use crate::world::ENTRY_KEYS;
use testkit::tool::text;

/// Ends the thread in that way; returns if the occasion was not there.
pub(in super::super) fn vanish(thread: &mut Thread, raw: Raw) -> Result<(), String> {
    let asked = thread.board().ask();
    let index = thread.random.below(LOCKS as u64 - 1) as usize;
    match raw {
        Raw::Idle => thread.end_raw(raw),
        Raw::Exclusive => {
            let _guard = locks::hold(thread, index, asked)?;
            thread.end_raw(raw)
        }
        Raw::Shared => {
            let _guard = locks::shared(thread, index, Patience::Forever, asked)?;
            thread.end_raw(raw)
        }
        Raw::Both => {
            let _one = locks::shared(thread, index, Patience::Forever, asked)?;
            let _other = locks::hold(thread, index + 1, asked)?;
            thread.end_raw(raw)
        }
        Raw::Entry => {
            let mut guard = tables::hot_guard(thread, asked)?;
            guard[0] += 1;
            thread.end_raw(raw)
        }
        Raw::Reading => {
            let key = thread.random.below(ENTRY_KEYS);
            match thread.world().entries.find(&key) {
                Ok(Some(_guard)) => thread.end_raw(raw),
                Ok(None) => Ok(()),
                Err(error) if error.is_poisoned() => Ok(()),
                Err(error) => Err(text(error)),
            }
        }
        Raw::Inserting => {
            let key = thread.random.below(ENTRY_KEYS);
            match thread.world().entries.entry(&key) {
                Ok(Entry::Vacant(_place)) => thread.end_raw(raw),
                Ok(Entry::Occupied(_)) => Ok(()),
                Err(error) if error.is_poisoned() => Ok(()),
                Err(error) => Err(text(error)),
            }
        }
        Raw::Scanning => tables::remove_by_scan(thread, |removed| {
            if removed == 3 {
                thread.end_raw(raw);
            }
        }),
        Raw::Initialising => {
            let number = thread.random.below(NAMES as u64) as usize;
            names::named_segment(thread, number, asked, |init| {
                init.write([number as u64, 1, 2, 3])?;
                thread.end_raw(raw)
            })
        }
        Raw::Allocating => {
            let unfinished = || thread.end_raw(raw);
            objects::allocate_unfinished(thread.core, thread.tenant.seat, unfinished);
            Ok(())
        }
    }
}
