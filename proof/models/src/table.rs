//! Models of the table: writers, readers without locks, splits and shrinking, and deaths in all of
//! it.
//!
//! Each key has one owner, who alone changes it, so that what the table must hold is known: of
//! those who live exactly what they did, of a victim all but the operation that it was in, which is
//! done or not (or, where it held the entry's guard, poisoned). What a reader gets is a value that
//! somebody wrote as a whole, not older than what it has seen before. When all is over, `check`
//! passes, and with the table destroyed nothing is used in its area.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use dshash_core::Error;
use dsm_core::sync::shuttle;

use crate::found::mark;
use crate::look::held_by;
use crate::model::Model;
use crate::play::{Ended, Play};
use crate::world::{User, keep, value};

pub(crate) const MODELS: &[Model] = &[
    Model {
        name: "table-change",
        about: "three processes insert, change, delete, read and scan in one partition",
        mortals: 2,
        share: 60,
        kinds: &[
            "holds a partition",
            "holds no lock",
            "somebody is dead already",
            "is done",
            "is not done",
            "is poisoned",
            "reads poison",
            "two die",
        ],
        act: |play| act(play, &Setting { prefill: 0, keys: 4, steps: 8, ..CHANGE }),
    },
    Model {
        name: "table-read",
        about: "a writer, and two readers without locks",
        mortals: 1,
        share: 60,
        kinds: &[
            "holds a partition",
            "reads",
            "reads nothing",
            "is done",
            "is not done",
            "is poisoned",
        ],
        act: |play| act(play, &Setting { prefill: 4, keys: 3, steps: 10, readers: 2, ..CHANGE }),
    },
    Model {
        name: "table-grow",
        about: "two writers fill a partition until it splits, one reads what was there before",
        mortals: 2,
        share: 40,
        kinds: &[
            "holds a partition",
            "holds a partition and a lock of the area",
            "the index grows",
            "is done",
            "is not done",
            "somebody is dead already",
            "two die",
        ],
        act: |play| {
            act(
                play,
                &Setting { prefill: 34, keys: 40, steps: 12, readers: 1, manner: Manner::Grow },
            );
        },
    },
    Model {
        name: "table-shrink",
        about: "two writers empty a partition, trim and clear, one reads",
        mortals: 2,
        share: 30,
        kinds: &[
            "holds a partition",
            "holds a partition and a lock of the area",
            "the index shrinks",
            "is done",
            "is not done",
            "two die",
        ],
        act: |play| {
            act(
                play,
                &Setting { prefill: 0, keys: 80, steps: 12, readers: 1, manner: Manner::Shrink },
            );
        },
    },
    Model {
        name: "table-count",
        about: "three processes count under the same keys, and repair each other's",
        mortals: 2,
        share: 60,
        kinds: &["holds a partition", "is poisoned", "repairs", "one dies", "two die"],
        act: count,
    },
];

#[derive(Clone, Copy)]
enum Manner {
    Any,
    Grow,
    Shrink,
}

#[derive(Clone, Copy)]
struct Setting {
    /// Keys that are there all the time, and that nobody changes.
    prefill: u64,
    /// Of each writer.
    keys: u64,
    steps: u64,
    /// Of the three actors, the last ones.
    readers: usize,
    manner: Manner,
}

const CHANGE: Setting = Setting { prefill: 0, keys: 6, steps: 8, readers: 0, manner: Manner::Any };
const ACTORS: usize = 3;
/// Keys that stay.
const STAYS: u64 = 1 << 20;

/// What one actor's key is, and what it is about to be.
type Versions = RefCell<BTreeMap<u64, (Option<u64>, Option<u64>)>>;

struct Scene {
    setting: Setting,
    /// By actor; of keys never touched, nothing.
    versions: [Versions; ACTORS],
}

impl Scene {
    fn key(&self, who: usize, index: u64) -> u64 {
        index * ACTORS as u64 + who as u64
    }

    /// Does to a key what makes it `after`; the observer knows both until it is done.
    fn change(&self, who: usize, key: u64, after: Option<u64>, operate: impl FnOnce()) {
        let before = self.now(who, key);
        self.versions[who].borrow_mut().insert(key, (before, after));
        operate();
        self.versions[who].borrow_mut().insert(key, (after, after));
    }

    /// The key that an actor is changing, if it is.
    fn unfinished(&self, who: usize) -> Option<u64> {
        let versions = self.versions[who].borrow();
        versions.iter().find(|(_, (before, after))| before != after).map(|(key, _)| *key)
    }

    fn now(&self, who: usize, key: u64) -> Option<u64> {
        self.versions[who].borrow().get(&key).and_then(|(_, now)| *now)
    }
}

