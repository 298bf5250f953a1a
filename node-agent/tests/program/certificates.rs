//! Who may call the internal API of the program, while its certificates are renewed under it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use rds_csi_api::node_agent::node_agent_client::NodeAgentClient;
use rds_csi_api::node_agent::{ListVolumesRequest, WatchEventsRequest, WatchEventsResponse};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use crate::agent::{Agent, PREFIX, free_port};

const CONTROLLER: &str = "rds-csi-controller";
const AGENT: &str = "w1.rds-csi-node-agent";

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

#[derive(Clone, Copy)]
pub(crate) enum Validity {
    Now,
    Past,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key.
    fn issue(&self, name: &str, validity: Validity) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        if let Validity::Past = validity {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1));
        }
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn identity(&self, name: &str, validity: Validity) -> Identity {
        let (certificate, key) = self.issue(name, validity);
        Identity::from_pem(certificate, key)
    }
}

/// The agent's Secret as kubelet mounts it: files behind one link, which is exchanged as a whole.
pub(crate) struct Secret(PathBuf);

impl Secret {
    pub(crate) fn at(folder: &Path) -> Self {
        Self(folder.into())
    }

    pub(crate) fn renew(&self, authority: &Authority, validity: Validity) {
        let version = tempfile::Builder::new().prefix("..").tempdir_in(&self.0).unwrap().keep();
        let (certificate, key) = authority.issue(AGENT, validity);
        for (name, text) in [("tls.crt", certificate), ("tls.key", key), ("ca.crt", authority.0.pem())] {
            std::fs::write(version.join(name), text).unwrap();
            // The first time: they are never exchanged themselves.
            let _ = symlink(format!("..data/{name}"), self.0.join(name));
        }
        let new = self.0.join("..data_tmp");
        symlink(version.file_name().unwrap(), &new).unwrap();
        std::fs::rename(new, self.0.join("..data")).unwrap();
    }
}

/// The program, and where its internal API is.
struct Served {
    agent: Agent,
    port: u16,
}

impl Served {
    fn start() -> Self {
        let port = free_port();
        let agent = Agent::start_with(&[PREFIX, ("--api-listen", &format!("127.0.0.1:{port}"))]);
        Self { agent, port }
    }

    fn secret(&self) -> Secret {
        Secret::at(self.agent.folder.path())
    }

    /// Somebody who trusts that authority.
    fn caller(&self, trusted: &Authority, identity: Option<Identity>) -> NodeAgentClient<Channel> {
        let tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trusted.0.pem())).domain_name(AGENT);
        let tls = identity.into_iter().fold(tls, ClientTlsConfig::identity);
        let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{}", self.port)).unwrap();
        NodeAgentClient::new(endpoint.tls_config(tls).unwrap().connect_lazy())
    }

    fn controller(&self, of: &Authority) -> NodeAgentClient<Channel> {
        self.caller(of, Some(of.identity(CONTROLLER, Validity::Now)))
    }
}

async fn ask(mut caller: NodeAgentClient<Channel>) -> Result<(), Status> {
    caller.list_volumes(ListVolumesRequest {}).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_controller_s_certificate_is_answered_and_only_while_it_is_valid() {
    let served = Served::start();
    let (ours, theirs) = (Authority::new(), Authority::new());
    served.secret().renew(&ours, Validity::Now);
    ask(served.controller(&ours)).await.unwrap();
    for (who, identity) in [
        ("nobody", None),
        ("another authority's controller", Some(theirs.identity(CONTROLLER, Validity::Now))),
        ("an expired controller", Some(ours.identity(CONTROLLER, Validity::Past))),
    ] {
        let status = ask(served.caller(&ours, identity)).await.unwrap_err();
        assert_ne!(status.code(), Code::PermissionDenied, "{who} should not get that far: {status}");
    }
    for name in [AGENT, "w2.rds-csi-node-agent", "x.rds-csi-controller"] {
        let identity = Some(ours.identity(name, Validity::Now));
        let status = ask(served.caller(&ours, identity)).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{name}: {status}");
    }
    let log = served.agent.end();
    assert!(log.contains("nobody is let in to the internal API"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_under_the_program_and_who_is_connected_stays() {
    let served = Served::start();
    let (old, new) = (Authority::new(), Authority::new());
    served.secret().renew(&old, Validity::Now);
    let mut watching = served.controller(&old).watch_events(WatchEventsRequest::default()).await.unwrap();
    let first: WatchEventsResponse = watching.get_mut().message().await.unwrap().unwrap();
    assert!(first.event.is_none());
    let mut connected = served.controller(&old);
    connected.list_volumes(ListVolumesRequest {}).await.unwrap();

    served.secret().renew(&new, Validity::Now);
    ask(served.controller(&new)).await.unwrap();
    ask(served.controller(&old)).await.unwrap_err();
    connected.list_volumes(ListVolumesRequest {}).await.unwrap();

    // An agent whose own certificate has expired is not believed.
    served.secret().renew(&new, Validity::Past);
    ask(served.controller(&new)).await.unwrap_err();
    served.secret().renew(&new, Validity::Now);
    ask(served.controller(&new)).await.unwrap();
    let log = served.agent.end();
    assert!(log.contains("certificates are renewed"), "{log}");
}

#[test]
fn a_program_without_usable_certificates_says_which_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = ("--api-client-ca", "/nowhere/at/all");
    let output = Agent::command(folder.path(), &[PREFIX, nowhere]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("--api-client-ca /nowhere/at/all"), "{said}");
}
