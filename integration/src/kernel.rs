//! The contract of a node's machine, kept by the kernel of a worker: the part that runs there.

use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use rds_csi_api::{Bytes, HostId, HostNqn, NodeName, Nqn, Portal};
use rds_csi_node_agent::host::contract::{Machine, Place, every_clause};
use rds_csi_node_agent::host::{Device, Initiator, KubeletDir, KubeletPath, Linux, ManagedNqn};
use serde::{Deserialize, Serialize};

use crate::rig::MANAGED_NQN_PREFIX;

/// A blank disk that this node is let in to.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// The node.
    pub node: String,
    /// The disk.
    pub nqn: String,
    /// Where it is exported.
    pub address: String,
    /// And there at which port.
    pub port: String,
    /// In bytes.
    pub size: u64,
}

struct Kernel {
    host: Linux,
    open: Mutex<Vec<File>>,
}

impl Kernel {
    fn open(&self, path: &Path) {
        let file = File::open(path).expect("it can be opened");
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(file);
    }
}

impl Machine for Kernel {
    type Host = Linux;

    fn host(&self) -> &Linux {
        &self.host
    }

    fn open_device(&self, device: &Device) {
        self.open(&device.path());
    }

    fn open_files(&self, _: &Device, at: &KubeletPath) {
        self.open(at.as_path());
    }

    fn close(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Tries every clause on the disk that the order in this file names.
pub fn run(order: &Path) -> Result<()> {
    let Order { node, nqn, address, port, size } = serde_json::from_slice(&std::fs::read(order)?)?;
    let node: NodeName = node.parse()?;
    let nqn: Nqn = nqn.parse()?;
    let place = Place {
        nqn: ManagedNqn::new(&MANAGED_NQN_PREFIX.parse()?, nqn)?,
        portal: Portal::parse(&address, Some(&port))?,
        size: Bytes::new(size),
        kubelet: KubeletDir::open(Path::new("/var/lib/kubelet")).context("/var/lib/kubelet")?,
    };
    let host = Linux::new(Initiator { nqn: HostNqn::of(&node), id: HostId::of(&node) });
    every_clause(&Kernel { host, open: Mutex::default() }, &place);
    Ok(())
}
