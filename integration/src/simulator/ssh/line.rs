//! The wire between a client and its SSH session, which can be cut, and can fall silent.

use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::simulator::journal::Journal;

/// How much is under way within the wire.
pub(super) const CAPACITY: usize = 64 << 10;

/// Carries bytes both ways until one side has ended; while the array is silent they wait.
pub(super) async fn carry(
    client: TcpStream,
    session: DuplexStream,
    silence: watch::Receiver<bool>,
    journal: &Journal,
) {
    let (from_client, to_client) = client.into_split();
    let (from_session, to_session) = io::split(session);
    // A broken side is an end like any other.
    let _ = tokio::join!(
        one_way(from_client, to_session, silence.clone(), |bytes| journal.arrived(bytes)),
        one_way(from_session, to_client, silence, |_| {})
    );
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut silence: watch::Receiver<bool>,
    notice: impl Fn(usize),
) -> io::Result<()> {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut bytes).await?;
        // If nobody can end the silence any more, the simulator is about to end.
        silence.wait_for(|silent| !silent).await.map_err(io::Error::other)?;
        if count == 0 {
            return to.shutdown().await;
        }
        notice(count);
        to.write_all(&bytes[..count]).await?;
    }
}
