//! What people are told: twenty real failures, each with the sentence that a program's `main`
//! prints.
//!
//! Each sentence names the thing, the cause, and what to do next; it is the same by `Debug`, which
//! is what `main` uses; and what lies below it says nothing twice. What programs ask of an error
//! (`is_full` and the like) is true of the failures that it is meant for, and of no others.
//!
//! | module | its idea |
//! |---|---|
//! | [`failures`] | how each comes about |
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

use std::error::Error as _;

use dsm_registry::{Error, ErrorKind, NamespaceError, TableError};

mod failures;

/// What a sentence says: of the thing, the cause, and the way out.
struct Said {
    what: &'static str,
    parts: &'static [&'static str],
    /// The question that has the answer yes.
    is: Option<&'static str>,
    /// What the system's own error begins with, if it is what lies below.
    below: Option<&'static str>,
}

const fn said(what: &'static str, parts: &'static [&'static str]) -> Said {
    Said { what, parts, is: None, below: None }
}

impl Said {
    const fn is(mut self, question: &'static str) -> Self {
        self.is = Some(question);
        self
    }

    const fn over(mut self, below: &'static str) -> Self {
        self.below = Some(below);
        self
    }
}

/// In the order of [`failures::ALL`].
const SAID: [Said; failures::ALL.len()] = [
    said(
        "a namespace's name with a slash",
        &["\"app/cache\"", "can't be the name of a namespace", "letters, digits, dot"],
    ),
    said("an empty name", &["\"\"", "it is empty", "take 1 to 63 bytes"]),
    said(
        "three partitions",
        &["invalid partitions", "can't be 3", "a power of two from 1 to 1024"],
    ),
    said(
        "a directory that is not there",
        &[
            "namespace \"demo\"",
            "/missing: there is no such directory",
            "create it, or choose another",
        ],
    )
    .over("No such file or directory"),
    said(
        "a control object of somebody else's",
        &["namespace \"demo\"", "not made by this library", "choose another name or remove it"],
    ),
    said(
        "a look at what is not there",
        &["no namespace \"demo\"", "nobody has opened it yet", "`dsm ls`"],
    )
    .is("not found"),
    said("the removal of what is not there", &["there is no \"hits\"", "`Registry::list`"])
        .is("not found"),
    said(
        "the removal of a namespace in use",
        &["1 process(es) live in namespace \"demo\"", "end them first"],
    ),
    said(
        "a name as another type",
        &[
            "\"hits\" was created as",
            "this process asks for",
            "to [u8; 16] (16 bytes",
            "another name",
        ],
    ),
    said(
        "an initialiser without its file",
        &[
            "initialiser of \"limit\"",
            "No such file or directory",
            "the next to ask",
            "tries again",
        ],
    ),
    said(
        "an initialiser that asks for its own name",
        &["\"limit\"", "inside its own initialiser", "return an error from it"],
    )
    .is("would deadlock"),
    said(
        "an initialiser that takes long",
        &["\"limit\"", "is still at it", "`Builder::initialiser_patience`"],
    )
    .is("timeout"),
    said(
        "more than the machine has",
        &["\"frames\" needs 4 TiB", "this machine has", "ask for less"],
    )
    .is("full"),
    said(
        "a table at its limit",
        &["the table needs", "is limited to 196608", "`HashOptions::limit`"],
    )
    .is("full"),
    said("an area at its limit", &["the area needs", "is limited to 1048576", "raise the limit"])
        .is("full"),
    said(
        "the last segment slot",
        &["namespace \"demo\"", "all 4 segment slots are taken", "`max_segments`"],
    )
    .is("full"),
    said(
        "a lock that somebody else has",
        &["part of the table", "locked by another thread or process", "`HashTable::within`"],
    )
    .is("timeout"),
    said("a lock of one's own", &["this thread holds the lock already", "drop its guard"])
        .is("would deadlock"),
    said(
        "a value that was being changed",
        &["the entry's value", "died or panicked", "`HashTable::poisoned`"],
    )
    .is("poisoned"),
    said("a pointer to nothing", &["no allocated object of this area", "it was freed, or"]),
];

/// The failure of that number, as the registry's error.
fn fail(number: usize) -> Error {
    let directory = tempfile::tempdir().unwrap();
    let (name, run) = failures::ALL[number];
    let failure = run(directory.path()).expect_err(name);
    let failure = failure.downcast::<Error>();
    *failure.unwrap_or_else(|other| panic!("{name}: not the registry's error: {other}"))
}

fn numbers() -> impl Iterator<Item = (usize, &'static Said)> {
    SAID.iter().enumerate().inspect(|(n, said)| assert_eq!(failures::ALL[*n].0, said.what))
}

#[test]
fn each_names_the_thing_the_cause_and_the_way_out() {
    for (number, said) in numbers() {
        let text = fail(number).to_string();
        for part in said.parts {
            assert!(text.contains(part), "{}: no {part:?} in: {text}", said.what);
        }
    }
}

#[test]
fn main_prints_the_sentence() {
    for (number, said) in numbers() {
        let error = fail(number);
        let text = error.to_string();
        // As `main` does that returns `Result<(), Box<dyn Error>>`.
        let error: Box<dyn std::error::Error> = Box::new(error);
        assert_eq!(format!("{error:?}"), text, "{}", said.what);
        assert_eq!(format!("{error:#?}"), text, "{}", said.what);
    }
}

#[test]
fn a_chain_says_nothing_twice() {
    for (number, said) in numbers() {
        let error = fail(number);
        let mut texts = vec![error.to_string()];
        let mut below = error.source();
        while let Some(error) = below {
            texts.push(error.to_string());
            below = error.source();
        }
        for (at, text) in texts.iter().enumerate() {
            let before = texts[..at].iter().find(|before| before.contains(text.as_str()));
            assert!(before.is_none(), "{}: {text:?} again: {texts:?}", said.what);
        }
        match said.below {
            None => assert_eq!(texts.len(), 1, "{}: {texts:?}", said.what),
            Some(start) => {
                assert_eq!(texts.len(), 2, "{}: {texts:?}", said.what);
                assert!(texts[1].starts_with(start), "{}: {texts:?}", said.what);
                let system = error.source().and_then(|e| e.downcast_ref::<std::io::Error>());
                assert!(system.unwrap().raw_os_error().is_some(), "{}", said.what);
            }
        }
    }
}

/// The errors of an initialiser have sources of their own.
#[test]
fn what_lies_below_an_initialisers_error_lies_below_the_registrys() {
    let directory = tempfile::tempdir().unwrap();
    let place = dsm_registry::system::Directory::new(directory.path());
    let registry = dsm_registry::Registry::builder("demo").provider(place).open().unwrap();
    // An error of the registry's own that has one below.
    let failed = registry.segment::<u64>("limit", |_| Err(fail(3).into())).unwrap_err();
    assert!(failed.to_string().contains("there is no such directory"), "{failed}");
    assert!(failed.initialiser_error().unwrap().is::<Error>());
    assert!(failed.source().unwrap().is::<std::io::Error>());
}

#[test]
fn questions_are_answered_yes_by_their_failures_alone() {
    let mut answered = std::collections::BTreeSet::new();
    for (number, said) in numbers() {
        let error = fail(number);
        let answers = [
            ("full", error.is_full()),
            ("not found", error.is_not_found()),
            ("poisoned", error.is_poisoned()),
            ("timeout", error.is_timeout()),
            ("would deadlock", error.is_would_deadlock()),
        ];
        let yes: Vec<_> = answers.iter().filter(|(_, yes)| *yes).map(|(is, _)| *is).collect();
        assert_eq!(yes, said.is.into_iter().collect::<Vec<_>>(), "{}", said.what);
        answered.extend(yes);
    }
    assert_eq!(answered.len(), 5, "a question that nothing answers: {answered:?}");
}

/// The cores' parts of the errors answer as the whole does.
#[test]
fn the_errors_of_the_cores_answer_too() {
    let mut seen = 0;
    for (number, said) in numbers() {
        let (full, timeout, deadlock) = match fail(number).into_kind() {
            ErrorKind::Namespace { source, .. } => {
                (source.is_full(), source.is_timeout(), source.is_would_deadlock())
            }
            ErrorKind::Area(error) => {
                (error.is_full(), error.is_timeout(), error.is_would_deadlock())
            }
            ErrorKind::Table(error) => {
                (error.is_full(), error.is_timeout(), error.is_would_deadlock())
            }
            ErrorKind::Lock(error) => (false, error.is_timeout(), error.is_would_deadlock()),
            ErrorKind::OutOfMemory(shortage) => (shortage.failure.kind.is_full(), false, false),
            _ => continue,
        };
        let is = |question| said.is == Some(question);
        let expected = (is("full"), is("timeout"), is("would deadlock"));
        assert_eq!((full, timeout, deadlock), expected, "{}", said.what);
        seen += 1;
    }
    assert!(seen >= 7, "{seen}");
}

/// `?` makes an error of the registry of whatever the layers below return.
#[test]
fn errors_of_the_cores_become_the_registrys() {
    fn of(error: impl Into<Error>) -> Result<(), Error> {
        Err(error.into())?;
        Ok(())
    }
    use dsm_registry::{AreaError, LockError, ProviderErrorKind, ProviderFailure};
    let kind = |result: Result<(), Error>| result.unwrap_err().into_kind();
    assert_eq!(kind(of(LockError::NotRegistered)), ErrorKind::Forked);
    assert_eq!(kind(of(AreaError::Lock(LockError::DeclaredDead))), ErrorKind::DeclaredDead);
    assert_eq!(kind(of(TableError::Poisoned)), ErrorKind::Poisoned);
    assert_eq!(kind(of(TableError::WouldDeadlock)), ErrorKind::Lock(LockError::WouldDeadlock));
    assert_eq!(kind(of(NamespaceError::Forked)), ErrorKind::Forked);
    let failure = ProviderFailure::new(ProviderErrorKind::PermissionDenied, "open");
    let denied = of(AreaError::from(NamespaceError::Provider(failure))).unwrap_err();
    assert_eq!(denied.to_string(), failure.to_string(), "no namespace is made up");
    let gone = of(TableError::Destroyed).unwrap_err();
    assert_eq!(*gone.kind(), ErrorKind::Table(TableError::Destroyed));
}
