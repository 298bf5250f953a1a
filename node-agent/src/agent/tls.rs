//! TLS of the internal API, with certificates that may be renewed under the running program: each connection is made with what the
//! files say then, and those that there are go on as they began.

use std::future::ready;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{Stream, StreamExt as _};
use rds_csi_api::status::chain;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::TcpListenerStream;

/// How long a handshake may take.
const SHAKE_TIME: Duration = Duration::from_secs(10);

/// How long nobody is let in after a connection could not be taken.
const PAUSE: Duration = Duration::from_secs(1);

/// So many may go on at once. The controller has few connections, and nobody else should have any.
const MOST_SHAKES: usize = 64;

/// Where certificates lie (PEM). kubelet renews those of a Secret by exchanging a link to their directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Our own, with what leads to its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Of those who may call.
    pub client_ca: PathBuf,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{flag} {} cannot be read", path.display())]
    File {
        /// Which flag names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{flag} cannot be used")]
    Pem {
        /// Which flag names it.
        flag: &'static str,
        /// What is wrong.
        #[source]
        source: pem::Error,
    },
    /// The authority cannot be used.
    #[error("--api-client-ca cannot be used")]
    Authority(#[from] VerifierBuilderError),
    /// They do not fit together.
    #[error(
        "the internal API's certificates cannot be used: check --api-cert, --api-key and --api-client-ca"
    )]
    Tls(#[from] rustls::Error),
}

/// What the files say.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Vec<u8>,
}

/// The server's side.
pub struct Tls {
    files: Files,
    present: Mutex<Present>,
}

/// What connections are made with.
struct Present {
    contents: Contents,
    config: Arc<ServerConfig>,
    /// Why not with what the files say now, as it was told to the log.
    refused: Option<String>,
}

impl Tls {
    /// With these files, which must be usable now.
    pub fn open(files: Files) -> Result<Self, Error> {
        let contents = read(&files)?;
        let config = Arc::new(config(&contents)?);
        Ok(Self { files, present: Mutex::new(Present { contents, config, refused: None }) })
    }

    /// Those who come, once it is proved that their certificate is of the authority.
    pub fn incoming(self, listener: TcpListener) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
        let tls = Arc::new(self);
        let shaken = TcpListenerStream::new(listener).map(move |connection| {
            let tls = Arc::clone(&tls);
            async move {
                match connection {
                    Ok(connection) => tls.shake(connection).await,
                    Err(error) => {
                        // Too many files are open, as a rule, and the next attempt would fail at once.
                        sleep(PAUSE).await;
                        Err(error)
                    }
                }
            }
        });
        shaken.buffer_unordered(MOST_SHAKES).filter_map(|shaken| {
            if let Err(error) = &shaken {
                // Who only looks whether somebody listens hangs up.
                let looked = error.kind() == io::ErrorKind::UnexpectedEof;
                if looked {
                    tracing::debug!("nobody is let in to the internal API: {error}");
                } else {
                    tracing::warn!("nobody is let in to the internal API: {}", chain(error));
                }
            }
            ready(shaken.ok().map(Ok))
        })
    }

    async fn shake(&self, connection: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let peer = connection.peer_addr()?;
        let shaken = timeout(SHAKE_TIME, TlsAcceptor::from(self.config()).accept(connection)).await;
        shaken?.map_err(|error| io::Error::new(error.kind(), format!("{peer}: {error}")))
    }

    /// With what the files say now, or said when they could last be used: nobody renews several files in one moment.
    fn config(&self) -> Arc<ServerConfig> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let renewed = read(&self.files).and_then(|contents| {
            if contents == present.contents { Ok(None) } else { Ok(Some((config(&contents)?, contents))) }
        });
        match renewed {
            Ok(None) => present.refused = None,
            Ok(Some((config, contents))) => {
                *present = Present { contents, config: Arc::new(config), refused: None };
                tracing::info!("the internal API's certificates are renewed");
            }
            Err(error) => {
                let why = chain(&error);
                if present.refused.as_ref() != Some(&why) {
                    tracing::warn!("the internal API goes on with the certificates that it has: {why}");
                    present.refused = Some(why);
                }
            }
        }
        Arc::clone(&present.config)
    }
}

impl std::fmt::Debug for Tls {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

fn read(files: &Files) -> Result<Contents, Error> {
    let read = |flag, path: &Path| {
        std::fs::read(path).map_err(|source| Error::File { flag, path: path.into(), source })
    };
    let Files { certificate, key, client_ca } = files;
    Ok(Contents {
        certificate: read("--api-cert", certificate)?,
        key: read("--api-key", key)?,
        client_ca: read("--api-client-ca", client_ca)?,
    })
}

fn config(contents: &Contents) -> Result<ServerConfig, Error> {
    let of = |flag| move |source| Error::Pem { flag, source };
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&contents.client_ca) {
        roots.add(authority.map_err(of("--api-client-ca"))?)?;
    }
    let chain = CertificateDer::pem_slice_iter(&contents.certificate).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(of("--api-key"))?;
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.map_err(of("--api-cert"))?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A session that is taken up again would be let in by a certificate of earlier, whatever became of it since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[cfg(test)]
mod tests;
