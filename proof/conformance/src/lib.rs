//! One suite of tests, generic over the platform, that every backend has to pass.
//!
//! A backend is a provider of segments, the root of a namespace, and an environment. To test one,
//! implement [`Backend`] for a type that opens all three, and name it in [`suite!`], in an
//! integration test of its own:
//!
//! ```text
//! conformance::suite!(MyBackend);
//! ```
//!
//! Each case becomes one `#[test]`. Cases that take several processes run the test binary again
//! ([`process`]); a backend that lives within one process says so and they pass it by.
//!
//! The suite checks what the traits of `dsm-core` promise, and nothing that a platform does beyond
//! that: permissions, links, file systems that are full, are tested where they are implemented.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dsm_core::env::Environment;
use dsm_core::handle::{ObjectId, SegmentHandle};
use dsm_core::provider::{Election, Root, SegmentProvider};

pub mod control;
pub mod liveness;
pub mod process;
pub mod segments;
pub mod waits;

/// A platform under test: one namespace of it, as one process sees it.
pub trait Backend: Send + Sync + Sized + 'static {
    /// Gives segments.
    type Provider: SegmentProvider;
    /// Finds or elects the control object.
    type Root: Root;
    /// Waits, lives, tells the time.
    type Environment: Environment;

    /// Whether other processes can open the namespace.
    const PROCESSES: bool;
    /// Whether objects can be listed.
    const LISTS: bool;
    /// Whether the end of a thread can be proven.
    const THREADS: bool;
    /// Whether a process is known by its proof, beside its token.
    const PROOFS: bool;
    /// Whether a blanked mapping reads zeros (a simulated one may keep its bytes).
    const BLANKS: bool = true;
    /// A size that can't be had, at whose refusal nothing is exhausted.
    const TOO_LARGE: usize;

    /// Opens a namespace that nobody has opened before.
    fn create(namespace: &str) -> Self;

    /// Opens, in a child process, the namespace that its parent created.
    fn join(namespace: &str) -> Self;

    /// The segments.
    fn provider(&self) -> &Self::Provider;

    /// The control object.
    fn root(&self) -> &Self::Root;

    /// A new environment.
    fn environment(&self) -> Self::Environment;

    /// Hands over what a child needs beside the namespace's name.
    fn share(&self, _child: &mut Command) {}

    /// Removes a segment's name behind the provider's back; false if there is no way to.
    fn unlink(&self, _handle: SegmentHandle) -> bool {
        false
    }
}

/// Two to the power of `bits`, or, where addresses are shorter than that, the least that no object
/// may have because offsets in it would be negative.
#[must_use]
pub const fn bytes_of(bits: u32) -> usize {
    if bits < usize::BITS { 1 << bits } else { isize::MAX as usize + 1 }
}

/// Removes the file that a segment is, as somebody does who cleans up by hand; whether there was
/// one, and is no more. Where files that are in use can't be removed it stays.
#[must_use]
pub fn unlink_file(directory: &Path, namespace: &str, handle: SegmentHandle) -> bool {
    let Ok(entries) = std::fs::read_dir(directory) else { return false };
    let ending = format!("{namespace}.{handle}");
    let is_it = |name: &str| name.starts_with("dsm.") && name.ends_with(&ending);
    let found = entries.flatten().find(|entry| entry.file_name().to_str().is_some_and(is_it));
    found.is_some_and(|entry| std::fs::remove_file(entry.path()).is_ok() && !entry.path().exists())
}

/// What a case works with.
pub struct Context<B> {
    /// The backend, in a namespace of its own.
    pub backend: B,
    /// The name of the namespace.
    pub namespace: String,
    /// The name of the test binary's test that child processes run.
    pub entry: &'static str,
}

