use std::collections::HashMap;

use prometheus_client::registry::Registry;
use rds_csi_api::csi::node_get_storage_health_response::StorageBackendHealth;
use rds_csi_api::csi::node_server::Node as _;
use rds_csi_api::csi::volume_capability::access_mode::Mode;
use rds_csi_api::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use rds_csi_api::csi::volume_health::VolumeHealthEntry;
use rds_csi_api::{Bytes, FsType};
use rustix::io::Errno;
use tonic::Code;

use super::*;
use crate::host::Attachment;
use crate::host::fake::{Act, FakeHost, Holds};
use crate::world::{GIB, World, world};

const STAGING: &str = "/var/lib/kubelet/plugins/staging";
const TARGET: &str = "/var/lib/kubelet/pods/p/target";

/// A node that answers the health calls of CSI 1.13.
fn asked_for_health(world: &World) -> Node<FakeHost> {
    let place = Place { health_calls: HealthCalls::On, ..place() };
    Node::new(
        Arc::new(world.volumes_again()),
        place,
        Events::new(10),
        breakers(),
        Calls::new(&mut Registry::default()),
    )
}

fn breakers() -> Breakers {
    Breakers::new(Events::new(10))
}

fn place() -> Place {
    let topology = Topology::new(vec!["a.b/rack=r1".parse().unwrap()]).unwrap();
    Place { name: "w1".parse().unwrap(), topology, max_volumes: 16, health_calls: HealthCalls::Off }
}

fn node(world: &World) -> Node<FakeHost> {
    let calls = Calls::new(&mut Registry::default());
    Node::new(Arc::new(world.volumes_again()), place(), Events::new(10), breakers(), calls)
}

fn capability(access: AccessType, mode: Mode) -> csi::VolumeCapability {
    csi::VolumeCapability { access_type: Some(access), access_mode: Some(AccessMode { mode: mode.into() }) }
}

fn filesystem(fs_type: &str, flags: &[&str], mode: Mode) -> csi::VolumeCapability {
    let mount_flags = flags.iter().map(|flag| (*flag).into()).collect();
    capability(
        AccessType::Mount(MountVolume { fs_type: fs_type.into(), mount_flags, ..Default::default() }),
        mode,
    )
}

fn block() -> csi::VolumeCapability {
    capability(AccessType::Block(BlockVolume {}), Mode::MultiNodeMultiWriter)
}

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

fn context(nqn: &str) -> HashMap<String, String> {
    map(&[("nvmeAddress", "10.77.0.1"), ("nvmePort", "4420"), ("nqn", nqn), ("sizeBytes", "1073741824")])
}

fn stage_request(world: &World, capability: csi::VolumeCapability) -> csi::NodeStageVolumeRequest {
    csi::NodeStageVolumeRequest {
        volume_id: "pvc-a".into(),
        publish_context: context(world.nqn.as_str()),
        staging_target_path: STAGING.into(),
        volume_capability: Some(capability),
        ..Default::default()
    }
}

fn publish_request(world: &World, capability: csi::VolumeCapability) -> csi::NodePublishVolumeRequest {
    csi::NodePublishVolumeRequest {
        volume_id: "pvc-a".into(),
        publish_context: context(world.nqn.as_str()),
        staging_target_path: STAGING.into(),
        target_path: TARGET.into(),
        volume_capability: Some(capability),
        ..Default::default()
    }
}

fn unpublish_request() -> csi::NodeUnpublishVolumeRequest {
    csi::NodeUnpublishVolumeRequest { volume_id: "pvc-a".into(), target_path: TARGET.into() }
}

fn unstage_request() -> csi::NodeUnstageVolumeRequest {
    csi::NodeUnstageVolumeRequest { volume_id: "pvc-a".into(), staging_target_path: STAGING.into() }
}

