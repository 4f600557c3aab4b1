//! The calls. Each is made once under the limit, and once more after it if it failed.

use dsm_core::namespace::{Discard, Namespace, Platform};
use dsm_registry::{AreaOptions, AtomicDsaPointer, HashOptions, Registry};

use crate::world::{FOUND, What, World};

/// What a call says: its error's text.
type Said = Result<(), String>;

pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) world: fn(&str) -> World,
    pub(crate) run: fn(&mut World) -> Said,
}

const fn call(name: &'static str, world: fn(&str) -> World, run: fn(&mut World) -> Said) -> Call {
    Call { name, world, run }
}

fn said<T, E: ToString>(result: Result<T, E>) -> Said {
    result.map(drop).map_err(|e| e.to_string())
}

pub(crate) const CALLS: &[Call] = &[
    call("open", World::nothing, |world| said(Registry::open(&world.name))),
    call("open-persistent", World::persistent, |world| said(Registry::open(&world.name))),
    call("leave", World::open, |world| {
        world.what = What::Nothing;
        Ok(())
    }),
    call("inspect", World::open, |world| {
        let seen = Registry::inspect(&world.name).map_err(|e| e.to_string())?;
        said(seen.names())
    }),
    call("namespaces", World::open, |_| said(Registry::namespaces())),
    call("reap-from-outside", World::persistent, |world| {
        said(Registry::builder(&world.name).reap())
    }),
    call("destroy", World::persistent, |world| match Registry::destroy(&world.name) {
        Err(error) if error.is_not_found() => Ok(()),
        result => said(result),
    }),
    call("segment", World::open, |world| {
        said(world.opened().registry.segment::<u64>("new", |value| value.write(7)))
    }),
    call("segment-again", World::open, |world| {
        said(world.opened().registry.segment::<u64>("segment", |value| value.write(7)))
    }),
    call("bytes", World::open, |world| {
        let registry = &world.opened().registry;
        said(registry.segment_bytes("bytes", 2 << 20, |_| Ok(())))
    }),
    call("bytes-huge", World::open, |world| {
        // More than the small file system has, ever.
        let registry = &world.opened().registry;
        let large = registry.segment_bytes("huge", 12 << 20, |_| Ok(()));
        said(large)
    }),
    call("area", World::open, |world| {
        said(world.opened().registry.area_with("new", AreaOptions::new()))
    }),
    call("hash", World::open, |world| {
        let options = HashOptions::new().partitions(64);
        said(world.opened().registry.hash_with::<u64, u64>("new", options))
    }),
    call("list", World::open, |world| said(world.opened().registry.list())),
    call("remove", World::open, |world| match world.opened().registry.remove("segment") {
        Err(error) if error.is_not_found() => Ok(()),
        result => said(result),
    }),
    call("remove-forced", World::open, |world| {
        match world.opened().registry.remove_forced("segment") {
            Err(error) if error.is_not_found() => Ok(()),
            result => said(result),
        }
    }),
    call("reap", World::open, |world| said(world.opened().registry.reap())),
    call("reaper", World::open, |world| said(world.opened().registry.spawn_reaper())),
    call("allocate", World::open, |world| {
        let area = &world.opened().area;
        said((0..2000).try_for_each(|_| area.allocate([1_u64; 30]).map(drop)))
    }),
    call("allocate-large", World::open, |world| {
        said(world.opened().area.allocate_unwritten::<[u64; 1 << 18]>())
    }),
    call("allocate-slice", World::open, |world| {
        said(world.opened().area.allocate_slice(&vec![1_u64; 100_000]))
    }),
    call("allocate-box", World::open, |world| {
        said(world.opened().area.allocate_box([1_u64; 1000]))
    }),
    call("allocate-into", World::open, |world| {
        let open = world.opened();
        let place = open.area.allocate(0_u64).map_err(|e| e.to_string())?;
        // SAFETY: an object of eight bytes, which nobody else knows.
        let place = unsafe { open.area.as_ref(place.cast::<AtomicDsaPointer>()) };
        said(open.area.allocate_into([1_u64; 3000], place.expect("it was allocated")))
    }),
    call("read-and-write", World::open, |world| {
        let open = world.opened();
        let value = open.area.read(open.object).map_err(|e| e.to_string())?;
        said(open.area.write(open.object, &(value + 1)))
    }),
    call("free", World::open, |world| {
        let open = world.opened();
        // SAFETY: nobody uses them.
        unsafe { open.area.free(open.object) }.map_err(|e| e.to_string())?;
        // SAFETY: as above.
        said(unsafe { open.area.free(open.large) })
    }),
    call("insert", World::open, |world| {
        let table = &world.opened().table;
        said((0..8000_u64).try_for_each(|key| table.insert(&key, [key; 8]).map(drop)))
    }),
    call("look", World::open, |world| {
        let table = &world.opened().table;
        table.get(&1).map_err(|e| e.to_string())?;
        table.find(&1).map(drop).map_err(|e| e.to_string())?;
        table.stats().map(drop).map_err(|e| e.to_string())?;
        said(table.iter().map(Iterator::count))
    }),
    call("change", World::open, |world| {
        let table = &world.opened().table;
        let value = table.find_mut(&1).map_err(|e| e.to_string())?;
        *value.expect("it is there") = [9; 8];
        table.remove(&2).map_err(|e| e.to_string())?;
        table.trim().map_err(|e| e.to_string())
    }),
    call("clear", World::open, |world| said(world.opened().table.clear())),
    call("found-look", World::found, |world| {
        let table = &world.opened().table;
        (0..FOUND).try_for_each(|key| said(table.get(&key)))?;
        (0..FOUND).try_for_each(|key| said(table.find(&key)))
    }),
    call("found-look-at-many", World::found, |world| {
        let (keys, mut first) = ((0..FOUND).collect::<Vec<_>>(), Ok(()));
        let table = &world.opened().table;
        let looked = table.get_many(&keys, |_, value| {
            if first.is_ok() {
                first = said(value);
            }
        });
        said(looked).and(first)
    }),
    call("found-walk", World::found, |world| {
        let entries = world.opened().table.iter().map_err(|e| e.to_string())?;
        let entries: Result<Vec<_>, _> = entries.collect();
        said(entries)
    }),
    call("found-change", World::found, |world| {
        let table = &world.opened().table;
        (0..FOUND).try_for_each(|key| said(table.find_mut(&key)))?;
        (0..FOUND).try_for_each(|key| said(table.entry(&key)))
    }),
    call("found-insert", World::found, |world| {
        let table = &world.opened().table;
        (FOUND..2 * FOUND).try_for_each(|key| said(table.insert(&key, [key; 8])))
    }),
    call("found-remove", World::found, |world| {
        let table = &world.opened().table;
        (0..FOUND).try_for_each(|key| said(table.remove(&key)))
    }),
    call("found-clear", World::found, |world| said(world.opened().table.clear())),
    call("found-trim", World::found, |world| said(world.opened().table.trim())),
    call("found-check", World::found, |world| said(world.opened().table.check())),
    call("found-stats", World::found, |world| said(world.opened().table.stats())),
    call("found-read", World::found, |world| {
        let open = world.opened();
        let value = open.area.read(open.object).map_err(|e| e.to_string())?;
        said(open.area.write(open.object, &(value + 1)))
    }),
    call("found-allocate", World::found, |world| {
        let area = &world.opened().area;
        said((0..2000).try_for_each(|_| area.allocate([1_u64; 30]).map(drop)))
    }),
    call("found-free", World::found, |world| {
        let open = world.opened();
        // SAFETY: nobody uses it.
        said(unsafe { open.area.free(open.large) })
    }),
    call("another-thread", World::open, |world| {
        let table = world.opened().table.clone();
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        let thread = thread.spawn(move || table.insert(&5000, [5; 8]));
        let thread = thread.map_err(|_| "a thread could not be started".to_owned())?;
        said(thread.join().expect("no panic"))
    }),
    call("cores-create-huge", World::cores, |world| {
        // Of addresses, not of memory.
        said(world.joined().first.create_object(1 << 30, 4096))
    }),
    call("cores-create", World::cores, |world| {
        said(world.joined().first.create_object(2 << 20, 2 << 20))
    }),
    call("cores-attach", World::cores, |world| {
        let cores = world.joined();
        let handle = cores.segment.as_ref().expect("made").handle();
        let (_, second) = cores.second.as_ref().expect("joined");
        said(second.attach_segment(handle))
    }),
    call("cores-reserve", World::cores, |world| {
        said(world.joined().segment.as_ref().expect("made").reserve(0..4 << 20))
    }),
    call("cores-discard", World::cores, |world| {
        let cores = world.joined();
        let env = cores.first.platform();
        let platform = Platform { provider: env.provider, env: env.env };
        let patience = std::time::Duration::from_secs(10);
        said(Namespace::discard(cores.system, platform, patience, Discard::Unusable))
    }),
    call("cores-leave", World::cores, |world| {
        let (system, second) = world.joined().second.take().expect("joined");
        said(second.leave(system))
    }),
];
