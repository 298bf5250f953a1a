//! A MikroTik ROSE Data Server (RouterOS 7.21 or newer) as an [`Array`], by its command line over SSH.
//!
//! Every operation is one command, so one round trip. A volume is a btrfs subvolume with one image file in it, and a file
//! disk over that file; the disk's slot, the subvolume and the end of the NQN are the volume's id.

mod reply;
mod script;
mod session;

use std::collections::BTreeSet;
use std::fmt;

use rds_csi_api::{BackendName, Bytes, HostNqn, Nqn, ReconnectPolicy, SnapshotId, VolumeId};
use tracing::Instrument as _;

use super::{
    Array, Capacity, ClusterId, Content, Error, Export, Inventory, Layout, Owner, Pool, Snapshot, Soundness,
    Subject, Volume, Wanted, WantedSnapshot,
};
use reply::{Disk, Known, Reply};
use script::{Mark, Place};
use session::Session;

pub use session::{Destination, Keeper, Settings};

/// The array.
#[derive(Clone)]
pub struct RouterOs {
    session: Session,
    pool: Pool,
    cluster: ClusterId,
    /// What the ids of what it holds begin with.
    backend: Option<BackendName>,
}

impl RouterOs {
    /// The array, and the task that keeps it connected.
    pub fn new(
        settings: Settings,
        pool: Pool,
        cluster: ClusterId,
        backend: Option<BackendName>,
    ) -> (Self, Keeper) {
        let (session, keeper) = Session::new(settings);
        (Self { session, pool, cluster, backend }, keeper)
    }

    /// Whether it is connected now.
    pub fn is_connected(&self) -> bool {
        self.session.is_up()
    }

    /// The RouterOS release that it runs, such as `7.21.2`, if it is connected now.
    pub fn version(&self) -> Option<String> {
        self.session.version().map(|version| version.to_string())
    }

    /// Runs one call about one volume; what it printed before its report.
    async fn run(&self, what: &'static str, place: &Place<'_>, statements: String) -> Result<String, Error> {
        let span = tracing::info_span!(
            "routeros",
            otel.name = what,
            otel.kind = "client",
            server.address = self.host()
        );
        let call = place.call(what, statements);
        let reply = self.session.run(call).instrument(span).await.map_err(|error| match error {
            session::Error::Unreachable(reason) => Error::Unreachable { reason },
            session::Error::Lost(reason) => Error::Lost { reason },
            session::Error::Late => Error::Late { after: self.session.settings().command_timeout },
        })?;
        let subject = Subject::from(place.id);
        match reply {
            Reply::Done(printed) => Ok(printed),
            Reply::Stopped(mark) => Err(stopped(mark, place)),
            Reply::Failed(Known::NoSpace, text) => Err(Error::Full { subject, text }),
            Reply::Failed(Known::NoPermission, text) => Err(Error::Denied { text }),
            Reply::Failed(Known::Exists, text) => {
                Err(Error::Foreign { subject, why: format!("the array said: {text}") })
            }
            Reply::Failed(Known::Other, text) => Err(Error::Refused { text }),
            Reply::NotUnderstood(text) => Err(Error::NotUnderstood { text }),
            Reply::Unknown(text) => Err(garbled("its report is missing", &text)),
        }
    }

    /// Runs one call that ends by showing the disk; the disk.
    async fn disk(&self, what: &'static str, place: &Place<'_>, statements: String) -> Result<Disk, Error> {
        let printed = self.run(what, place, statements).await?;
        reply::disk(&printed)
            .map_err(|why| garbled(&why.to_string(), &printed))?
            .ok_or_else(|| Error::Missing(place.id.clone()))
    }

    /// Runs one call that sets who may connect, and holds the array to it.
    async fn let_in(
        &self,
        what: &'static str,
        id: &VolumeId,
        wanted: &Export,
        line: impl FnOnce(&Place<'_>) -> String,
    ) -> Result<Volume, Error> {
        let nqn = Nqn::of_volume(id);
        let place = self.place(id, &nqn);
        let statements = line(&place);
        let disk = self.disk(what, &place, statements).await?;
        obedient(volume(&place, &disk)?, wanted)
    }

    fn place<'a>(&'a self, id: &'a VolumeId, nqn: &'a Nqn) -> Place<'a> {
        Place { pool: &self.pool, cluster: &self.cluster, id, nqn }
    }

    fn host(&self) -> &str {
        &self.session.settings().destination.host
    }
}

impl fmt::Debug for RouterOs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterOs")
            .field("backend", &self.backend)
            .field("host", &self.host())
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

impl Array for RouterOs {
    async fn create(&self, wanted: &Wanted) -> Result<Volume, Error> {
        let Content::Empty(size) = wanted.content else { return Err(not_yet()) };
        let nqn = Nqn::of_volume(&wanted.id);
        let place = self.place(&wanted.id, &nqn);
        let line = place.create(size, wanted.port, &wanted.export, &wanted.label);
        let disk = self.disk("create", &place, line).await?;
        let owner = disk.comment.split(' ').next().filter(|owner| owner.starts_with("rds-csi:"));
        // A disk without a comment counts as ours: the Go driver wrote none.
        let owner = owner.map_or_else(|| place.owner(), Into::into);
        let compared = [
            ("type", disk.kind.clone(), "file".into()),
            ("file path", disk.path.clone(), place.image()),
            ("NQN", disk.nqn.clone(), nqn.to_string()),
            ("owner", owner, place.owner()),
            ("port", disk.port.to_string(), wanted.port.to_string()),
            ("size", disk.size.to_string(), size.to_string()),
        ];
        if let Some((what, found, wanted_so)) =
            compared.into_iter().find(|(_, found, wanted)| found != wanted)
        {
            return Err(Error::Conflict {
                subject: Subject::from(&wanted.id),
                what,
                found,
                wanted: wanted_so,
            });
        }
        volume(&place, &disk)
    }