fn step(who: usize, user: &User, scene: &Scene, round: u64) {
    let setting = &scene.setting;
    let key = scene.key(who, shuttle::random(setting.keys));
    let now = scene.now(who, key);
    let next = round + 1;
    let choice = match setting.manner {
        Manner::Any => shuttle::random(10),
        Manner::Grow => 0,
        Manner::Shrink => [4, 4, 4, 4, 4, 4, 4, 5, 10][shuttle::random(9) as usize],
    };
    let session = &user.session;
    // What a dead one was changing may be poisoned, as long as nobody changes it.
    let left = (0..ACTORS).any(|who| shuttle::is_dead(who) && scene.unfinished(who).is_some());
    let choice = if left && shuttle::random(2) == 0 { 5 } else { choice };
    match choice {
        0..=2 => scene.change(who, key, Some(next), || {
            let old = session.insert(&key, value(key, next)).expect("inserts");
            assert_eq!(old, now.map(|now| value(key, now)), "inserting {key}");
        }),
        3 | 8 if now.is_some() => scene.change(who, key, Some(next), || {
            let mut guard = session.find_exclusive(&key).expect("finds").expect("is there");
            for (word, new) in guard.iter_mut().zip(value(key, next)) {
                shuttle::point();
                *word = new;
            }
        }),
        4 => scene.change(who, key, None, || {
            let was = session.delete(&key).expect("deletes");
            assert_eq!(was, now.is_some(), "deleting {key}");
        }),
        5 | 6 => read(who, user, scene),
        7 => scan(user),
        10 => session.trim().expect("trims"),
        _ => {
            let found = session.find(&key).expect("finds").map(|guard| *guard);
            assert_eq!(found, now.map(|now| value(key, now)), "finding {key}");
        }
    }
}

/// Looks at somebody's key without a lock, twice.
fn read(who: usize, user: &User, scene: &Scene) {
    if scene.setting.prefill > 0 && shuttle::random(2) == 0 {
        let key = STAYS + shuttle::random(scene.setting.prefill);
        let found = user.session.get(&key).expect("reads");
        assert_eq!(found, Some(value(key, 0)), "{key} was always there");
        return;
    }
    let mut owner = shuttle::random((ACTORS - scene.setting.readers) as u64) as usize;
    if shuttle::random(2) == 0 {
        owner = (0..ACTORS - scene.setting.readers).find(|o| shuttle::is_dead(*o)).unwrap_or(owner);
    }
    // Rather what a dead one was changing: that may be poisoned.
    let key = scene.unfinished(owner).filter(|_| shuttle::is_dead(owner));
    let key = key.unwrap_or_else(|| scene.key(owner, shuttle::random(scene.setting.keys)));
    let known = scene.versions[owner].borrow().get(&key).copied();
    match user.session.get(&key) {
        Ok(Some(found)) => {
            mark("reads");
            assert_eq!(found, value(key, found[1]), "a torn value of {key}");
            // Versions only rise; what was finished before the read began is the oldest to be seen.
            if let Some((Some(before), _)) = known {
                assert!(found[1] >= before, "an old value of {key}");
            }
            if owner == who {
                assert_eq!(Some(found[1]), scene.now(who, key));
            }
        }
        Ok(None) => {
            mark("reads nothing");
            assert!(owner != who || scene.now(who, key).is_none(), "{key} is not found");
        }
        Err(Error::Poisoned) => {
            mark("reads poison");
            assert!(shuttle::is_dead(owner), "poison of somebody who lives");
        }
        Err(error) => panic!("{error:?}"),
    }
}

fn scan(user: &User) {
    let mut seen = BTreeMap::new();
    let mut scan = user.session.scan();
    while let Some(entry) = scan.next().expect("scans") {
        let key = *entry.key();
        match entry.value() {
            Ok(found) => assert_eq!(*found, value(key, found[1]), "a torn value of {key}"),
            Err(Error::Poisoned) => {}
            Err(error) => panic!("{error:?}"),
        }
        assert!(seen.insert(key, ()).is_none(), "{key} is there twice");
    }
}

fn look_at_locks(play: &mut Play, users: &[User]) {
    let users = users.to_vec();
    play.look(move |who| {
        let kit = users[who].kit;
        let table = users[who].session.table().handle().0;
        let address = kit.area.lock_address(table).expect("is mapped");
        let held = held_by(kit.member.process);
        let mine = held.iter().filter(|(_, at, _)| at.slot() == address.slot());
        let offsets: Vec<_> = mine.map(|(_, at, _)| at.offset()).collect();
        let of_table = offsets.iter().any(|offset| *offset >= address.offset());
        let of_area = offsets.iter().filter(|offset| **offset < address.offset()).count();
        let kinds = [
            (of_table, "holds a partition"),
            (of_table && of_area > 0, "holds a partition and a lock of the area"),
            (of_area > 1, "holds both locks of the area"),
        ];
        kinds.iter().filter(|(is, _)| *is).for_each(|(_, kind)| mark(kind));
    });
}

