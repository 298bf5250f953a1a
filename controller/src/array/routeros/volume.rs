//! Volumes: a disk as the volume it is, and the operations that end by showing one.

use std::collections::BTreeSet;

use rds_csi_api::{BackendName, Bytes, HostNqn, Nqn, ReconnectPolicy, VolumeId};

use super::RouterOs;
use super::note::{Facts, asked, slot_of};
use super::outcome::{Concerns, garbled};
use super::reply::{self, Disk, File};
use super::script::{self, Place};
use super::session::Call;
use super::snapshot::takeable;
use crate::array::names::is_snapshot_of_go;
use crate::array::{
    ClusterId, Content, Error, Export, Layout, Owner, Soundness, Source, Subject, Volume, Wanted,
};

impl RouterOs {
    pub(super) async fn create_volume(&self, wanted: &Wanted) -> Result<Volume, Error> {
        let id = &wanted.id;
        let concerns = match &wanted.content {
            Content::Empty(_) => Concerns::of(id),
            Content::CopyOf { source: Source::Snapshot(source), .. } if is_snapshot_of_go(source) => {
                return Err(Error::NoData(source.clone()));
            }
            Content::CopyOf { source: Source::Snapshot(source), .. } => {
                Concerns::of(id).taking_from(takeable(source)?)
            }
            Content::CopyOf { source: Source::Volume(source), .. } => Concerns::of(id).taking_from(source),
        };
        let place = self.place();
        let disk = self.disk(id, place.create(wanted), &concerns).await;
        match disk.and_then(|disk| made(place, wanted, &disk)) {
            Ok(volume) => Ok(volume),
            Err(error) => Err(self.failed(wanted, error).await),
        }
    }

    /// Why a create failed. What it has left is taken back in a call of its own; if that fails too, a repeat does it.
    async fn failed(&self, wanted: &Wanted, error: Error) -> Error {
        // Not where another command may be making the same: its work looks like ours.
        let is_known = matches!(
            error,
            Error::Full { .. } | Error::Refused { .. } | Error::SourceTooLarge { .. } | Error::Damaged { .. }
        );
        let concerns = Concerns::of(&wanted.id);
        if is_known && let Err(also) = self.run(self.place().take_back(wanted), &concerns).await {
            tracing::debug!(volume = %wanted.id, error = %also, "what a failed create has left was not taken back");
        }
        match (error, &wanted.content) {
            (Error::Leftover { .. }, _) => Error::Leftover { path: self.place().image(&wanted.id) },
            (Error::Missing(missing), Content::CopyOf { source: Source::Volume(source), .. })
                if missing == *source =>
            {
                self.why_no_source(source).await
            }
            (Error::MissingSnapshot(_), Content::CopyOf { source: Source::Snapshot(source), .. }) => {
                let found = self.look_at_snapshot(source).await;
                found.err().unwrap_or_else(|| Error::MissingSnapshot(source.clone()))
            }
            (error @ Error::Refused { .. }, Content::CopyOf { source, .. }) => {
                self.why_refused(source, error).await
            }
            (error, _) => error,
        }
    }

    /// Why the array did not copy, if it is the source's fault: it went meanwhile, or has no image any more.
    pub(super) async fn why_refused(&self, source: &Source, refused: Error) -> Error {
        match source {
            Source::Volume(id) => match self.look_at(id).await {
                Err(gone @ Error::Missing(_)) => gone,
                Ok(Volume { soundness: Soundness::Damaged(how), .. }) => {
                    Error::Damaged { subject: id.into(), how }
                }
                _ => refused,
            },
            Source::Snapshot(id) => match self.look_at_snapshot(id).await {
                Err(gone @ Error::MissingSnapshot(_)) => gone,
                _ => refused,
            },
        }
    }

