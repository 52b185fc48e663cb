//! The server that the transports' conformance suite runs against, as a process of its own for the wasm runs.
//! Prints its address and serves until it is stopped; if whoever started it cannot do that any more, for an hour.

// A process of its own, outside of any runtime.
#![allow(clippy::disallowed_methods)]

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

#[path = "../tests/conformance/server.rs"]
mod server;

fn main() -> io::Result<()> {
    let address = server::start()?;
    println!("http://{address}");
    io::stdout().flush()?;
    thread::sleep(Duration::from_secs(3600));
    Ok(())
}
