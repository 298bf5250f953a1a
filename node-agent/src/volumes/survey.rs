//! How all volumes of this node are, in one reading of the kernel's tables: no file on a volume is touched, and no array asked.

use std::collections::BTreeMap;

use rds_csi_api::{Nqn, VolumeId};

use super::health::{Ailment, Facts, Trouble, Used, diagnose};
use super::record::{Form, Listing, Record};
use super::{Error, Volumes};
use crate::host::{self, Attachment, Found, Host, Mounts};
use crate::storm;

/// How a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// How it is connected.
    pub attachment: Attachment,
    /// Whether anything of it is mounted or published.
    pub in_use: InUse,
    /// The worst that is known against it.
    pub trouble: Option<Trouble>,
}

/// Whether anything of a volume is mounted or published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InUse {
    /// Something is.
    Yes,
    /// Nothing is.
    No,
}

/// All volumes of which there is a record or a connection.
#[derive(Debug, Default)]
pub struct Survey {
    /// Those of which something can be said.
    pub seen: BTreeMap<VolumeId, Seen>,
    /// The others, and why.
    pub unseen: BTreeMap<VolumeId, Error>,
}

/// Looks at all volumes.
pub fn survey<H: Host>(volumes: &Volumes<H>) -> Result<Survey, Error> {
    // In the order in which unstaging ends them, so that what is unstaged meanwhile does not look lost. All of them: one that a
    // record names may have been ours under an earlier prefix.
    let mut subsystems = volumes.host.subsystems(&|_| true)?;
    let mounts = volumes.host.mounts()?;
    let mut survey = Survey::default();
    let Listing { records, damaged } = volumes.records.list()?;
    for record in records {
        let attachment =
            subsystems.remove(&record.nqn).map_or(Ok(Attachment::Absent), |seen| Ok(seen?.attachment));
        let seen = attachment.and_then(|attachment| look(volumes, &record, attachment, &mounts));
        survey.add(record.volume, seen);
    }
    survey.unseen.extend(damaged.into_iter().map(|(volume, error)| (volume, error.into())));
    // A connection that no record knows of.
    for (nqn, seen) in subsystems {
        if let Some(volume) = unrecorded(volumes, &nqn, &survey) {
            let idle = |attachment| Seen { attachment, in_use: InUse::No, trouble: None };
            survey.add(volume, seen.map(|seen| idle(seen.attachment)));
        }
    }
    Ok(survey)
}

impl Survey {
    fn add(&mut self, volume: VolumeId, seen: Result<Seen, host::Error>) {
        match seen {
            Ok(seen) => drop(self.seen.insert(volume, seen)),
            Err(error) => drop(self.unseen.insert(volume, error.into())),
        }
    }
}

fn unrecorded<H>(volumes: &Volumes<H>, nqn: &Nqn, survey: &Survey) -> Option<VolumeId> {
    let volume = volumes.prefix.volume(nqn)?;
    let recorded = survey.seen.contains_key(&volume) || survey.unseen.contains_key(&volume);
    (!recorded).then_some(volume)
}

/// One volume, as the kernel's tables have it.
pub(crate) fn look<H: Host>(
    volumes: &Volumes<H>,
    record: &Record,
    attachment: Attachment,
    mounts: &Mounts,
) -> Result<Seen, host::Error> {
    let uses = uses(volumes, record, &attachment, mounts)?;
    let storm = attachment.device().and_then(|device| storm::of(mounts, &record.volume, device));
    let storm = storm.map(|storm| Trouble { ailment: Ailment::Storm, told: storm.to_string() });
    let in_use = if uses.is_empty() && storm.is_none() { InUse::No } else { InUse::Yes };
    let diagnosis = |attachment: &Attachment| {
        let facts = |used: &Used| Facts {
            volume: record.volume.clone(),
            attachment: attachment.clone(),
            used: used.clone(),
        };
        let troubles = uses.iter().filter_map(|used| diagnose(&facts(used)));
        troubles.chain(storm.clone()).min_by_key(|trouble| trouble.ailment)
    };
    match diagnosis(&attachment) {
        // What was being staged may have been connected after we looked, and mounted before.
        Some(Trouble { ailment: Ailment::GivenUp | Ailment::Unanswered, .. }) => {
            let attachment = volumes.host.attachment(&record.nqn)?;
            let trouble = diagnosis(&attachment);
            Ok(Seen { attachment, in_use, trouble })
        }
        trouble => Ok(Seen { attachment, in_use, trouble }),
    }
}

