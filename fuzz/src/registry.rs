//! The registry: any sequence of names, kinds and sizes, asked for by two processes, against a
//! plain map of what each name stands for.
//!
//! Whoever asks for what a name stands for gets it, with what was put there; whoever asks for
//! something else is told both sides; what can't be a name is refused; a failed initialiser leaves
//! the name free; a name that another process has attached is removed by force only. Two types with
//! one tag are one to shared memory, and never to one process. When the last process leaves, no
//! object stays.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use arbitrary::{Arbitrary, Unstructured};
use dsm_registry::{
    AreaOptions, BoxError, Error, ErrorKind, HashOptions, Kind, MAX_NAME, Mismatch, Registry,
    Segment, SegmentOptions, TypeTag,
};
use sim::HeapMachine;

use crate::platform::Machine;

/// Steps of a case at most.
const STEPS: usize = 60;
/// Segments that a namespace can have.
const SEGMENTS: u32 = 32;

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
    /// A segment of a type by a tag that another one has, too.
    Tagged {
        signed: bool,
    },
    /// A table of such values.
    TaggedTable {
        signed: bool,
    },
}

impl Thing {
    fn kind(self) -> Kind {
        match self {
            Self::Word | Self::Words | Self::Tagged { .. } => Kind::Segment,
            Self::Bytes(_) => Kind::Bytes,
            Self::Area => Kind::Area,
            Self::WordTable | Self::SmallTable | Self::TaggedTable { .. } => Kind::Hash,
        }
    }

    /// Whether shared memory takes one for the other.
    fn fits(self, other: Self) -> bool {
        match (self, other) {
            (Self::Tagged { .. }, Self::Tagged { .. }) => true,
            (Self::TaggedTable { .. }, Self::TaggedTable { .. }) => true,
            (one, other) => one == other,
        }
    }
}

fn tag() -> TypeTag {
    TypeTag::named("word", 1)
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// Asks for a thing and puts a value there, or looks at the one there is.
    Get {
        by: bool,
        name: Name,
        thing: Thing,
        value: u64,
    },
    /// As `Get`, with an initialiser that fails.
    Fail {
        by: bool,
        name: Name,
        thing: Thing,
    },
    /// As `Get`, with an initialiser that asks for another name, which may be its own.
    Nest {
        by: bool,
        name: Name,
        inner: Name,
        value: u64,
    },
    Remove {
        by: bool,
        name: Name,
        force: bool,
    },
    List {
        by: bool,
    },
    /// Opens a namespace of that name.
    Open {
        namespace: String,
    },
    /// The second process leaves.
    Leave,
}

type Word = AtomicU64;
type Words = [AtomicU64; 4];

/// What a name stands for.
struct There {
    /// As its creator asked for it.
    thing: Thing,
    /// What was put there.
    value: u64,
    /// Tells it from what the name stood for before.
    life: u64,
}

/// A process.
struct Side {
    registry: Registry,
    machine: Machine,
    /// What it has attached by name, of which life, and as what.
    attached: BTreeMap<String, (u64, Thing)>,
    /// Handles that are kept, with their values, which must stay good after a removal.
    kept: Vec<(Segment<Word>, u64)>,
}

struct State {
    machine: HeapMachine,
    /// The second process comes when it is needed.
    sides: [Option<Side>; 2],
    names: BTreeMap<String, There>,
    lives: u64,
}

/// Runs one case.
pub fn run(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let machine = new_machine();
    let mut state = State { machine, sides: [None, None], names: BTreeMap::new(), lives: 0 };
    state.side(false);
    for _ in 0..STEPS {
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        state.take(&step);
        if input.is_empty() {
            break;
        }
    }
    state.list(false);
    let [first, second] = state.sides;
    first.into_iter().chain(second).for_each(Side::leave);
    assert_eq!((state.machine.objects().len(), state.machine.used()), (0, 0));
}

fn new_machine() -> HeapMachine {
    let machine = HeapMachine::new();
    machine.set_most_segments(SEGMENTS as usize);
    machine
}

