//! What there is to do in the swarm, and the generator that decides: each worker's plan follows
//! from the seed, its seat and how often the seat was taken, however the processes run.

/// A small deterministic generator (splitmix).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self(seed.wrapping_add(stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

macro_rules! kinds {
    ($(#[$about:meta])* $name:ident { $($kind:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum $name { $($kind,)+ }

        impl $name {
            pub(crate) const ALL: &[Self] = &[$(Self::$kind,)+];

            pub(crate) fn text(self) -> &'static str {
                match self { $(Self::$kind => $text,)+ }
            }
        }
    };
}

kinds! {
    /// What workers do; somebody is to be killed in the midst of each.
    Kind {
        LockExclusive = "lock exclusive",
        LockShared = "lock shared",
        LockTimed = "lock within a time, or not at all",
        SegmentCreate = "create and pin a segment, unpin another's",
        SegmentAttach = "attach and detach a segment",
        AllocateInto = "allocate into a word",
        FreeFrom = "free from a word, or move",
        AllocateBare = "allocate and free",
        FreeRemote = "free what another allocated",
        Trim = "trim an area",
        TableAccount = "add to an entry of one's own",
        TableHot = "change an entry of everybody's",
        TableEntry = "insert, remove, look up",
        TableGrow = "let a table grow",
        TableShrink = "let a table shrink",
        TableScan = "scan a table",
        TableScanRemove = "scan a table and remove",
        TableTrim = "trim a table",
        NameSegment = "get or create a named segment",
        NameTable = "get or create a named table, remove it",
        NameRemove = "remove a name",
        Open = "open and leave a namespace",
        Reap = "reap the dead",
        Fork = "fork",
    }
}

kinds! {
    /// How a thread ends without its destructors, in a process that lives on.
    Raw {
        Idle = "holding nothing",
        Exclusive = "holding a lock",
        Shared = "holding a lock shared",
        Both = "holding one lock shared and another",
        Entry = "amid the change of an entry",
        Reading = "looking at an entry",
        Inserting = "making the value of a new entry",
        Scanning = "amid a scan that removes",
        Initialising = "initialising a name",
        Allocating = "filling in an unpublished object",
    }
}

kinds! {
    /// What a process does that was forked off while its parent held guards.
    Child {
        Exits = "exits at once",
        Works = "works until it is killed, or kills itself",
        Leaves = "works, and leaves in order",
        Dies = "kills itself soon",
    }
}

kinds! {
    /// What happens, and is counted.
    Event {
        Kills = "kills",
        Suicides = "processes that killed themselves, holding something",
        Stops = "stops",
        Massacres = "times that all were killed at once",
        LocksFromDead = "locks had from dead owners",
        Poisoned = "poisoned entries repaired",
        Initialised = "names initialised after a dead initialiser",
        Cleaned = "namespaces cleaned after the death of all in it",
        Resumed = "namespaces taken over after the death of all in it",
    }
}
