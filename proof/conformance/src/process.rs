//! Child processes of the cases: peers (see `testkit`) that open the case's namespace.

use testkit::process::{Peer, command, part};

use crate::{Backend, Context, control, liveness, segments, waits};

impl<B: Backend> Context<B> {
    /// Starts a child in a role.
    ///
    /// # Panics
    ///
    /// If it can't be started.
    #[must_use]
    pub fn spawn(&self, role: &str) -> Peer {
        let mut command = command(self.entry, role, &[&self.namespace]);
        self.backend.share(&mut command);
        Peer::spawn(&mut command).unwrap()
    }
}

/// Plays the role given by the environment, in a child; does nothing otherwise.
///
/// # Panics
///
/// If the role is unknown.
pub fn in_child<B: Backend>() {
    let Some(part) = part() else { return };
    let backend = B::join(part.argument(0));
    match part.role.as_str() {
        "sharer" => segments::sharer(&backend, &part),
        "holder" => control::holder(&backend, &part),
        "newcomer" => control::newcomer(&backend, &part),
        "churner" => control::churner(&backend, &part),
        "claimant" => liveness::claimant(&backend, &part),
        "waiter" => waits::waiter(&backend, &part),
        other => panic!("no role {other}"),
    }
}
