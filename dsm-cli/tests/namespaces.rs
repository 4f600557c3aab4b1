//! `dsm ls`, `show`, `rm` and `reap`, on namespaces of real processes.

use common::{dsm, text};
use dsm_registry::Registry;
use testkit::process::Peer;

mod common;

/// A command that must succeed: what it says.
fn ok(arguments: &[&str]) -> String {
    let output = dsm(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn json(arguments: &[&str]) -> serde_json::Value {
    serde_json::from_str(&ok(&[arguments, &["--json"]].concat())).unwrap()
}

/// What `dsm ls` says of all namespaces. Its status tells whether each could be looked at, and so
/// of those that other tests damage at this moment. It lists nothing if one can't even be opened.
fn list() -> serde_json::Value {
    of_all(&["ls", "--json"])
}

fn of_all(arguments: &[&str]) -> serde_json::Value {
    for _ in 0..1000 {
        if let Ok(list) = serde_json::from_slice(&dsm(arguments).stdout) {
            return list;
        }
    }
    panic!("{}", text(&dsm(arguments).stderr));
}

/// A command that must fail: its complaint.
fn fails(arguments: &[&str]) -> String {
    let output = dsm(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

/// Another process that lives in a namespace, and holds an entry of its table "hits".
struct Tenant {
    /// `None` once it was killed.
    peer: Option<Peer>,
    pid: u32,
    namespace: String,
}

impl Tenant {
    fn start(namespace: &str) -> Self {
        let mut peer = Peer::start("tenant", "tenant", &[namespace]);
        peer.expect("moved in");
        Self { pid: peer.id(), peer: Some(peer), namespace: namespace.to_owned() }
    }

    fn pid(&self) -> u64 {
        u64::from(self.pid)
    }

    /// As `kill`, and leaves the rest to the test.
    fn forget(mut self) {
        if let Some(mut peer) = self.peer.take() {
            peer.kill_and_collect();
        }
    }

    fn kill(mut self) {
        if let Some(mut peer) = self.peer.take() {
            peer.kill_and_collect();
        }
    }
}

impl Drop for Tenant {
    fn drop(&mut self) {
        if let Some(peer) = self.peer.take() {
            peer.end();
            let _ = Registry::builder(&self.namespace).reap();
        }
    }
}

/// No test by itself: the body of the process that `Tenant::start` starts.
#[test]
fn tenant() {
    let Some(part) = testkit::process::part() else { return };
    let registry = Registry::open(part.argument(0)).unwrap();
    let hits = registry.hash::<u64, u64>("hits").unwrap();
    let guard = hits.entry(&1).unwrap().or_insert(7).unwrap();
    part.say("moved in");
    part.hear();
    drop(guard);
}

fn row<'a>(list: &'a serde_json::Value, namespace: &str) -> Option<&'a serde_json::Value> {
    list.as_array().unwrap().iter().find(|row| row["namespace"] == namespace)
}

#[test]
fn a_namespace_is_listed_and_shown() {
    let name = testkit::name("shown");
    let tenant = Tenant::start(&name);

    let list = list();
    let seen = row(&list, &name).unwrap();
    assert_eq!((&seen["processes"], &seen["dead"]), (&1.into(), &0.into()));
    assert!(seen["segments"].as_u64().unwrap() >= 2 && seen["reserved"].as_u64().unwrap() > 0);
    assert!(
        text(&dsm(&["ls"]).stdout)
            .lines()
            .any(|line| line.starts_with(&name) && line.ends_with("in use"))
    );

    let shown = json(&["show", &name]);
    let process = &shown["processes"][0];
    assert_eq!(process["pid"], tenant.pid());
    assert_eq!((&process["dead"], &process["threads"]), (&false.into(), &1.into()));
    assert!(process["locks"].as_u64().unwrap() >= 1, "it holds an entry: {shown}");
    assert_eq!(shown["names"][0]["name"], "hits");
    assert_eq!(shown["names"][0]["kind"], "hash table");
    assert_eq!(shown["names"][0]["attached"], 1, "looking is not attaching");
    let plain = ok(&["show", &name]);
    assert!(plain.starts_with(&format!("namespace {name}: 1 of 128 processes")), "{plain}");
    assert!(plain.contains("locks held") && plain.contains("pinned"), "{plain}");
    assert!(plain.contains("a hash table from u64 (8 bytes"), "{plain}");
}

#[test]
fn what_is_used_is_not_removed_unless_forced() {
    let name = testkit::name("removed");
    let tenant = Tenant::start(&name);
    let complaint = fails(&["rm", &name]);
    assert!(complaint.contains("1 process(es) live in namespace"), "{complaint}");
    assert!(fails(&["rm", &name, "hits"]).contains("in use by 1 other process"));
    assert!(fails(&["rm", &name, "nothing"]).contains("there is no \"nothing\""));

    assert!(ok(&["rm", &name, "hits", "--force"]).contains("removed hits"));
    assert_eq!(json(&["show", &name])["names"], serde_json::json!([]));
    assert_eq!(json(&["rm", &name, "--force"])["gone"], false, "its tenant lives");
    tenant.kill();
    assert_eq!(json(&["rm", &name])["gone"], true);
    assert!(matches!(Registry::inspect(&name), Err(e) if e.is_not_found()));
}

#[test]
fn the_dead_are_reaped_and_the_living_left_alone() {
    let name = testkit::name("reaped");
    let (first, second) = (Tenant::start(&name), testkit::name("alive"));
    let alive = Tenant::start(&second);
    let pid = first.pid();
    first.kill();

    for _ in 0..2 {
        // Looking changes nothing, so that one can look again.
        let estates = of_all(&["reap", "--dry-run", "--json"]);
        let estate = row(&estates, &name).unwrap();
        assert_eq!(estate["dead"], serde_json::json!([pid]));
        assert_eq!(
            (&estate["reaped"], &estate["removes_namespace"]),
            (&false.into(), &true.into())
        );
        assert!(estate["locks"].as_u64().unwrap() >= 1);
        assert!(row(&estates, &second).is_none(), "{estates}");
        assert_eq!(row(&list(), &name).unwrap()["dead"], 1);
    }
    assert_eq!(json(&["show", &name])["names"][0]["name"], "hits", "the evidence is there");

    assert!(ok(&["reap", &name]).contains("removed as a whole"));
    assert!(row(&list(), &name).is_none());
    assert!(ok(&["reap", &second]).contains("the dead left nothing"));
    assert_eq!(row(&list(), &second).unwrap()["processes"], 1);
    alive.kill();
    ok(&["reap", &second]);
}

/// Each hint can be typed as it stands, and says what will be.
#[test]
fn what_all_have_left_is_told_with_what_to_do() {
    for persistent in [false, true] {
        let name = testkit::name("hint");
        let tenant = Tenant::start(&name);
        let registry = Registry::open(&name).unwrap();
        registry.set_persistent(persistent).unwrap();
        let shared = |command: &[&str]| {
            let all = ok(command);
            all.lines().find(|line| line.contains(&name)).unwrap().to_owned()
        };
        assert!(shared(&["ls"]).contains("in use"));
        if !persistent {
            tenant.forget();
            let line = shared(&["ls"]);
            assert!(line.contains(&format!("1 dead: `dsm reap {name}` sweeps them")), "{line}");
            drop(registry);
        } else {
            drop(registry);
            tenant.forget();
            let line = shared(&["ls"]);
            let hint = format!("persistent, all dead: `dsm reap {name}` frees");
            assert!(line.contains(&hint) && !line.contains("removes"), "{line}");
            assert!(ok(&["reap", &name]).contains("its contents stay"));
            assert!(shared(&["ls"]).contains("persistent, nobody in it"));
            ok(&["rm", &name]);
        }
        assert!(row(&json(&["ls"]), &name).is_none());
    }
}

#[test]
fn segments_without_a_control_object_are_told_and_left_alone() {
    let name = testkit::name("orphaned");
    let registry = Registry::open(&name).unwrap();
    let value = registry.segment::<u64>("value", |value| value.write(1)).unwrap();
    let control = testkit::system::control_of(&name);
    std::fs::rename(&control, control.with_extension("away")).unwrap();
    for arguments in [&["reap", &name, "--dry-run"][..], &["reap", &name]] {
        let estates = json(arguments);
        let estate = row(&estates, &name).unwrap();
        assert_eq!((&estate["orphaned"], &estate["reaped"]), (&true.into(), &false.into()));
    }
    assert!(text(&dsm(&["ls"]).stdout).contains("its control object is gone"));
    std::fs::rename(control.with_extension("away"), &control).unwrap();
    drop((registry, value));
    assert!(row(&list(), &name).is_none());
}

/// A control object that its creator left without a size, or without a word in it.
#[test]
fn what_was_never_finished_is_swept() {
    let name = testkit::name("unfinished");
    for content in [&[][..], &[0; 5000]] {
        for command in [["reap", name.as_str()], ["rm", name.as_str()]] {
            testkit::system::plant_control(&name, content);
            let seen = list();
            let error = row(&seen, &name).unwrap()["error"].to_string();
            assert!(error.contains("its creator has not finished it"), "{error}");
            let estates = json(&["reap", &name, "--dry-run"]);
            let estate = row(&estates, &name).unwrap();
            assert_eq!((&estate["unfinished"], &estate["reaped"]), (&true.into(), &false.into()));
            assert!(ok(&command).contains("removed"), "{command:?} of {} bytes", content.len());
            assert!(row(&list(), &name).is_none());
        }
    }
}

/// One that is not what it was. Whoever lives in it keeps it there.
#[test]
fn what_can_not_be_entered_is_removed() {
    let name = testkit::name("damaged");
    let control = testkit::system::control_of(&name);
    let open = || Registry::builder(&name).persistent(true).open().unwrap();
    for len in [0, 4, 100, 5000] {
        drop(open().segment::<u64>("value", |value| value.write(1)).unwrap());
        let whole = std::fs::read(&control).unwrap();
        std::fs::write(&control, &whole[..len]).unwrap();
        if len != 0 {
            let complaint = fails(&["show", &name]);
            assert!(complaint.contains(&format!("remove it, by `dsm rm {name}`")), "{complaint}");
            assert!(fails(&["reap", &name]).contains("cut off"), "not unasked");
        }
        assert!(ok(&["rm", &name]).contains("removed"));
        if len != 0 {
            assert_eq!(testkit::system::objects_of(&name), <[std::path::PathBuf; 0]>::default());
        } else {
            // What is left is nobody's: it may be in use by processes that nothing tells of.
            for left in testkit::system::objects_of(&name) {
                std::fs::remove_file(left).unwrap();
            }
        }
    }

    let tenant = Tenant::start(&name);
    let whole = std::fs::read(&control).unwrap();
    let write = |bytes: &[u8]| {
        use std::io::Write;
        std::fs::File::options().write(true).open(&control).unwrap().write_all(bytes).unwrap();
    };
    write(&[&whole[..64], &8_u64.to_le_bytes()].concat());
    assert!(fails(&["show", &name]).contains("damaged: lock_at is out of range"));
    assert!(fails(&["rm", &name]).contains("1 process(es) live in namespace"));
    write(&whole[..72]);
    tenant.kill();
    ok(&["reap", &name]);
}

#[test]
fn what_is_not_there_is_an_error_and_stays_so() {
    let name = testkit::name("absent");
    for command in [&["show", &name][..], &["rm", &name], &["rm", &name, "x"], &["reap", &name]] {
        let complaint = fails(command);
        assert!(complaint.contains(&format!("there is no namespace {name:?}")), "{complaint}");
    }
    assert!(row(&list(), &name).is_none(), "nothing was created by looking");
}

/// Neither that the reader of a pipe has gone nor that a disk is full is a reason to panic.
#[cfg(target_os = "linux")]
#[test]
fn output_that_nobody_takes_is_no_crash() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    for (stdout, complaint) in [
        (std::process::Stdio::from(writer), ""),
        (full.into(), "cannot write to the standard output"),
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dsm"));
        let output = command.args(["ls", "--json"]).stdout(stdout).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains(complaint), "{said}");
        assert_eq!(said.is_empty(), complaint.is_empty(), "{said}");
    }
}

/// What the platform knows reaches who typed the command: whose it is, and what to do.
#[cfg(unix)]
#[test]
fn whose_a_namespace_is_that_is_not_trusted_is_said() {
    let name = testkit::name("cli-whose");
    testkit::system::plant_control(&name, &[]);
    let control = testkit::system::control_of(&name);
    if std::os::unix::fs::chown(&control, Some(4711), None).is_ok() {
        for command in ["show", "reap", "rm"] {
            let said = fails(&[command, &name]);
            for word in ["user 4711", "run this as that user", &name] {
                assert!(said.contains(word), "{command}: {word} in {said}");
            }
        }
        let said = text(&dsm(&["ls"]).stdout);
        assert!(said.contains("user 4711"), "{said}");
    }
    std::fs::remove_file(control).unwrap();
}
