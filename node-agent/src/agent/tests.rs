use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rds_csi_api::node_agent::node_agent_client::NodeAgentClient;
use rds_csi_api::node_agent::node_agent_server::NodeAgentServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};

use super::*;
use crate::host::fake::{FakeHost, Holds};
use crate::world::{World, world};
use crate::{publish, stage};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn certificate(&self) -> Certificate {
        Certificate::from_pem(self.0.pem())
    }

    fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        Identity::from_pem(certificate.pem(), key.serialize_pem())
    }
}

struct Service {
    world: World,
    authority: Authority,
    address: std::net::SocketAddr,
}

/// A volume that a process holds, and the internal API that tells of it.
async fn service() -> Service {
    // Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let world = world(Holds::Nothing);
    stage::stage(&world.volumes, &world.stage_filesystem()).unwrap();
    let usage = publish::Usage::Filesystem(publish::Writing::Allowed);
    publish::publish(&world.volumes, &world.publish_as(usage)).unwrap();
    world.host.open_file(&world.nqn, 4711, "postgres", "/data/base");

    let authority = Authority::new();
    let tls = ServerTlsConfig::new()
        .identity(authority.identity("rds-csi-node-agent"))
        .client_ca_root(authority.certificate());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let calls = Calls::new(&mut prometheus_client::registry::Registry::default());
    let agent: Agent<FakeHost> = Agent::new(Arc::new(world.volumes_again()), calls);
    let server = Server::builder().tls_config(tls).unwrap().add_service(NodeAgentServer::new(agent));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Service { world, authority, address }
}

impl Service {
    fn client(&self, identity: Option<Identity>) -> NodeAgentClient<Channel> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(self.authority.certificate())
            .domain_name("rds-csi-node-agent");
        let tls = identity.into_iter().fold(tls, ClientTlsConfig::identity);
        let endpoint =
            Endpoint::from_shared(format!("https://{}", self.address)).unwrap().tls_config(tls).unwrap();
        NodeAgentClient::new(endpoint.connect_lazy())
    }

    fn controller(&self) -> NodeAgentClient<Channel> {
        self.client(Some(self.authority.identity("rds-csi-controller")))
    }
}

#[tokio::test]
async fn the_controller_is_told_of_a_volume_and_who_holds_it() {
    let service = service().await;
    let listed =
        service.controller().list_volumes(wire::ListVolumesRequest {}).await.unwrap().into_inner().volumes;
    assert_eq!(listed.len(), 1);
    let volume = &listed[0];
    assert_eq!((volume.volume_id.as_str(), volume.device.as_str()), ("pvc-a", "/dev/nvme1n1"));
    assert_eq!(volume.connection(), wire::Connection::Live);
    assert_eq!(volume.publish_paths, ["/var/lib/kubelet/pods/p/target"]);
    let held = volume.holders.iter().find(|holder| holder.r#use() == wire::Use::OpenFile).unwrap();
    assert_eq!((held.pid, held.command.as_str(), held.path.as_str()), (4711, "postgres", "/data/base"));

    let request = wire::GetVolumeRequest { volume_id: "pvc-a".into(), nqn: service.world.nqn.to_string() };
    let got = service.controller().get_volume(request).await.unwrap().into_inner().volume;
    assert_eq!(got.as_ref(), Some(volume));
}

#[tokio::test]
async fn of_a_volume_that_is_not_here_nothing_is_told() {
    let service = service().await;
    let nqn = "nqn.2000-02.com.mikrotik:pvc-other".into();
    let request = wire::GetVolumeRequest { volume_id: "pvc-other".into(), nqn };
    assert_eq!(service.controller().get_volume(request).await.unwrap().into_inner().volume, None);
}

#[tokio::test]
async fn another_node_of_the_same_authority_is_refused() {
    let service = service().await;
    for name in ["rds-csi-node-agent", "rds-csi-controller.evil.example", "w2"] {
        let mut node = service.client(Some(service.authority.identity(name)));
        let status = node.list_volumes(wire::ListVolumesRequest {}).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{name}: {status}");
        assert!(status.message().contains("rds-csi-controller"), "{status}");
        let request =
            wire::GetVolumeRequest { volume_id: "pvc-a".into(), nqn: service.world.nqn.to_string() };
        assert_eq!(node.get_volume(request).await.unwrap_err().code(), Code::PermissionDenied, "{name}");
    }
}

#[tokio::test]
async fn without_a_certificate_of_the_authority_there_is_no_connection() {
    let service = service().await;
    let stranger = Authority::new().identity("rds-csi-controller");
    for identity in [None, Some(stranger)] {
        let status = service.client(identity).list_volumes(wire::ListVolumesRequest {}).await.unwrap_err();
        assert_ne!(status.code(), Code::PermissionDenied, "it should not get that far: {status}");
    }
}

#[tokio::test]
async fn lesson_17_a_volume_that_is_not_ours_is_not_looked_at() {
    let service = service().await;
    let nqn = "nqn.2000-02.com.mikrotik:nixos-var".into();
    let request = wire::GetVolumeRequest { volume_id: "nixos-var".into(), nqn };
    let status = service.controller().get_volume(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("nixos-var"), "{status}");
}