    async fn volume(&self, id: &VolumeId) -> Result<Volume, Error> {
        let nqn = Nqn::of_volume(id);
        let place = self.place(id, &nqn);
        let disk = self.disk("show", &place, script::SHOW.into()).await?;
        volume(&place, &disk)
    }

    async fn delete(&self, id: &VolumeId) -> Result<(), Error> {
        let nqn = Nqn::of_volume(id);
        let place = self.place(id, &nqn);
        self.run("delete", &place, place.delete()).await.map(drop)
    }

    async fn admit(&self, id: &VolumeId, export: &Export) -> Result<Volume, Error> {
        self.let_in("admit", id, export, |place| place.admit(export)).await
    }

    async fn dismiss(&self, id: &VolumeId, before: &Export, after: &Export) -> Result<Volume, Error> {
        self.let_in("dismiss", id, after, |place| place.dismiss(before, after)).await
    }

    async fn fence(&self, id: &VolumeId, before: &Export, after: &Export) -> Result<Volume, Error> {
        self.let_in("fence", id, after, |place| place.fence(before, after)).await
    }

    async fn expand(&self, _: &VolumeId, _: Bytes) -> Result<Volume, Error> {
        Err(not_yet())
    }

    async fn modify(&self, _: &VolumeId, _: &ReconnectPolicy) -> Result<Volume, Error> {
        Err(not_yet())
    }

    async fn take_snapshot(&self, _: &WantedSnapshot) -> Result<Snapshot, Error> {
        Err(not_yet())
    }

    async fn snapshot(&self, _: &SnapshotId) -> Result<Snapshot, Error> {
        Err(not_yet())
    }

    async fn delete_snapshot(&self, _: &SnapshotId) -> Result<(), Error> {
        Err(not_yet())
    }

    async fn inventory(&self) -> Result<Inventory, Error> {
        Err(not_yet())
    }

    async fn capacity(&self) -> Result<Capacity, Error> {
        Err(not_yet())
    }
}

fn not_yet() -> Error {
    Error::Refused { text: "not built yet".into() }
}

/// An answer that cannot be read. Neither it nor what serde quotes of it may be of any length.
fn garbled(why: &str, text: &str) -> Error {
    Error::Garbled { why: reply::kept(why), text: reply::kept(text) }
}

/// The volume if the disk that was read back lets in whom it was told to. A command that ran to its end proves nothing.
fn obedient(volume: Volume, wanted: &Export) -> Result<Volume, Error> {
    let wanted = wanted.normal();
    if volume.export == wanted {
        Ok(volume)
    } else {
        Err(Error::Disobeyed { id: volume.id, found: volume.export, wanted })
    }
}

/// A disk as the volume it is; an error if it is none.
fn volume(place: &Place<'_>, disk: &Disk) -> Result<Volume, Error> {
    let foreign = |why: String| Error::Foreign { subject: place.id.into(), why };
    if disk.kind != "file" || !disk.path.starts_with(&format!("/{}/", place.pool)) {
        return Err(foreign(format!("its disk is of type {:?} at {:?}", disk.kind, disk.path)));
    }
    if disk.nqn != place.nqn.as_str() {
        return Err(foreign(format!("its NQN is {:?}", disk.nqn)));
    }
    let hosts: Result<BTreeSet<HostNqn>, _> = disk.hosts.iter().map(|host| host.parse()).collect();
    let hosts = hosts.map_err(|error| foreign(format!("among the hosts it admits, {error}")))?;
    let export = match (disk.exported, hosts.is_empty()) {
        (false, _) => Export::Off,
        (true, true) => Export::AnyHost,
        (true, false) => Export::Hosts(hosts),
    };
    Ok(Volume {
        id: place.id.clone(),
        size: disk.size,
        port: disk.port,
        nqn: place.nqn.clone(),
        export,
        source: None,
        reconnect: None,
        owner: Owner::ThisCluster,
        layout: Layout::Subvolume,
        soundness: Soundness::Sound,
    })
}

fn stopped(mark: Mark, place: &Place<'_>) -> Error {
    let foreign = |why: &str| Error::Foreign { subject: place.id.into(), why: why.into() };
    match mark {
        Mark::Missing => Error::Missing(place.id.clone()),
        Mark::NotAVolume => foreign("its disk is no file disk in the pool, or has another NQN"),
        Mark::OtherCluster => foreign("its comment names another cluster"),
        Mark::OtherFiles => {
            foreign("its subvolume holds other files than one image, or another disk uses it")
        }
        Mark::Leftover => Error::Leftover { path: place.image() },
        Mark::Strangers => Error::Strangers(place.id.clone()),
        Mark::Open => Error::Open(place.id.clone()),
    }
}

#[cfg(test)]
mod tests {
    use rds_csi_api::{Bytes, Failure as _, Kind};

    use super::*;

    fn hosts(names: &[&str]) -> Export {
        Export::to_hosts(names.iter().map(|name| HostNqn::of(&name.parse().unwrap())))
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_told_in_short() {
        let answer =
            format!("[{{\"type\":\"file\",\"file-size\":4096,\"comment\":[\"{}\"]}}]", "x".repeat(60_000));
        let unreadable = reply::disk(&answer).unwrap_err().to_string();
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
                        assert!(
                            error
                                .to_string()
                                .contains(&format!("lets {found} into volume pvc-a, not {wanted}"))
                        );
                    }
                }
            }
        }
        assert!(obedient(said(&Export::Off), &Export::Hosts([].into())).is_ok());
    }
}