#[tokio::test]
async fn a_volume_lives_and_leaves_nothing() {
    for capability in [filesystem("xfs", &["noatime"], Mode::SingleNodeWriter), block()] {
        let world = world(Holds::Nothing);
        let node = node(&world);
        for _ in 0..2 {
            node.node_stage_volume(Request::new(stage_request(&world, capability.clone()))).await.unwrap();
        }
        for _ in 0..2 {
            node.node_publish_volume(Request::new(publish_request(&world, capability.clone())))
                .await
                .unwrap();
        }
        for _ in 0..2 {
            node.node_unpublish_volume(Request::new(unpublish_request())).await.unwrap();
        }
        for _ in 0..2 {
            node.node_unstage_volume(Request::new(unstage_request())).await.unwrap();
        }
        assert!(world.is_clean());
    }
}

#[tokio::test]
async fn a_stage_under_a_new_name_ends_what_the_unstage_of_the_old_one_waits_for() {
    let world = world(Holds::Nothing);
    let node = Arc::new(node(&world));
    let capability = filesystem("ext4", &[], Mode::SingleNodeWriter);
    node.node_stage_volume(Request::new(stage_request(&world, capability.clone()))).await.unwrap();
    world.host.leave_unwritten(&world.nqn);
    // Fenced: the array exports the volume under another name from now on.
    let new: rds_csi_api::Nqn = format!("{}:e2", world.nqn).parse().unwrap();
    world.host.export(&new, GIB, world.host.holds(&world.nqn));
    world.host.withdraw(&world.nqn);
    let unstaging = {
        let node = Arc::clone(&node);
        tokio::spawn(async move { node.node_unstage_volume(Request::new(unstage_request())).await })
    };
    while world.host.mounts().unwrap().top(&world.staging()).is_some() {
        tokio::task::yield_now().await;
    }
    let status = node.node_unstage_volume(Request::new(unstage_request())).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "the first one waits in its unmount");

    let renamed = csi::NodeStageVolumeRequest {
        publish_context: context(new.as_str()),
        ..stage_request(&world, capability)
    };
    loop {
        match node.node_stage_volume(Request::new(renamed.clone())).await {
            Ok(_) => break,
            Err(status) => assert_eq!(status.code(), Code::Aborted, "{status}"),
        }
    }
    unstaging.await.unwrap().unwrap();
    assert_eq!(world.host.attachment(&world.nqn).unwrap(), Attachment::Absent);
    let device = world.host.attachment(&new).unwrap().device().unwrap().number;
    assert_eq!(world.host.mounts().unwrap().top(&world.staging()).unwrap().device, device);
}

