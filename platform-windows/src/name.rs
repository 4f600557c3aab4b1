//! Names of namespaces, of their files, and of their kernel objects.
//!
//! # Files
//!
//! A namespace named `demo` consists of files `dsm.<reach>@demo.ctl` (the control object) and
//! `dsm.<reach>@demo.<16 hex digits>` (a segment, by its handle). What follows the *last* dot is
//! either `ctl` or sixteen digits, so that nothing is ambiguous about namespaces with dots in their
//! names.
//!
//! The *reach* tells apart those who must not meet. Elections, waits and proofs of death go through
//! named kernel objects, which are seen by the processes of one session (`Local\`), or of one
//! machine or container (`Global\`); a file can be seen by more: from another session, from another
//! machine by way of the network. There it has another name, and to be seen it must be looked for
//! by one who can also see the kernel objects that belong to it. The reach is a hash of the
//! machine's name and of the session.
//!
//! A file that is still mapped can't be deleted: it is renamed to `dsm.<16 hex digits>.gone`, by
//! its identity.
//!
//! # Kernel objects
//!
//! `Local\dsm.<place>.demo.<what>`, where the place is a hash of the folder (of its identity,
//! however its path is written) or of the words "page file".

pub use platform_common::NamespaceName;
use platform_common::name::hexadecimal;
pub(crate) use platform_common::name::{Role, hash};
use windows_sys::Win32::System::RemoteDesktop::ProcessIdToSessionId;
use windows_sys::Win32::System::WindowsProgramming::GetComputerNameW;

use crate::options::Scope;

/// Names of the files of one scope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FileNames {
    prefix: String,
}

impl FileNames {
    pub(crate) fn new(scope: Scope) -> Self {
        Self { prefix: format!("dsm.{}@", base32(reach(scope))) }
    }

    /// The file name of an object.
    pub(crate) fn file(&self, namespace: &NamespaceName, role: Role) -> String {
        // Windows doesn't tell capitals from small letters in names of files, and kernel objects
        // do: a capital is marked.
        let mut name = self.prefix.clone();
        for character in namespace.as_str().chars() {
            if character.is_ascii_uppercase() {
                name.push('+');
            }
            name.push(character);
        }
        format!("{name}.{role}")
    }

    /// Splits a file name into the namespace and the object's role; `None` if it is no such name,
    /// or of another reach.
    pub(crate) fn split(&self, file: &str) -> Option<(NamespaceName, Role)> {
        let (marked, last) = file.strip_prefix(&*self.prefix)?.rsplit_once('.')?;
        let namespace = NamespaceName::new(&marked.replace('+', "")).ok()?;
        let role = Role::parse(last)?;
        (self.file(&namespace, role) == file).then_some((namespace, role))
    }
}

/// The name of a removed file that could not be deleted yet.
pub(crate) fn gone(identity: u64) -> String {
    format!("dsm.{identity:016x}.gone")
}

/// Whether a file name is one of those.
pub(crate) fn is_gone(file: &str) -> bool {
    let identity = file.strip_prefix("dsm.").and_then(|rest| rest.strip_suffix(".gone"));
    identity.is_some_and(|identity| hexadecimal(identity).is_some())
}

/// What the kernel objects of a namespace are called, but for the ending.
pub(crate) fn kernel_prefix(scope: Scope, place: u64, namespace: &NamespaceName) -> String {
    let scope = match scope {
        Scope::Local => "Local",
        Scope::Global => "Global",
    };
    format!(r"{scope}\dsm.{}.{namespace}", base32(place))
}

/// A number that differs where kernel objects of the same name differ.
fn reach(scope: Scope) -> u64 {
    let mut bytes = machine().to_ne_bytes().to_vec();
    if scope == Scope::Local {
        let mut session = 0u32;
        // SAFETY: the result is writable.
        unsafe { ProcessIdToSessionId(std::process::id(), &raw mut session) };
        bytes.extend_from_slice(&session.to_ne_bytes());
    }
    hash(&bytes)
}

/// A number of this machine, or container; never 0.
pub(crate) fn machine() -> u64 {
    let mut name = [0u16; 64];
    let mut len = name.len() as u32;
    // SAFETY: `name` is writable for `len` characters.
    if unsafe { GetComputerNameW(name.as_mut_ptr(), &raw mut len) } == 0 {
        len = 0;
    }
    let name = name.get(..len as usize).unwrap_or_default();
    let bytes: Vec<u8> = name.iter().flat_map(|character| character.to_ne_bytes()).collect();
    hash(&bytes).max(1)
}

/// The low fifty bits.
fn base32(value: u64) -> String {
    String::from_utf8_lossy(&platform_common::name::base32::<10>(value)).into_owned()
}

#[cfg(test)]
mod tests {
    use dsm_core::handle::SegmentHandle;

    use super::*;

    fn handle(raw: u64) -> SegmentHandle {
        SegmentHandle::from_raw(raw).unwrap()
    }

    #[test]
    fn file_names_come_back() {
        let roles = [Role::Control, Role::Segment(handle(1)), Role::Segment(handle(u64::MAX))];
        let (local, global) = (FileNames::new(Scope::Local), FileNames::new(Scope::Global));
        for name in ["demo", "Demo", "DEMO", "a.b", "a.ctl", "a.0123456789abcdef", "..."] {
            let namespace = NamespaceName::new(name).unwrap();
            for role in roles {
                let file = local.file(&namespace, role);
                assert_eq!(local.split(&file), Some((namespace.clone(), role)), "{file}");
                assert_eq!(global.split(&file), None, "{file}");
                assert!(!is_gone(&file));
            }
        }
    }

    /// Windows takes names for one that differ in capitals only.
    #[test]
    fn capitals_make_another_name() {
        let names = FileNames::new(Scope::Local);
        let file = |name| names.file(&NamespaceName::new(name).unwrap(), Role::Control);
        assert_ne!(file("demo").to_lowercase(), file("Demo").to_lowercase());
        assert_ne!(file("deMo").to_lowercase(), file("Demo").to_lowercase());
    }

    #[test]
    fn other_names_are_not_ours() {
        let names = FileNames::new(Scope::Local);
        let prefix = &names.prefix;
        for file in [
            "dsm.demo.ctl",
            &format!("{prefix}demo"),
            &format!("{prefix}.ctl"),
            &format!("{prefix}demo.0123"),
            &format!("{prefix}demo.0123456789ABCDEF"),
            &format!("{prefix}demo.0000000000000000"),
            &format!("{prefix}d+emo.ctl"),
            &format!("{prefix}Demo.ctl"),
            &format!("{prefix}de mo.ctl"),
        ] {
            assert_eq!(names.split(file), None, "{file}");
        }
        assert!(is_gone(&gone(7)) && !is_gone("dsm.7.gone") && !is_gone("x.gone"));
    }
}
