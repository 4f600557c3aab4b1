//! The registry: any sequence of names, kinds and sizes, against a plain map of what each name
//! stands for.
//!
//! Whoever asks for what a name stands for gets it, with what was put there; whoever asks for
//! something else is told both sides; what can't be a name is refused; a failed initialiser leaves
//! the name free; and when the last handle goes, so does every file. The namespace lies in a
//! directory of its own, so that a case leaves nothing behind elsewhere, whatever happens to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use arbitrary::{Arbitrary, Unstructured};
use dsm_registry::system::Directory;
use dsm_registry::{BoxError, Error, Kind, MAX_NAME, Registry, Segment};

/// Steps of a case at most.
const STEPS: usize = 60;

/// A name: mostly one of a few, so that calls meet.
#[derive(Arbitrary, Debug)]
enum Name {
    One(u8),
    Any(String),
    Long(u8),
}

impl Name {
    fn text(&self) -> String {
        match self {
            Self::One(number) => format!("name-{}", number % 6),
            Self::Any(text) => text.clone(),
            Self::Long(length) => "n".repeat(usize::from(*length)),
        }
    }
}

/// What a name is asked for as.
#[derive(Arbitrary, Clone, Copy, PartialEq, Eq, Debug)]
enum Thing {
    Word,
    Words,
    Bytes(u16),
    Area,
    WordTable,
    SmallTable,
}

