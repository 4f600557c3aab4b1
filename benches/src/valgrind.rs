//! Tells valgrind's tool callgrind when to count.
//!
//! valgrind finds its requests in the instructions themselves: a sequence that does nothing, and
//! that no compiler makes, with a register that points to what is asked for. So a program needs no
//! library for it, and nothing happens where no valgrind looks.

/// Whether the request is known for this processor.
pub const SUPPORTED: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// The first of callgrind's requests: `CT` and a number.
const CALLGRIND: usize = (b'C' as usize) << 24 | (b'T' as usize) << 16;
const START_INSTRUMENTATION: usize = CALLGRIND + 4;
const STOP_INSTRUMENTATION: usize = CALLGRIND + 5;

/// Counts what is executed from here on, if callgrind runs the program.
#[inline(always)]
pub fn start() {
    request(START_INSTRUMENTATION);
}

/// Counts no more.
#[inline(always)]
pub fn stop() {
    request(STOP_INSTRUMENTATION);
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn request(what: usize) {
    let request: [usize; 6] = [what, 0, 0, 0, 0, 0];
    // SAFETY: rotates a register by 128 bits and exchanges another with itself. valgrind reads the
    // array, which lives longer, and answers in rdx.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") &raw const request,
            inout("rdx") 0_usize => _,
            options(nostack),
        );
    }
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn request(what: usize) {
    let request: [usize; 6] = [what, 0, 0, 0, 0, 0];
    // SAFETY: rotates a register by 128 bits and combines another with itself. valgrind reads the
    // array, which lives longer, and answers in x3.
    unsafe {
        std::arch::asm!(
            "ror x12, x12, #3",
            "ror x12, x12, #13",
            "ror x12, x12, #51",
            "ror x12, x12, #61",
            "orr x10, x10, x10",
            in("x4") &raw const request,
            inout("x3") 0_usize => _,
            options(nostack),
        );
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline(always)]
fn request(_what: usize) {}
