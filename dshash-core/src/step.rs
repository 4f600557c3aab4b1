//! The points between which a kill makes no difference to this crate.
//!
//! [`step`] keeps the compiler from moving stores across it: what is stored before it is there if
//! what is stored after it is. It costs no instruction. In this crate's own tests it is also
//! where a participant can be made to die, so that every order of stores that a kill can leave
//! between two steps is tried.

/// Everything stored before is stored before everything after.
#[inline(always)]
pub(crate) fn step() {
    dsm_core::sync::compiler_fence();
    #[cfg(test)]
    crate::testing::passed_step();
}
