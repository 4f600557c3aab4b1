//! What a call works on, and what can be counted of it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use dsm_core::namespace::{Namespace, NamespaceConfig};
use dsm_core::segment::Segment;
use dsm_registry::{Area, DsaPtr, HashTable, Registry};
use testkit::system::System;

/// A value of a table: large enough that some thousands need segments of their own.
pub(crate) type Value = [u64; 8];

/// Entries of the table that others have made: more than fit into a few segments.
pub(crate) const FOUND: u64 = 5000;

/// A namespace as a process has it open, with something of everything in it.
pub(crate) struct Open {
    pub(crate) registry: Registry,
    pub(crate) area: Area,
    pub(crate) table: HashTable<u64, Value>,
    pub(crate) object: DsaPtr<u64>,
    /// A run of pages in a segment of its own.
    pub(crate) large: DsaPtr<[u64; 1 << 17]>,
}

/// Two processes of a namespace, in one, by the cores alone.
pub(crate) struct Cores {
    pub(crate) system: &'static System,
    pub(crate) first: &'static Namespace<'static>,
    pub(crate) second: Option<(&'static System, Namespace<'static>)>,
    pub(crate) segment: Option<Segment<'static>>,
}

pub(crate) enum What {
    /// Nobody has opened it.
    Nothing,
    Open(Box<Open>),
    Cores(Box<Cores>),
}

pub(crate) struct World {
    pub(crate) name: String,
    pub(crate) what: What,
    /// Whether it is there while nobody is in it.
    kept: bool,
    /// Before anything was opened.
    descriptors: usize,
    mappings: usize,
}

/// What could be left behind.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Census {
    objects: BTreeSet<PathBuf>,
    names: Vec<String>,
    descriptors: usize,
}

impl World {
    fn new(name: &str) -> Self {
        let (descriptors, mappings) = (count_descriptors(), count_mappings(name));
        Self { name: name.to_owned(), what: What::Nothing, kept: false, descriptors, mappings }
    }

    pub(crate) fn nothing(name: &str) -> Self {
        // What a process makes once, and keeps, is there already.
        drop(Registry::open(&format!("{name}-first")).unwrap());
        Self::new(name)
    }

    pub(crate) fn open(name: &str) -> Self {
        let mut world = Self::nothing(name);
        let registry = Registry::open(name).unwrap();
        let area = registry.area("area").unwrap();
        let table = registry.hash("table").unwrap();
        for key in 0..100 {
            table.insert(&key, [key; 8]).unwrap();
        }
        registry.segment::<u64>("segment", |value| value.write(1)).unwrap();
        let object = area.allocate(1).unwrap();
        let large = area.allocate_unwritten().unwrap();
        world.what = What::Open(Box::new(Open { registry, area, table, object, large }));
        world
    }

    /// As [`open`](Self::open), of what others have made: its memory is there, and most of it not
    /// yet mapped here.
    pub(crate) fn found(name: &str) -> Self {
        let mut world = Self::nothing(name);
        let maker = Registry::builder(name).persistent(true).open().unwrap();
        let area = maker.area("area").unwrap();
        let table = maker.hash::<u64, Value>("table").unwrap();
        for key in 0..FOUND {
            table.insert(&key, [key; 8]).unwrap();
        }
        maker.segment::<u64>("segment", |value| value.write(1)).unwrap();
        let large = area.allocate_unwritten().unwrap();
        let objects: Vec<_> = (0..2000_u64).map(|n| area.allocate([n; 30]).unwrap()).collect();
        let object = objects.last().unwrap().cast();
        drop((maker, area, table));
        let registry = Registry::open(name).unwrap();
        registry.set_persistent(false).unwrap();
        let (area, table) = (registry.area("area").unwrap(), registry.hash("table").unwrap());
        world.what = What::Open(Box::new(Open { registry, area, table, object, large }));
        world
    }

    /// Nobody is in it, and it is there.
    pub(crate) fn persistent(name: &str) -> Self {
        let world = Self { kept: true, ..Self::nothing(name) };
        let registry = Registry::builder(name).persistent(true).open().unwrap();
        registry.hash::<u64, Value>("table").unwrap().insert(&1, [1; 8]).unwrap();
        world
    }