/// All that there is of a volume at the paths that kubelet gave. A pod that is left over from before a reconnect may have a mount
/// of a device that is gone while another one works.
fn uses<H: Host>(
    volumes: &Volumes<H>,
    record: &Record,
    attachment: &Attachment,
    mounts: &Mounts,
) -> Result<Vec<Used>, host::Error> {
    match record.form {
        Form::Block => {
            let mut nodes = Vec::new();
            for path in record.published.iter().filter_map(|path| volumes.path(path)) {
                if let Found::Node(number) = volumes.host.found_at(&path)? {
                    nodes.push(Used::Block(Some(number)));
                }
            }
            Ok(nodes)
        }
        Form::Filesystem(fs) => {
            let errors = match attachment.device() {
                Some(device) => volumes.host.recorded_errors(device, fs)?,
                None => 0,
            };
            let paths = record.published.iter().chain([&record.staging]);
            let layers = paths.flat_map(|path| mounts.layers(path)).cloned();
            Ok(layers.map(|mount| Used::Filesystem { mount, errors }).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Holds;
    use crate::world::{World, world};
    use crate::{inspect, publish, stage};

    fn published(usage: publish::Usage) -> World {
        let world = world(Holds::Nothing);
        let wanted = match usage {
            publish::Usage::Block => world.stage_as(stage::Usage::Block),
            publish::Usage::Filesystem(_) => world.stage_filesystem(),
        };
        stage::stage(&world.volumes, &wanted).unwrap();
        publish::publish(&world.volumes, &world.publish_as(usage)).unwrap();
        world
    }

    const FILESYSTEM: publish::Usage = publish::Usage::Filesystem(publish::Writing::Allowed);

    fn ailment(world: &World) -> Option<Ailment> {
        let seen = survey(&world.volumes).unwrap().seen.remove(&world.volume).unwrap();
        let one = inspect::one(&world.volumes, &world.volume).unwrap().and_then(|volume| volume.condition);
        let told = seen.trouble.as_ref().map(|trouble| trouble.told.clone());
        assert_eq!(told, one, "one volume is seen as among all");
        seen.trouble.map(|trouble| trouble.ailment)
    }

    #[test]
    fn a_filesystem_is_told_as_it_is() {
        let world = published(FILESYSTEM);
        assert_eq!(ailment(&world), None);
        world.host.record_errors(2);
        assert_eq!(ailment(&world), Some(Ailment::Errors));
        world.host.remount_read_only();
        assert_eq!(ailment(&world), Some(Ailment::ReadOnly));
        world.host.unplug();
        assert_eq!(ailment(&world), Some(Ailment::Unanswered));
    }

    #[test]
    fn a_node_of_another_device_is_stale() {
        let world = published(publish::Usage::Block);
        assert_eq!(ailment(&world), None);
        world.host.renumber();
        assert_eq!(ailment(&world), Some(Ailment::Stale));
    }

    #[test]
    fn what_nobody_uses_has_no_trouble() {
        let world = published(FILESYSTEM);
        world.host.reboot();
        assert_eq!(ailment(&world), None);
        let seen = survey(&world.volumes).unwrap().seen.remove(&world.volume).unwrap();
        assert_eq!((seen.attachment, seen.in_use), (Attachment::Absent, InUse::No));
    }

    #[test]
    fn a_damaged_record_hides_its_own_volume_only() {
        let world = published(FILESYSTEM);
        let other: VolumeId = "pvc-b".parse().unwrap();
        std::fs::write(world.state().join("pvc-b.json"), "null").unwrap();
        let survey = survey(&world.volumes).unwrap();
        assert!(survey.seen.contains_key(&world.volume) && survey.unseen.contains_key(&other));
        let told = inspect::all(&world.volumes).unwrap().pop().unwrap();
        assert_eq!(told.volume, other);
        assert!(told.condition.unwrap().contains("pvc-b.json"));
    }

    #[test]
    fn a_connection_that_no_record_knows_is_seen() {
        let world = published(FILESYSTEM);
        world.volumes.records.remove(&world.volume).unwrap();
        let seen = survey(&world.volumes).unwrap().seen.remove(&world.volume).unwrap();
        assert!(matches!(
            seen,
            Seen { attachment: Attachment::Live(Some(_)), in_use: InUse::No, trouble: None }
        ));
    }
}
