//! A participant's list of held locks.

use dsm_core::handle::LockAddress;
use dsm_core::lock::rw::RwLock;
use dsm_core::lock::{HeldMode, LockError, RawLock};
use dsm_core::participant::{MAX_HELD, MAX_KINDS, Participant, ParticipantLocal};

use testkit::lock::BitLock;

use crate::support::Crowd;

fn at(offset: u64) -> LockAddress {
    LockAddress::new(3, offset)
}

/// Records a lock and keeps the record: its index, and whether only its count rose.
fn hold_as<L: RawLock>(
    me: &Participant<'_>,
    address: LockAddress,
    mode: HeldMode,
) -> Result<(u8, bool), LockError> {
    // SAFETY: there are no locks: nothing is handed out because of a record.
    let record = unsafe { me.hold::<L>(address, mode) }?;
    let again = record.is_again();
    Ok((record.keep(), again))
}

fn hold(
    me: &Participant<'_>,
    address: LockAddress,
    mode: HeldMode,
) -> Result<(u8, bool), LockError> {
    hold_as::<RwLock>(me, address, mode)
}

/// Takes back one count of a record, and with the last one the record; whether it was the last.
fn release(me: &Participant<'_>, index: u8) -> bool {
    // SAFETY: as above.
    unsafe { me.release(index) }.is_some()
}

#[test]
fn nobody_without_a_registration() {
    let crowd = Crowd::new(1);
    let local = ParticipantLocal::new();
    // SAFETY: nobody registers it elsewhere.
    let me = unsafe { Participant::new(&crowd, &local) };
    assert!(me.id().is_none() && me.slot().is_none() && me.packed() == 0);
    assert_eq!(hold(&me, at(0), HeldMode::Shared), Err(LockError::NotRegistered));
    assert!(release(&me, 0), "and nothing happens");

    let me = crowd.join(&local, 0);
    assert_eq!(me.id(), Some(Crowd::id(0)));
    assert!(local.is_registered() && me.is_registered());
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
    assert_eq!(hold(&me, LockAddress::new(0, 0), HeldMode::Shared), Ok((0, false)));
    assert_eq!(hold(&me, last, HeldMode::Exclusive), Ok((1, false)));
    assert_eq!(hold(&me, at(64), HeldMode::Shared), Ok((2, false)));
    assert_eq!(
        held(),
        [
            (LockAddress::new(0, 0), HeldMode::Shared),
            (last, HeldMode::Exclusive),
            (at(64), HeldMode::Shared)
        ]
    );
    assert!(local.holds_any() && me.holds_any());

    assert!(release(&me, 1));
    assert_eq!(hold(&me, at(128), HeldMode::Exclusive), Ok((1, false)), "the first free record");
    for index in 0..3 {
        assert!(release(&me, index));
    }
    assert!(held().is_empty() && !local.holds_any());
}

#[test]
fn a_record_that_is_not_kept_goes_by_itself() {
    let crowd = Crowd::new(1);
    let local = ParticipantLocal::new();
    let me = crowd.join(&local, 0);
    let held = || crowd.slot(0).held().count();

    // SAFETY: there are no locks: nothing is handed out because of a record.
    let record = unsafe { me.hold::<RwLock>(at(0), HeldMode::Shared) }.unwrap();
    assert!(held() == 1 && !record.is_beside_others());
    drop(record);
    assert!(held() == 0 && !me.holds_any());

    // Of one that only counted, the count.
    assert_eq!(hold(&me, at(0), HeldMode::Shared), Ok((0, false)));
    // SAFETY: as above.
    let again = unsafe { me.hold::<RwLock>(at(0), HeldMode::Shared) }.unwrap();
    assert!(again.is_again());
    drop(again);
    assert_eq!(held(), 1);
    // SAFETY: as above.
    let other = unsafe { me.hold::<RwLock>(at(64), HeldMode::Exclusive) }.unwrap();
    assert!(other.is_beside_others());
    drop(other);
    assert!(release(&me, 0) && held() == 0);
}

#[test]
fn only_shared_beside_shared_is_counted() {
    let crowd = Crowd::new(1);
    let local = ParticipantLocal::new();
    let me = crowd.join(&local, 0);
    let (shared, alone) = (HeldMode::Shared, HeldMode::Exclusive);

    assert_eq!(hold(&me, at(0), shared), Ok((0, false)));
    assert_eq!(hold(&me, at(64), alone), Ok((1, false)));
    assert_eq!(hold(&me, at(0), alone), Err(LockError::WouldDeadlock));
    assert_eq!(hold(&me, at(64), alone), Err(LockError::WouldDeadlock));
    assert_eq!(hold(&me, at(64), shared), Err(LockError::WouldDeadlock));
    for _ in 0..u16::MAX {
        assert_eq!(hold(&me, at(0), shared), Ok((0, true)));
    }
    assert_eq!(hold(&me, at(0), shared), Err(LockError::TooManyLocks));
    for _ in 0..u16::MAX {
        assert!(!release(&me, 0));
    }
    assert!(release(&me, 0));
    // Errors changed nothing.
    assert_eq!(hold(&me, at(0), alone), Ok((0, false)));
    assert!(release(&me, 1));
}

