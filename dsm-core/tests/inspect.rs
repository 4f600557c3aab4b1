//! A look from outside shows what is there, and changes nothing.
#![cfg(not(loom))]

use dsm_core::inspect::Inspector;
use dsm_core::namespace::{Namespace, NamespaceConfig};
use dsm_core::participant::ParticipantLocal;
use dsm_core::provider::Root;
use sim::HeapMachine;

#[test]
fn an_inspector_sees_the_living_and_the_dead_and_changes_nothing() {
    let machine = HeapMachine::new();
    let (first, second, tool) = (machine.process(), machine.process(), machine.process());
    let config = NamespaceConfig { persistent: true, ..NamespaceConfig::default() };
    let (local, other_local) = (first.local(), second.local());
    let (namespace, _) = Namespace::open(&first, first.platform(), &config, &local).unwrap();
    let (other, _) = Namespace::open(&second, second.platform(), &config, &other_local).unwrap();
    let thread = ParticipantLocal::new();
    let id = namespace.register(&thread).unwrap();
    let segment = namespace.create_segment(5000, 4096).unwrap();
    let seen_by_both = other.attach_segment(segment.handle()).unwrap().unwrap();
    namespace.pin_segment(segment.handle()).unwrap();
    let child = namespace.create_segment(100, 100).unwrap();
    namespace.pin_segment_under(child.handle(), segment.handle()).unwrap();
    namespace.root(3).store(77, core::sync::atomic::Ordering::Relaxed);
    second.kill();

    let objects = machine.objects().len();
    let mapping = tool.peek().unwrap();
    // SAFETY: mapped until the end of the test.
    let inspector = unsafe { Inspector::new(&mapping, tool.platform().env) }.unwrap().unwrap();
    let info = inspector.info();
    assert!(info.persistent && info.max_segments == config.max_segments);
    assert_eq!(inspector.root(3), 77);
    assert_eq!(inspector.root(1000), 0);
    let processes: Vec<_> = inspector.processes().map(|p| (p.proof.pid, p.dead)).collect();
    assert_eq!(processes, [(first.pid(), false), (second.pid(), true)]);
    let own = inspector.participants().find(|p| p.id == id).unwrap();
    assert!(!own.dead && own.held.iter().all(Option::is_none));
    assert_eq!(inspector.participants().filter(|p| p.dead).count(), 1);
    let segments: Vec<_> = inspector.segments().collect();
    assert_eq!(segments.len(), 2);
    assert_eq!((segments[0].handle, segments[0].size), (segment.handle(), 5000));
    assert_eq!((segments[0].attached, segments[0].pinned, segments[0].under), (2, true, None));
    assert_eq!(segments[1].under, Some(segment.handle()));
    // SAFETY: the inspector is not used any more.
    unsafe { tool.unmap(mapping) };

    assert_eq!(machine.objects().len(), objects);
    assert_eq!(namespace.attached_processes(segment.handle()), Some(2), "nobody was swept");
    drop(seen_by_both);
}
