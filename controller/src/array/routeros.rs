//! A MikroTik ROSE Data Server (RouterOS 7.21 or newer) as an [`Array`], by its command line over SSH.
//!
//! Every operation is one command, so one round trip. A volume is a btrfs subvolume with one image file in it, and a file
//! disk over that file; the disk's slot, the subvolume and the end of the NQN are the volume's id.

mod fence;
mod inventory;
mod note;
mod outcome;
mod reply;
mod script;
mod session;
mod snapshot;
mod volume;

use std::fmt;

use rds_csi_api::{BackendName, Bytes, Nqn, ReconnectPolicy, SnapshotId, VolumeId};
use tracing::Instrument as _;

use super::{
    Array, Capacity, ClusterId, Error, Export, IfOpen, Inventory, Pool, Snapshot, Volume, Wanted,
    WantedSnapshot,
};
use outcome::Concerns;
use script::Place;
use session::{Call, Session};

pub(crate) use reply::exact;
#[cfg(any(test, feature = "fake"))]
pub use script::specimens::{lines, saying};
pub(crate) use script::{literally, quote};
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

    /// Until the connection comes or goes.
    pub async fn comes_or_goes(&mut self) {
        self.session.changed().await;
    }

    /// Runs statements with the volume's slot in `$volume`; what they printed. For who examines an array.
    pub(crate) async fn ask(&self, id: &VolumeId, statements: &str) -> Result<String, Error> {
        self.run(script::examination(id, statements), &Concerns::of(id)).await
    }

    /// Runs one call; what it printed before its report.
    async fn run(&self, call: Call, concerns: &Concerns) -> Result<String, Error> {
        let span = tracing::info_span!(
            "routeros",
            otel.name = call.name,
            otel.kind = "client",
            server.address = self.host()
        );
        let reply = self.session.run(call).instrument(span).await.map_err(|error| match error {
            session::Error::Unreachable(reason) => Error::Unreachable { reason },
            session::Error::Lost(reason) => Error::Lost { reason },
            session::Error::Late => Error::Late { after: self.session.settings().command_timeout },
        })?;
        outcome::printed(reply, concerns)
    }

    fn place(&self) -> Place<'_> {
        Place { pool: &self.pool, cluster: &self.cluster }
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
        self.create_volume(wanted).await
    }

    async fn volume(&self, id: &VolumeId) -> Result<Volume, Error> {
        self.look_at(id).await
    }

    async fn delete(&self, id: &VolumeId, if_open: IfOpen) -> Result<(), Error> {
        self.run(self.place().delete(id, if_open), &Concerns::of(id)).await.map(drop)
    }

    async fn expand(&self, id: &VolumeId, to: Bytes) -> Result<Volume, Error> {
        self.grow(id, to).await
    }

    async fn modify(&self, id: &VolumeId, reconnect: &ReconnectPolicy) -> Result<Volume, Error> {
        self.note_policy(id, reconnect).await
    }

    async fn admit(&self, id: &VolumeId, export: &Export) -> Result<Volume, Error> {
        self.let_in(id, export, self.place().admit(id, export)).await
    }

    async fn dismiss(&self, id: &VolumeId, before: &Export, after: &Export) -> Result<Volume, Error> {
        self.let_in(id, after, self.place().dismiss(id, before, after)).await
    }

    async fn fence(
        &self,
        id: &VolumeId,
        cut: &Nqn,
        before: &Export,
        after: &Export,
    ) -> Result<Volume, Error> {
        self.shut_out(id, cut, before, after).await
    }

    async fn take_snapshot(&self, wanted: &WantedSnapshot) -> Result<Snapshot, Error> {
        self.snapshot_of(wanted).await
    }

    async fn snapshot(&self, id: &SnapshotId) -> Result<Snapshot, Error> {
        self.look_at_snapshot(id).await
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<(), Error> {
        self.discard(id).await
    }

    async fn inventory(&self) -> Result<Inventory, Error> {
        self.everything().await
    }

    async fn capacity(&self) -> Result<Capacity, Error> {
        self.room().await
    }
}