#[test]
fn the_last_record_is_the_control_locks() {
    let crowd = Crowd::new(1);
    let local = ParticipantLocal::new();
    let me = crowd.join(&local, 0);
    let control = LockAddress::new(LockAddress::CONTROL, 0);
    for index in 0..MAX_HELD as u8 - 1 {
        assert_eq!(hold(&me, at(u64::from(index)), HeldMode::Shared), Ok((index, false)));
    }
    assert_eq!(hold(&me, at(99), HeldMode::Shared), Err(LockError::TooManyLocks));
    assert_eq!(hold(&me, at(3), HeldMode::Shared), Ok((3, true)), "counting needs no record");
    assert_eq!(hold(&me, control, HeldMode::Exclusive), Ok((MAX_HELD as u8 - 1, false)));
    assert_eq!(
        hold(&me, LockAddress::new(LockAddress::CONTROL, 64), HeldMode::Exclusive),
        Err(LockError::TooManyLocks)
    );
    assert_eq!(crowd.slot(0).held().count(), MAX_HELD);
}

#[test]
fn a_new_registration_forgets_the_old_ones_locks() {
    let crowd = Crowd::new(2);
    let local = ParticipantLocal::new();
    let me = crowd.join(&local, 0);
    assert_eq!(hold(&me, at(0), HeldMode::Shared), Ok((0, false)));
    assert_eq!(hold(&me, at(0), HeldMode::Shared), Ok((0, true)));
    let me = crowd.join(&local, 1);
    assert!(!local.holds_any());
    assert_eq!(hold(&me, at(0), HeldMode::Shared), Ok((0, false)));
    assert!(release(&me, 0), "the old count is gone too");
    assert_eq!(crowd.slot(0).held().count(), 1, "the old slot is not touched");
}

#[test]
fn locks_of_other_kinds_are_recorded_as_shared() {
    let crowd = Crowd::new(1);
    let local = ParticipantLocal::new();
    let me = crowd.join(&local, 0);
    let shared = HeldMode::Shared;
    assert_eq!(hold(&me, at(0), shared), Ok((0, false)));
    assert_eq!(hold_as::<BitLock<1>>(&me, at(64), shared), Ok((1, false)));
    assert_eq!(hold_as::<BitLock<2>>(&me, at(128), HeldMode::Exclusive), Ok((2, false)));
    assert_eq!(hold_as::<BitLock<1>>(&me, at(64), shared), Ok((1, true)));
    assert_eq!(
        crowd.slot(0).held().collect::<Vec<_>>(),
        [(at(0), shared), (at(64), shared), (at(128), HeldMode::Exclusive)]
    );
    assert_eq!(me.held_within(at(0), 128), Some(shared));
    assert_eq!(me.held_within(at(0), 129), Some(HeldMode::Exclusive));
    // In one place there is one lock.
    assert_eq!(hold_as::<BitLock<2>>(&me, at(64), shared), Err(LockError::WouldDeadlock));
}

#[test]
fn a_participant_knows_a_few_other_kinds_only() {
    let crowd = Crowd::new(1);
    let local = ParticipantLocal::new();
    let me = crowd.join(&local, 0);
    let shared = HeldMode::Shared;
    crowd.refused.store(BitLock::<9>::IDENTITY, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(hold_as::<BitLock<9>>(&me, at(0), shared), Err(LockError::TooManyKinds));
    assert_eq!(hold_as::<BitLock<9>>(&me, at(0), HeldMode::Exclusive), Ok((0, false)));
    const { assert!(MAX_KINDS == 3) };
    assert_eq!(hold_as::<BitLock<1>>(&me, at(64), shared), Ok((1, false)));
    assert_eq!(hold_as::<BitLock<2>>(&me, at(128), shared), Ok((2, false)));
    assert_eq!(hold_as::<BitLock<3>>(&me, at(192), shared), Ok((3, false)));
    assert_eq!(hold_as::<BitLock<4>>(&me, at(256), shared), Err(LockError::TooManyKinds));
    // For good, since what a record refers to must stay.
    assert!(release(&me, 1));
    assert_eq!(hold_as::<BitLock<4>>(&me, at(256), shared), Err(LockError::TooManyKinds));
    assert_eq!(hold_as::<BitLock<1>>(&me, at(64), shared), Ok((1, false)));
    assert_eq!(crowd.slot(0).held().count(), 4);
}
