//! The hotplug scripts: what upstream's `vif-bridge` and `block` do to the store, without
//! touching a bridge or a disk.

use xs_client::{Address, Batch, Client, Error};

use super::PartError;

/// Runs as one of the scripts. `words` are its arguments; the rest is in the environment.
pub(super) fn run(words: &[String]) -> Result<(), PartError> {
    let directory = variable("XENBUS_PATH")?;
    let mut client = Client::open(Address::find(None)?)?;
    let done = match (variable("XENBUS_TYPE")?.as_str(), words.first().map(String::as_str)) {
        ("vif", Some("online")) => bring_online(&mut client, &directory),
        ("vbd", Some("add")) => set_up_disk(&mut client, &directory),
        // The kernel has taken the interface away by now, and with it its place in the bridge.
        ("vif", Some("offline")) => Ok(()),
        ("vbd", Some("remove")) => give_disk_back(&mut client, &directory),
        _ => return Err(PartError::Words(words.to_vec())),
    };
    if let Err(error) = &done {
        // As `fatal` does in xen-hotplug-common.sh.
        let mut batch = Batch::new();
        batch.write(format!("{directory}/hotplug-error"), error.to_string());
        batch.write(format!("{directory}/hotplug-status"), "error");
        client.run(&mut batch)?;
    }
    Ok(done?)
}

fn bring_online(client: &mut Client, directory: &str) -> Result<(), Error> {
    let bridge = client.read(format!("{directory}/bridge"))?;
    let vif = variable("vif").unwrap_or_default();
    println!("{vif} joins {} (not really)", bridge.escape_ascii());
    client.write(format!("{directory}/hotplug-status"), "connected")
}

fn set_up_disk(client: &mut Client, directory: &str) -> Result<(), Error> {
    let params = client.read(format!("{directory}/params"))?;
    println!("{} is on /dev/loop0 (not really)", params.escape_ascii());
    let nodes = [
        ("node", "/dev/loop0"),
        ("physical-device-path", "/dev/loop0"),
        ("physical-device", "7:0"),
        ("hotplug-status", "connected"),
    ];
    nodes.iter().try_for_each(|(node, value)| client.write(format!("{directory}/{node}"), value))
}

fn give_disk_back(client: &mut Client, directory: &str) -> Result<(), Error> {
    match client.read(format!("{directory}/node")) {
        Ok(node) => println!("{} is free again (not really)", node.escape_ascii()),
        Err(error) if error.is_missing() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn variable(name: &'static str) -> Result<String, PartError> {
    std::env::var(name).map_err(|_| PartError::Environment(name))
}
