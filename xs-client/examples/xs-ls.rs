//! Lists the nodes below a path, with their values: `cargo run --example xs-ls -- /local/domain/0`.

use std::env;
use std::error::Error;
use std::io::{self, Write};

use xs_client::{Address, Client};

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).unwrap_or_else(|| "/".to_owned());
    let mut client = Client::open(Address::find(None)?)?;
    list(&mut client, path.as_bytes(), 0, &mut io::stdout().lock())
}

/// Writes the node's children and all below them, each indented by its depth. A node that may not
/// be read, or that went away meanwhile, has no value.
pub(crate) fn list(
    client: &mut Client,
    path: &[u8],
    depth: usize,
    out: &mut dyn Write,
) -> Result<(), Box<dyn Error>> {
    let names = match client.directory(path) {
        Err(error) if error.refusal().is_some() => return Ok(()),
        names => names?,
    };
    for name in names {
        let child =
            if path == b"/" { [path, &name].concat() } else { [path, b"/", &name].concat() };
        let value = match client.read(&child) {
            Ok(value) => format!("\"{}\"", value.escape_ascii()),
            Err(error) if error.refusal().is_some() => String::from("?"),
            Err(error) => return Err(error.into()),
        };
        writeln!(out, "{:depth$}{} = {value}", "", name.escape_ascii())?;
        list(client, &child, depth + 1, out)?;
    }
    Ok(())
}
