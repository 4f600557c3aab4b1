//! What every platform refuses in the same words. Objects are named by `label`, as the platform
//! calls them in messages.

use core::fmt::Display;
use core::ops::Range;

use dsm_core::error::{ErrorKind, Reason};
use dsm_core::provider::Mapping;

use crate::error::Error;

const MAPPING_CONTROL: &str = "mapping of the control object";
const TOKEN: &str = "token of life";

/// The election was not won in time.
pub fn elected_late(label: impl Display) -> Error {
    Error::refused(Reason::ElectionHeld, "election", label.to_string())
}

/// The control object has no size, to one who only looks.
pub fn being_set_up(label: impl Display) -> Error {
    Error::refused(Reason::BeingSetUp, MAPPING_CONTROL, label.to_string())
}

/// The control object has no size, to the one who is elected.
pub fn never_set_up(label: impl Display) -> Error {
    Error::refused(Reason::NeverCompleted, MAPPING_CONTROL, label.to_string())
}

/// A segment has no size.
pub fn never_completed(label: impl Display) -> Error {
    Error::refused(Reason::NeverCompleted, "attaching", label.to_string())
}

/// The token of a process slot is taken.
pub fn token_taken(slot: u32, label: impl Display) -> Error {
    Error::refused(Reason::TokenHeld { slot }, TOKEN, label.to_string())
}

/// A token is asked for under another control object than those that this process holds.
pub fn control_replaced(label: impl Display) -> Error {
    Error::refused(Reason::ControlReplaced, TOKEN, label.to_string())
}

/// Refuses sizes that no object can have: of more than `most` bytes, with addresses of this width.
///
/// # Errors
///
/// [`ErrorKind::InvalidSize`].
pub fn check_size(size: usize, reserved: usize, most: usize) -> Result<(), Error> {
    const STEP: &str = "check of the size";
    if size == 0 {
        return Err(Error::refused(Reason::ZeroSize, STEP, ""));
    }
    if size > most {
        let error = Error::refused(Reason::Unaddressable, STEP, "");
        return Err(error.with_limit(size as u64, most as u64));
    }
    if reserved > size {
        let why = format!("{reserved} bytes to reserve of an object of {size}");
        return Err(Error::new(ErrorKind::InvalidSize, STEP, why));
    }
    Ok(())
}

/// Refuses a range to be reserved that leaves its mapping.
///
/// # Errors
///
/// [`ErrorKind::InvalidSize`].
pub fn check_range(mapping: &Mapping, range: &Range<usize>) -> Result<(), Error> {
    if range.start <= range.end && range.end <= mapping.len {
        return Ok(());
    }
    let why = format!("bytes {range:?} do not lie in a mapping of {}", mapping.len);
    Err(Error::new(ErrorKind::InvalidSize, "reserving", why))
}

#[cfg(test)]
mod tests {
    use core::ptr::NonNull;

    use dsm_core::provider::ProviderError;

    use super::*;

    #[test]
    fn sizes_are_possible() {
        assert!(check_size(1, 1, 100).is_ok() && check_size(100, 0, 100).is_ok());
        let reason = |size, reserved| check_size(size, reserved, 100).unwrap_err().failure().reason;
        assert_eq!(reason(0, 0), Reason::ZeroSize);
        assert_eq!(reason(101, 0), Reason::Unaddressable);
        assert_eq!(reason(9, 10), Reason::Unknown);
    }

    #[test]
    fn ranges_stay_in_their_mapping() {
        let mapping = Mapping { base: NonNull::dangling(), len: 100, token: 0 };
        for within in [0..0, 0..100, 100..100, 7..9] {
            assert!(check_range(&mapping, &within).is_ok(), "{within:?}");
        }
        for beyond in [0..101, 101..101, usize::MAX..usize::MAX, Range { start: 9, end: 7 }] {
            assert!(check_range(&mapping, &beyond).is_err(), "{beyond:?}");
        }
    }
}