/// Runs one case in a namespace of its own, and checks that it leaves nothing behind.
///
/// # Panics
///
/// If the case fails.
pub fn run<B: Backend>(name: &str, entry: &'static str, case: fn(&Context<B>)) {
    #[cfg(dsm_planted)]
    {
        use dsm_core::planted::{VARIABLE, select};
        assert!(select(&std::env::var(VARIABLE).unwrap_or_default()), "no such planted bug");
    }
    let namespace = testkit::name(name);
    let backend = B::create(&namespace);
    let context = Context { backend, namespace, entry };
    let sweeper = Sweeper(&context.backend);
    case(&context);
    std::mem::forget(sweeper);
    if B::LISTS {
        let mut left = Vec::new();
        context.backend.root().enumerate(&mut |object| left.push(*object)).unwrap();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

/// Removes what a case that failed has left.
struct Sweeper<'a, B: Backend>(&'a B);

impl<B: Backend> Drop for Sweeper<'_, B> {
    fn drop(&mut self) {
        let mut segments = Vec::new();
        let _ = self.0.root().enumerate(&mut |object| segments.extend(object.handle));
        for handle in segments {
            let _ = self.0.provider().destroy(handle, ObjectId::default());
        }
        if let Ok(mut election) = self.0.root().elect_existing(Duration::ZERO) {
            let _ = election.remove();
        }
    }
}

/// Makes a `#[test]` of each case of the suite for a [`Backend`].
#[macro_export]
macro_rules! suite {
    ($backend:ty) => {
        /// What child processes run; nothing to do in the parent.
        #[test]
        fn child_process() {
            $crate::process::in_child::<$backend>();
        }

        $crate::suite!(@cases $backend, segments: [
            new_memory_is_zero_and_shared,
            a_name_is_taken_once,
            what_is_absent_is_not_found,
            another_identity_is_refused_and_left_alone,
            destroying_is_idempotent_and_spares_mappings,
            a_name_removed_from_outside_does_no_harm,
            impossible_sizes_are_refused,
            too_large_a_segment_leaves_nothing,
            reserving_keeps_the_contents,
            a_blanked_mapping_is_private_zeros,
            objects_are_listed,
            segments_do_not_overlap,
            two_processes_share_a_segment,
            a_killed_process_leaves_the_memory,
        ]);
        $crate::suite!(@cases $backend, control: [
            the_control_object_lives_and_goes,
            a_control_object_is_set_up_again_with_zeros,
            the_election_excludes_threads,
            an_impatient_elector_gives_up,
            the_election_ends_with_its_holder,
            exactly_one_process_finds_it_new,
            processes_create_and_remove_in_turn,
        ]);
        $crate::suite!(@cases $backend, liveness: [
            a_token_is_held_once,
            slots_are_independent,
            a_reaper_holds_the_token_of_the_dead,
            a_living_process_is_alive_and_a_killed_one_dead,
            a_proof_of_somebody_else_is_death,
            threads_end,
        ]);
        $crate::suite!(@cases $backend, waits: [
            a_changed_word_is_not_waited_for,
            a_wait_ends_by_itself,
            a_wake_reaches_a_thread,
            a_wake_reaches_a_process,
            time_goes_forward_and_random_bits_differ,
        ]);
    };
    (@cases $backend:ty, $module:ident: [$($case:ident),* $(,)?]) => {
        $(
            #[test]
            fn $case() {
                let entry = "child_process";
                $crate::run::<$backend>(stringify!($case), entry, $crate::$module::$case::<$backend>);
            }
        )*
    };
}

/// A case that is written and not named in [`suite!`] would run nowhere.
#[cfg(test)]
mod tests {
    #[test]
    fn every_case_is_named_in_the_suite() {
        let suite = include_str!("lib.rs");
        let modules = [
            include_str!("control.rs"),
            include_str!("liveness.rs"),
            include_str!("segments.rs"),
            include_str!("waits.rs"),
        ];
        let starts = modules.iter().flat_map(|module| module.split("\npub fn ").skip(1));
        let cases: Vec<_> =
            starts.filter_map(|case| Some(case.split_once("<B: Backend>")?.0)).collect();
        assert!(cases.len() > 30, "{cases:?}");
        let named = |case: &&str| suite.contains(&format!("            {case},\n"));
        let forgotten: Vec<_> = cases.iter().filter(|case| !named(case)).collect();
        assert!(forgotten.is_empty(), "run nowhere: {forgotten:?}");
    }
}