#[tokio::test]
async fn a_request_that_cannot_be_served_says_which_field_and_touches_nothing() {
    let world = world(Holds::Nothing);
    let node = node(&world);
    let good = stage_request(&world, filesystem("ext4", &[], Mode::SingleNodeWriter));
    let with = |key: &str, value: &str| {
        let mut context = good.publish_context.clone();
        context.insert(key.into(), value.into());
        csi::NodeStageVolumeRequest { publish_context: context, ..good.clone() }
    };
    let system = "nqn.2000-02.com.mikrotik:nixos-var";
    for (request, names) in [
        (csi::NodeStageVolumeRequest { volume_id: String::new(), ..good.clone() }, "volume id \"\""),
        (csi::NodeStageVolumeRequest { volume_id: "../x".into(), ..good.clone() }, "volume id \"../x\""),
        (
            csi::NodeStageVolumeRequest { staging_target_path: String::new(), ..good.clone() },
            "staging_target_path",
        ),
        (
            csi::NodeStageVolumeRequest { staging_target_path: "/etc".into(), ..good.clone() },
            "\"/etc\" is not beneath",
        ),
        (
            csi::NodeStageVolumeRequest { volume_capability: None, ..good.clone() },
            "volume_capability is missing",
        ),
        (
            csi::NodeStageVolumeRequest { publish_context: HashMap::new(), ..good.clone() },
            "publish context has no",
        ),
        (with("sizeBytes", "1G"), "sizeBytes \"1G\""),
        (with("nvmeAddress", "array"), "nvmeAddress \"array\""),
        (with("nqn", system), system),
        (
            csi::NodeStageVolumeRequest { volume_context: map(&[("ctrlLossTmo", "x")]), ..good.clone() },
            "nvmeAddress",
        ),
        (stage_request(&world, filesystem("zfs", &[], Mode::SingleNodeWriter)), "ext4, ext3 or xfs"),
        (stage_request(&world, filesystem("", &["bind"], Mode::SingleNodeWriter)), "mount flag \"bind\""),
        (stage_request(&world, filesystem("", &[], Mode::MultiNodeMultiWriter)), "volumeMode: Block"),
    ] {
        let status = node.node_stage_volume(Request::new(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(names), "{names}: {status}");
    }
    assert!(world.is_clean());
}

#[tokio::test]
async fn every_path_outside_the_kubelet_directory_is_refused_by_its_field() {
    let world = world(Holds::Nothing);
    let node = node(&world);
    let outside = "/etc/target".to_owned();
    let publish =
        csi::NodePublishVolumeRequest { target_path: outside.clone(), ..publish_request(&world, block()) };
    let unpublish = csi::NodeUnpublishVolumeRequest { target_path: outside.clone(), ..unpublish_request() };
    let unstage = csi::NodeUnstageVolumeRequest { staging_target_path: outside, ..unstage_request() };
    for (status, field) in [
        (node.node_publish_volume(Request::new(publish)).await.unwrap_err(), "target_path"),
        (node.node_unpublish_volume(Request::new(unpublish)).await.unwrap_err(), "target_path"),
        (node.node_unstage_volume(Request::new(unstage)).await.unwrap_err(), "staging_target_path"),
    ] {
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(field) && status.message().contains("/etc/target"), "{status}");
    }
}

#[tokio::test]
async fn what_the_attachment_says_wins_over_the_volume() {
    let world = world(Holds::Nothing);
    let mut request = stage_request(&world, block());
    request.volume_context = map(&[
        ("nvmeAddress", "10.0.0.99"),
        ("nqn", "nqn.2000-02.com.mikrotik:pvc-before-the-fence"),
        ("reconnectDelay", "7"),
    ]);
    let (wanted, _) = parse::stage(&world.volumes, &request).unwrap();
    assert_eq!(wanted.target.nqn, world.managed());
    assert_eq!(wanted.target.portal.to_string(), "10.77.0.1:4420");
    assert_eq!((wanted.target.reconnect.reconnect_delay.as_secs(), wanted.size), (7, GIB));
}

#[tokio::test]
async fn the_trace_of_the_attachment_goes_on() {
    let world = world(Holds::Nothing);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut stage = stage_request(&world, block());
    stage.publish_context.insert("traceparent".into(), parent.into());
    let (_, trace) = parse::stage(&world.volumes, &stage).unwrap();
    assert_eq!(trace.unwrap().as_str(), parent);
}

#[tokio::test]
async fn a_mode_that_only_reads_is_staged_and_published_so() {
    let world = world(Holds::Filesystem(FsType::Ext4, GIB));
    let node = node(&world);
    let reading = filesystem("ext4", &[], Mode::MultiNodeReaderOnly);
    node.node_stage_volume(Request::new(stage_request(&world, reading.clone()))).await.unwrap();
    node.node_publish_volume(Request::new(publish_request(&world, reading))).await.unwrap();
    let mounts = crate::host::Host::mounts(&world.host).unwrap();
    assert!(mounts.iter().all(crate::host::Mount::is_read_only));
}

