//! How kubelet gets to know the driver: it finds our socket in its plugins_registry directory, asks who is there, asks the
//! CSI socket for the node, writes CSINode, and tells how that went.
//!
//! kubelet comes by itself, at its own start and again after a failure; so nothing here waits or retries.

use std::fs::DirBuilder;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rds_csi_api::DRIVER_NAME;
use rds_csi_api::plugin_registration::registration_server::{Registration as Service, RegistrationServer};
use rds_csi_api::plugin_registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use rds_csi_api::serve::admin::Readiness;
use rds_csi_api::serve::socket;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::net::UnixListener;
use tokio::task::{JoinError, spawn_blocking};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::host::KubeletDir;

/// Where kubelet looks, in its own directory.
const REGISTRY: &str = "plugins_registry";

/// What the socket's name begins with. kubelet sends its whole path as the request's `:authority`, percent-encoded, and in the
/// name of a host HTTP allows no percent sign (RFC 3986, 3.2.2, as the WHATWG's URLs have it): the request would be refused
/// unread. Before an `@`, in the place of a user, it is allowed.
const USER: &str = "csi@";

/// kubelet takes every 1.x for compatible.
const CSI_VERSION: &str = "1.0.0";

/// A socket in plugins_registry, not served yet. Once this is dropped, it is gone.
#[derive(Debug)]
pub struct Registration {
    listener: UnixListener,
    socket: Socket,
    answers: Answers,
}

/// Why kubelet cannot find us.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is not there, and cannot be made.
    #[error("cannot make {}, where kubelet looks for drivers: check --kubelet-dir", path.display())]
    Registry {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The socket cannot be served.
    #[error("cannot register with kubelet; if something else does that, give --register=false")]
    Socket(#[from] socket::Error),
    /// Nobody would notice if it were removed.
    #[error("cannot watch {}, the socket for kubelet", path.display())]
    Watch {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A thread ended before its work was done.
    #[error("the driver has a bug")]
    Thread(#[from] JoinError),
    /// It cannot be served.
    #[error("kubelet cannot be answered")]
    Serving(#[from] tonic::transport::Error),
    /// There is no such path.
    #[error("--csi-socket {} cannot be told to kubelet", path.display())]
    CsiSocket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl Registration {
    /// Makes the socket.
    pub async fn bind(kubelet: &KubeletDir, csi: &Path, registry: &mut Registry) -> Result<Self, Error> {
        let endpoint = std::path::absolute(csi)
            .map_err(|source| Error::CsiSocket { path: csi.into(), source })?
            .to_string_lossy()
            .into_owned();
        let path = kubelet.as_path().join(REGISTRY).join(format!("{USER}{DRIVER_NAME}-reg.sock"));
        make_registry(&path)?;
        let listener = socket::bind(&path).await?;
        let standing = Standing::new(registry);
        Ok(Self { listener, socket: Socket(path), answers: Answers { endpoint, standing } })
    }

    /// What kubelet has said so far.
    pub fn standing(&self) -> Standing {
        self.answers.standing.clone()
    }

    /// Answers kubelet until the process is to end. Then the socket goes, which tells kubelet that the driver is not there. If
    /// somebody else removes it, kubelet takes the driver out of CSINode: so it is made again at once.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let Self { mut listener, socket, answers } = self;
        let path = socket.0.clone();
        let mut shutdown = pin!(shutdown);
        loop {
            let mut serving = pin!(
                Server::builder()
                    .add_service(RegistrationServer::new(answers.clone()))
                    .serve_with_incoming(UnixListenerStream::new(listener))
            );
            tokio::select! {
                () = &mut shutdown => {
                    // Before the listener goes: an agent that is started meanwhile must not find its own new socket removed.
                    drop(socket);
                    return Ok(());
                }
                served = &mut serving => return Ok(served?),
                removed = removal(&path) => removed?,
            }
            tracing::warn!(socket = %path.display(), "somebody removed the socket for kubelet: it is made again");
            make_registry(&path)?;
            listener = socket::bind(&path).await?;
        }
    }
}

/// kubelet makes it, too, when it starts; on a node that boots we may be earlier.
fn make_registry(socket: &Path) -> Result<(), Error> {
    let folder = socket.parent().unwrap_or(socket);
    let made = DirBuilder::new().recursive(true).mode(0o750).create(folder);
    made.map_err(|source| Error::Registry { path: folder.into(), source })
}

/// Ends when nothing is at the path any more, told by the kernel.
async fn removal(socket: &Path) -> Result<(), Error> {
    let watched = |source: Errno| Error::Watch { path: socket.into(), source: source.into() };
    let folder = socket.parent().unwrap_or(socket);
    let notices = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(watched)?;
    let what = WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
    match inotify::add_watch(&notices, folder, what) {
        Ok(_) => {}
        // It is gone with its directory.
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(watched(error)),
    }
    let notices = Arc::new(notices);
    // What they say does not matter: the directory is the truth.
    while socket.symlink_metadata().is_ok() {
        let notices = Arc::clone(&notices);
        // No longer at once than the end of the process waits for a thread.
        spawn_blocking(move || heard(&notices, Duration::from_secs(1))).await?.map_err(watched)?;
    }
    Ok(())
}

/// Waits for a notice, and takes all that are there.
fn heard(notices: &OwnedFd, limit: Duration) -> Result<(), Errno> {
    let limit = limit.try_into().map_err(|_| Errno::INVAL)?;
    match poll(&mut [PollFd::new(notices, PollFlags::IN)], Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error),
    }
    while let Ok(1..) = rustix::io::read(notices, &mut [0; 4096]) {}
    Ok(())
}

/// A path that is removed when this is dropped.
#[derive(Debug)]
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(%error, socket = %self.0.display(), "the socket for kubelet cannot be removed");
        }
    }
}

