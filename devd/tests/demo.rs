//! The demo goes the whole way, and says so by its exit code.
#![cfg(feature = "demo")]

use std::process::Command;

#[test]
fn every_device_of_the_demo_goes_the_whole_way() {
    let demo = Command::new(env!("CARGO_BIN_EXE_devd")).args(["demo", "--guests", "3"]).output();
    let demo = demo.unwrap();
    let text = String::from_utf8_lossy(&demo.stdout);
    assert!(demo.status.success(), "{text}\n{}", String::from_utf8_lossy(&demo.stderr));
    for device in ["vif/2/0", "vbd/3/51712", "qdisk/4/51728"] {
        let line = text.lines().find(|line| line.starts_with(device));
        assert!(line.is_some_and(|line| line.ends_with("ok")), "{device} in:\n{text}");
    }
}
