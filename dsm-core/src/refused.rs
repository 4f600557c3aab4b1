//! What must not compile, each beside the same with the word that makes the promise, which must: so
//! that it is refused for that word and nothing else. Tests of the documentation, in no build.
//!
//! # Traits that unsafe code trusts
//!
//! Of mappings and of the election:
//!
//! ```compile_fail,E0200
//! # use dsm_core::{handle::ObjectId, provider::{Election, Mapping}};
//! # type Error = sim::HeapError;
//! struct Anybody;
//! impl Election for Anybody {
//!     type Error = Error;
//!     fn size(&self) -> usize { 0 }
//!     fn id(&self) -> ObjectId { ObjectId::default() }
//!     fn create(&mut self, _: usize) -> Result<Mapping, Error> { loop {} }
//!     fn map(&mut self) -> Result<Mapping, Error> { loop {} }
//!     fn remove(&mut self) -> Result<(), Error> { Ok(()) }
//! }
//! ```
//!
//! ```
//! # use dsm_core::{handle::ObjectId, provider::{Election, Mapping}};
//! # type Error = sim::HeapError;
//! struct Anybody;
//! unsafe impl Election for Anybody {
//!     type Error = Error;
//!     fn size(&self) -> usize { 0 }
//!     fn id(&self) -> ObjectId { ObjectId::default() }
//!     fn create(&mut self, _: usize) -> Result<Mapping, Error> { loop {} }
//!     fn map(&mut self) -> Result<Mapping, Error> { loop {} }
//!     fn remove(&mut self) -> Result<(), Error> { Ok(()) }
//! }
//! ```
//!
//! ```compile_fail,E0200
//! # use dsm_core::provider::{Mapping, ObjectInfo, Root};
//! # type Error = sim::HeapError;
//! # use core::time::Duration;
//! struct Anywhere;
//! impl Root for Anywhere {
//!     type Error = Error;
//!     type Election<'a> = sim::HeapElection<'a>;
//!     fn elect(&self, _: Duration) -> Result<sim::HeapElection<'_>, Error> { loop {} }
//!     fn elect_existing(&self, _: Duration) -> Result<sim::HeapElection<'_>, Error> { loop {} }
//!     fn peek(&self) -> Result<Mapping, Error> { loop {} }
//!     unsafe fn unmap(&self, _: Mapping) {}
//!     fn enumerate(&self, _: &mut dyn FnMut(&ObjectInfo)) -> Result<(), Error> { Ok(()) }
//! }
//! ```
//!
//! ```
//! # use dsm_core::provider::{Mapping, ObjectInfo, Root};
//! # type Error = sim::HeapError;
//! # use core::time::Duration;
//! struct Anywhere;
//! unsafe impl Root for Anywhere {
//!     type Error = Error;
//!     type Election<'a> = sim::HeapElection<'a>;
//!     fn elect(&self, _: Duration) -> Result<sim::HeapElection<'_>, Error> { loop {} }
//!     fn elect_existing(&self, _: Duration) -> Result<sim::HeapElection<'_>, Error> { loop {} }
//!     fn peek(&self) -> Result<Mapping, Error> { loop {} }
//!     unsafe fn unmap(&self, _: Mapping) {}
//!     fn enumerate(&self, _: &mut dyn FnMut(&ObjectInfo)) -> Result<(), Error> { Ok(()) }
//! }
//! ```
//!
//! Of who is dead:
//!
//! ```compile_fail,E0200
//! # use dsm_core::{env::{Liveness, ProcessProof, ThreadProof}, error::ProviderFailure};
//! struct Anyhow;
//! impl Liveness for Anyhow {
//!     fn claim(&self, _: u32) -> Result<(), ProviderFailure> { Ok(()) }
//!     fn release(&self, _: u32) {}
//!     fn process_proof(&self) -> ProcessProof { ProcessProof::default() }
//!     fn thread_proof(&self) -> ThreadProof { ThreadProof::default() }
//!     fn process_is_dead(&self, _: u32, _: &ProcessProof) -> bool { true }
//!     fn thread_is_dead(&self, _: &ProcessProof, _: &ThreadProof) -> bool { true }
//! }
//! ```
//!
//! ```
//! # use dsm_core::{env::{Liveness, ProcessProof, ThreadProof}, error::ProviderFailure};
//! struct Anyhow;
//! unsafe impl Liveness for Anyhow {
//!     fn claim(&self, _: u32) -> Result<(), ProviderFailure> { Ok(()) }
//!     fn release(&self, _: u32) {}
//!     fn process_proof(&self) -> ProcessProof { ProcessProof::default() }
//!     fn thread_proof(&self) -> ThreadProof { ThreadProof::default() }
//!     fn process_is_dead(&self, _: u32, _: &ProcessProof) -> bool { true }
//!     fn thread_is_dead(&self, _: &ProcessProof, _: &ThreadProof) -> bool { true }
//! }
//! ```
//!
//! ```compile_fail,E0200
//! # use dsm_core::{env::Environment, handle::ParticipantId, lock::LockKind, sync::AtomicU64};
//! # use dsm_core::participant::{Participant, Peers};
//! struct Anyone;
//! impl Peers for Anyone {
//!     fn is_dead(&self, _: ParticipantId) -> bool { true }
//!     fn evict_reader(&self, _: &Participant<'_>, _: u16, _: &AtomicU64, _: u64) -> bool { true }
//!     fn admits(&self, _: LockKind) -> bool { true }
//!     fn max_participants(&self) -> u32 { 7 }
//!     fn env(&self) -> &dyn Environment { loop {} }
//! }
//! ```
//!
//! ```
//! # use dsm_core::{env::Environment, handle::ParticipantId, lock::LockKind, sync::AtomicU64};
//! # use dsm_core::participant::{Participant, Peers};
//! struct Anyone;
//! unsafe impl Peers for Anyone {
//!     fn is_dead(&self, _: ParticipantId) -> bool { true }
//!     fn evict_reader(&self, _: &Participant<'_>, _: u16, _: &AtomicU64, _: u64) -> bool { true }
//!     fn admits(&self, _: LockKind) -> bool { true }
//!     fn max_participants(&self) -> u32 { 7 }
//!     fn env(&self) -> &dyn Environment { loop {} }
//! }
//! ```
//!
//! # Functions that unsafe code trusts
//!
//! Who acts as a participant, and what it seems to hold:
//!
//! ```compile_fail,E0133
//! # use dsm_core::participant::{Participant, ParticipantLocal, Peers};
//! fn act<'n>(peers: &'n dyn Peers, local: &'n ParticipantLocal) -> Participant<'n> {
//!     Participant::new(peers, local)
//! }
//! ```
//!
//! ```
//! # use dsm_core::participant::{Participant, ParticipantLocal, Peers};
//! fn act<'n>(peers: &'n dyn Peers, local: &'n ParticipantLocal) -> Participant<'n> {
//!     unsafe { Participant::new(peers, local) }
//! }
//! ```
//!
//! ```compile_fail,E0133
//! # use dsm_core::{handle::LockAddress, lock::{HeldMode, rw::RwLock}, participant::Participant};
//! fn seem_to_hold(me: &Participant<'_>, lock: LockAddress) -> Option<u8> {
//!     me.hold::<RwLock>(lock, HeldMode::Shared).ok().map(|record| record.keep())
//! }
//! ```
//!
//! ```compile_fail,E0133
//! # use dsm_core::{handle::LockAddress, lock::{HeldMode, rw::RwLock}, participant::Participant};
//! fn seem_to_hold(me: &Participant<'_>, lock: LockAddress) -> Option<u8> {
//!     me.hold_first::<RwLock>(lock, HeldMode::Shared).map(|record| record.keep())
//! }
//! ```
//!
//! ```compile_fail,E0133
//! # use dsm_core::participant::Participant;
//! fn seem_to_hold_nothing(me: &Participant<'_>) {
//!     drop(me.release(0));
//! }
//! ```
//!
//! ```compile_fail,E0133
//! # use dsm_core::participant::Participant;
//! fn seem_to_hold_nothing(me: &Participant<'_>) {
//!     drop(me.release_alone(0));
//! }
//! ```
//!
//! ```
//! # use dsm_core::{handle::LockAddress, lock::{HeldMode, rw::RwLock}, participant::Participant};
//! fn seem_to_hold(me: &Participant<'_>, lock: LockAddress) -> Option<u8> {
//!     let kept = unsafe { me.hold::<RwLock>(lock, HeldMode::Shared) };
//!     kept.ok().map(|record| record.keep())
//! }
//! fn seem_to_hold_first(me: &Participant<'_>, lock: LockAddress) -> Option<u8> {
//!     let kept = unsafe { me.hold_first::<RwLock>(lock, HeldMode::Shared) };
//!     kept.map(|record| record.keep())
//! }
//! fn seem_to_hold_nothing(me: &Participant<'_>) {
//!     drop(unsafe { me.release(0) });
//!     drop(unsafe { me.release_alone(0) });
//! }
//! ```
//!
//! One process's records, in two namespaces:
//!
//! ```compile_fail,E0499
//! # use dsm_core::{namespace::{LocalSegment, ProcessLocal}, sync::AtomicU64};
//! let (first, second) = (AtomicU64::new(0), AtomicU64::new(0));
//! let mut records = [const { LocalSegment::new() }; 8];
//! let one = ProcessLocal::new(&first, &mut records);
//! let two = ProcessLocal::new(&second, &mut records);
//! drop((one, two));
//! ```
//!
//! ```
//! # use dsm_core::{namespace::{LocalSegment, ProcessLocal}, sync::AtomicU64};
//! let (first, second) = (AtomicU64::new(0), AtomicU64::new(0));
//! let mut records = [const { LocalSegment::new() }; 8];
//! let one = ProcessLocal::new(&first, &mut records);
//! drop(one);
//! let two = ProcessLocal::new(&second, &mut records);
//! drop(two);
//! ```