    /// Why nothing can be cloned from a volume.
    async fn why_no_source(&self, source: &VolumeId) -> Error {
        match self.look_at(source).await {
            Err(error) => error,
            Ok(Volume { layout: Layout::FlatFile, .. }) => Error::Flat(source.clone()),
            Ok(Volume { owner: Owner::Nobody, .. }) => {
                Error::Foreign { subject: source.into(), why: "it carries no cluster's name".into() }
            }
            // It was not there, and is now.
            Ok(Volume { owner: Owner::ThisCluster, .. }) => {
                Error::Concurrent { subject: source.into(), text: "it was made just now".into() }
            }
        }
    }

    pub(super) async fn look_at(&self, id: &VolumeId) -> Result<Volume, Error> {
        let place = self.place();
        let printed = self.run(script::look(id), &Concerns::of(id)).await?;
        let (disks, files) = printed.split_once('\n').unwrap_or((&printed, "[]"));
        let disk = only_disk(id, disks)?;
        let files: Vec<File> = reply::list(files).map_err(|why| garbled(&why.to_string(), &printed))?;
        let soundness = soundness(&disk, files.first());
        Ok(Volume { soundness, ..volume(place, id, &disk)? })
    }

    pub(super) async fn grow(&self, id: &VolumeId, to: Bytes) -> Result<Volume, Error> {
        let grown = self.changed(id, self.place().expand(id, to)).await?;
        if grown.size < to {
            return Err(disobeyed(id, "a size of", &grown.size, &to));
        }
        Ok(grown)
    }

    pub(super) async fn note_policy(&self, id: &VolumeId, policy: &ReconnectPolicy) -> Result<Volume, Error> {
        let modified = self.changed(id, self.place().modify(id, policy)).await?;
        match modified.reconnect {
            Some(noted) if noted == *policy => Ok(modified),
            Some(noted) => Err(disobeyed(id, "in its comment the policy", &noted, policy)),
            None => Err(disobeyed(id, "in its comment", &"no policy", policy)),
        }
    }

    /// Runs a call that sets who may connect, and holds the array to it.
    pub(super) async fn let_in(&self, id: &VolumeId, wanted: &Export, call: Call) -> Result<Volume, Error> {
        obedient(self.changed(id, call).await?, wanted)
    }

    /// Runs a call that changes the volume; as it is then. What the call itself stops at is not changed; what is no volume of
    /// ours only afterwards may be.
    pub(super) async fn changed(&self, id: &VolumeId, call: Call) -> Result<Volume, Error> {
        let disk = self.disk(id, call, &Concerns::of(id)).await?;
        volume(self.place(), id, &disk).map_err(|error| match error {
            Error::Foreign { why, .. } => {
                disobeyed(id, "a disk unlike a volume's", &why, &"one of this cluster's")
            }
            error => error,
        })
    }

    /// Runs a call that ends by showing the disk; the disk.
    async fn disk(&self, id: &VolumeId, call: Call, concerns: &Concerns) -> Result<Disk, Error> {
        only_disk(id, &self.run(call, concerns).await?)
    }
}

/// The disk in the volume's slot.
fn only_disk(id: &VolumeId, printed: &str) -> Result<Disk, Error> {
    let unreadable = |why: reply::Unreadable| garbled(&why.to_string(), printed);
    let mut disks: Vec<Disk> = reply::list(printed).map_err(unreadable)?;
    let count = disks.len();
    match disks.pop() {
        Some(_) if count > 1 => Err(unreadable(reply::Unreadable::TooMany(count))),
        Some(disk) => Ok(disk),
        None => Err(Error::Missing(id.clone())),
    }
}

