use std::os::unix::fs::symlink;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
struct Issued(String, String);

#[derive(Clone, Copy)]
enum Validity {
    Now,
    Past,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str, validity: Validity) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        if let Validity::Past = validity {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1));
        }
        Issued(params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A Secret as kubelet mounts it: files behind one link, which is exchanged as a whole.
struct Secret(tempfile::TempDir);

impl Secret {
    fn new() -> Self {
        let secret = Self(tempfile::tempdir().unwrap());
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(format!("..data/{name}"), secret.0.path().join(name)).unwrap();
        }
        secret
    }

    fn files(&self) -> Files {
        let path = |name: &str| self.0.path().join(name);
        Files { certificate: path("tls.crt"), key: path("tls.key"), client_ca: path("ca.crt") }
    }

    fn renew(&self, version: &str, authority: &Authority, Issued(certificate, key): &Issued) {
        let folder = self.0.path().join(version);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("tls.crt"), certificate).unwrap();
        std::fs::write(folder.join("tls.key"), key).unwrap();
        std::fs::write(folder.join("ca.crt"), authority.0.pem()).unwrap();
        let (new, data) = (self.0.path().join("..data_tmp"), self.0.path().join("..data"));
        symlink(version, &new).unwrap();
        std::fs::rename(new, data).unwrap();
    }
}

struct Caller {
    trusts: RootCertStore,
    identity: Option<Issued>,
}

impl Caller {
    fn of(authority: &Authority, identity: Option<Issued>) -> Self {
        let mut trusts = RootCertStore::empty();
        trusts.add(authority.0.der().clone()).unwrap();
        Self { trusts, identity }
    }

    /// Talks over a new connection; in TLS 1.3 it is told only after its own handshake whether it is let in.
    async fn talk(&self, address: std::net::SocketAddr) -> io::Result<()> {
        let mut stream = self.connect(address).await?;
        echo(&mut stream).await
    }

    async fn connect(
        &self,
        address: std::net::SocketAddr,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.trusts.clone());
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(Issued(certificate, key)) => {
                let chain =
                    CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connection = TcpStream::connect(address).await?;
        let name = ServerName::try_from("agent").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, connection).await
    }
}

async fn echo(stream: &mut tokio_rustls::client::TlsStream<TcpStream>) -> io::Result<()> {
    stream.write_all(b"x").await?;
    stream.read_exact(&mut [0]).await.map(drop)
}

/// Answers whoever is let in.
async fn serve(secret: &Secret) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = Tls::open(secret.files()).unwrap().incoming(listener);
    tokio::spawn(incoming.for_each_concurrent(None, |stream| async move {
        let (mut read, mut write) = tokio::io::split(stream.unwrap());
        // Until the other end hangs up.
        let _ = tokio::io::copy(&mut read, &mut write).await;
    }));
    address
}

#[tokio::test]
async fn only_a_certificate_of_the_authority_that_is_valid_now_is_let_in() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let secret = Secret::new();
    secret.renew("1", &ours, &ours.issue("agent", Validity::Now));
    let address = serve(&secret).await;
    for (identity, comes_in) in [
        (Some(ours.issue("controller", Validity::Now)), true),
        (Some(ours.issue("controller", Validity::Past)), false),
        (Some(theirs.issue("controller", Validity::Now)), false),
        (None, false),
    ] {
        assert_eq!(Caller::of(&ours, identity).talk(address).await.is_ok(), comes_in);
    }
}

#[tokio::test]
async fn renewed_certificates_are_those_of_the_next_connection_and_the_old_one_goes_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let secret = Secret::new();
    secret.renew("1", &old, &old.issue("agent", Validity::Now));
    let address = serve(&secret).await;
    let before = Caller::of(&old, Some(old.issue("controller", Validity::Now)));
    let mut connected = before.connect(address).await.unwrap();
    echo(&mut connected).await.unwrap();

    secret.renew("2", &new, &new.issue("agent", Validity::Now));
    assert!(before.talk(address).await.is_err(), "the old authority is nobody any more");
    Caller::of(&new, Some(new.issue("controller", Validity::Now))).talk(address).await.unwrap();
    echo(&mut connected).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_used_changes_nothing() {
    let authority = Authority::new();
    let secret = Secret::new();
    secret.renew("1", &authority, &authority.issue("agent", Validity::Now));
    let address = serve(&secret).await;
    let caller = Caller::of(&authority, Some(authority.issue("controller", Validity::Now)));
    let Issued(certificate, _) = authority.issue("agent", Validity::Now);
    let Issued(_, key) = authority.issue("agent", Validity::Now);
    secret.renew("2", &authority, &Issued(certificate, key));
    caller.talk(address).await.unwrap();
    std::fs::remove_file(secret.0.path().join("..data")).unwrap();
    caller.talk(address).await.unwrap();
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_flag() {
    let authority = Authority::new();
    let secret = Secret::new();
    secret.renew("1", &authority, &authority.issue("agent", Validity::Now));
    let nowhere = PathBuf::from("/nowhere/at/all");
    let damaged = secret.0.path().join("damaged");
    std::fs::write(&damaged, "-----BEGIN CERTIFICATE-----\nno\n").unwrap();
    let files = secret.files();
    for path in [&nowhere, &damaged] {
        for (flag, files) in [
            ("--api-cert", Files { certificate: path.clone(), ..files.clone() }),
            ("--api-key", Files { key: path.clone(), ..files.clone() }),
            ("--api-client-ca", Files { client_ca: path.clone(), ..files.clone() }),
        ] {
            let error = chain(&Tls::open(files).unwrap_err());
            assert!(error.contains(flag), "{error}");
        }
    }
    assert!(Tls::open(files).is_ok());
}
