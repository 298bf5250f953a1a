//! The doctor against the kernel's own NVMe/TCP target: what it says of fences is true there.

use std::net::Ipv4Addr;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use rds_csi_integration::programs;
use rds_csi_integration::rig::{MANAGED_NQN_PREFIX, Rig, Target, USER};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;

/// The release that the array says it runs.
const RELEASE: &str = "7.21";

pub(crate) async fn everything_is_proved_on_a_real_target(rig: &Rig) -> Result<()> {
    let (port, _portal) = portal(rig).await?;
    let before = (rig.array().pool().await?, rig.array().subsystems().await?, rig.array().slots().await?);
    let output = doctor(rig, port).await?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no report: {}", String::from_utf8_lossy(&output.stderr)))?;
    let report = &report["arrays"][0];
    let checks = report["checks"].as_array().context("a report has checks")?;
    // This target writes to files, which the kernel has no counters for.
    let expected = |check: &Value| if check["id"] == "write-counters" { "not-available" } else { "proved" };
    let otherwise: Vec<_> = checks.iter().filter(|check| check["result"] != expected(check)).collect();
    ensure!(otherwise.is_empty(), "not proved: {otherwise:#?}");
    ensure!(report["fences"] == json!(["acl", "epoch"]) && output.status.success(), "{report:#}");
    ensure!(report["fence"] == format!("acl@{RELEASE}"), "{report:#}");
    let live = checks.iter().find(|check| check["id"] == "acl-live").context("acl-live")?;
    // The reason that a fence switches the export off and on.
    let goes_on = live["evidence"].as_str().is_some_and(|evidence| evidence.starts_with("it goes on"));
    ensure!(goes_on, "a list alone cuts nobody on this target: {live:#}");
    let after = (rig.array().pool().await?, rig.array().subsystems().await?, rig.array().slots().await?);
    ensure!(before == after, "left behind: {before:?} became {after:?}");
    Ok(())
}

async fn doctor(rig: &Rig, port: u16) -> Result<Output> {
    let array = rig.array();
    let (ssh, nvme) = (array.ssh_port().to_string(), port.to_string());
    let doctor = Command::new(programs::path("rds-csi-controller")?)
        .args(["doctor", "--output", "json", "--array-address", "127.0.0.1", "--array-port", &ssh])
        .args(["--array-user", USER, "--cluster-id", "rig", "--managed-nqn-prefix", MANAGED_NQN_PREFIX])
        .args(["--fence", &format!("acl@{RELEASE}")])
        .arg("--array-key")
        .arg(array.key())
        .arg("--array-known-hosts")
        .arg(array.known_hosts())
        .args(["--nvme-address", "127.0.0.1", "--nvme-port", &nvme])
        .env("TMPDIR", rig.directory())
        .kill_on_drop(true)
        .output();
    Ok(doctor.await?)
}

/// A port on this machine that leads to the same port of the array: an export is found where it says that it is.
async fn portal(rig: &Rig) -> Result<(u16, JoinSet<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let array = rig.array().guest().forward(Target::Port(port)).await?;
    let mut portal = JoinSet::new();
    portal.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut outer, _)) = listener.accept().await {
            connections.spawn(async move {
                if let Ok(mut inner) = TcpStream::connect(array).await {
                    // Whatever breaks, both sides hang up.
                    let _ = copy_bidirectional(&mut outer, &mut inner).await;
                }
            });
        }
    });
    Ok((port, portal))
}
