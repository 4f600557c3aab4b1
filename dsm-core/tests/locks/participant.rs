//! A participant's list of held locks.

use dsm_core::handle::LockAddress;
use dsm_core::lock::{HeldMode, LockError};
use dsm_core::participant::{MAX_HELD, ParticipantLocal};

use crate::support::Crowd;

fn at(offset: u64) -> LockAddress {
    LockAddress::new(3, offset)
}

#[test]
fn nobody_without_a_registration() {
    let crowd = Crowd::new(1);
    let local = ParticipantLocal::new();
    let me = dsm_core::participant::Participant::new(&crowd, &local);
    assert!(me.id().is_none() && me.slot().is_none() && me.packed() == 0);
    assert_eq!(me.hold(at(0), HeldMode::Shared), Err(LockError::NotRegistered));
    me.unhold(0);

    let me = crowd.join(&local, 0);
    assert_eq!(me.id(), Some(Crowd::id(0)));
    assert!(local.is_registered());
    local.clear();
    assert!(!local.is_registered() && me.slot().is_none());
}

#[test]
fn all_zero_bytes_are_an_unregistered_local() {
    // SAFETY: the type's promise, which fork wiping relies on.
    let local: ParticipantLocal = unsafe { std::mem::zeroed() };
    assert!(!local.is_registered() && !local.holds_any());
}

#[test]
fn records_are_made_cleared_and_used_again() {
    let crowd = Crowd::new(1);
    let local = ParticipantLocal::new();
    let me = crowd.join(&local, 0);
    let held = || crowd.slot(0).held().collect::<Vec<_>>();

    // Address zero, and the last one there is, are addresses like any other.
    let last = LockAddress::new(LockAddress::CONTROL, (1 << 44) - 1);
    assert_eq!(me.hold(LockAddress::new(0, 0), HeldMode::Shared), Ok((0, false)));
    assert_eq!(me.hold(last, HeldMode::Exclusive), Ok((1, false)));
    assert_eq!(me.hold(at(64), HeldMode::Shared), Ok((2, false)));
    assert_eq!(
        held(),
        [
            (LockAddress::new(0, 0), HeldMode::Shared),
            (last, HeldMode::Exclusive),
            (at(64), HeldMode::Shared)
        ]
    );
    assert!(me.holds_others(0) && me.holds_others(2) && local.holds_any());

    assert!(me.release_count(1));
    me.unhold(1);
    assert_eq!(me.hold(at(128), HeldMode::Exclusive), Ok((1, false)), "the first free record");
    for index in 0..3 {
        assert!(me.release_count(index));
        me.unhold(index);
    }
    assert!(held().is_empty() && !local.holds_any());
}

#[test]
fn only_shared_beside_shared_is_counted() {
    let crowd = Crowd::new(1);
    let local = ParticipantLocal::new();
    let me = crowd.join(&local, 0);
    let (shared, alone) = (HeldMode::Shared, HeldMode::Exclusive);

    assert_eq!(me.hold(at(0), shared), Ok((0, false)));
    assert_eq!(me.hold(at(64), alone), Ok((1, false)));
    assert_eq!(me.hold(at(0), alone), Err(LockError::WouldDeadlock));
    assert_eq!(me.hold(at(64), alone), Err(LockError::WouldDeadlock));
    assert_eq!(me.hold(at(64), shared), Err(LockError::WouldDeadlock));
    for _ in 0..u16::MAX {
        assert_eq!(me.hold(at(0), shared), Ok((0, true)));
    }
    assert_eq!(me.hold(at(0), shared), Err(LockError::TooManyLocks));
    for _ in 0..u16::MAX {
        assert!(!me.release_count(0));
    }
    assert!(me.release_count(0));
    me.unhold(0);
    // Errors changed nothing.
    assert_eq!(me.hold(at(0), alone), Ok((0, false)));
    assert!(me.release_count(1));
}

#[test]
fn the_last_record_is_the_control_locks() {
    let crowd = Crowd::new(1);
    let local = ParticipantLocal::new();
    let me = crowd.join(&local, 0);
    let control = LockAddress::new(LockAddress::CONTROL, 0);
    for index in 0..MAX_HELD as u8 - 1 {
        assert_eq!(me.hold(at(u64::from(index)), HeldMode::Shared), Ok((index, false)));
    }
    assert_eq!(me.hold(at(99), HeldMode::Shared), Err(LockError::TooManyLocks));
    assert_eq!(me.hold(at(3), HeldMode::Shared), Ok((3, true)), "counting needs no record");
    assert_eq!(me.hold(control, HeldMode::Exclusive), Ok((MAX_HELD as u8 - 1, false)));
    assert_eq!(
        me.hold(LockAddress::new(LockAddress::CONTROL, 64), HeldMode::Exclusive),
        Err(LockError::TooManyLocks)
    );
    assert_eq!(crowd.slot(0).held().count(), MAX_HELD);
}

#[test]
fn a_new_registration_forgets_the_old_ones_locks() {
    let crowd = Crowd::new(2);
    let local = ParticipantLocal::new();
    let me = crowd.join(&local, 0);
    assert_eq!(me.hold(at(0), HeldMode::Shared), Ok((0, false)));
    assert_eq!(me.hold(at(0), HeldMode::Shared), Ok((0, true)));
    let me = crowd.join(&local, 1);
    assert!(!local.holds_any());
    assert_eq!(me.hold(at(0), HeldMode::Shared), Ok((0, false)));
    assert!(me.release_count(0), "the old count is gone too");
    assert_eq!(crowd.slot(0).held().count(), 1, "the old slot is not touched");
}
