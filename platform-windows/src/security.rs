//! Who may use an object: security descriptors of new ones, checks of those that exist.
//!
//! A new object's descriptor names its owner (the user of this process, which an elevated
//! administrator's objects wouldn't be by themselves) and gives access to that user and to the
//! users listed in the options. Nothing is inherited from the folder.
//!
//! An existing object is accepted if its owner is trusted and if nobody else has any access: a
//! stranger who can write could forge all that lies in it. The system itself and its administrators
//! don't count, as they can do what they like anyway. An entry of a kind that is not understood
//! counts as access for somebody else.

use std::fmt;
use std::os::windows::io::{AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;

use dsm_core::error::{ErrorKind, Reason};
use windows_sys::Win32::Foundation::{ERROR_SUCCESS, HANDLE, LocalFree};
use windows_sys::Win32::Security::Authorization::{
    ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, GetSecurityInfo,
    SDDL_REVISION_1, SE_FILE_OBJECT, SE_KERNEL_OBJECT,
};
use windows_sys::Win32::Security::{
    ACCESS_ALLOWED_ACE, ACE_HEADER, ACL, DACL_SECURITY_INFORMATION, GetAce, GetTokenInformation,
    OWNER_SECURITY_INFORMATION, PSECURITY_DESCRIPTOR, PSID, TOKEN_QUERY, TOKEN_USER, TokenUser,
};
use windows_sys::Win32::System::SystemServices::{ACCESS_ALLOWED_ACE_TYPE, ACCESS_DENIED_ACE_TYPE};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

use crate::error::Error;
use crate::options::{Options, Owners};
use crate::sys::{Code, wide};

/// The system itself, and its administrators: they can do what they like.
const ALMIGHTY: [&str; 2] = ["S-1-5-18", "S-1-5-32-544"];

/// Memory that the system allocated for us.
struct Local(NonNull<core::ffi::c_void>);

// SAFETY: owns memory that no thread is tied to.
unsafe impl Send for Local {}
// SAFETY: only read after it was made.
unsafe impl Sync for Local {}

impl Drop for Local {
    fn drop(&mut self) {
        // SAFETY: allocated by the system for this process to free, and used no more.
        unsafe { LocalFree(self.0.as_ptr()) };
    }
}

/// The security descriptor of new objects.
pub(crate) struct Descriptor(Local);

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Descriptor")
    }
}

impl Descriptor {
    /// Access for the user of this process and for those whom the options list.
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let own = own_user()?;
        let mut text = format!("O:{own}D:P(A;;GA;;;{own})");
        if let Owners::Listed(users) = &options.owners {
            for user in users {
                check_sid(user)?;
                text.push_str(&format!("(A;;GA;;;{user})"));
            }
        }
        let text = wide(&text);
        let mut made: PSECURITY_DESCRIPTOR = null_mut();
        // SAFETY: the text ends with a zero, the result is writable, its size is not asked for.
        let done = unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text.as_ptr(),
                SDDL_REVISION_1,
                &raw mut made,
                null_mut(),
            )
        };
        match NonNull::new(made) {
            Some(made) if done != 0 => Ok(Self(Local(made))),
            _ => Err(Error::os(Code::last(), "security descriptor", "")),
        }
    }

    pub(crate) fn as_ptr(&self) -> *mut core::ffi::c_void {
        self.0.0.as_ptr()
    }
}

/// Refuses what can't be a user's identifier, so that nothing else gets into a descriptor.
fn check_sid(text: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_digit() || c == '-';
    if text.strip_prefix("S-1-").is_some_and(|rest| !rest.is_empty() && rest.chars().all(plain)) {
        return Ok(());
    }
    let why = format!("{text:?} is no security identifier such as S-1-5-21-1-2-3-1001");
    Err(Error::new(ErrorKind::PermissionDenied, "security descriptor", why))
}

/// The user of this process, as `S-1-...`.
pub(crate) fn own_user() -> Result<&'static str, Error> {
    static USER: OnceLock<Result<String, Error>> = OnceLock::new();
    let user = USER
        .get_or_init(|| token_user().map_err(|code| Error::os(code, "user of this process", "")));
    user.as_ref().map(String::as_str).map_err(Clone::clone)
}

