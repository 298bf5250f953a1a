//! csi-sanity as a process: what it is told, and the commands by which it does kubelet's part inside the guest.

use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::driver::Driver;
use crate::programs;
use crate::rig::{Rig, Worker};

const MIB: u64 = 1 << 20;

/// Small, since a guest formats each of them; 16 MiB is the least that the node's filesystems take.
const VOLUME: u64 = 64 * MIB;
const EXPANDED: u64 = 128 * MIB;

/// Where kubelet stages volumes, and where it publishes them; the suite appends `/target` to the latter.
const STAGING: &str = "/var/lib/kubelet/plugins/kubernetes.io/csi/rds.csi.srvlab.io/conformance/globalmount";
const TARGETS: &str = "/var/lib/kubelet/pods/conformance/volumes/kubernetes.io~csi/conformance";

/// The file, in the suite's folder, of what it says beside its results.
const COMPLAINTS: &str = "complaints";

/// What a StorageClass may say.
const PARAMETERS: &str = "reconnectDelay: \"2\"\n";

/// What a VolumeAttributesClass may say.
const MUTABLE_PARAMETERS: &str = "ctrlLossTmo: \"600\"\n";

/// csi-sanity takes it by itself on an interrupt, which is what a timeout of its own is.
const LIMIT: Duration = Duration::from_mins(8);

/// What is to be run, and how.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// The program csi-sanity.
    pub program: PathBuf,
    /// Only those whose name matches this regular expression.
    pub focus: Option<String>,
    /// The seed of the order, to run it as it was.
    pub seed: Option<u32>,
    /// The folder to keep its reports in.
    pub reports: Option<PathBuf>,
}

/// What the suite asks for when it creates volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Volumes {
    Filesystem,
    Block,
}

impl Volumes {
    /// As csi-sanity calls it.
    pub(super) fn access_type(self) -> &'static str {
        match self {
            Self::Filesystem => "mount",
            Self::Block => "block",
        }
    }

    /// Which specs are to run with them. To the array all volumes are alike, so block volumes differ on the node only.
    pub(super) fn focus(self, order: &Order) -> Option<&str> {
        let own = match self {
            Self::Filesystem => None,
            Self::Block => Some("Node Service"),
        };
        order.focus.as_deref().or(own)
    }
}

impl fmt::Display for Volumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filesystem => "filesystem",
            Self::Block => "block",
        })
    }
}

/// The suite, ready to run against a driver.
#[derive(Debug)]
pub(super) struct Suite<'rig> {
    folder: PathBuf,
    worker: &'rig Worker,
    controller: String,
}

impl<'rig> Suite<'rig> {
    /// Writes the commands and parameters that it is given.
    pub(super) fn prepare(driver: &Driver<'rig>) -> Result<Self> {
        let rig = driver.rig();
        let worker = rig.worker("w1");
        let folder = folder(rig);
        fs::create_dir_all(&folder)?;
        // The last part is made without -p: a directory that the spec before could not empty is an error.
        in_guest(&folder, worker, "create", r#"mkdir -p "${1%/*}" && mkdir "$1" && echo "$1""#)?;
        in_guest(&folder, worker, "remove", r#"rmdir "$1""#)?;
        in_guest(
            &folder,
            worker,
            "check",
            r#"if [ -d "$1" ]; then echo directory; elif [ -f "$1" ]; then echo file; elif [ -e "$1" ]; then echo other; else echo not_found; fi"#,
        )?;
        fs::write(folder.join("parameters.yaml"), PARAMETERS)?;
        fs::write(folder.join("mutable.yaml"), MUTABLE_PARAMETERS)?;
        Ok(Self { folder, worker, controller: driver.controller().endpoint() })
    }

    /// Runs it to its end, and returns the report that it wrote. That specs failed is no error here.
    pub(super) async fn run(&self, order: &Order, volumes: Volumes) -> Result<Vec<u8>> {
        let report = self.folder.join(format!("{}.json", volumes.access_type()));
        let flag = |name: &str, value: &dyn std::fmt::Display| format!("--csi.{name}={value}");
        let file = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Command::new(&order.program);
        command
            .arg(flag("endpoint", &self.worker.csi_endpoint().replace("http://", "dns:///")))
            .arg(flag("controllerendpoint", &self.controller))
            .arg(flag("stagingdir", &STAGING))
            .arg(flag("mountdir", &TARGETS))
            .args(["createstagingpathcmd", "createmountpathcmd"].map(|name| flag(name, &file("create"))))
            .args(["removestagingpathcmd", "removemountpathcmd"].map(|name| flag(name, &file("remove"))))
            .arg(flag("checkpathcmd", &file("check")))
            .arg(flag("testvolumeaccesstype", &volumes.access_type()))
            .arg(flag("testvolumesize", &VOLUME))
            .arg(flag("testvolumeexpandsize", &EXPANDED))
            .arg(flag("testvolumeparameters", &file("parameters.yaml")))
            .arg(flag("testvolumemutableparameters", &file("mutable.yaml")))
            .arg(flag("testnodevolumeattachlimit", &true))
            .arg(format!("--ginkgo.json-report={}", report.display()))
            .arg(format!("--ginkgo.timeout={}s", LIMIT.as_secs()))
            .args(["--ginkgo.succinct", "--ginkgo.no-color"])
            .args(volumes.focus(order).map(|focus| format!("--ginkgo.focus={focus}")))
            .args(order.seed.map(|seed| format!("--ginkgo.seed={seed}")))
            .stderr(fs::File::options().create(true).append(true).open(self.folder.join(COMPLAINTS))?)
            .kill_on_drop(true);
        let status =
            command.status().await.with_context(|| format!("cannot run {}", order.program.display()))?;
        ensure!(report.exists(), "csi-sanity ended with {status}, and without a report");
        Ok(fs::read(report)?)
    }

    /// What it left of its directories in the guest.
    pub(super) async fn leftovers(&self) -> Result<String> {
        self.worker.sh(&format!("find {STAGING} {TARGETS} 2>/dev/null || true")).await
    }
}

/// What the suite and the commands that it ran have said on standard error.
pub(super) fn complaints(rig: &Rig) -> String {
    fs::read_to_string(folder(rig).join(COMPLAINTS)).unwrap_or_default()
}

fn folder(rig: &Rig) -> PathBuf {
    rig.directory().join("conformance")
}

/// A program here that runs a shell script there, with the path it is given as `$1`.
fn in_guest(folder: &Path, worker: &Worker, name: &str, script: &str) -> Result<()> {
    let rig = programs::path("rds-csi-rig")?;
    let guest = worker.guest().directory();
    // Neither our paths nor our scripts contain a single quote.
    let text = format!(
        "#!/bin/sh\nscript='{script}'\nexec '{}' run '{}' \"set -- '$1'; $script\"\n",
        rig.display(),
        guest.display()
    );
    let path = folder.join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Ok(())
}
