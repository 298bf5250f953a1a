//! QEMU's monitor, one connection per command, so that there is no state to lose.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time,
};

/// Sends one command and returns its answer.
pub(super) async fn execute(socket: &Path, command: &str, arguments: Value) -> Result<Value> {
    time::timeout(Duration::from_secs(10), exchange(socket, command, arguments))
        .await
        .map_err(Into::into)
        .flatten()
        .with_context(|| format!("QEMU's command {command} at {}", socket.display()))
}

async fn exchange(socket: &Path, command: &str, arguments: Value) -> Result<Value> {
    let mut stream = BufReader::new(UnixStream::connect(socket).await?);
    // QEMU greets, and takes no command before the capabilities are settled.
    let mut greeting = String::new();
    stream.read_line(&mut greeting).await?;
    ask(&mut stream, "qmp_capabilities", json!({})).await?;
    ask(&mut stream, command, arguments).await
}

async fn ask(stream: &mut BufReader<UnixStream>, command: &str, arguments: Value) -> Result<Value> {
    let request = json!({ "execute": command, "arguments": arguments });
    stream.write_all(format!("{request}\n").as_bytes()).await?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            bail!("QEMU hung up");
        }
        let mut message: Value = serde_json::from_str(&line)?;
        if let Some(error) = message.get("error") {
            bail!("{error}");
        }
        // Anything else is an event.
        if let Some(answer) = message.get_mut("return") {
            return Ok(answer.take());
        }
    }
}
