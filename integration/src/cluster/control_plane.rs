//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler, on this machine's loopback.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::process::Command;
use tokio::time::{Duration, sleep};

use super::PATIENCE;
use super::access::{ADMIN, Access, CONTROLLER_MANAGER, SCHEDULER};
use super::process::Process;
use super::tunnel::Tunnel;
use crate::certificates::{Authority, Identity};
use crate::programs;
use crate::rig::{HOST, Keeper, Worker};

/// The control plane's processes, and the keys to it.
pub struct ControlPlane {
    // Whoever asks ends before whoever answers.
    processes: Vec<Process>,
    _tunnel: Tunnel,
    authority: Authority,
    access: Access,
    folder: PathBuf,
    client: Client,
    // The processes end with its thread.
    _keeper: Keeper,
}

impl ControlPlane {
    /// Starts one that has no rig, and ends when this is dropped.
    pub async fn alone(folder: &Path) -> Result<Self> {
        Self::start(folder, &Keeper::new(), &[]).await
    }

    /// Starts it for these workers, and waits until the default service account is there: then pods can be made.
    pub(super) async fn start(folder: &Path, keeper: &Keeper, workers: &[Worker]) -> Result<Self> {
        let began = Instant::now();
        let nodes: Vec<_> = workers.iter().map(|worker| worker.name().to_owned()).collect();
        fs::create_dir_all(folder)?;
        let authority = Authority::new(&folder.join("certificates"))?;
        let server = authority.issue_for("kube-apiserver", &["127.0.0.1", HOST, "kubernetes.default.svc"])?;
        let accounts = authority.issue("service-accounts")?;
        let [etcd_port, peer_port, port] = free_ports()?;
        let access = Access::new(folder, &server.authority, port, &nodes);
        let tunnel = Tunnel::open(folder, workers).await?;

        let programs = programs::kubernetes()?;
        let start = async |name, arguments: Vec<String>| {
            Process::start(keeper, folder, &programs.join(name), &arguments).await
        };
        let etcd = start("etcd", etcd_arguments(folder, etcd_port, peer_port)).await?;
        let tokens = access.token_file()?;
        let mut arguments = api_server_arguments(port, etcd_port, &server, &accounts, &tokens);
        arguments.push(format!("--egress-selector-config-file={}", tunnel.egress_config(folder)?.display()));
        let api_server = start("kube-apiserver", arguments).await?;
        let kubeconfig = access.kubeconfig(CONTROLLER_MANAGER)?;
        let arguments = controller_manager_arguments(&kubeconfig, &accounts);
        let controllers = start("kube-controller-manager", arguments).await?;
        let kubeconfig = access.kubeconfig(SCHEDULER)?;
        let scheduler = start("kube-scheduler", scheduler_arguments(&kubeconfig)).await?;

        let kubeconfig = Kubeconfig::read_from(access.kubeconfig(ADMIN)?)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let mut plane = Self {
            processes: vec![scheduler, controllers, api_server, etcd],
            _tunnel: tunnel,
            authority,
            access,
            folder: folder.into(),
            client,
            _keeper: keeper.clone(),
        };
        plane.ready().await?;
        eprintln!("cluster: the control plane is up in {:.1} s", began.elapsed().as_secs_f32());
        Ok(plane)
    }

    async fn ready(&mut self) -> Result<()> {
        let accounts: Api<ServiceAccount> = Api::default_namespaced(self.client());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = accounts.get("default").await;
            if found.is_ok() {
                return Ok(());
            }
            for process in &mut self.processes {
                process.runs()?;
            }
            ensure!(Instant::now() < deadline, "the control plane is not ready: {found:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// A client that may do everything.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Who signs the nodes' certificates.
    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// Where logs and kubeconfigs are.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the ends of its logs say.
    pub fn diagnosis(&self) -> String {
        let tails = self.processes.iter().map(|one| format!("--- {}\n{}\n", one.name(), one.log_tail(20)));
        tails.collect()
    }

    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter()
    }

    /// Runs kubectl as one who may do everything, and returns what it prints.
    pub(super) async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(programs::kubernetes()?.join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments).kill_on_drop(true);
        let ran =
            tokio::time::timeout(PATIENCE, command.output()).await.context("kubectl does not end")??;
        let told = String::from_utf8_lossy(&ran.stderr);
        ensure!(ran.status.success(), "kubectl {}: {told}", arguments.join(" "));
        Ok(String::from_utf8(ran.stdout)?)
    }

    /// The kubeconfig of one who may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join(format!("{ADMIN}.kubeconfig"))
    }
}

/// Ports that nobody has. All are held until the last is found, so that they differ.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn etcd_arguments(folder: &Path, port: u16, peer_port: u16) -> Vec<String> {
    let client = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    vec![
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        // What is lost with this machine is lost anyway.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

fn api_server_arguments(
    port: u16,
    etcd_port: u16,
    server: &Identity,
    accounts: &Identity,
    tokens: &Path,
) -> Vec<String> {
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        // The address of the service `kubernetes` may not be loopback; no pod here asks for it.
        "--endpoint-reconciler-type=none".into(),
        "--service-cluster-ip-range=10.96.0.0/24".into(),
        format!("--tls-cert-file={}", server.certificate.display()),
        format!("--tls-private-key-file={}", server.key.display()),
        format!("--token-auth-file={}", tokens.display()),
        // As in production: a kubelet sees and writes only what is its node's.
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={}", accounts.certificate.display()),
        format!("--service-account-signing-key-file={}", accounts.key.display()),
        "--profiling=false".into(),
    ]
}

fn controller_manager_arguments(kubeconfig: &Path, accounts: &Identity) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--use-service-account-credentials".into(),
        format!("--service-account-private-key-file={}", accounts.key.display()),
        format!("--root-ca-file={}", accounts.authority.display()),
        "--leader-elect=false".into(),
        "--secure-port=0".into(),
        // A node that says nothing for so long is not ready; a kubelet here says something every two seconds.
        "--node-monitor-period=1s".into(),
        "--node-monitor-grace-period=20s".into(),
    ]
}

fn scheduler_arguments(kubeconfig: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--leader-elect=false".into(),
        "--secure-port=0".into(),
    ]
}
