//! Twenty real failures, each as a program's `main` would return it.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use dsm_registry::system::Directory;
use dsm_registry::{AreaOptions, Builder, DsaPointer, DsaPtr, HashOptions, HashTable, Registry};

type Failure = Box<dyn Error>;
type Outcome = Result<(), Failure>;
/// Fails in a directory of its own, in which nothing is yet.
type Fail = fn(&Path) -> Outcome;

/// What goes wrong, and how.
pub(crate) const ALL: [(&str, Fail); 20] = [
    ("a namespace's name with a slash", namespace_name),
    ("an empty name", empty_name),
    ("three partitions", partitions),
    ("a directory that is not there", no_directory),
    ("a control object of somebody else's", foreign),
    ("a look at what is not there", no_namespace),
    ("the removal of what is not there", not_found),
    ("the removal of a namespace in use", in_use),
    ("a name as another type", mismatch),
    ("an initialiser without its file", initialiser),
    ("an initialiser that asks for its own name", own_initialiser),
    ("an initialiser that takes long", slow_initialiser),
    ("more than the machine has", shared_memory_full),
    ("a table at its limit", table_full),
    ("an area at its limit", area_full),
    ("the last segment slot", slots_full),
    ("a lock that somebody else has", timeout),
    ("a lock of one's own", own_lock),
    ("a value that was being changed", poisoned),
    ("a pointer to nothing", wild_pointer),
];

fn builder(directory: &Path) -> Builder {
    Registry::builder("demo").provider(Directory::new(directory))
}

fn table(directory: &Path) -> Result<HashTable<u64, u64>, Failure> {
    let table = builder(directory).open()?.hash("hits")?;
    table.insert(&1, 1)?;
    Ok(table)
}

fn namespace_name(_: &Path) -> Outcome {
    Registry::open("app/cache")?;
    Ok(())
}

fn empty_name(directory: &Path) -> Outcome {
    builder(directory).open()?.area("")?;
    Ok(())
}

fn partitions(directory: &Path) -> Outcome {
    let options = HashOptions::new().partitions(3);
    builder(directory).open()?.hash_with::<u64, u64>("hits", options)?;
    Ok(())
}

fn no_directory(directory: &Path) -> Outcome {
    builder(&directory.join("missing")).open()?;
    Ok(())
}

fn foreign(directory: &Path) -> Outcome {
    builder(directory).persistent(true).open()?;
    // The only object of a namespace in which there is nothing but its table of names.
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let length = std::fs::metadata(&path)?.len();
        std::fs::write(&path, vec![b'x'; length.try_into()?])?;
    }
    builder(directory).open()?;
    Ok(())
}

fn no_namespace(directory: &Path) -> Outcome {
    builder(directory).inspect()?;
    Ok(())
}

fn not_found(directory: &Path) -> Outcome {
    Ok(builder(directory).open()?.remove("hits")?)
}

fn in_use(directory: &Path) -> Outcome {
    let _registry = builder(directory).open()?;
    Ok(builder(directory).destroy()?)
}

fn mismatch(directory: &Path) -> Outcome {
    let registry = builder(directory).open()?;
    let _hits = registry.hash::<u64, u64>("hits")?;
    registry.hash::<u64, [u8; 16]>("hits")?;
    Ok(())
}

fn initialiser(directory: &Path) -> Outcome {
    let file = directory.join("limit");
    builder(directory)
        .open()?
        .segment::<u64>("limit", |limit| limit.write(std::fs::read_to_string(&file)?.parse()?))?;
    Ok(())
}

fn own_initialiser(directory: &Path) -> Outcome {
    let (registry, mut inner) = (builder(directory).open()?, Ok(()));
    registry.segment::<u64>("limit", |_| {
        inner = registry.segment::<u64>("limit", |_| Ok(())).map(drop);
        Ok(())
    })?;
    Ok(inner?)
}

fn slow_initialiser(directory: &Path) -> Outcome {
    let patience = Duration::from_millis(20);
    let registry = builder(directory).initialiser_patience(patience).open()?;
    let mut waited = Ok(());
    registry.segment::<u64>("limit", |_| {
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| registry.segment::<u64>("limit", |_| Ok(())).map(drop));
            waited = waiter.join().expect("no panic");
        });
        Ok(())
    })?;
    Ok(waited?)
}

fn shared_memory_full(_: &Path) -> Outcome {
    let registry = Registry::open(&testkit::name("full"))?;
    // More than any machine has.
    registry.segment_bytes("frames", 1 << 42, |_| Ok(()))?;
    Ok(())
}

fn table_full(directory: &Path) -> Outcome {
    let options = HashOptions::new().partitions(1).limit(192 << 10);
    let table = builder(directory).open()?.hash_with::<u64, [u64; 64]>("hits", options)?;
    for key in 0..10_000 {
        table.insert(&key, [key; 64])?;
    }
    Ok(())
}

fn area_full(directory: &Path) -> Outcome {
    let area = builder(directory).open()?.area_with("work", AreaOptions::new().limit(1 << 20))?;
    for _ in 0..10_000 {
        area.allocate([7_u64; 100])?;
    }
    Ok(())
}

fn slots_full(directory: &Path) -> Outcome {
    let registry = builder(directory).max_segments(4).open()?;
    let mut all = Vec::new();
    for number in 0..10 {
        all.push(registry.segment::<u64>(&format!("limit {number}"), |_| Ok(()))?);
    }
    Ok(())
}

fn timeout(directory: &Path) -> Outcome {
    let table = table(directory)?;
    let _guard = table.find_mut(&1)?;
    let other = || table.within(Duration::from_millis(10)).insert(&1, 2).map(drop);
    Ok(std::thread::scope(|scope| scope.spawn(other).join().expect("no panic"))?)
}

fn own_lock(directory: &Path) -> Outcome {
    let table = table(directory)?;
    let _guard = table.find_mut(&1)?;
    table.insert(&1, 2)?;
    Ok(())
}

fn poisoned(directory: &Path) -> Outcome {
    let table = table(directory)?;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _guard = table.find_mut(&1).expect("it is free");
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(panicked.is_err());
    table.get(&1)?;
    Ok(())
}

fn wild_pointer(directory: &Path) -> Outcome {
    let area = builder(directory).open()?.area("work")?;
    let made_up: DsaPtr<u64> = DsaPointer::from_raw(area.allocate(7_u64)?.raw() + 4).cast();
    area.read(made_up)?;
    Ok(())
}
