//! The way from one controller to the API server, which a test may cut. TLS goes through it untouched.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// They pass.
    Open,
    /// Connections are closed, those that there are and new ones.
    Closed,
    /// Nothing passes, and nobody is told.
    Silent,
}

/// A port that leads to the API server; it ends when this is dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    way: Arc<watch::Sender<Way>>,
    server: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn before(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let way = Arc::new(watch::Sender::new(Way::Open));
        let state = Arc::clone(&way);
        let server = tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                tokio::spawn(pass(caller, server, state.subscribe()));
            }
        });
        Ok(Self { address, way, server })
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Way::Closed);
        self.server.abort();
    }
}

/// One connection, as long as the way is open. What was silent once is closed when the way opens again, as a peer that
/// was away would have forgotten it.
async fn pass(mut caller: TcpStream, server: SocketAddr, mut way: watch::Receiver<Way>) {
    if *way.borrow_and_update() == Way::Open {
        let Ok(mut there) = TcpStream::connect(server).await else { return };
        tokio::select! {
            _ = copy_bidirectional(&mut caller, &mut there) => return,
            _ = way.changed() => {}
        }
    }
    // Held open and not read, until it is silent no more.
    let _ = way.wait_for(|way| *way != Way::Silent).await;
}
