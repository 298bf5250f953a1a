//! Kubernetes, as far as the controller asks it or tells it something: who claims what, who is to hold what, the records of
//! who does, events, and which replica leads. Nothing here knows an array or decides anything.

pub mod agents;
pub mod breakers;
pub mod cache;
pub mod claims;
pub mod events;
pub mod leader;
pub mod lease;
pub mod ledger;
pub mod node_events;
pub mod objects;

use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// How the API server is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// As a pod of the cluster: its service account.
    InCluster,
    /// By a kubeconfig file.
    Kubeconfig(PathBuf),
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service account is not there.
    #[error(
        "--kubernetes in-cluster cannot be used: the pod has no service account's token; mount it, or give a kubeconfig"
    )]
    ServiceAccount(#[source] Box<kube::config::InClusterError>),
    /// The file is not.
    #[error("--kubernetes {} cannot be used", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// What they say makes no client.
    #[error("no client for Kubernetes can be made")]
    Client(#[source] Box<kube::Error>),
}

/// A client. Files are read, and nothing is asked yet: the API server may be slow or away.
pub async fn connect(access: &Access) -> Result<Client, Error> {
    let config = match access {
        Access::InCluster => Config::incluster().map_err(|error| Error::ServiceAccount(error.into()))?,
        Access::Kubeconfig(path) => {
            let wrong = |source: kube::config::KubeconfigError| Error::Kubeconfig {
                path: path.clone(),
                source: source.into(),
            };
            let file = Kubeconfig::read_from(path).map_err(wrong)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(wrong)?
        }
    };
    Client::try_from(config).map_err(|error| Error::Client(error.into()))
}
