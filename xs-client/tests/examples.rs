//! The examples, on the embedded store.

#[allow(dead_code, reason = "main reads the command line")]
#[path = "../examples/sans-io.rs"]
mod sans_io;
#[allow(dead_code, reason = "main reads the command line")]
#[path = "../examples/xs-backend.rs"]
mod xs_backend;
#[allow(dead_code, reason = "main reads the command line")]
#[path = "../examples/xs-ls.rs"]
mod xs_ls;
#[allow(dead_code, reason = "main reads the command line")]
#[path = "../examples/xs-watch.rs"]
mod xs_watch;

use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use xs_client::embedded::Store;
use xs_client::{Address, Client};

#[test]
fn xs_ls_lists_nodes_and_values() {
    let store = Store::new();
    let mut client = Client::new(store.connect(0).unwrap());
    client.write("/a/b", "one").unwrap();
    client.write("/a/c/d", "t\two").unwrap();
    let mut out = Vec::new();
    xs_ls::list(&mut client, b"/a", 0, &mut out).unwrap();
    let expected = "b = \"one\"\nc = \"\"\n d = \"t\\two\"\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn xs_watch_survives_a_restart_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let store = Store::new();
    let server = store.serve(&path, 0).unwrap();
    let mut client = Client::open(Address::Socket(path.clone())).unwrap();
    client.watch("/a", "xs-watch").unwrap();
    let mut out = Vec::new();
    xs_watch::print_event(&mut client, &mut out).unwrap();
    drop(server);
    let _server = Store::new().serve(&path, 0).unwrap();
    while !out.ends_with(b"at everything\n") {
        xs_watch::print_event(&mut client, &mut out).unwrap();
    }
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("/a\n") && text.contains("connecting again\n"), "{text}");
}

#[test]
fn xs_backend_serves_a_device_from_creation_to_close() {
    let store = Store::new();
    let mut toolstack = Client::new(store.connect(0).unwrap());
    let back = "/local/domain/0/backend/echo/3/0";
    let front = "/local/domain/3/device/echo/0";
    let backend = Client::new(store.connect(0).unwrap());
    thread::spawn(move || {
        let mut backend = backend;
        backend.watch("backend/echo", "ours").unwrap();
        while xs_backend::step(&mut backend).is_ok() {}
    });
    for (path, value) in [
        (format!("{front}/state"), "1"),
        (format!("{front}/question"), "why?"),
        (format!("{back}/frontend"), front),
        (format!("{back}/state"), "1"),
    ] {
        toolstack.write(path, value).unwrap();
    }
    let mut until = |state: &str| {
        while toolstack.read(format!("{back}/state")).unwrap() != state.as_bytes() {
            thread::sleep(Duration::from_millis(1));
        }
    };
    until("2");
    let mut frontend = Client::new(store.connect(0).unwrap());
    frontend.write(format!("{front}/state"), "3").unwrap();
    until("4");
    assert_eq!(frontend.read(format!("{back}/answer")).unwrap(), b"why?");
    frontend.write(format!("{front}/state"), "5").unwrap();
    until("5");
    frontend.write(format!("{front}/state"), "6").unwrap();
    until("6");
}

#[test]
fn sans_io_has_all_requests_under_way_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let store = Store::new();
    let _server = store.serve(&path, 0).unwrap();
    let (values, events) = sans_io::run(UnixStream::connect(&path).unwrap()).unwrap();
    assert_eq!(values, [b"1", b"2"]);
    assert!(events >= 1);
}
