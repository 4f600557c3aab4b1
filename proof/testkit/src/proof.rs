//! Proofs of life and death, told by one process to another.

use std::time::Duration;

use dsm_core::env::ProcessProof;

/// A proof as a line.
#[must_use]
pub fn write_proof(proof: &ProcessProof) -> String {
    let ProcessProof { pid, start_time, pid_namespace, user } = proof;
    format!("{pid} {start_time} {pid_namespace} {user}")
}

/// The proof that a line says.
///
/// # Panics
///
/// If it is no such line.
#[must_use]
pub fn read_proof(line: &str) -> ProcessProof {
    let parts: Vec<u64> = line.split(' ').map(|part| part.parse().unwrap()).collect();
    let [pid, start_time, pid_namespace, user] = parts[..] else { panic!("{line}") };
    ProcessProof { pid, start_time, pid_namespace, user }
}

/// The same process, seen from where its id means nothing: only its token can prove it dead.
#[must_use]
pub fn unseen(proof: ProcessProof) -> ProcessProof {
    ProcessProof { pid_namespace: !proof.pid_namespace, ..proof }
}

/// Whether `condition` comes true within half a minute: a system may be a moment behind a death.
pub fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    (0..3000).any(|_| {
        let met = condition();
        if !met {
            std::thread::sleep(Duration::from_millis(10));
        }
        met
    })
}
