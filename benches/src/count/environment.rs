//! What instructions depend on, besides the code.

use serde::{Deserialize, Serialize};

/// Compiler, libraries and processor of a figure: figures are compared where all of it is equal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Environment {
    /// Version of the compiler.
    pub rustc: String,
    /// What it compiles for.
    pub target: String,
    /// Optimisation, and other settings than those of `Cargo.toml`.
    pub build: String,
    /// The C library, whose functions for memory are called here and there.
    pub libc: String,
    /// Features of the processor that the program sees, by which libraries choose their code.
    pub cpu: String,
}

impl Environment {
    /// That of this process; the processor is valgrind's if it runs this process.
    #[must_use]
    pub fn here() -> Self {
        Self {
            rustc: env!("BENCHES_RUSTC").to_owned(),
            target: env!("BENCHES_TARGET").to_owned(),
            build: env!("BENCHES_BUILD").to_owned(),
            libc: libc_version(),
            cpu: features().join(" "),
        }
    }

    /// What differs, a line each, this one's first.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let Self { rustc, target, build, libc, cpu } = self;
        let parts = [
            ("rustc", rustc, &other.rustc),
            ("target", target, &other.target),
            ("build", build, &other.build),
            ("libc", libc, &other.libc),
            ("cpu", cpu, &other.cpu),
        ];
        let different = parts.into_iter().filter(|(_, mine, other)| mine != other);
        different.map(|(what, mine, other)| format!("{what}: {mine:?}, {other:?}")).collect()
    }
}

#[cfg(target_env = "gnu")]
fn libc_version() -> String {
    // SAFETY: no conditions; returns a string that stays.
    let version = unsafe { libc::gnu_get_libc_version() };
    // SAFETY: as said above, ended by a NUL.
    let version = unsafe { std::ffi::CStr::from_ptr(version) };
    format!("glibc {}", version.to_string_lossy())
}

#[cfg(not(target_env = "gnu"))]
fn libc_version() -> String {
    "unknown".to_owned()
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    macro_rules! detected {
        ($($name:tt)*) => {
            [$(($name, std::arch::is_x86_feature_detected!($name))),*]
        };
    }
    let all = detected!("sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "lzcnt" "bmi1" "bmi2" "fma" "avx"
        "avx2" "avx512f" "avx512bw" "avx512vl" "ermsb" "rtm");
    all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<&'static str> {
    macro_rules! detected {
        ($($name:tt)*) => {
            [$(($name, std::arch::is_aarch64_feature_detected!($name))),*]
        };
    }
    let all = detected!("neon" "lse" "crc" "mops" "sve" "sve2");
    all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named() {
        let mine = Environment::here();
        assert!(mine.differences(&mine).is_empty());
        let other = Environment { rustc: "1.0.0".to_owned(), ..mine.clone() };
        let differences = mine.differences(&other);
        assert_eq!(differences.len(), 1);
        assert!(differences[0].starts_with("rustc: "), "{differences:?}");
        assert!(differences[0].ends_with(", \"1.0.0\""), "{differences:?}");
        assert_ne!(mine, other);
    }

    #[test]
    fn the_compiler_is_known() {
        let here = Environment::here();
        assert!(here.rustc.starts_with("1."), "{here:?}");
        assert!(here.target.contains('-'), "{here:?}");
        assert!(here.build.starts_with("opt-level "), "{here:?}");
    }
}