fn open(namespace: &str, machine: &Machine) -> Result<Registry, Error> {
    Registry::builder(namespace)
        .provider(machine.clone())
        .max_processes(4)
        .max_participants(8)
        .max_segments(SEGMENTS)
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

/// A message has the name as the language writes it, with escapes.
fn check_message(mismatch: &Mismatch, name: &str) {
    assert_eq!(mismatch.name, name);
    let text = mismatch.to_string();
    assert!(text.contains(&format!("{name:?}")), "{text}");
    for side in [&mismatch.there, &mismatch.asked] {
        assert!(text.contains(&side.to_string()), "{text}");
    }
}

impl Side {
    fn leave(self) {
        let Self { registry, machine, attached: _, kept } = self;
        drop((registry, kept));
        assert_eq!(machine.process().mapped(), 0);
    }
}

impl State {
    fn side(&mut self, by: bool) -> &mut Side {
        let machine = &self.machine;
        self.sides[usize::from(by)].get_or_insert_with(|| {
            let machine = Machine::of(machine.process());
            let registry = open("fuzz", &machine).expect("there is a slot");
            Side { registry, machine, attached: BTreeMap::new(), kept: Vec::new() }
        })
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Get { by, name, thing, value } => self.get(*by, &name.text(), *thing, *value),
            Step::Fail { by, name, thing } => self.fail(*by, &name.text(), *thing),
            Step::Nest { by, name, inner, value } => {
                self.nest(*by, &name.text(), &inner.text(), *value);
            }
            Step::Remove { by, name, force } => self.remove(*by, &name.text(), *force),
            Step::List { by } => self.list(*by),
            Step::Open { namespace } => self.open(namespace),
            Step::Leave => {
                if let Some(side) = self.sides[1].take() {
                    side.leave();
                }
            }
        }
    }

    /// Compares an outcome with what the name stands for; true if the thing was handed out.
    fn expect<T>(&self, by: bool, name: &str, thing: Thing, outcome: &Result<T, Error>) -> bool {
        let there = self.names.get(name);
        let attached = self.sides[usize::from(by)].as_ref().and_then(|s| s.attached.get(name));
        let used = there.and_then(|there| attached.filter(|(life, _)| *life == there.life));
        match (outcome.as_ref().map_err(Error::kind), there) {
            (Err(ErrorKind::InvalidName { .. }), None) => assert!(!is_name(name)),
            (Err(ErrorKind::Mismatch(mismatch)), Some(there)) => {
                check_message(mismatch, name);
                assert_eq!(mismatch.asked.kind, thing.kind());
                assert_eq!(mismatch.there.kind, there.thing.kind());
                // Either shared memory knows better, or this process.
                let other = used.is_some_and(|(_, used)| *used != thing);
                assert_eq!(mismatch.in_this_process, there.thing.fits(thing));
                assert!(!mismatch.in_this_process || other);
            }
            (Err(ErrorKind::InvalidOption { .. }), None) => assert_eq!(thing, Thing::Bytes(0)),
            (Ok(_), Some(there)) => {
                assert!(there.thing.fits(thing));
                assert!(used.is_none_or(|(_, used)| *used == thing), "one of two types");
                return true;
            }
            (Ok(_), None) => {
                assert!(is_name(name));
                return true;
            }
            (Err(error), there) => {
                panic!("{error}, of {name:?}, which is {:?}", there.map(|there| there.thing))
            }
        }
        false
    }

    /// Notes that a process has got a thing, and what is there if it was made just now.
    fn got(&mut self, by: bool, name: &str, thing: Thing, value: u64) {
        self.lives += 1;
        let life = self.lives;
        let there = self.names.entry(name.to_owned()).or_insert(There { thing, value, life });
        let life = there.life;
        self.side(by).attached.insert(name.to_owned(), (life, thing));
    }

    fn get(&mut self, by: bool, name: &str, thing: Thing, value: u64) {
        let expected = self.names.get(name).map_or(value, |there| there.value);
        let registry = self.side(by).registry.clone();
        let handed_out = match thing {
            Thing::Word => {
                let made = registry.segment::<Word>(name, |at| at.write(Word::new(value)));
                let good = self.expect(by, name, thing, &made);
                if let Ok(segment) = made {
                    assert_eq!(segment.load(Ordering::Relaxed), expected);
                    self.side(by).kept.push((segment, expected));
                }
                good
            }
            Thing::Words => {
                let made = registry.segment::<Words>(name, |words| {
                    words.iter_mut().for_each(|word| *word.get_mut() = value);
                    Ok(())
                });
                if let Ok(segment) = &made {
                    assert!(segment.iter().all(|word| word.load(Ordering::Relaxed) == expected));
                }
                self.expect(by, name, thing, &made)
            }
            Thing::Bytes(length) => {
                let (byte, length) = (value as u8, usize::from(length));
                let made = registry.segment_bytes(name, length, |bytes| {
                    assert!(bytes == vec![0; length]);
                    bytes.fill(byte);
                    Ok(())
                });
                if let Ok(bytes) = &made {
                    assert_eq!(bytes.len(), length);
                    // The ends, and some between: each is read by itself.
                    let same = |at: &AtomicU8| at.load(Ordering::Relaxed) == expected as u8;
                    assert!(bytes.iter().step_by(61).chain(bytes.last()).all(same));
                    assert!(bytes.read(length, &mut [0]).is_err());
                }
                self.expect(by, name, thing, &made)
            }
            Thing::Area => {
                let options = AreaOptions::new().first_segment(64 << 10);
                let made = registry.area_with(name, options);
                if let Ok(area) = &made {
                    let pointer = area.allocate(value).expect("there is memory");
                    assert_eq!(area.read(pointer).expect("it is allocated"), value);
                }
                self.expect(by, name, thing, &made)
            }
            Thing::WordTable => {
                let made = registry.hash::<u64, u64>(name);
                let good = self.expect(by, name, thing, &made);
                if let Ok(table) = made {
                    let guard = table.entry(&7).expect("nothing is held").or_insert(value);
                    assert_eq!(*guard.expect("there is memory"), expected);
                }
                good
            }
            Thing::SmallTable => {
                let made = registry.hash::<u32, [u8; 12]>(name);
                let good = self.expect(by, name, thing, &made);
                if let Ok(table) = made {
                    let guard =
                        table.entry(&7).expect("nothing is held").or_insert([value as u8; 12]);
                    assert_eq!(*guard.expect("there is memory"), [expected as u8; 12]);
                }
                good
            }
            Thing::Tagged { signed } => {
                let options = SegmentOptions::new().tag(tag());
                let made = if signed {
                    let made =
                        registry.segment_with::<i64>(name, options, |at| at.write(value as i64));
                    made.map(|segment| *segment as u64)
                } else {
                    let made = registry.segment_with::<u64>(name, options, |at| at.write(value));
                    made.map(|segment| *segment)
                };
                assert!(made.as_ref().map_or(true, |value| *value == expected));
                self.expect(by, name, thing, &made)
            }
            Thing::TaggedTable { signed } => {
                let options = HashOptions::new().tags(tag(), tag());
                let made = if signed {
                    registry.hash_with::<i64, i64>(name, options).map(|table| {
                        let entry = table.entry(&7).expect("nothing is held");
                        *entry.or_insert(value as i64).expect("there is memory") as u64
                    })
                } else {
                    registry.hash_with::<u64, u64>(name, options).map(|table| {
                        let entry = table.entry(&7).expect("nothing is held");
                        *entry.or_insert(value).expect("there is memory")
                    })
                };
                assert!(made.as_ref().map_or(true, |value| *value == expected));
                self.expect(by, name, thing, &made)
            }
        };
        if handed_out {
            self.got(by, name, thing, expected);
        }
    }

    fn fail(&mut self, by: bool, name: &str, thing: Thing) {
        let refuse = || Err::<(), BoxError>("no".into());
        let registry = &self.side(by).registry;
        let failed = match thing {
            Thing::Word => registry.segment::<Word>(name, |_| refuse()).err(),
            Thing::Words => registry.segment::<Words>(name, |_| refuse()).err(),
            Thing::Bytes(length) => {
                registry.segment_bytes(name, usize::from(length), |_| refuse()).err()
            }
            // These have no initialiser, or are asked for often enough.
            Thing::Area | Thing::WordTable | Thing::SmallTable => return,
            Thing::Tagged { .. } | Thing::TaggedTable { .. } => return,
        };
        match failed {
            Some(error) if error.initialiser_error().is_some() => {
                assert!(!self.names.contains_key(name))
            }
            Some(error) => drop(self.expect::<()>(by, name, thing, &Err(error))),
            None => {
                assert_eq!(self.names.get(name).map(|there| there.thing), Some(thing));
                self.got(by, name, thing, 0);
            }
        }
    }

    fn nest(&mut self, by: bool, name: &str, inner: &str, value: u64) {
        let registry = self.side(by).registry.clone();
        let mut asked = None;
        let made = registry.segment::<Word>(name, |at| {
            let found = registry.segment::<Word>(inner, |at| at.write(Word::new(value)));
            if inner == name {
                assert!(matches!(
                    found.as_ref().map_err(Error::kind),
                    Err(ErrorKind::OwnInitialiser { .. })
                ));
            }
            at.write(Word::new(value))?;
            asked = Some(found);
            Ok(())
        });
        if let Some(found) = asked.filter(|_| inner != name)
            && self.expect(by, inner, Thing::Word, &found)
        {
            self.got(by, inner, Thing::Word, value);
        }
        if self.expect(by, name, Thing::Word, &made) {
            self.got(by, name, Thing::Word, value);
        }
    }

    /// How many processes have what a name stands for attached; but for one of them.
    fn attached(&self, name: &str, but: Option<bool>) -> u32 {
        let Some(there) = self.names.get(name) else { return 0 };
        let has = |side: &Option<Side>| {
            let side = side.as_ref()?.attached.get(name)?;
            (side.0 == there.life).then_some(())
        };
        let but = but.map(usize::from);
        let sides = self.sides.iter().enumerate().filter(|(index, _)| Some(*index) != but);
        sides.filter_map(|(_, side)| has(side)).count() as u32
    }

    fn remove(&mut self, by: bool, name: &str, force: bool) {
        let registry = self.side(by).registry.clone();
        let others = self.attached(name, Some(by));
        let removed = if force { registry.remove_forced(name) } else { registry.remove(name) };
        match (removed.map_err(Error::into_kind), self.names.get(name)) {
            (Ok(()), Some(_)) => {
                assert!(force || others == 0);
                self.names.remove(name);
                self.side(by).attached.remove(name);
            }
            (Err(ErrorKind::NotFound { .. }), None) => {}
            (Err(ErrorKind::InUse { processes, .. }), Some(_)) => {
                assert_eq!((processes, force), (others, false));
                assert!(others > 0);
            }
            (Err(ErrorKind::InvalidName { .. }), None) => assert!(!is_name(name)),
            (other, there) => {
                panic!("{other:?}, of {name:?}, which was {:?}", there.map(|there| there.thing))
            }
        }
        for side in self.sides.iter_mut().flatten() {
            for (segment, value) in &side.kept {
                assert_eq!(segment.load(Ordering::Relaxed), *value);
            }
            if side.kept.len() > 8 {
                side.kept.clear();
            }
        }
    }

    fn list(&mut self, by: bool) {
        let listed = self.side(by).registry.list().expect("the namespace is in order");
        let found: Vec<_> = listed.iter().map(|item| (item.name.as_str(), item.kind)).collect();
        let expected: Vec<_> =
            self.names.iter().map(|(name, there)| (name.as_str(), there.thing.kind())).collect();
        assert_eq!(found, expected);
        for item in &listed {
            if let Thing::Bytes(length) = self.names[&item.name].thing {
                assert_eq!(item.size, u64::from(length));
            }
            assert_eq!(item.attached, self.attached(&item.name, None), "of {:?}", item.name);
        }
    }

    fn open(&mut self, namespace: &str) {
        // A machine has one namespace, whatever it is called.
        let another = Machine::of(new_machine().process());
        let machine =
            if namespace == "fuzz" { &self.side(false).machine.clone() } else { &another };
        match open(namespace, machine).map_err(Error::into_kind) {
            Ok(registry) => {
                assert!(is_namespace(namespace));
                let names = registry.list().expect("the namespace is in order").len();
                assert_eq!(names, if namespace == "fuzz" { self.names.len() } else { 0 });
            }
            Err(ErrorKind::InvalidNamespaceName { .. }) => assert!(!is_namespace(namespace)),
            Err(error) => panic!("{error}, of namespace {namespace:?}"),
        }
    }
}
