//! An export of the kernel's NVMe/TCP target, made by hand: what the simulator does later, with nothing of ours between.

use anyhow::{Context as _, Result};
use rds_csi_integration::rig::{Array, PORTAL, Worker};

/// A subsystem with one namespace, on a file of the pool.
pub(crate) struct Export {
    name: &'static str,
}

const TARGET: &str = "/sys/kernel/config/nvmet";

impl Export {
    /// Exports a file of 64 MiB to these workers, or to anybody if there are none.
    pub(crate) async fn create(array: &Array, name: &'static str, allowed: &[&Worker]) -> Result<Self> {
        let export = Self { name };
        let nqn = export.nqn();
        let any = u8::from(allowed.is_empty());
        array
            .sh(&format!(
                "set -e; truncate -s 64M /storage-pool/{name}.img
                 cd {TARGET}; mkdir -p subsystems/{nqn}/namespaces/1
                 echo {any} >subsystems/{nqn}/attr_allow_any_host
                 echo -n /storage-pool/{name}.img >subsystems/{nqn}/namespaces/1/device_path
                 echo 1 >subsystems/{nqn}/namespaces/1/enable
                 mkdir ports/1; cd ports/1
                 echo tcp >addr_trtype; echo ipv4 >addr_adrfam; echo {PORTAL} >addr_traddr; echo 4420 >addr_trsvcid"
            ))
            .await?;
        for worker in allowed {
            let host = host_nqn(worker);
            array
                .sh(&format!("cd {TARGET}; mkdir hosts/{host}; ln -s {TARGET}/hosts/{host} subsystems/{nqn}/allowed_hosts/"))
                .await?;
        }
        array.sh(&format!("ln -s {TARGET}/subsystems/{nqn} {TARGET}/ports/1/subsystems/")).await?;
        Ok(export)
    }

    fn nqn(&self) -> String {
        format!("nqn.2000-02.com.mikrotik:{}", self.name)
    }

    /// Connects a worker, and returns the device.
    pub(crate) async fn connect(&self, worker: &Worker) -> Result<String> {
        let nqn = self.nqn();
        let host = host_nqn(worker);
        let id = &host[host.len() - 36..];
        // Opened once for both directions: the answer comes from the descriptor that asked.
        let connect = format!(
            "exec 3<>/dev/nvme-fabrics
             echo 'transport=tcp,traddr={PORTAL},trsvcid=4420,nqn={nqn},hostnqn={host},hostid={id},\
ctrl_loss_tmo=-1,reconnect_delay=1,keep_alive_tmo=5' >&3 && cat <&3"
        );
        worker.sh(&connect).await?;
        worker
            .sh(&format!(
                "for s in /sys/class/nvme-subsystem/*; do
                   [ $(cat $s/subsysnqn) = {nqn} ] || continue
                   for d in $s/nvme*n*; do n=/dev/$(basename $d); until [ -b $n ]; do sleep 0.05; done; echo $n; done
                 done"
            ))
            .await
    }

    /// Ends a worker's connection.
    pub(crate) async fn disconnect(&self, worker: &Worker) -> Result<()> {
        let connections = worker.nvme_connections().await?;
        let ours = connections.iter().find(|connection| connection.nqn == self.nqn());
        let controller = &ours.with_context(|| format!("{} is not connected", worker.name()))?.controller;
        worker.sh(&format!("echo 1 >/sys/class/nvme/{controller}/delete_controller")).await?;
        Ok(())
    }

    /// Removes the export and its file.
    pub(crate) async fn remove(self, array: &Array) -> Result<()> {
        let nqn = self.nqn();
        array
            .sh(&format!(
                "set -e; cd {TARGET}; rm ports/1/subsystems/{nqn}; rmdir ports/1
                 rm -f subsystems/{nqn}/allowed_hosts/*
                 rmdir subsystems/{nqn}/namespaces/1 subsystems/{nqn}
                 for host in hosts/*; do [ ! -d $host ] || rmdir $host; done
                 rm /storage-pool/{}.img",
                self.name
            ))
            .await?;
        Ok(())
    }
}

/// A worker's own host NQN, which ends in its host id.
fn host_nqn(worker: &Worker) -> String {
    let number = &worker.name()[1..];
    format!("nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-00000000000{number}")
}