#[derive(Debug, Clone)]
struct Answers {
    endpoint: String,
    standing: Standing,
}

#[tonic::async_trait]
impl Service for Answers {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".into(),
            name: DRIVER_NAME.into(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec![CSI_VERSION.into()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = request.into_inner();
        let word = if plugin_registered { Word::Registered } else { Word::Refused(error) };
        match &word {
            Word::Registered => tracing::info!(csi_socket = self.endpoint, "registered with kubelet"),
            Word::Refused(error) => tracing::warn!(
                error,
                "kubelet did not register the driver, and tries again: see that {} is the same path for kubelet (mount its \
                 directory at the same place), and that the API server lets kubelet write its CSINode; kubelet's log has more",
                self.endpoint
            ),
            Word::None => {}
        }
        self.standing.set(word);
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

/// What kubelet last said, for `/readyz` and for metrics.
#[derive(Debug, Clone)]
pub struct Standing(Arc<Said>);

#[derive(Debug)]
struct Said {
    word: Mutex<Word>,
    registered: Gauge,
    refusals: Counter,
}

#[derive(Debug)]
enum Word {
    None,
    Registered,
    Refused(String),
}

impl Standing {
    fn new(registry: &mut Registry) -> Self {
        let said =
            Said { word: Mutex::new(Word::None), registered: Gauge::default(), refusals: Counter::default() };
        registry.register(
            "rds_csi_registered",
            "Whether kubelet has registered the driver",
            said.registered.clone(),
        );
        registry.register(
            "rds_csi_registration_failures",
            "How often kubelet said that it could not register the driver",
            said.refusals.clone(),
        );
        Self(Arc::new(said))
    }

    fn set(&self, word: Word) {
        self.0.registered.set(i64::from(matches!(word, Word::Registered)));
        if matches!(word, Word::Refused(_)) {
            self.0.refusals.inc();
        }
        *self.0.word.lock().unwrap_or_else(PoisonError::into_inner) = word;
    }

    /// Without a registration no pod of the node gets a volume.
    pub fn readiness(&self) -> Readiness {
        match &*self.0.word.lock().unwrap_or_else(PoisonError::into_inner) {
            Word::None => Readiness::Waiting("kubelet has not asked for the driver yet".into()),
            Word::Registered => Readiness::Ready,
            Word::Refused(error) => {
                Readiness::Waiting(format!("kubelet did not register the driver: {error}"))
            }
        }
    }
}
