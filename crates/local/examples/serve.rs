//! A service by itself: `serve DATA_DIR [PORT [MEMORY_LIMIT [--faults]]]`. Prints its address, then runs until it is stopped.

use std::io::{IsTerminal, Write};

use retinker_local::{LocalConfig, LocalService};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(colours).init();
    let mut arguments = std::env::args().skip(1);
    let data_dir = arguments.next().ok_or("usage: serve DATA_DIR [PORT [MEMORY_LIMIT [--faults]]]")?;
    let mut config = LocalConfig::new(data_dir);
    if let Some(port) = arguments.next() {
        config.listen.set_port(port.parse()?);
    }
    if let Some(bytes) = arguments.next() {
        config.memory_limit = bytes.parse()?;
    }
    config.faults = arguments.next().is_some_and(|option| option == "--faults");
    let service = LocalService::start(config).await?;
    println!("{}", service.base_url());
    std::io::stdout().flush()?;
    tokio::signal::ctrl_c().await?;
    service.stop().await;
    Ok(())
}
