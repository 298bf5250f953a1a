//! Its export: the list of hosts that it is for, and the way there.

use rds_csi_api::status;
use serde_json::Value;

use super::super::check::Check;
use super::super::device::judged;
use super::super::report::Outcome;
use super::super::{Stopped, nvme_tcp};
use super::{BEFORE, BLOCK, OVER_NVME, SIZE, THERE, Trial, equal, hosts, same};
use crate::array::routeros::exact;
use crate::array::{Array as _, Error, Export};

impl Trial<'_> {
    /// A list of two hosts is told as it was set, in whatever form, and whoever knows of one of them is stopped.
    pub(super) async fn host_list_reads_back(&mut self) -> Result<(), Stopped> {
        let told = self.list_of_two().await;
        self.x.may(Check::HostListRead, told);
        // Whatever the list says now, what follows begins without one.
        let shut = self.x.array.dismiss(&self.volume, &Export::AnyHost, &Export::Off).await;
        self.x.done(Check::HostListRead, shut).map(drop)
    }

    async fn list_of_two(&self) -> Result<String, String> {
        let array = &self.x.array;
        let chain = |error: Error| status::chain(&error);
        let both = hosts(&[&self.a, &self.b]);
        let exported = array.admit(&self.volume, &both).await.map_err(chain)?.export;
        if exported != both {
            return Err(format!("{both} were set, and it told {exported}"));
        }
        for known in [&self.a, &self.b] {
            match array.admit(&self.volume, &hosts(&[known])).await {
                Err(Error::Strangers(_)) => {}
                Err(error) => return Err(chain(error)),
                Ok(_) => return Err(format!("who knew of {} alone was not told of the other", known.nqn())),
            }
        }
        let one = hosts(&[&self.b]);
        let exported = array.dismiss(&self.volume, &both, &one).await.map_err(chain)?.export;
        if exported != one {
            return Err(format!("{one} was to stay, and it told {exported}"));
        }
        let form = ":put [:typeof [/disk get [/disk find slot=$volume] nvme-tcp-server-allow-host-name]]";
        judged(self.x.ask(form).await, |said| !said.is_empty())
            .map(|form| format!("scripts read it as {form}"))
    }

    /// How much was written to the disk, as the array counts; nothing if it shows no such count.
    async fn written(&self) -> Result<Option<u64>, String> {
        let shown =
            ":put [:serialize to=json [/disk print as-value proplist=slot,write-bytes where slot=$volume]]";
        let said = self.x.ask(shown).await.map_err(|error| status::chain(&error))?;
        let disks: Value = serde_json::from_str(&said).map_err(|error| error.to_string())?;
        Ok(exact(&disks[0]["write-bytes"].to_string()))
    }

    /// A host on the list connects and writes, another does not.
    pub(super) async fn export_is_reached(&mut self) -> Result<(), Stopped> {
        let admitted = self.x.array.admit(&self.volume, &hosts(&[&self.a])).await;
        self.x.done(Check::AclAdmits, admitted)?;
        let (portal, a) = (self.portal, self.a.nqn());
        let mut first = match self.connects(&self.nqn, &self.a, THERE).await {
            Ok(connected) => connected,
            Err(error @ nvme_tcp::Error::Refused { .. }) => {
                self.x.report.note(Check::NvmeConnect, Outcome::Proved, format!("{portal} speaks NVMe/TCP"));
                return self.x.must(Check::AclAdmits, Err(format!("{a} is on the list, and {error}")));
            }
            Err(error @ nvme_tcp::Error::Unreachable { .. }) => {
                self.x.report.note_all(&OVER_NVME, Outcome::NotProved, &error.to_string());
                return Err(Stopped);
            }
            // The export is on, and somebody is there: no node could connect to it either.
            Err(error) => {
                self.x.report.note(Check::NvmeConnect, Outcome::Failed, error.to_string());
                self.x.report.note_all(&OVER_NVME, Outcome::Skipped, "not reached: see nvme-connect");
                return Err(Stopped);
            }
        };
        let seen = first.namespace().await.map(|namespace| namespace.size);
        let seen = self.x.heard(Check::NvmeConnect, seen)?;
        let told = equal(seen, SIZE).map(|size| format!("{portal}, {size}"));
        self.x.must(Check::NvmeConnect, told)?;
        self.x.report.note(Check::AclAdmits, Outcome::Proved, format!("{a}, alone on the list"));

        let before = self.written().await;
        let written = first.write(0, &BEFORE).await;
        self.x.heard(Check::NvmeData, written)?;
        self.counted(before).await;
        let read = first.read(0).await;
        let read = self.x.heard(Check::NvmeData, read)?;
        self.x.may(Check::NvmeData, same(&read, &BEFORE, "4 KiB, written, flushed and read back"));
        self.first = Some(first);
        self.refused(Check::AclRefuses, &self.nqn.clone(), &self.b.clone()).await
    }

    async fn counted(&mut self, before: Result<Option<u64>, String>) {
        let after = self.written().await;
        let (outcome, evidence) = match (before, after) {
            (Ok(Some(before)), Ok(Some(after))) if after >= before + BLOCK as u64 => (
                Outcome::Proved,
                format!("write-bytes was {before}, and is {after} after 4 KiB were written"),
            ),
            (Ok(Some(before)), Ok(Some(after))) => {
                let told = format!("write-bytes was {before}, and is {after} although 4 KiB were written");
                (Outcome::NotAvailable, told)
            }
            (Ok(_), Ok(_)) => (Outcome::NotAvailable, "/disk shows no write-bytes".into()),
            (Err(why), _) | (_, Err(why)) => (Outcome::NotAvailable, why),
        };
        self.x.report.note(Check::Counters, outcome, evidence);
    }
}