#[tokio::test]
async fn only_who_asks_for_reading_gets_a_filesystem_that_is_read_only() {
    let world = world(Holds::Filesystem(FsType::Ext4, GIB));
    let node = node(&world);
    let staged = filesystem("ext4", &["ro"], Mode::SingleNodeWriter);
    node.node_stage_volume(Request::new(stage_request(&world, staged))).await.unwrap();
    let request = |flags, mode| publish_request(&world, filesystem("ext4", flags, mode));
    let writing = request(&[], Mode::SingleNodeWriter);
    let status = node.node_publish_volume(Request::new(writing.clone())).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains(STAGING), "{status}");
    for reading in [
        csi::NodePublishVolumeRequest { readonly: true, ..writing },
        request(&["noatime", "ro"], Mode::SingleNodeWriter),
        request(&[], Mode::SingleNodeReaderOnly),
    ] {
        node.node_publish_volume(Request::new(reading)).await.unwrap();
        node.node_unpublish_volume(Request::new(unpublish_request())).await.unwrap();
    }
}

#[tokio::test]
async fn failures_become_the_codes_that_kubelet_acts_on() {
    let foreign = world(Holds::Foreign("crypto_LUKS"));
    let ext4 = filesystem("ext4", &[], Mode::SingleNodeWriter);
    let status = node(&foreign)
        .node_stage_volume(Request::new(stage_request(&foreign, ext4.clone())))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("crypto_LUKS"), "{status}");

    let world = world(Holds::Nothing);
    let node = node(&world);
    let mut other = stage_request(&world, ext4.clone());
    other.publish_context = context("nqn.2000-02.com.mikrotik:pvc-gone");
    let status = node.node_stage_volume(Request::new(other.clone())).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("not the NQN of volume"), "{status}");
    other.volume_id = "pvc-gone".into();
    assert_eq!(node.node_stage_volume(Request::new(other)).await.unwrap_err().code(), Code::Unavailable);

    node.node_stage_volume(Request::new(stage_request(&world, ext4.clone()))).await.unwrap();
    world.host.open_file(&world.nqn, 4711, "postgres", "/data");
    let status = node.node_unstage_volume(Request::new(unstage_request())).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("process 4711 (postgres) has /data open"), "{status}");

    world.host.fail_once(Act::MakeDirectory, Errno::ROFS);
    let status = node.node_publish_volume(Request::new(publish_request(&world, ext4))).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains(TARGET), "{status}");
}

