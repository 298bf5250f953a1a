//! The model's words in those of the driver, and back.

use std::sync::LazyLock;
use std::time::SystemTime;

use rds_csi_api::{AccessMode, Bytes, HostNqn, NodeName, Nqn, VolumeId};

use super::world::{Answer, MOST, Nodes, Trip, Written, bit};
use crate::array::{self, Export, Layout, Owner, Soundness, Volume};
use crate::attachments::record::{Course, Migration, Proof};
use crate::attachments::{Attachment, Record, Rights, Shape};

pub(super) const NOW: SystemTime = SystemTime::UNIX_EPOCH;

pub(super) static NAMES: LazyLock<[NodeName; MOST]> =
    LazyLock::new(|| ["w0", "w1", "w2"].map(|name| name.parse().unwrap()));
pub(super) static HOSTS: LazyLock<[HostNqn; MOST]> = LazyLock::new(|| NAMES.each_ref().map(HostNqn::of));
pub(super) static VOLUME: LazyLock<VolumeId> = LazyLock::new(|| "pvc-a".parse().unwrap());

pub(super) const fn mode(shared: bool) -> AccessMode {
    if shared { AccessMode::MultiNodeWriter } else { AccessMode::SingleNodeWriter }
}

pub(super) fn index(node: &NodeName) -> usize {
    NAMES.iter().position(|name| name == node).unwrap()
}

pub(super) fn small(number: usize) -> u8 {
    u8::try_from(number).unwrap()
}

pub(super) fn names(nodes: Nodes) -> impl Iterator<Item = NodeName> {
    (0..MOST).filter(move |node| nodes & bit(*node) != 0).map(|node| NAMES[node].clone())
}

pub(super) fn nqn(epoch: u8) -> Nqn {
    let first = Nqn::of_volume(&VOLUME);
    if epoch == 0 { first } else { format!("{first}:e{}", epoch + 1).parse().unwrap() }
}

pub(super) fn epoch(nqn: &Nqn) -> u8 {
    nqn.as_str().rsplit_once(":e").map_or(0, |(_, number)| number.parse::<u8>().unwrap() - 1)
}

pub(super) fn nodes_of(export: &Export) -> Nodes {
    match export {
        Export::Off => 0,
        Export::AnyHost => unreachable!("a volume with this fence is never open to all"),
        Export::Hosts(hosts) => {
            (0..MOST).filter(|node| hosts.contains(&HOSTS[*node])).map(bit).fold(0, |all, one| all | one)
        }
    }
}

pub(super) fn as_record(written: Written, shared: bool) -> Record {
    let held = Attachment { shape: Shape::Block, mode: mode(shared), rights: Rights::Write, since: NOW };
    let record =
        names(written.holders).fold(Record::default(), |record, node| record.with(node, held.clone()));
    let Some(Trip { from, to, overdue }) = written.migration else { return record };
    record.migrating(Migration {
        from: NAMES[usize::from(from)].clone(),
        to: NAMES[usize::from(to)].clone(),
        since: NOW,
        timeout_seconds: 300,
        proof: Proof { vm: "vm".into(), job: "job".into() },
        course: if overdue { Course::Overdue } else { Course::Running },
    })
}

pub(super) fn as_written(record: &Record) -> Written {
    Written {
        holders: record.nodes().map(|node| bit(index(node))).fold(0, |all, one| all | one),
        migration: record.migration().map(|migration| Trip {
            from: small(index(&migration.from)),
            to: small(index(&migration.to)),
            overdue: migration.course == Course::Overdue,
        }),
    }
}

pub(super) fn as_volume(answer: Answer) -> Result<Volume, array::Error> {
    match answer {
        Answer::Volume { admitted, epoch } => Ok(Volume {
            id: VOLUME.clone(),
            size: Bytes::gib(1),
            nqn: nqn(epoch),
            port: 4420,
            export: Export::to_hosts(names(admitted).map(|node| HOSTS[index(&node)].clone())),
            source: None,
            reconnect: None,
            owner: Owner::ThisCluster,
            layout: Layout::Subvolume,
            soundness: Soundness::Sound,
        }),
        Answer::Strangers => Err(array::Error::Strangers(VOLUME.clone())),
        Answer::Lost => Err(array::Error::Lost { reason: "the reply was lost".into() }),
        other => unreachable!("{other:?} is none of the array's answers"),
    }
}
