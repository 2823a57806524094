//! Every state that can be reached by a device and its daemon: what must not happen happens in
//! none, and from each of them all comes to rest. `CONTRIBUTING.md` says how to search further.
//!
//! Two states are the same if nothing tells them apart from now on. Points in time count as what
//! is left until then; back-off does not grow here, so a second failure in a row is the same
//! state as the first; of lives only the order matters, of processes only what they do.
//!
//! A deadline passes when nobody else has anything to do, and once also before that (`late`).

#[path = "../world/mod.rs"]
mod world;

mod search;

use std::env;
use std::time::Duration;

use devd_core::{Kind, Settings};
use search::search;
use world::chance::Choices;
use world::explore::{Explored, Plan};
use world::store::Spec;

/// States of one search, unless `DEVD_EXHAUSTIVE_STATES` says otherwise.
const MOST_STATES: usize = 30_000;

/// Deadlines that do not grow: the number of failures makes no other state.
fn settings() -> Settings {
    let retry = Duration::from_secs(60);
    Settings {
        retry_first: retry,
        look_first: retry,
        retry_max: retry,
        rerun_first: retry,
        rerun_forget: retry,
        ..Settings::default()
    }
}

/// Devices come, so many after one another, and go.
fn lives(creations: u8) -> Plan {
    Plan {
        creations,
        restarts: 0,
        vanishings: 0,
        repairs: 0,
        kexecs: 0,
        late: 0,
        detach: true,
        destroy: false,
    }
}

fn no_mishaps() -> Choices {
    Choices::new(0, 0, 0)
}

/// Searches, and says how many states there are.
fn explore(name: &str, specs: &[Spec], plan: Plan, mishaps: Choices) {
    let most = match env::var("DEVD_EXHAUSTIVE_STATES") {
        Ok(text) => text.parse().expect("DEVD_EXHAUSTIVE_STATES is a number"),
        Err(_) => MOST_STATES,
    };
    let found = search(&Explored::new(mishaps, settings(), plan), specs, most);
    let all = if found.complete { "all" } else { "the first" };
    println!("{name}: {all} {} states, {} steps deep", found.states, found.depth);
    if let Some(violation) = found.violation {
        panic!("{name}: {violation}");
    }
}

/// One device of this kind: one life with each mishap, two lives, and both.
fn explore_kind(kind: Kind) {
    let specs = [Spec::new(kind, 1, 0, "works")];
    let name = kind.name();
    let one = lives(1);
    let restart = Plan { restarts: 1, ..one.clone() };
    let vanish = Plan { vanishings: 1, ..one.clone() };
    let late = Plan { late: 1, ..one.clone() };
    let others = Plan { kexecs: 1, destroy: true, ..one.clone() };
    explore(&format!("{name}, a restart"), &specs, restart, no_mishaps());
    explore(&format!("{name}, a vanished directory"), &specs, vanish, no_mishaps());
    explore(&format!("{name}, a late party"), &specs, late, no_mishaps());
    explore(&format!("{name}, kexec, destroy"), &specs, others, no_mishaps());
    explore(&format!("{name}, a refused request"), &specs, one.clone(), Choices::new(1, 0, 0));
    explore(&format!("{name}, a failed hook or QEMU"), &specs, one, Choices::new(0, 1, 1));
    explore(&format!("{name}, two lives"), &specs, lives(2), no_mishaps());
    let all = Plan { restarts: 1, vanishings: 1, late: 1, ..lives(2) };
    explore(&format!("{name}, two lives and all mishaps"), &specs, all, Choices::new(1, 1, 1));
}

#[test]
fn network_interface() {
    explore_kind(Kind::Vif);
}

#[test]
fn disk_of_the_kernel() {
    explore_kind(Kind::Vbd);
}

#[test]
fn disk_of_qemu() {
    explore_kind(Kind::Qdisk);
}

#[test]
fn share_of_qemu() {
    explore_kind(Kind::P9);
}

#[test]
fn device_that_others_serve() {
    explore_kind(Kind::Vkbd);
}

/// Every reason for which a hook cannot be started, and what puts it right.
#[test]
fn hook_that_cannot_be_started() {
    for kind in [Kind::Vif, Kind::Vbd] {
        let with = |script: &str| Spec::new(kind, 1, 0, script);
        let mut cases = vec![
            ("bad name", with("bad/")),
            ("no program", with("missing")),
            ("not executable", with("locked")),
            ("no interpreter", with("uninterpreted")),
            ("no script", Spec { script: None, ..with("works") }),
        ];
        if kind == Kind::Vif {
            cases.push(("no type", Spec { vif_type: None, ..with("works") }));
            cases.push(("bad gatewaydev", Spec { gatewaydev: Some("eth\0"), ..with("works") }));
        }
        for (case, spec) in cases {
            let plan = Plan { repairs: 1, ..lives(1) };
            let name = format!("{}, {case}", kind.name());
            let spec = [spec];
            explore(&name, &spec, plan.clone(), no_mishaps());
            explore(&format!("{name}, a refused request"), &spec, plan, Choices::new(1, 0, 0));
        }
    }
}

#[test]
fn two_devices_that_share_a_qemu() {
    for kinds in [[Kind::Qdisk, Kind::Qdisk], [Kind::Qdisk, Kind::P9]] {
        let specs = [Spec::new(kinds[0], 1, 0, "works"), Spec::new(kinds[1], 1, 1, "works")];
        let name = format!("{} and {}", kinds[0].name(), kinds[1].name());
        explore(&name, &specs, lives(2), no_mishaps());
        explore(&format!("{name}, a failed QEMU"), &specs, lives(2), Choices::new(0, 0, 1));
        let restart = Plan { restarts: 1, ..lives(2) };
        explore(&format!("{name}, a restart"), &specs, restart, no_mishaps());
    }
}