fn token_user() -> Result<String, Code> {
    let mut token: HANDLE = null_mut();
    // SAFETY: no preconditions; the handle of the own process needs no closing.
    let process = unsafe { GetCurrentProcess() };
    // SAFETY: the result is writable.
    if unsafe { OpenProcessToken(process, TOKEN_QUERY, &raw mut token) } == 0 {
        return Err(Code::last());
    }
    // SAFETY: fresh from the system, and given to nobody else.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    // Room for the longest identifier; u64 for the alignment.
    let mut room = [0u64; 16];
    let mut len = 0;
    // SAFETY: `room` is writable for the size that is given.
    let done = unsafe {
        GetTokenInformation(
            token.as_raw_handle(),
            TokenUser,
            room.as_mut_ptr().cast(),
            size_of_val(&room) as u32,
            &raw mut len,
        )
    };
    if done == 0 {
        return Err(Code::last());
    }
    // SAFETY: filled by the call, large enough, and aligned.
    let user = unsafe { room.as_ptr().cast::<TOKEN_USER>().read() };
    sid_text(user.User.Sid)
}

/// An identifier as text; it must be valid, as those that the system returns are.
fn sid_text(sid: PSID) -> Result<String, Code> {
    let mut text = null_mut();
    // SAFETY: a valid identifier; the result is writable.
    if unsafe { ConvertSidToStringSidW(sid, &raw mut text) } == 0 {
        return Err(Code::last());
    }
    let Some(owned) = NonNull::new(text.cast()) else { return Err(Code::last()) };
    let _owned = Local(owned);
    let mut characters = Vec::new();
    loop {
        // SAFETY: the text ends with a zero, at which the loop ends.
        let character = unsafe { text.add(characters.len()) };
        // SAFETY: within the text.
        match unsafe { character.read() } {
            0 => break,
            character => characters.push(character),
        }
    }
    Ok(String::from_utf16_lossy(&characters))
}

/// The number at an identifier's end, by which users of one machine are told apart.
pub(crate) fn relative_id(user: &str) -> u32 {
    user.rsplit('-').next().and_then(|last| last.parse().ok()).unwrap_or(0)
}

/// What kind of object is asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    File,
    Kernel,
}

/// The owner of an object, and everybody who has access to it; `None` stands for everybody at
/// all, or for an entry that is not understood.
struct Rights {
    owner: String,
    allowed: Vec<Option<String>>,
}

fn rights(handle: BorrowedHandle<'_>, kind: Kind) -> Result<Rights, Code> {
    let kind = match kind {
        Kind::File => SE_FILE_OBJECT,
        Kind::Kernel => SE_KERNEL_OBJECT,
    };
    let (mut owner, mut list, mut descriptor) = (null_mut(), null_mut(), null_mut());
    // SAFETY: an open handle; the results are writable, and the others are not asked for.
    let code = unsafe {
        GetSecurityInfo(
            handle.as_raw_handle(),
            kind,
            OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION,
            &raw mut owner,
            null_mut(),
            &raw mut list,
            null_mut(),
            &raw mut descriptor,
        )
    };
    if code != ERROR_SUCCESS {
        return Err(Code(code));
    }
    // Owner and list lie in it.
    let _descriptor = NonNull::new(descriptor).map(Local);
    let owner = if owner.is_null() { String::new() } else { sid_text(owner)? };
    let allowed = match NonNull::new(list) {
        // No list at all: everybody may do everything.
        None => vec![None],
        Some(list) => allowed(list)?,
    };
    Ok(Rights { owner, allowed })
}