#[tokio::test]
async fn lesson_5_the_size_of_the_attachment_is_exact() {
    let world = world(Holds::Nothing);
    let mut request = stage_request(&world, block());
    request.publish_context.insert("sizeBytes".into(), Bytes::new(GIB.get() + 1).get().to_string());
    let status = node(&world).node_stage_volume(Request::new(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("1073741825 bytes"), "{status}");
}

#[tokio::test]
async fn only_what_is_served_is_advertised() {
    let world = world(Holds::Nothing);
    let node = node(&world);
    let info = node.node_get_info(Request::new(csi::NodeGetInfoRequest {})).await.unwrap().into_inner();
    assert_eq!((info.node_id.as_str(), info.max_volumes_per_node), ("w1", 16));
    assert_eq!(info.accessible_topology.unwrap().segments, map(&[("a.b/rack", "r1")]));
    let answer = node.node_get_capabilities(Request::new(csi::NodeGetCapabilitiesRequest {})).await.unwrap();
    let served: Vec<_> =
        answer.into_inner().capabilities.into_iter().map(|capability| capability.r#type).collect();
    let has = |wanted: rpc::Type| served.contains(&Some(Type::Rpc(RpcCapability { r#type: wanted.into() })));
    assert!(has(rpc::Type::StageUnstageVolume));
    assert!(
        has(rpc::Type::ExpandVolume) && has(rpc::Type::GetVolumeStats) && has(rpc::Type::VolumeCondition)
    );
    assert!(!has(rpc::Type::GetVolumeHealth));
    let request = Request::new(csi::NodeGetVolumeHealthRequest::default());
    let status = node.node_get_volume_health(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn the_health_calls_of_csi_1_13_are_served_if_they_are_asked_for() {
    let world = world(Holds::Nothing);
    let node = asked_for_health(&world);
    let answer = node.node_get_capabilities(Request::new(csi::NodeGetCapabilitiesRequest {})).await.unwrap();
    let served = answer.into_inner().capabilities;
    for health in [rpc::Type::GetVolumeHealth, rpc::Type::GetStorageHealth] {
        let wanted = Some(Type::Rpc(RpcCapability { r#type: health.into() }));
        assert!(served.iter().any(|served| served.r#type == wanted), "{health:?}");
    }
    let request = |volume_id: &str| {
        Request::new(csi::NodeGetVolumeHealthRequest { volume_id: volume_id.into(), ..Default::default() })
    };
    assert_eq!(node.node_get_volume_health(request("")).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(node.node_get_volume_health(request("pvc-a")).await.unwrap_err().code(), Code::NotFound);
    node.node_stage_volume(Request::new(stage_request(&world, block()))).await.unwrap();
    let health = async || {
        let told = node.node_get_volume_health(request("pvc-a")).await.unwrap().into_inner();
        let storage = Request::new(csi::NodeGetStorageHealthRequest::default());
        let storage = node.node_get_storage_health(storage).await.unwrap().into_inner();
        let volume = told.volume_health.unwrap().health_statuses;
        (
            volume.iter().map(VolumeHealthEntry::status).collect::<Vec<_>>(),
            storage.backend_health.iter().map(StorageBackendHealth::status).collect::<Vec<_>>(),
        )
    };
    assert_eq!(health().await, (vec![], vec![]));
    world.host.unplug();
    let (volume, storage) =
        (csi::VolumeHealthErrorType::Inaccessible, csi::StorageHealthErrorType::StorageUnreachable);
    assert_eq!(health().await, (vec![volume], vec![storage]));
}

fn expand_request(path: &str, required_bytes: i64, limit_bytes: i64) -> csi::NodeExpandVolumeRequest {
    csi::NodeExpandVolumeRequest {
        volume_id: "pvc-a".into(),
        volume_path: path.into(),
        capacity_range: Some(csi::CapacityRange { required_bytes, limit_bytes }),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_published_volume_grows_by_the_path_that_kubelet_gives() {
    let world = world(Holds::Nothing);
    let node = node(&world);
    let ext4 = filesystem("ext4", &[], Mode::SingleNodeWriter);
    node.node_stage_volume(Request::new(stage_request(&world, ext4.clone()))).await.unwrap();
    node.node_publish_volume(Request::new(publish_request(&world, ext4))).await.unwrap();
    world.host.resize(&world.nqn, Bytes::gib(2));
    for path in [TARGET, STAGING] {
        let request = expand_request(path, Bytes::gib(2).to_wire(), 0);
        let answer = node.node_expand_volume(Request::new(request)).await.unwrap();
        assert_eq!(answer.into_inner().capacity_bytes, Bytes::gib(2).to_wire());
    }
    assert_eq!(world.host.holds(&world.nqn), Holds::Filesystem(FsType::Ext4, Bytes::gib(2)));
}

#[tokio::test]
async fn a_growth_that_cannot_be_served_has_the_code_that_csi_wants() {
    let world = world(Holds::Nothing);
    let node = node(&world);
    node.node_stage_volume(Request::new(stage_request(&world, block()))).await.unwrap();
    let gib = GIB.to_wire();
    for (request, code) in [
        (expand_request("", gib, 0), Code::InvalidArgument),
        (expand_request(STAGING, -1, 0), Code::InvalidArgument),
        (expand_request(STAGING, gib, gib - 1), Code::InvalidArgument),
        (
            csi::NodeExpandVolumeRequest { volume_id: String::new(), ..expand_request(STAGING, gib, 0) },
            Code::InvalidArgument,
        ),
        (
            csi::NodeExpandVolumeRequest { volume_id: "pvc-b".into(), ..expand_request("some/path", gib, 0) },
            Code::NotFound,
        ),
        (expand_request("some/path", gib, 0), Code::NotFound),
        (expand_request("/etc/passwd", gib, 0), Code::NotFound),
        (expand_request(STAGING, 1, gib - 1), Code::OutOfRange),
        (expand_request(STAGING, gib + 1, 0), Code::DeadlineExceeded),
    ] {
        let text = format!("{request:?}");
        let status = node.node_expand_volume(Request::new(request)).await.unwrap_err();
        assert_eq!(status.code(), code, "{text}: {status}");
    }
}

#[tokio::test]
async fn a_volume_that_is_busy_still_says_how_it_is() {
    let world = world(Holds::Nothing);
    let calls = Calls::new(&mut Registry::default());
    let node =
        Node::new(Arc::new(world.volumes_again()), place(), Events::new(10), breakers(), calls.clone());
    let ext4 = filesystem("ext4", &[], Mode::SingleNodeWriter);
    node.node_stage_volume(Request::new(stage_request(&world, ext4.clone()))).await.unwrap();
    let (tell, begun) = tokio::sync::oneshot::channel();
    let (end, ended) = tokio::sync::oneshot::channel();
    let running = tokio::spawn(async move {
        let volume = "pvc-a".parse().unwrap();
        let call = Call::on(Rpc::NodeStageVolume, &volume);
        calls
            .run(call, async {
                tell.send(()).unwrap();
                ended.await.unwrap();
                Ok::<_, parse::Error>(())
            })
            .await
    });
    begun.await.unwrap();
    let again = node.node_stage_volume(Request::new(stage_request(&world, ext4))).await;
    assert_eq!(again.unwrap_err().code(), Code::Aborted);
    let ask = |path: &str| {
        let (volume_id, volume_path) = ("pvc-a".into(), path.into());
        node.node_get_volume_stats(Request::new(csi::NodeGetVolumeStatsRequest {
            volume_id,
            volume_path,
            ..Default::default()
        }))
    };
    let answer = ask(STAGING).await.unwrap().into_inner();
    assert_eq!(answer.usage.iter().map(|usage| usage.total).collect::<Vec<_>>(), [GIB.to_wire(), 100]);
    assert!(!answer.volume_condition.unwrap().abnormal);
    assert_eq!(ask("").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(ask("some/path").await.unwrap_err().code(), Code::NotFound);
    end.send(()).unwrap();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_policy_of_the_attachment_wins_over_the_volume_s_and_reaches_what_is_connected() {
    let world = world(Holds::Nothing);
    let node = node(&world);
    let policy = |text: &str| -> HashMap<String, String> {
        let policy: rds_csi_api::ReconnectPolicy = text.parse().unwrap();
        let mut context = context(world.nqn.as_str());
        context.extend(policy.to_pairs().map(|(key, value)| (key.to_owned(), value)));
        context
    };
    let mut stage = stage_request(&world, block());
    stage.volume_context =
        map(&[("nvmeAddress", "10.0.0.99"), ("nqn", world.nqn.as_str()), ("reconnectDelay", "7")]);
    stage.publish_context = policy("600,3,30,20");
    node.node_stage_volume(Request::new(stage.clone())).await.unwrap();
    assert_eq!(world.host.policy(&world.nqn).to_string(), "600,3,30,20");
    let publish = csi::NodePublishVolumeRequest {
        publish_context: policy("-1,1,30,off"),
        ..publish_request(&world, block())
    };
    node.node_publish_volume(Request::new(publish)).await.unwrap();
    assert_eq!(world.host.policy(&world.nqn).to_string(), "-1,1,30,off");
    stage.publish_context.insert("fastIoFailTmo".into(), "never".into());
    let status = node.node_stage_volume(Request::new(stage)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("fastIoFailTmo \"never\""), "{status}");
}

#[tokio::test]
async fn a_volume_that_an_earlier_driver_attached_goes_by_its_volume_context() {
    let world = world(Holds::Nothing);
    let node = node(&world);
    let volume_context = map(&[
        ("rdsAddress", "10.77.0.9"),
        ("nvmeAddress", "10.77.0.1"),
        ("nvmePort", "4420"),
        ("nqn", world.nqn.as_str()),
        ("ctrlLossTmo", "600"),
    ]);
    let stage = csi::NodeStageVolumeRequest {
        publish_context: HashMap::new(),
        volume_context: volume_context.clone(),
        ..stage_request(&world, filesystem("", &[], Mode::SingleNodeWriter))
    };
    node.node_stage_volume(Request::new(stage)).await.unwrap();
    let publish = csi::NodePublishVolumeRequest {
        publish_context: HashMap::new(),
        volume_context,
        ..publish_request(&world, filesystem("", &[], Mode::SingleNodeWriter))
    };
    node.node_publish_volume(Request::new(publish)).await.unwrap();
    assert!(world.host.mounts().unwrap().top(&world.target()).is_some());
}

#[tokio::test]
async fn a_volume_that_cannot_be_mounted_is_told_once_until_it_was() {
    let world = world(Holds::Foreign("crypto_LUKS"));
    let events = Events::new(10);
    let calls = Calls::new(&mut Registry::default());
    let node = Node::new(Arc::new(world.volumes_again()), place(), events.clone(), breakers(), calls);
    let capability = || filesystem("ext4", &[], Mode::SingleNodeWriter);
    let stage = async || node.node_stage_volume(Request::new(stage_request(&world, capability()))).await;
    for _ in 0..2 {
        stage().await.unwrap_err();
    }
    let told = events.kept();
    assert_eq!(told.len(), 1, "kubelet comes again and again: {told:?}");
    assert_eq!((told[0].reason.as_str(), told[0].volume.as_str()), ("MountFailure", "pvc-a"));
    assert!(told[0].message.contains("crypto_LUKS"), "{}", told[0].message);

    world.host.export(&world.nqn, GIB, Holds::Nothing);
    stage().await.unwrap();
    node.node_publish_volume(Request::new(publish_request(&world, capability()))).await.unwrap();
    node.node_unpublish_volume(Request::new(unpublish_request())).await.unwrap();
    node.node_unstage_volume(Request::new(unstage_request())).await.unwrap();
    // An array that is away is no failure of a mount.
    world.host.fail_once(Act::Connect, Errno::CONNREFUSED);
    stage().await.unwrap_err();
    assert_eq!(events.kept().len(), 1);
    world.host.export(&world.nqn, GIB, Holds::Foreign("crypto_LUKS"));
    stage().await.unwrap_err();
    assert_eq!(events.kept().len(), 2);
}

#[tokio::test]
async fn a_volume_that_cannot_be_staged_is_not_tried_for_ever_and_letting_go_of_it_is_never_held_up() {
    let world = world(Holds::Foreign("gpt"));
    let node = node(&world);
    let request = stage_request(&world, filesystem("ext4", &[], Mode::SingleNodeWriter));
    let mut staged = Vec::new();
    for _ in 0..4 {
        staged.push(node.node_stage_volume(Request::new(request.clone())).await.unwrap_err());
    }
    let codes: Vec<_> = staged.iter().map(Status::code).collect();
    let refused = Code::FailedPrecondition;
    assert_eq!(codes, [refused, refused, refused, Code::Unavailable]);
    assert!(staged[3].message().contains("reset-circuit-breaker"), "{}", staged[3]);
    node.node_unpublish_volume(Request::new(unpublish_request())).await.unwrap();
    // Whoever deletes the pod and makes another one wants it to be tried.
    node.node_unstage_volume(Request::new(unstage_request())).await.unwrap();
    assert_eq!(node.node_stage_volume(Request::new(request)).await.unwrap_err().code(), refused);
}
