//! System calls that the kernel refuses to one thread (seccomp).

/// A call to be refused: its number, the argument (index and value) it is known by, the error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) call: libc::c_long,
    pub(crate) argument: Option<(u32, u32)>,
    pub(crate) errno: i32,
}

fn statement(code: u32, value: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k: value }
}

/// Skips `skip` statements unless the loaded value is `value`.
fn unless_equal(value: u32, skip: u8) -> libc::sock_filter {
    let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    libc::sock_filter { code: code as u16, jt: 0, jf: skip, k: value }
}

/// Makes the calling thread's call fail from now on; false if that isn't permitted.
pub(crate) fn inject(fault: Fault) -> bool {
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let answer = |value| statement(libc::BPF_RET | libc::BPF_K, value);
    // In the kernel's `seccomp_data` the call's number is at 0, the arguments follow from 16 on.
    let mut program = vec![load(0)];
    let refuse = answer(libc::SECCOMP_RET_ERRNO | fault.errno as u32);
    match fault.argument {
        None => program.extend([unless_equal(fault.call as u32, 1), refuse]),
        Some((index, value)) => program.extend([
            unless_equal(fault.call as u32, 3),
            load(16 + 8 * index),
            unless_equal(value, 1),
            refuse,
        ]),
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    let list = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: concerns this thread alone.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return false;
    }
    // SAFETY: the program outlives the call, and concerns this thread alone.
    unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const list) == 0 }
}