fn act(play: &mut Play, setting: &Setting) {
    let users = User::several(ACTORS + 1, 1);
    let judge = users[ACTORS];
    let scene: &Scene = keep(Scene { setting: *setting, versions: Default::default() });
    for key in (0..setting.prefill).map(|index| STAYS + index) {
        judge.session.insert(&key, value(key, 0)).expect("inserts");
    }
    if let Manner::Shrink = setting.manner {
        for (who, index) in (0..2).flat_map(|who| (0..setting.keys).map(move |index| (who, index)))
        {
            let key = scene.key(who, index);
            scene.change(who, key, Some(0), || {
                judge.session.insert(&key, value(key, 0)).expect("inserts");
            });
        }
        // Down to where the next deletions shrink it.
        for (who, index) in (0..2).flat_map(|who| (6..setting.keys).map(move |index| (who, index)))
        {
            let key = scene.key(who, index);
            scene.change(who, key, None, || {
                judge.session.delete(&key).expect("deletes");
            });
        }
    }
    let slots = |user: &User| user.session.partition_stats(0).map(|stats| stats.slots);
    let before = slots(&judge).expect("can be counted");
    for (who, user) in users.iter().copied().enumerate().take(ACTORS) {
        let reads = who >= ACTORS - setting.readers;
        play.actor(user.kit.member.process, move || {
            for round in 0..scene.setting.steps {
                match reads {
                    true => read(who, &user, scene),
                    false => step(who, &user, scene, round),
                }
            }
        });
    }
    look_at_locks(play, &users);
    let ended = play.perform();
    judge.session.check().expect("is sound");
    let after = slots(&judge).expect("can be counted");
    if after != before {
        mark(if after > before { "the index grows" } else { "the index shrinks" });
    }
    settle(&judge, scene, &ended);
    User::end(&users, &ended);
}

/// The table holds what the observer knows.
fn settle(judge: &User, scene: &Scene, ended: &Ended) {
    let mut entries = 0;
    for (who, versions) in scene.versions.iter().enumerate() {
        for (key, (before, after)) in versions.borrow().iter() {
            let possible = [*before, *after].map(|version| version.map(|v| value(*key, v)));
            match judge.session.get(key) {
                Ok(found) => {
                    assert!(
                        possible.contains(&found),
                        "{key} is {found:?}, neither of {possible:?}"
                    );
                    if before != after {
                        mark(if found == possible[1] { "is done" } else { "is not done" });
                        assert!(ended.dead[who], "{key} was left by somebody who lives");
                    }
                    entries += u64::from(found.is_some());
                }
                Err(Error::Poisoned) => {
                    mark("is poisoned");
                    assert!(ended.dead[who] && before != after, "{key} is poisoned by nobody");
                    let repaired = judge.session.repair(key, |v| *v = value(*key, 0));
                    assert_eq!(repaired, Ok(true), "poison cannot be repaired");
                    entries += 1;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    for key in (0..scene.setting.prefill).map(|index| STAYS + index) {
        assert_eq!(judge.session.get(&key), Ok(Some(value(key, 0))), "{key} was always there");
        entries += 1;
    }
    scan(judge);
    let counted = judge.session.check().expect("is sound").stats.entries;
    assert_eq!(counted, entries, "entries that nobody inserted, or the count is wrong");
}

/// Counts that all increase: three words of an entry that say the same.
fn count(play: &mut Play) {
    let users = User::several(ACTORS + 1, 1);
    let judge = users[ACTORS];
    let done: &[[Cell<u64>; 2]; ACTORS] = keep(Default::default());
    for (who, user) in users.iter().copied().enumerate().take(ACTORS) {
        play.actor(user.kit.member.process, move || {
            for round in 0..4 {
                let key = round % 2;
                increase(&user, key);
                let count = &done[who][key as usize];
                count.set(count.get() + 1);
            }
        });
    }
    look_at_locks(play, &users);
    let ended = play.perform();
    for key in 0..2u64 {
        if judge.session.get(&key) == Err(Error::Poisoned) {
            mark("is poisoned");
        }
        repair(&judge, key);
        let there = judge.session.get(&key).expect("is not poisoned").map_or(0, |value| value[0]);
        let finished: u64 = done.iter().map(|of| of[key as usize].get()).sum();
        let most = finished + ended.deaths() as u64;
        assert!((finished..=most).contains(&there), "{there} increments, {finished} finished");
    }
    User::end(&users, &ended);
}

/// Completes the increment that somebody had begun.
fn repair(user: &User, key: u64) {
    let repaired = user.session.repair(&key, |value| *value = [value[0]; 3]).expect("repairs");
    if repaired {
        mark("repairs");
    }
}

fn increase(user: &User, key: u64) {
    let mut guard = loop {
        match user.session.entry(&key).and_then(|entry| entry.or_insert([0; 3])) {
            Ok(guard) => break guard,
            Err(Error::Poisoned) => repair(user, key),
            Err(error) => panic!("{error:?}"),
        }
    };
    let now = *guard;
    assert_eq!(now, [now[0]; 3], "half an increment");
    for word in guard.iter_mut() {
        shuttle::point();
        *word += 1;
    }
}
