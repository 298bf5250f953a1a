//! A disk of the simulated array, ordered about over SSH, and attached by workers without any of our programs.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use super::{PORTAL, Rig, USER, Worker};

/// A volume as a driver makes it: a subvolume with an image, and a disk on it.
#[derive(Debug)]
pub struct Disk<'rig> {
    rig: &'rig Rig,
    slot: String,
    nqn: String,
}

/// Runs a line on the array; an error is whatever is not our own sentinel.
pub async fn run(rig: &Rig, line: &str) -> Result<String> {
    let array = rig.array();
    let framed = format!(":onerror e in={{ {line}; :put \"OK 17\" }} do={{ :put (\"ERR 17 \" . $e) }}");
    let output = Command::new("ssh")
        .args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "IdentitiesOnly=yes",
        ])
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", array.known_hosts().display()))
        .arg("-i")
        .arg(array.key())
        .args(["-p", &array.ssh_port().to_string(), &format!("{USER}@127.0.0.1"), "--", &framed])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let printed = String::from_utf8(output.stdout)?;
    match printed.strip_suffix("OK 17\r\n") {
        Some(before) => Ok(before.trim_end().to_owned()),
        None => bail!("{line}: {printed}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Something must not have worked, for the reason given.
pub fn refused<T>(outcome: Result<T>, reason: &str) -> Result<()> {
    match outcome {
        Ok(_) => bail!("it should have been refused: {reason}"),
        Err(error) if error.to_string().contains(reason) => Ok(()),
        Err(error) => Err(error.context(format!("it should have been refused otherwise: {reason}"))),
    }
}

impl<'rig> Disk<'rig> {
    /// Makes a volume of so many MiB that is not exported yet.
    pub async fn create(rig: &'rig Rig, slot: &str, mebibytes: u64) -> Result<Self> {
        let nqn = format!("nqn.2000-02.com.mikrotik:{slot}");
        let line = format!(
            "/disk/btrfs/subvolume add fs=storage-pool name={slot}; \
             :onerror f in={{ /disk add type=file slot={slot} file-path=/storage-pool/{slot}/disk.img \
             file-size={mebibytes}M mount-filesystem=no nvme-tcp-server-nqn=\"{nqn}\" }} \
             do={{ /disk/btrfs/subvolume remove [find name={slot}]; :error $f }}"
        );
        run(rig, &line).await?;
        Ok(Self { rig, slot: slot.to_owned(), nqn })
    }

    /// Makes a disk on the image that a snapshot brought along.
    pub async fn over_existing_file(rig: &'rig Rig, slot: &str) -> Result<Self> {
        let nqn = format!("nqn.2000-02.com.mikrotik:{slot}");
        run(rig, &format!("/disk add type=file slot={slot} file-path=/storage-pool/{slot}/disk.img")).await?;
        Ok(Self { rig, slot: slot.to_owned(), nqn })
    }

    /// Exports it to these hosts, or to any if there are none.
    pub async fn export(&self, hosts: &str) -> Result<()> {
        let slot = &self.slot;
        let line =
            format!("/disk set {slot} nvme-tcp-server-allow-host-name=\"{hosts}\" nvme-tcp-export=yes");
        run(self.rig, &line).await.map(drop)
    }

    /// The same disk under another name.
    pub async fn renamed(&self, nqn: &str) -> Result<Self> {
        run(self.rig, &format!("/disk set {} nvme-tcp-server-nqn=\"{nqn}\"", self.slot)).await?;
        Ok(Self { rig: self.rig, slot: self.slot.clone(), nqn: nqn.to_owned() })
    }

    /// Attaches it to a worker, and returns the device.
    pub async fn connect(&self, worker: &Worker) -> Result<String> {
        let (nqn, host) = (&self.nqn, host_nqn(worker));
        let id = &host[host.len() - 36..];
        // Opened once for both directions: the answer comes from the descriptor that asked.
        let connect = format!(
            "exec 3<>/dev/nvme-fabrics
             echo 'transport=tcp,traddr={PORTAL},trsvcid=4420,nqn={nqn},hostnqn={host},hostid={id},\
             ctrl_loss_tmo=-1,reconnect_delay=1,keep_alive_tmo=5' | tr -d ' ' >&3 && cat <&3"
        );
        worker.sh(&connect).await?;
        let find = format!(
            "for s in /sys/class/nvme-subsystem/*; do
               [ $(cat $s/subsysnqn) = {nqn} ] || continue
               for d in $s/nvme*n*; do n=/dev/$(basename $d); until [ -b $n ]; do sleep 0.05; done; echo $n; done
             done"
        );
        Ok(worker.sh(&find).await?.trim().to_owned())
    }

    /// Ends a worker's connection.
    pub async fn disconnect(&self, worker: &Worker) -> Result<()> {
        let connections = worker.nvme_connections().await?;
        let ours = connections.iter().find(|connection| connection.nqn == self.nqn);
        let controller = &ours.with_context(|| format!("{} is not connected", worker.name()))?.controller;
        worker.sh(&format!("echo 1 >/sys/class/nvme/{controller}/delete_controller")).await.map(drop)
    }

    /// Removes the disk, its subvolume and its image.
    pub async fn remove(self) -> Result<()> {
        let slot = &self.slot;
        let line = format!("/disk remove {slot}; /disk/btrfs/subvolume remove [find name={slot}]");
        run(self.rig, &line).await.map(drop)
    }
}

/// Writes the worker's name to the beginning of a device; waits through a reconnect.
pub async fn write(worker: &Worker, device: &str) -> Result<()> {
    let name = worker.name();
    worker
        .sh(&format!("printf {name} | dd of={device} conv=sync bs=4k oflag=direct status=none"))
        .await
        .map(drop)
}

/// The text at the beginning of a device, read from the array and not from a cache.
pub async fn beginning(worker: &Worker, device: &str) -> Result<String> {
    let read = format!("dd if={device} bs=4k count=1 iflag=direct status=none | tr -d '\\0'");
    Ok(worker.sh(&read).await?.trim().to_owned())
}

/// The states of a worker's controllers.
pub async fn connections(worker: &Worker) -> Result<Vec<String>> {
    let states = worker.sh("cat /sys/class/nvme/*/state").await?;
    Ok(states.lines().map(str::to_owned).collect())
}

/// Waits until a worker's only controller has lost its connection and tries to get it back.
pub async fn shut_out(worker: &Worker) -> Result<()> {
    let wait = "until [ \"$(cat /sys/class/nvme/*/state)\" = connecting ]; do sleep 0.1; done";
    worker.sh(wait).await.map(drop).context("the controller does not lose its connection")
}

/// A worker's own host NQN, which ends in its host id.
pub fn host_nqn(worker: &Worker) -> String {
    let number = &worker.name()[1..];
    format!("nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-00000000000{number}")
}