impl Thing {
    fn kind(self) -> Kind {
        match self {
            Self::Word | Self::Words => Kind::Segment,
            Self::Bytes(_) => Kind::Bytes,
            Self::Area => Kind::Area,
            Self::WordTable | Self::SmallTable => Kind::Hash,
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// Asks for a thing and puts a value there, or looks at the one there is.
    Get {
        name: Name,
        thing: Thing,
        value: u64,
    },
    /// As `Get`, with an initialiser that fails.
    Fail {
        name: Name,
        thing: Thing,
    },
    /// As `Get`, with an initialiser that asks for another name, which may be its own.
    Nest {
        name: Name,
        inner: Name,
        value: u64,
    },
    Remove {
        name: Name,
    },
    List,
    /// Opens, and leaves, another namespace.
    Open {
        namespace: String,
    },
}

type Word = AtomicU64;
type Words = [AtomicU64; 4];

struct State {
    registry: Registry,
    directory: PathBuf,
    /// What each name stands for, and the value that was put there.
    names: BTreeMap<String, (Thing, u64)>,
    /// Handles that are kept, with their values, which must stay good after a removal.
    kept: Vec<(Segment<Word>, u64)>,
}

/// Runs one case.
pub fn run(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let directory = std::env::temp_dir().join(format!("dsm-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a temporary directory can be made");
    let registry = open("fuzz", &directory).expect("a fresh namespace opens");
    let mut state =
        State { registry, directory: directory.clone(), names: BTreeMap::new(), kept: Vec::new() };
    for _ in 0..STEPS {
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        state.take(&step);
        if input.is_empty() {
            break;
        }
    }
    state.list();
    drop(state);
    std::fs::remove_dir(&directory).expect("nothing is left in the directory");
}

fn open(namespace: &str, directory: &Path) -> Result<Registry, Error> {
    Registry::builder(namespace)
        .provider(Directory::new(directory))
        .max_processes(4)
        .max_participants(8)
        .max_segments(64)
        .open()
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && !text.contains('\0')
}

fn is_namespace(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

impl State {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Get { name, thing, value } => self.get(&name.text(), *thing, *value),
            Step::Fail { name, thing } => self.fail(&name.text(), *thing),
            Step::Nest { name, inner, value } => self.nest(&name.text(), &inner.text(), *value),
            Step::Remove { name } => self.remove(&name.text()),
            Step::List => self.list(),
            Step::Open { namespace } => self.open(namespace),
        }
    }

    /// Compares an outcome with what the name stands for; true if the thing was handed out.
    fn expect<T>(&self, name: &str, thing: Thing, outcome: &Result<T, Error>) -> bool {
        match (outcome, self.names.get(name)) {
            (Err(Error::InvalidName { .. }), None) => assert!(!is_name(name)),
            (Err(Error::Mismatch(mismatch)), Some((there, _))) => {
                assert_ne!(*there, thing);
                assert_eq!(
                    (mismatch.there.kind, mismatch.asked.kind),
                    (there.kind(), thing.kind())
                );
                assert!(mismatch.to_string().contains(name));
            }
            (Err(Error::InvalidOption { .. }), None) => assert_eq!(thing, Thing::Bytes(0)),
            (Ok(_), Some((there, _))) => {
                assert_eq!(*there, thing);
                return true;
            }
            (Ok(_), None) => {
                assert!(is_name(name));
                return true;
            }
            (Err(error), there) => panic!("{error}, of {name:?}, which is {there:?}"),
        }
        false
    }

    fn get(&mut self, name: &str, thing: Thing, value: u64) {
        let expected = self.names.get(name).map_or(value, |(_, value)| *value);
        let handed_out = match thing {
            Thing::Word => {
                let made = self.registry.segment::<Word>(name, |at| at.write(Word::new(value)));
                let good = self.expect(name, thing, &made);
                if let Ok(segment) = made {
                    assert_eq!(segment.load(Ordering::Relaxed), expected);
                    self.kept.push((segment, expected));
                }
                good
            }
            Thing::Words => {
                let made = self.registry.segment::<Words>(name, |words| {
                    words.iter_mut().for_each(|word| *word.get_mut() = value);
                    Ok(())
                });
                if let Ok(segment) = &made {
                    assert!(segment.iter().all(|word| word.load(Ordering::Relaxed) == expected));
                }
                self.expect(name, thing, &made)
            }
            Thing::Bytes(length) => {
                let byte = value as u8;
                let made = self.registry.segment_bytes(name, usize::from(length), |bytes| {
                    assert!(bytes.iter().all(|byte| *byte == 0));
                    bytes.fill(byte);
                    Ok(())
                });
                if let Ok(bytes) = &made {
                    assert_eq!(bytes.len(), usize::from(length));
                    let same = |at: &std::sync::atomic::AtomicU8| {
                        at.load(Ordering::Relaxed) == expected as u8
                    };
                    assert!(bytes.iter().all(same));
                    assert!(bytes.read(usize::from(length), &mut [0]).is_err());
                }
                self.expect(name, thing, &made)
            }
            Thing::Area => {
                let made = self.registry.area(name);
                if let Ok(area) = &made {
                    let pointer = area.allocate(value).expect("there is memory");
                    assert_eq!(area.read(pointer).expect("it is allocated"), value);
                }
                self.expect(name, thing, &made)
            }
            Thing::WordTable => {
                let made = self.registry.hash::<u64, u64>(name);
                let good = self.expect(name, thing, &made);
                if let Ok(table) = made {
                    let guard = table.entry(&7).expect("nothing is held").or_insert(value);
                    assert_eq!(*guard.expect("there is memory"), expected);
                }
                good
            }
            Thing::SmallTable => {
                let made = self.registry.hash::<u32, [u8; 12]>(name);
                let good = self.expect(name, thing, &made);
                if let Ok(table) = made {
                    let guard =
                        table.entry(&7).expect("nothing is held").or_insert([value as u8; 12]);
                    assert_eq!(*guard.expect("there is memory"), [expected as u8; 12]);
                }
                good
            }
        };
        if handed_out {
            self.names.insert(name.to_owned(), (thing, expected));
        }
    }

    fn fail(&mut self, name: &str, thing: Thing) {
        let refuse = || Err::<(), BoxError>("no".into());
        let failed = match thing {
            Thing::Word => self.registry.segment::<Word>(name, |_| refuse()).err(),
            Thing::Words => self.registry.segment::<Words>(name, |_| refuse()).err(),
            Thing::Bytes(length) => {
                self.registry.segment_bytes(name, usize::from(length), |_| refuse()).err()
            }
            // These have no initialiser.
            Thing::Area | Thing::WordTable | Thing::SmallTable => return,
        };
        match failed {
            Some(Error::Initialiser { .. }) => assert!(!self.names.contains_key(name)),
            Some(error) => drop(self.expect::<()>(name, thing, &Err(error))),
            None => assert_eq!(self.names.get(name).map(|(there, _)| *there), Some(thing)),
        }
    }

    fn nest(&mut self, name: &str, inner: &str, value: u64) {
        let registry = self.registry.clone();
        let mut asked = None;
        let made = self.registry.segment::<Word>(name, |at| {
            let found = registry.segment::<Word>(inner, |at| at.write(Word::new(value)));
            if inner == name {
                assert!(matches!(found, Err(Error::OwnInitialiser { .. })));
            }
            at.write(Word::new(value))?;
            asked = Some(found);
            Ok(())
        });
        if let Some(found) = asked.filter(|_| inner != name)
            && self.expect(inner, Thing::Word, &found)
        {
            self.names.entry(inner.to_owned()).or_insert((Thing::Word, value));
        }
        if self.expect(name, Thing::Word, &made) {
            self.names.entry(name.to_owned()).or_insert((Thing::Word, value));
        }
    }

    fn remove(&mut self, name: &str) {
        match (self.registry.remove(name), self.names.remove(name)) {
            (Ok(()), Some(_)) | (Err(Error::NotFound { .. }), None) => {}
            (Err(Error::InvalidName { .. }), None) => assert!(!is_name(name)),
            (other, there) => panic!("{other:?}, of {name:?}, which was {there:?}"),
        }
        for (segment, value) in &self.kept {
            assert_eq!(segment.load(Ordering::Relaxed), *value);
        }
        if self.kept.len() > 8 {
            self.kept.clear();
        }
    }

    fn list(&self) {
        let listed = self.registry.list().expect("the namespace is in order");
        let found: Vec<_> = listed.iter().map(|item| (item.name.as_str(), item.kind)).collect();
        let expected: Vec<_> =
            self.names.iter().map(|(name, (thing, _))| (name.as_str(), thing.kind())).collect();
        assert_eq!(found, expected);
        for item in &listed {
            if let Thing::Bytes(length) = self.names[&item.name].0 {
                assert_eq!(item.size, u64::from(length));
            }
        }
    }

    fn open(&self, namespace: &str) {
        match open(namespace, &self.directory) {
            Ok(registry) => {
                assert!(is_namespace(namespace));
                let names = registry.list().expect("the namespace is in order").len();
                assert_eq!(names, if namespace == "fuzz" { self.names.len() } else { 0 });
            }
            Err(Error::InvalidNamespaceName { .. }) => assert!(!is_namespace(namespace)),
            Err(error) => panic!("{error}, of namespace {namespace:?}"),
        }
    }
}