/// Who is allowed something by a list that came from the system.
fn allowed(list: NonNull<ACL>) -> Result<Vec<Option<String>>, Code> {
    // SAFETY: a valid list, which its owner keeps.
    let count = unsafe { list.read() }.AceCount;
    let mut allowed = Vec::new();
    for index in 0..u32::from(count) {
        let mut entry = null_mut();
        // SAFETY: a valid list and an index within it; the result is writable.
        if unsafe { GetAce(list.as_ptr(), index, &raw mut entry) } == 0 {
            return Err(Code::last());
        }
        // SAFETY: every entry begins with its header.
        let header = unsafe { entry.cast::<ACE_HEADER>().read() };
        match u32::from(header.AceType) {
            ACCESS_DENIED_ACE_TYPE => {}
            ACCESS_ALLOWED_ACE_TYPE => {
                let entry = entry.cast::<ACCESS_ALLOWED_ACE>();
                // SAFETY: an entry of this type has this form.
                let mask = unsafe { (*entry).Mask };
                // SAFETY: as above; the identifier begins where this field lies.
                let sid = unsafe { &raw mut (*entry).SidStart };
                if mask != 0 {
                    allowed.push(Some(sid_text(sid.cast())?));
                }
            }
            _ => allowed.push(None),
        }
    }
    Ok(allowed)
}

/// The owner of an object; empty if it has none.
pub(crate) fn owner(handle: BorrowedHandle<'_>, kind: Kind) -> Result<String, Code> {
    rights(handle, kind).map(|rights| rights.owner)
}

const STEP: &str = "check of owner and access";

/// Whom the options trust besides this process's user; `None` for everybody.
fn listed(options: &Options) -> Option<&[String]> {
    match &options.owners {
        Owners::Any => None,
        Owners::Own => Some(&[]),
        Owners::Listed(users) => Some(users),
    }
}

/// Refuses an object whose owner is not trusted.
pub(crate) fn accept_owner(
    handle: BorrowedHandle<'_>,
    kind: Kind,
    options: &Options,
    object: &dyn Fn() -> String,
) -> Result<(), Error> {
    let Some(listed) = listed(options) else { return Ok(()) };
    let owner = owner(handle, kind).map_err(|code| Error::os(code, STEP, object()))?;
    check_owner(&owner, listed, object)
}

fn check_owner(owner: &str, listed: &[String], object: &dyn Fn() -> String) -> Result<(), Error> {
    let own = own_user()?;
    if owner == own || listed.iter().any(|listed| listed == owner) {
        return Ok(());
    }
    Err(Error::refused(Reason::ForeignUser, STEP, format!("{} of user {owner}", object())))
}

/// Refuses an object whose owner is not trusted, or to which others have access.
pub(crate) fn accept(
    handle: BorrowedHandle<'_>,
    kind: Kind,
    options: &Options,
    object: &dyn Fn() -> String,
) -> Result<(), Error> {
    let Some(listed) = listed(options) else { return Ok(()) };
    let rights = rights(handle, kind).map_err(|code| Error::os(code, STEP, object()))?;
    check_owner(&rights.owner, listed, object)?;
    let own = own_user()?;
    let trusted = |user: &str| {
        user == own || listed.iter().any(|listed| listed == user) || ALMIGHTY.contains(&user)
    };
    for user in &rights.allowed {
        let user = user.as_deref().unwrap_or("everybody");
        if !trusted(user) {
            let why = format!(
                "{} is open to {user}; list that user in Options::owners, or remove the object if \
                 it should not be",
                object()
            );
            return Err(Error::new(ErrorKind::PermissionDenied, STEP, why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_user() {
        let own = own_user().unwrap();
        check_sid(own).unwrap();
        assert_ne!(relative_id(own), 0, "{own}");
    }

    #[test]
    fn only_identifiers_get_into_descriptors() {
        for bad in ["", "S-1-", "WD", "S-1-5-18)(A;;GA;;;WD", "s-1-5-18", "everybody"] {
            assert!(check_sid(bad).is_err(), "{bad}");
            let options = Options::new().owners(Owners::Listed(vec![bad.into()]));
            assert!(Descriptor::new(&options).is_err(), "{bad}");
        }
        let options = Options::new().owners(Owners::Listed(vec!["S-1-5-21-1-2-3-1001".into()]));
        Descriptor::new(&options).unwrap();
    }
}
