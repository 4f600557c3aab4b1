//! Real processes that are killed by SIGKILL while they change a table in POSIX shared memory.
#![cfg(target_os = "linux")]

use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use dsa_core::{Area, AreaLocal, DsaPointer, Heap, HeapLocal, Options};
use dshash_core::{Error, MAX_SEGMENT_SIZE, Params, Table, TableHandle};
use dsm_core::handle::SegmentHandle;
use dsm_core::lock::rw::RwLock;
use dsm_core::namespace::{LocalSegment, Namespace, NamespaceConfig, Platform, ProcessLocal};
use dsm_core::participant::ParticipantLocal;
use platform_posix::Shm;

const ROUNDS: u64 = 30;
const KEYS: u64 = 4000;
const NAMESPACE: &str = "DSHASH_TEST_NAMESPACE";

type Words = Table<u64, [u64; 3], &'static Area<'static, RwLock>>;

fn forever<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// Joins the namespace; what it borrows lives as long as the process.
fn join(name: &str) -> (&'static Shm, &'static Namespace<'static>) {
    let shm = forever(Shm::new(name).unwrap());
    let config = NamespaceConfig::default();
    let records: Vec<_> = (0..config.max_segments).map(|_| LocalSegment::new()).collect();
    let local = forever(ProcessLocal::new(forever(AtomicU64::new(0)), records.leak()));
    let platform = Platform { provider: shm, env: forever(shm.environment()) };
    (shm, forever(Namespace::open(shm, platform, &config, local).unwrap().0))
}

fn heap_in(
    namespace: &'static Namespace<'static>,
    area: &'static Area<'static, RwLock>,
) -> &'static Heap<'static, RwLock> {
    let thread = forever(ParticipantLocal::new());
    namespace.register(thread).unwrap();
    let participant = forever(namespace.participant(thread));
    forever(area.heap(participant, forever(HeapLocal::new())).unwrap())
}

fn value(key: u64, version: u64) -> [u64; 3] {
    [version, key ^ version, key.wrapping_mul(version | 1)]
}

/// What a victim does until it is killed: everything, at random.
fn work(name: &str) -> ! {
    let number = |variable| std::env::var(variable).unwrap().parse::<u64>().unwrap();
    let (_, namespace) = join(name);
    let area = SegmentHandle::from_raw(number("DSHASH_TEST_AREA")).unwrap();
    let area = Area::<RwLock>::attach(namespace, area, forever(AreaLocal::new())).unwrap();
    let area = forever(area);
    let heap = heap_in(namespace, area);
    let handle = TableHandle(DsaPointer::from_raw(number("DSHASH_TEST_TABLE")));
    // SAFETY: the parent keeps the table.
    let table = unsafe { Words::attach(area, handle, &params()) }.unwrap();
    let session = table.bind(heap).unwrap();
    let mut random = number("DSHASH_TEST_SEED") | 1;
    loop {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (key, version) = ((random >> 33) % KEYS, random >> 20);
        let result = match random >> 60 {
            0..=5 => session.insert(&key, value(key, version)).map(drop),
            6..=9 => session.delete(&key).map(drop),
            10..=13 => session.find_exclusive(&key).map(|guard| {
                if let Some(mut guard) = guard {
                    *guard = value(key, version);
                }
            }),
            14 => session.get(&key).map(drop),
            _ => session.repair(&key, |v| *v = value(key, version)).map(drop),
        };
        match result {
            Ok(()) | Err(Error::Poisoned) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn params() -> Params {
    Params { partitions: 4, ..Params::default() }
}

/// Kills its children also when an assertion fails.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn survives_sigkill_at_random_moments() {
    if let Ok(name) = std::env::var(NAMESPACE) {
        work(&name);
    }
    let name = format!("dshash-test-{}", std::process::id());
    let (shm, namespace) = join(&name);
    let options = Options { maximum: MAX_SEGMENT_SIZE, ..Options::default() };
    let area = Area::<RwLock>::create(namespace, &options, forever(AreaLocal::new())).unwrap();
    let area = forever(area);
    let heap = heap_in(namespace, area);
    let table = Words::create(area, heap, &params()).unwrap();
    let session = table.bind(heap).unwrap();
    let spawn = |seed: u64| {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["survives_sigkill_at_random_moments", "--exact", "--nocapture"])
            .env(NAMESPACE, &name)
            .env("DSHASH_TEST_AREA", area.handle().unwrap().get().to_string())
            .env("DSHASH_TEST_TABLE", table.handle().0.raw().to_string())
            .env("DSHASH_TEST_SEED", seed.to_string())
            .stdout(Stdio::null())
            .spawn();
        Victim(child.unwrap())
    };
    let mut changed = 0;
    for round in 0..ROUNDS {
        let before = table.len();
        let mut victims = [spawn(round * 2 + 1), spawn(round * 7 + 3)];
        std::thread::sleep(Duration::from_millis(40 + round * 7 % 50));
        for victim in &mut victims {
            assert!(victim.0.try_wait().unwrap().is_none(), "it is killed, it does not end");
            victim.0.kill().unwrap();
            victim.0.wait().unwrap();
        }
        let report = session.check().unwrap();
        assert_eq!(report.stats.entries, table.len());
        let mut found = 0;
        let mut scan = session.scan();
        while let Some(entry) = scan.next().unwrap() {
            match entry.value() {
                Ok(seen) => assert_eq!(*seen, value(*entry.key(), seen[0]), "half a value"),
                Err(Error::Poisoned) => found += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(found, report.poisoned);
        drop(scan);
        heap.maintain().unwrap();
        let objects = area.check(heap.participant()).unwrap().objects;
        assert_eq!(objects, report.stats.allocations, "a leak in round {round}");
        changed += u64::from(table.len() != before);
    }
    assert!(changed > ROUNDS / 2, "the victims had time to work in {changed} rounds only");
    // SAFETY: all others are dead.
    unsafe { table.destroy(heap) }.unwrap();
    assert_eq!(area.check(heap.participant()).unwrap().objects, 0);
    // SAFETY: not used any more: the references to it are not either.
    let namespace = unsafe { core::ptr::read(namespace) };
    namespace.leave(shm).unwrap();
    let left = std::fs::read_dir("/dev/shm")
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(&name));
    assert_eq!(left.count(), 0);
}
