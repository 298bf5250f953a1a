//! The API server's way to the kubelets, whose addresses only guests can reach: a proxy that takes CONNECT, as clusters have
//! whose nodes are behind a firewall. `kubectl logs` and `kubectl exec` go through it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::node::KUBELET_PORT;
use crate::rig::{Target, Worker};

/// The proxy; it ends when this is dropped.
pub(super) struct Tunnel {
    socket: PathBuf,
    _serving: JoinSet<()>,
}

impl Tunnel {
    /// Opens it to these nodes, with its socket in that folder.
    pub(super) async fn open(folder: &Path, workers: &[Worker]) -> Result<Self> {
        let mut ways = BTreeMap::new();
        for worker in workers {
            let kubelet = worker.guest().forward(Target::Port(KUBELET_PORT)).await?;
            // A node's host name is what the API server prefers.
            ways.insert(format!("{}:{KUBELET_PORT}", worker.name()), kubelet);
        }
        let socket = folder.join("tunnel.sock");
        let listener = UnixListener::bind(&socket)?;
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let ways = ways.clone();
                // Whoever asks sees that it failed, and the API server says so.
                connections.spawn(async move { carry(BufStream::new(stream), &ways).await });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { socket, _serving: serving })
    }

    /// Writes what tells the API server of it.
    pub(super) fn egress_config(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join("egress.json");
        let connection = json!({
            "proxyProtocol": "HTTPConnect",
            "transport": { "uds": { "udsName": self.socket } },
        });
        let config = json!({
            "apiVersion": "apiserver.k8s.io/v1beta1",
            "kind": "EgressSelectorConfiguration",
            "egressSelections": [{ "name": "cluster", "connection": connection }],
        });
        std::fs::write(&path, config.to_string())?;
        Ok(path)
    }
}

async fn carry(mut outer: BufStream<UnixStream>, ways: &BTreeMap<String, SocketAddr>) -> Result<()> {
    let mut request = String::new();
    // The header ends in an empty line.
    while !request.ends_with("\r\n\r\n") {
        ensure!(outer.read_line(&mut request).await? > 0, "hung up");
    }
    let target = request.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let way = ways.get(target.context("no CONNECT")?).context("no kubelet there")?;
    let mut inner = TcpStream::connect(way).await?;
    outer.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    outer.flush().await?;
    tokio::io::copy_bidirectional(&mut outer, &mut inner).await?;
    Ok(())
}
