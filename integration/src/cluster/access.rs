//! Who may talk to the API server: a bearer token per user, and the file that a client finds it in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};
use uuid::Uuid;

use super::rights;

/// May do everything.
pub(super) const ADMIN: &str = "admin";

/// The controller manager, as Kubernetes' own roles name it.
pub(super) const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";

/// The scheduler, likewise.
pub(super) const SCHEDULER: &str = "system:kube-scheduler";

/// The users and their tokens.
#[derive(Debug)]
pub(super) struct Access {
    folder: PathBuf,
    authority: PathBuf,
    port: u16,
    users: Vec<User>,
}

#[derive(Debug)]
struct User {
    name: String,
    groups: &'static str,
    token: Uuid,
}

impl Access {
    /// The users of a cluster with these nodes, whose API server listens on that port with a certificate of `authority`.
    pub(super) fn new(folder: &Path, authority: &Path, port: u16, nodes: &[String]) -> Self {
        let user = |name: &str, groups| User { name: name.to_owned(), groups, token: Uuid::new_v4() };
        let mut users =
            vec![user(ADMIN, "system:masters"), user(CONTROLLER_MANAGER, ""), user(SCHEDULER, "")];
        users.extend(rights::ACCOUNTS.map(|account| user(&service_account(account), rights::GROUP)));
        users.extend(nodes.iter().map(|node| user(&node_user(node), "system:nodes")));
        Self { folder: folder.into(), authority: authority.into(), port, users }
    }

    /// The file that the API server knows them by.
    pub(super) fn token_file(&self) -> Result<PathBuf> {
        let lines = self
            .users
            .iter()
            .map(|User { name, groups, token }| format!("{token},{name},{name},\"{groups}\"\n"));
        let path = self.folder.join("tokens.csv");
        fs::write(&path, lines.collect::<String>())?;
        Ok(path)
    }

    /// Writes a user's kubeconfig for this machine.
    pub(super) fn kubeconfig(&self, user: &str) -> Result<PathBuf> {
        let path = self.folder.join(format!("{}.kubeconfig", user.replace(':', "-")));
        fs::write(&path, self.config(user, "127.0.0.1", &self.authority).to_string())?;
        Ok(path)
    }

    /// A kubeconfig for one who reaches this machine at `host`, and has the authority's certificate at `authority`.
    pub(super) fn config(&self, user: &str, host: &str, authority: &Path) -> Value {
        let token = self.users.iter().find(|known| known.name == user).map(|known| known.token.to_string());
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "rig",
                "cluster": { "server": format!("https://{host}:{}", self.port), "certificate-authority": authority },
            }],
            "users": [{ "name": user, "user": { "token": token } }],
            "contexts": [{ "name": "rig", "context": { "cluster": "rig", "user": user } }],
            "current-context": "rig",
        })
    }
}

/// The name of a node's kubelet.
pub(super) fn node_user(node: &str) -> String {
    format!("system:node:{node}")
}

/// The name of a service account of the driver's.
pub(super) fn service_account(name: &str) -> String {
    format!("system:serviceaccount:{}:{name}", rights::NAMESPACE)
}
