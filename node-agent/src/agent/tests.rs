use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rds_csi_api::node_agent::node_agent_client::NodeAgentClient;
use rds_csi_api::node_agent::node_agent_server::NodeAgentServer;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server};

use super::*;
use crate::events::Reason;
use crate::host::Attachment;
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

    /// The agent's own, as files.
    fn files(&self, folder: &std::path::Path) -> tls::Files {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["rds-csi-node-agent".to_owned()])
            .unwrap()
            .signed_by(&key, &self.0)
            .unwrap();
        let write = |name: &str, text: String| {
            std::fs::write(folder.join(name), text).unwrap();
            folder.join(name)
        };
        tls::Files {
            certificate: write("crt", certificate.pem()),
            key: write("key", key.serialize_pem()),
            client_ca: write("ca", self.0.pem()),
        }
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
    events: Events,
    breakers: Breakers,
    shutdown: CancellationToken,
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
    let folder = tempfile::tempdir().unwrap();
    let tls = tls::Tls::open(authority.files(folder.path())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (events, shutdown) = (Events::new(3), CancellationToken::new());
    let breakers = Breakers::new(events.clone());
    let calls = Calls::new(&mut prometheus_client::registry::Registry::default());
    let agent: Agent<FakeHost> = Agent::new(
        Arc::new(world.volumes_again()),
        events.clone(),
        breakers.clone(),
        calls,
        shutdown.clone(),
    );
    let server = Server::builder().add_service(NodeAgentServer::new(agent));
    tokio::spawn(server.serve_with_incoming(tls.incoming(listener)));
    Service { world, authority, address, events, breakers, shutdown }
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
async fn the_controller_is_told_how_a_volume_is() {
    let service = service().await;
    let request = wire::GetVolumeRequest { volume_id: "pvc-a".into(), nqn: service.world.nqn.to_string() };
    let condition = async || {
        let got =
            service.controller().get_volume(request.clone()).await.unwrap().into_inner().volume.unwrap();
        let listed =
            service.controller().list_volumes(wire::ListVolumesRequest {}).await.unwrap().into_inner();
        assert_eq!(listed.volumes, std::slice::from_ref(&got));
        got.condition
    };
    assert_eq!(condition().await, "");
    service.world.host.unplug();
    assert!(condition().await.contains("the array does not answer"));
}

impl Service {
    async fn watch(&self, instance: &str, after: u64) -> tonic::Streaming<wire::WatchEventsResponse> {
        let request = wire::WatchEventsRequest { instance: instance.into(), after };
        self.controller().watch_events(request).await.unwrap().into_inner()
    }

    fn happens(&self, count: u64) {
        for _ in 0..count {
            self.events.record(&self.world.volume, Reason::ConnectionLost, "gone");
        }
    }
}

/// The next answer: how much was missed, and which event it is.
async fn told(events: &mut tonic::Streaming<wire::WatchEventsResponse>) -> (u64, u64) {
    let told = events.message().await.unwrap().unwrap();
    (told.missed, told.event.unwrap().sequence)
}

#[tokio::test]
async fn events_are_told_as_they_happen_and_a_reader_resumes_by_number() {
    let service = service().await;
    let mut events = service.watch("", 0).await;
    let first = events.message().await.unwrap().unwrap();
    assert_eq!((first.instance.as_str(), first.event), (service.events.instance(), None));
    service.happens(2);
    let event = events.message().await.unwrap().unwrap().event.unwrap();
    assert_eq!(
        (event.sequence, event.volume_id.as_str(), event.reason.as_str()),
        (1, "pvc-a", "ConnectionLost")
    );
    drop(events);

    service.happens(1);
    let mut events = service.watch(&first.instance, 1).await;
    events.message().await.unwrap();
    assert_eq!([told(&mut events).await, told(&mut events).await], [(0, 2), (0, 3)]);
    drop(events);

    // Three are kept.
    service.happens(5);
    let mut events = service.watch(&first.instance, 3).await;
    events.message().await.unwrap();
    assert_eq!(told(&mut events).await, (2, 6));

    let of_another_life = wire::WatchEventsRequest { instance: first.instance, after: 9 };
    let status = service.controller().watch_events(of_another_life).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
}

#[tokio::test]
async fn the_controller_resets_a_breaker_and_is_told_what_it_was() {
    let service = service().await;
    let volume = &service.world.volume;
    for _ in 0..3 {
        let failed = || Err(stage::Error::Endless);
        service.breakers.guard(volume, failed).unwrap_err();
    }
    let reset = async |volume: &str| {
        let request = wire::ResetBreakerRequest { volume_id: volume.into() };
        service.controller().reset_breaker(request).await.map(|answer| answer.into_inner().was_open)
    };
    assert_eq!(reset("pvc-b").await.unwrap(), "");
    let told = reset("pvc-a").await.unwrap();
    assert!(told.contains("3 times in a row"), "{told}");
    assert_eq!(reset("pvc-a").await.unwrap(), "");
    service.breakers.guard(volume, || Ok(())).unwrap();
    assert_eq!(reset("../x").await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn whoever_watches_events_does_not_hold_up_the_shutdown() {
    let service = service().await;
    let mut events = service.watch("", 0).await;
    events.message().await.unwrap();
    service.shutdown.cancel();
    assert_eq!(events.message().await.unwrap(), None);
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
        let watch = wire::WatchEventsRequest::default();
        assert_eq!(node.watch_events(watch).await.unwrap_err().code(), Code::PermissionDenied, "{name}");
        let reset = wire::ResetBreakerRequest { volume_id: "pvc-a".into() };
        assert_eq!(node.reset_breaker(reset).await.unwrap_err().code(), Code::PermissionDenied, "{name}");
        let policy = wire::SetReconnectPolicyRequest { volume_id: "pvc-a".into(), ..Default::default() };
        let status = node.set_reconnect_policy(policy).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{name}");
        let repair = wire::AllowRepairRequest { volume_id: "pvc-a".into(), ..Default::default() };
        let status = node.allow_repair(repair).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{name}");
        let status = node.detach(override_of(&service.world)).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{name}");
        assert!(!service.world.is_clean(), "nothing was taken away");
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
    let nqn: Nqn = "nqn.2000-02.com.mikrotik:nixos-var".parse().unwrap();
    let request = wire::GetVolumeRequest { volume_id: "nixos-var".into(), nqn: nqn.to_string() };
    let status = service.controller().get_volume(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("nixos-var"), "{status}");

    service.world.host.connect_by_hand(&nqn);
    let before = service.world.host.snapshot();
    let forced = override_of(&service.world);
    for forced in [
        wire::DetachRequest { volume_id: "nixos-var".into(), nqn: nqn.to_string(), ..forced.clone() },
        wire::DetachRequest { nqn: nqn.to_string(), ..forced },
    ] {
        let status = service.controller().detach(forced).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    assert_eq!(service.world.host.snapshot(), before);
}

/// A person who wants the volume off the node.
fn override_of(world: &World) -> wire::DetachRequest {
    wire::DetachRequest {
        volume_id: "pvc-a".into(),
        nqn: world.nqn.to_string(),
        asked_by: "ada".into(),
        reason: "the pod hangs".into(),
    }
}

#[tokio::test]
async fn the_override_needs_a_name_and_a_reason_and_says_what_it_did() {
    let service = service().await;
    let forced = override_of(&service.world);
    for nameless in [
        wire::DetachRequest { asked_by: " ".into(), ..forced.clone() },
        wire::DetachRequest { reason: String::new(), ..forced.clone() },
        wire::DetachRequest { reason: "all\nis well".into(), ..forced.clone() },
        wire::DetachRequest { reason: "x".repeat(1025), ..forced.clone() },
    ] {
        let status = service.controller().detach(nameless).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    assert!(matches!(service.world.host.attachment(&service.world.nqn).unwrap(), Attachment::Live(_)));

    let told = service.controller().detach(forced).await.unwrap().into_inner();
    assert!(told.done.iter().any(|done| done.contains(service.world.nqn.as_str())), "{told:?}");
    assert!(told.holders.iter().any(|holder| holder.pid == 4711), "{told:?}");
    assert_eq!(told.left.len(), 1, "the process has a file open: {told:?}");
    assert_eq!(service.world.host.attachment(&service.world.nqn).unwrap(), Attachment::Lost);
    assert_eq!(service.events.kept()[0].reason, Reason::DetachForced);
}

#[tokio::test]
async fn a_policy_is_changed_live_and_lasts_until_the_volume_is_unstaged() {
    let service = service().await;
    let World { host, volumes, nqn, .. } = &service.world;
    let change = |volume: &str, policy: &str| {
        let policy: ReconnectPolicy = policy.parse().unwrap();
        let pairs = policy.to_pairs().map(|(key, value)| (key.to_owned(), value));
        let nqn = format!("nqn.2000-02.com.mikrotik:{volume}");
        wire::SetReconnectPolicyRequest { volume_id: volume.into(), nqn, policy: pairs.into() }
    };
    let changed = service.controller().set_reconnect_policy(change("pvc-a", "600,7,5,30")).await.unwrap();
    assert!(changed.into_inner().kept);
    assert_eq!(host.policy(nqn).to_string(), "600,7,5,30");
    // kubelet repeats with what the attachment said before.
    stage::stage(volumes, &service.world.stage_filesystem()).unwrap();
    assert_eq!(host.policy(nqn).to_string(), "600,7,5,30");

    let absent = service.controller().set_reconnect_policy(change("pvc-b", "600,7,5,30")).await.unwrap();
    assert!(!absent.into_inner().kept);
    let mut bad = change("pvc-a", "600,7,5,30");
    bad.policy.insert("ctrlLossTmo".into(), "soon".into());
    let status = service.controller().set_reconnect_policy(bad).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");

    host.close_files();
    crate::unpublish::unpublish(volumes, &service.world.unpublish()).unwrap();
    crate::unstage::unstage(volumes, &service.world.unstage()).unwrap();
    stage::stage(volumes, &service.world.stage_filesystem()).unwrap();
    assert_eq!(host.policy(nqn), ReconnectPolicy::STANDARD);
}
