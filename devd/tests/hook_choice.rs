//! Which hook a device gets: a script, or a built-in one.

mod support;

use support::{Device, World};

#[test]
fn a_sites_own_script_goes_before_the_built_in_hook() {
    let world = World::new();
    let _kernel = world.kernel();
    let _devd = world.devd(&[]);
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_connected(&device);
    assert_eq!(world.calls(&device), ["vif-bridge online type_if=vif"]);
    assert_eq!(world.logged("hook vif-bridge: the script "), 1);
}

#[test]
fn unknown_hook_name_is_refused_and_the_known_are_listed() {
    let world = World::new();
    let _kernel = world.kernel();
    let _devd = world.devd(&["--hooks", "builtin"]);
    let device = Device::vif(3, 0).with("script", "/etc/xen/scripts/vif-frobnicate");
    world.attach(&device);
    let reason = world.wait_refused(&device);
    for word in ["vif-frobnicate", "--script-dir", "built in are", "vif-bridge"] {
        assert!(reason.contains(word), "{word}: {reason}");
    }
}

#[test]
fn a_script_is_run_where_there_is_no_built_in_hook_of_the_name() {
    let world = World::new();
    world.hook("vif-nat", "call connect");
    let _kernel = world.kernel();
    let _devd = world.devd(&["--hooks", "builtin"]);
    let device = Device::vif(3, 0).with("script", "vif-nat");
    world.attach(&device);
    world.wait_connected(&device);
    assert_eq!(world.calls(&device), ["vif-nat online type_if=vif"]);
}

#[test]
fn what_would_be_done_names_the_built_in_hook() {
    let world = World::new();
    let _kernel = world.kernel();
    let device = Device::vif(3, 0);
    world.attach(&device);
    world.wait_node(&device, "state", "2");
    let (code, said) = world.run(&["--hooks", "builtin", "--once", "--dry-run"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("backend/vif/3/0: would run the built-in vif-bridge"), "{said}");
    assert_eq!(world.runs(), []);
}