/// The disk that a create has shown as the volume that was asked for; an error if it is another.
fn made(place: Place<'_>, wanted: &Wanted, disk: &Disk) -> Result<Volume, Error> {
    let id = &wanted.id;
    if let Some((what, found, wanted)) = difference(place, wanted, disk) {
        return Err(Error::Conflict { subject: id.into(), what, found, wanted });
    }
    let subject = |source: &Source| match source {
        Source::Snapshot(id) => id.into(),
        Source::Volume(id) => id.into(),
    };
    match &wanted.content {
        Content::CopyOf { source, .. } if disk.size == Bytes::new(0) => {
            Err(Error::Damaged { subject: subject(source), how: "its image is empty or missing".into() })
        }
        Content::CopyOf { source, most: Some(most), .. } if disk.size > *most => {
            Err(Error::SourceTooLarge { source_of: subject(source), size: disk.size, most: *most })
        }
        Content::CopyOf { least: Some(least), .. } if disk.size < *least => {
            Err(disobeyed(id, "a size of", &disk.size, least))
        }
        Content::Empty(_) | Content::CopyOf { .. } => volume(place, id, disk),
    }
}

/// In what a disk differs from what was asked for: what, as it is, and as it was wanted.
fn difference(place: Place<'_>, wanted: &Wanted, disk: &Disk) -> Option<(&'static str, String, String)> {
    let facts = Facts::read(&disk.comment);
    let nothing = || "nothing".to_owned();
    let (source, size) = match &wanted.content {
        Content::Empty(size) => (nothing(), ("size", disk.size.get(), size.get())),
        Content::CopyOf { source, least, .. } => {
            (slot_of(source).to_owned(), ("size asked for", facts.asked, asked(*least)))
        }
    };
    let parameters = facts.parameters.unwrap_or(wanted.parameters);
    // A disk without an owner counts as ours: the Go driver wrote none.
    let owner = facts.cluster.unwrap_or_else(|| place.cluster.to_string());
    let (what, found, wanted_size) = size;
    // Its name may be of a later epoch by now.
    let in_any_epoch = disk.nqn.parse().is_ok_and(|nqn: Nqn| nqn.is_of(&wanted.id));
    let nqn = if in_any_epoch { Nqn::of_volume(&wanted.id).to_string() } else { disk.nqn.clone() };
    let compared = [
        ("type", disk.kind.clone(), "file".into()),
        ("file path", disk.path.clone(), place.image(&wanted.id)),
        ("NQN", nqn, Nqn::of_volume(&wanted.id).to_string()),
        ("owner", owner, place.cluster.to_string()),
        ("content source", facts.from.unwrap_or_else(nothing), source),
        ("port", disk.port.to_string(), wanted.port.to_string()),
        (what, found.to_string(), wanted_size.to_string()),
        ("parameters", parameters.to_string(), wanted.parameters.to_string()),
    ];
    compared.into_iter().find(|(_, found, wanted)| found != wanted)
}

/// The volume if the disk that was read back lets in whom it was told to. A command that ran to its end proves nothing.
pub(super) fn obedient(volume: Volume, wanted: &Export) -> Result<Volume, Error> {
    let wanted = wanted.normal();
    if volume.export == wanted {
        Ok(volume)
    } else {
        Err(disobeyed(&volume.id, "an export to", &volume.export, &wanted))
    }
}

pub(super) fn disobeyed(
    id: &VolumeId,
    what: &'static str,
    found: &impl ToString,
    wanted: &impl ToString,
) -> Error {
    Error::Disobeyed { id: id.clone(), what, found: found.to_string(), wanted: wanted.to_string() }
}

/// Whose a disk is; none if it is another cluster's.
pub(super) fn owner(facts: &Facts, cluster: &ClusterId) -> Option<Owner> {
    match &facts.cluster {
        None => Some(Owner::Nobody),
        Some(named) if named == cluster.as_str() => Some(Owner::ThisCluster),
        Some(_) => None,
    }
}

