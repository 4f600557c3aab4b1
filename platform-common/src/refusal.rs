//! What every platform refuses in the same words. Objects are named by `label`, as the platform calls
//! them in messages.

use core::fmt::Display;
use core::ops::Range;
use core::time::Duration;

use dsm_core::error::ErrorKind;
use dsm_core::provider::Mapping;

use crate::error::Error;

const MAPPING_CONTROL: &str = "mapping of the control object";
const TOKEN: &str = "token of life";

/// The election was not won in time.
pub fn elected_late(label: impl Display, patience: Duration) -> Error {
    let why = format!(
        "another process has been setting up or leaving {label} for {patience:?}; it may be \
         stopped, or in the initialisation of a large namespace: try again, or allow more time"
    );
    Error::new(ErrorKind::TimedOut, "election", why)
}

/// The control object has no size, to one who only looks.
pub fn being_set_up(label: impl Display) -> Error {
    let why = format!("{label} is empty: it is being set up, or its creator died");
    Error::new(ErrorKind::Unfinished, MAPPING_CONTROL, why)
}

/// The control object has no size, to the one who is elected.
pub fn never_set_up(label: impl Display) -> Error {
    let why = format!("{label} is empty: it was never set up");
    Error::new(ErrorKind::InvalidSize, MAPPING_CONTROL, why)
}

/// A segment has no size.
pub fn never_completed(label: impl Display) -> Error {
    let why = format!("{label} is empty: its creation was never completed");
    Error::new(ErrorKind::InvalidSize, "attaching", why)
}

/// The token of a process slot is taken.
pub fn token_taken(slot: u32, label: impl Display) -> Error {
    let why = format!("a living process holds the token of process slot {slot} of {label}");
    Error::new(ErrorKind::AlreadyExists, TOKEN, why)
}

/// A token is asked for under another control object than those that this process holds.
pub fn control_replaced(label: impl Display) -> Error {
    let why = format!(
        "{label} was replaced while this process is attached to the one before; leave that one \
         first"
    );
    Error::new(ErrorKind::Foreign, TOKEN, why)
}

/// The owner of an object is not trusted.
pub fn untrusted_owner(
    step: &'static str,
    label: impl Display,
    owner: impl Display,
    own: impl Display,
) -> Error {
    let why = format!(
        "{label} belongs to user {owner}, this process is user {own}; trust that user with \
         Options::owners, or choose another name"
    );
    Error::new(ErrorKind::PermissionDenied, step, why)
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

    use super::*;

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