    pub(crate) fn cores(name: &str) -> Self {
        let mut world = Self::nothing(name);
        let config = NamespaceConfig::default();
        let (system, first) = testkit::system::join(name, &config);
        let first = testkit::system::forever(first);
        let second = Some(testkit::system::join(name, &config));
        let segment = Some(first.create_object(4 << 20, 4096).unwrap());
        world.what = What::Cores(Box::new(Cores { system, first, second, segment }));
        world
    }

    pub(crate) fn opened(&mut self) -> &mut Open {
        match &mut self.what {
            What::Open(open) => open,
            _ => panic!("not open"),
        }
    }

    pub(crate) fn joined(&mut self) -> &mut Cores {
        match &mut self.what {
            What::Cores(cores) => cores,
            _ => panic!("not joined"),
        }
    }

    pub(crate) fn census(&self) -> Census {
        let mut names = Vec::new();
        if matches!(self.what, What::Open(_)) {
            // From outside: who lists from within maps everything.
            let seen = Registry::inspect(&self.name).unwrap();
            names.extend(seen.names().unwrap().into_iter().map(|listing| listing.name));
        }
        Census { objects: self.objects(), names, descriptors: count_descriptors() }
    }

    fn objects(&self) -> BTreeSet<PathBuf> {
        testkit::system::objects_of(&self.name).into_iter().collect()
    }

    /// Whoever opened it, or tried to, has left.
    pub(crate) fn assert_gone_with_its_last(&self) {
        if matches!(self.what, What::Nothing) && !self.kept {
            assert_eq!(self.objects(), BTreeSet::new(), "left by the last one");
        }
    }

    /// Nothing was left by a call that failed. An area may have grown.
    pub(crate) fn assert_unchanged(&self, before: &Census) {
        let after = self.census();
        assert_eq!(after.names, before.names);
        // One that is kept for leaving may have been used up.
        assert!(after.descriptors <= before.descriptors, "{after:?} after {before:?}");
        match Registry::inspect(&self.name) {
            Ok(seen) => {
                let known = seen.segments().inspect(|s| assert!(s.settled, "half made: {s:?}"));
                let known = known.filter(|s| !s.handle.is_main_region()).count();
                assert_eq!(after.objects.len(), known + 1, "{:?}", after.objects);
            }
            Err(_) => assert_eq!(after.objects, before.objects),
        }
    }

    /// Whatever a namespace is for.
    pub(crate) fn assert_works(&mut self) {
        if let What::Open(open) = &self.what {
            *open.table.entry(&7).unwrap().or_insert([0; 8]).unwrap() = [8; 8];
            let object = open.area.allocate([1_u64; 100]).unwrap();
            // SAFETY: nobody else knows it.
            unsafe { open.area.free(object) }.unwrap();
            open.table.check().unwrap();
        }
    }

    /// Everybody leaves: nothing is left.
    pub(crate) fn end(self) {
        let Self { name, what, kept: _, descriptors, mappings } = self;
        match what {
            What::Nothing => {
                if let Ok(registry) = Registry::builder(&name).open() {
                    registry.set_persistent(false).unwrap();
                }
            }
            What::Open(open) => drop(open),
            What::Cores(cores) => {
                let Cores { system, first, second, segment } = *cores;
                drop(segment);
                if let Some((system, second)) = second {
                    second.leave(system).unwrap();
                }
                // SAFETY: leaked, and not used any more.
                unsafe { std::ptr::read(first) }.leave(system).unwrap();
            }
        }
        assert_eq!(testkit::system::objects_of(&name), Vec::<PathBuf>::new(), "left behind");
        assert_eq!(count_descriptors(), descriptors, "descriptors are left");
        assert_eq!(count_mappings(&name), mappings, "mappings are left");
    }
}

fn count_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc is there").count()
}

fn count_mappings(name: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc is there");
    maps.lines().filter(|line| line.contains(name)).count()
}