/// A disk as the volume it is; an error if it is none of this cluster's.
pub(super) fn volume(place: Place<'_>, id: &VolumeId, disk: &Disk) -> Result<Volume, Error> {
    let foreign = |why: String| Error::Foreign { subject: Subject::from(id), why };
    if disk.kind != "file" || !disk.path.starts_with(&format!("/{}/", place.pool)) {
        return Err(foreign(format!("its disk is of type {:?} at {:?}", disk.kind, disk.path)));
    }
    let nqn = disk.nqn.parse().ok().filter(|nqn: &Nqn| nqn.is_of(id));
    let nqn = nqn.ok_or_else(|| foreign(format!("its NQN is {:?}", disk.nqn)))?;
    let facts = Facts::read(&disk.comment);
    let owner = owner(&facts, place.cluster)
        .ok_or_else(|| foreign(format!("it carries the name of another cluster: {:?}", disk.comment)))?;
    let hosts: Result<BTreeSet<HostNqn>, _> = disk.hosts.iter().map(|host| host.parse()).collect();
    let hosts = hosts.map_err(|error| foreign(format!("among the hosts it admits, {error}")))?;
    let export = match (disk.exported, hosts.is_empty()) {
        (false, _) => Export::Off,
        (true, true) => Export::AnyHost,
        (true, false) => Export::Hosts(hosts),
    };
    let backend: Option<BackendName> = id.backend();
    Ok(Volume {
        id: id.clone(),
        size: disk.size,
        port: disk.port,
        nqn,
        export,
        source: facts.source(backend.as_ref()),
        reconnect: facts.reconnect,
        owner,
        layout: if disk.path == place.image(id) { Layout::Subvolume } else { Layout::FlatFile },
        soundness: Soundness::Sound,
    })
}

/// Whether the array has the image that the disk is made of.
pub(super) fn soundness(disk: &Disk, image: Option<&File>) -> Soundness {
    match image {
        None => Soundness::Damaged(format!("its image {} is missing on the array", disk.path)),
        Some(File { size: Some(size), .. }) if *size < disk.size => Soundness::Damaged(format!(
            "its image {} has {size} on the array, less than the {} of its disk",
            disk.path, disk.size
        )),
        Some(_) => Soundness::Sound,
    }
}

#[cfg(test)]
mod tests {
    use rds_csi_api::{Failure as _, Kind};

    use super::*;

    fn hosts(names: &[&str]) -> Export {
        Export::to_hosts(names.iter().map(|name| HostNqn::of(&name.parse().unwrap())))
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_told_in_short() {
        let answer =
            format!("[{{\"type\":\"file\",\"file-size\":4096,\"comment\":[\"{}\"]}}]", "x".repeat(60_000));
        let unreadable = reply::list::<Disk>(&answer).unwrap_err().to_string();
        assert!(garbled(&unreadable, &answer).to_string().chars().count() < 1500);
        assert!(garbled(&answer, &answer).to_string().chars().count() < 1500);
    }

    #[test]
    fn an_array_that_reports_success_is_held_to_what_it_was_told() {
        let id: VolumeId = "pvc-a".parse().unwrap();
        let said = |export: &Export| {
            let (nqn, export) = (Nqn::of_volume(&id), export.clone());
            Volume {
                id: id.clone(),
                size: Bytes::gib(1),
                port: 4420,
                nqn,
                export,
                source: None,
                reconnect: None,
                owner: Owner::ThisCluster,
                layout: Layout::Subvolume,
                soundness: Soundness::Sound,
            }
        };
        let exports = [Export::Off, Export::AnyHost, hosts(&["w1"]), hosts(&["w2"]), hosts(&["w1", "w2"])];
        for found in &exports {
            for wanted in &exports {
                match obedient(said(found), wanted) {
                    Ok(volume) => assert!(found == wanted && volume.export == *found),
                    Err(error) => {
                        assert!(found != wanted && error.kind() == Kind::Bug);
                        let told = format!("volume pvc-a has an export to {found}, not {wanted}");
                        assert!(error.to_string().contains(&told), "{error}");
                    }
                }
            }
        }
        assert!(obedient(said(&Export::Off), &Export::Hosts([].into())).is_ok());
    }
}
