//! Several arrays, each simulated, and one controller before them: what concerns one is no business of the other.

use std::collections::HashMap;
use std::path::PathBuf;

use rds_csi_api::csi;
use rds_csi_integration::driver::Controller;
use rds_csi_integration::simulator::{Effect, Fault, Simulator, Version};
use tonic::{Code, Status};

use crate::world::{self, Site, assert_bare, assert_refused, filesystem, wanted};

const GIB: i64 = 1 << 30;
const RACK: &str = "topology.rds.csi.srvlab.io/rack";

/// Two places for arrays, rack-1 and rack-2, and the file that names them.
struct Places {
    one: Site,
    other: Site,
    config: PathBuf,
}

impl Places {
    /// With labels of nodes, or without.
    fn new(labels: bool) -> Self {
        let (one, other) = (Site::vacant(), Site::vacant());
        let config = one.folder.path().join("arrays.yaml");
        let mut text = String::from("default: rack-1\nbackends:\n");
        for (rack, site) in [(1, &one), (2, &other)] {
            let (port, key, known_hosts) =
                (site.address.port(), site.key.display(), site.known_hosts.display());
            let topology = if labels { format!("{{{RACK}: {rack}}}") } else { "{}".into() };
            text.extend([
                format!(
                    "- name: rack-{rack}\n  address: 127.0.0.1\n  port: {port}\n  user: admin\n  fence: acl\n"
                ),
                format!("  key: {key}\n  knownHosts: {known_hosts}\n"),
                format!("  nvme: {{address: 10.77.{rack}.1}}\n  topology: {topology}\n"),
            ]);
        }
        std::fs::write(&config, text).unwrap();
        Self { one, other, config }
    }

    async fn controller(&self) -> Controller {
        world::controller(&self.one, |settings| settings.config = Some(self.config.clone())).await
    }
}

/// Both arrays, connected.
struct Both {
    places: Places,
    one: Simulator,
    other: Simulator,
    controller: Controller,
}

impl Both {
    async fn new(labels: bool) -> Self {
        let places = Places::new(labels);
        let (one, other) = (places.one.occupy(|_| {}).await, places.other.occupy(|_| {}).await);
        let controller = places.controller().await;
        reads(&controller, "ready\n").await;
        Self { places, one, other, controller }
    }

    /// Ends everything, and finds nothing left on either array, and no ssh to either.
    async fn end(self) {
        let Self { places, one, other, controller } = self;
        controller.stop().await.unwrap();
        for (simulator, site) in [(one, &places.one), (other, &places.other)] {
            assert_bare(&simulator);
            world::assert_no_ssh(site);
            simulator.stop().await.unwrap();
        }
    }
}

/// Waits until `/readyz` says this.
async fn reads(controller: &Controller, text: &str) {
    let said = async {
        while world::admin(controller, "/readyz").await.1 != text {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), said)
        .await
        .unwrap_or_else(|_| panic!("it never says {text:?}"));
}

/// A volume on that backend.
fn on(backend: &str, name: &str) -> csi::CreateVolumeRequest {
    let parameters = HashMap::from([("backend".into(), backend.into())]);
    csi::CreateVolumeRequest { parameters, ..wanted(name, GIB) }
}

/// A volume for a pod in one of these racks, the first one rather.
fn near(racks: &[&str], request: csi::CreateVolumeRequest) -> csi::CreateVolumeRequest {
    let topology = |rack: &&str| csi::Topology { segments: HashMap::from([(RACK.into(), (*rack).into())]) };
    let racks: Vec<_> = racks.iter().map(topology).collect();
    let requirement = csi::TopologyRequirement { requisite: racks.clone(), preferred: racks };
    csi::CreateVolumeRequest { accessibility_requirements: Some(requirement), ..request }
}

async fn delete(controller: &Controller, id: &str) -> Result<(), Status> {
    let request = csi::DeleteVolumeRequest { volume_id: id.into(), ..Default::default() };
    controller.csi().delete_volume(request).await.map(drop)
}

#[tokio::test]
async fn a_storage_class_picks_the_array_and_the_id_remembers_it() {
    let world = Both::new(false).await;
    let csi = || world.controller.csi();
    let here = world::create(&world.controller, on("rack-1", "a")).await.unwrap();
    let there = world::create(&world.controller, on("rack-2", "a")).await.unwrap();
    assert!(
        !here.volume_id.contains('/') && there.volume_id.starts_with("rack-2/pvc-"),
        "{here:?} {there:?}"
    );
    // The class that names none means the default one.
    let unnamed = world::create(&world.controller, wanted("b", GIB)).await.unwrap();
    assert_eq!(unnamed.volume_context["nvmeAddress"], "10.77.1.1");
    delete(&world.controller, &unnamed.volume_id).await.unwrap();
    assert_eq!(there.volume_context["nvmeAddress"], "10.77.2.1");
    for (simulator, volume) in [(&world.one, &here), (&world.other, &there)] {
        let disks = simulator.state().unwrap().disks;
        assert!(disks.len() == 1 && volume.volume_id.ends_with(&disks[0].slot), "{disks:?} {volume:?}");
        let publish = csi::ControllerPublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            node_id: "w1".into(),
            volume_capability: Some(filesystem()),
            volume_context: volume.volume_context.clone(),
            ..Default::default()
        };
        csi().controller_publish_volume(publish).await.unwrap();
        let volume_id = volume.volume_id.clone();
        let unpublish = csi::ControllerUnpublishVolumeRequest { volume_id, ..Default::default() };
        csi().controller_unpublish_volume(unpublish).await.unwrap();
        delete(&world.controller, &volume.volume_id).await.unwrap();
    }
    let unknown = world::create(&world.controller, on("rack-3", "a")).await;
    assert_refused(
        unknown,
        Code::InvalidArgument,
        "there are: rack-1 (the default one, whose ids are bare), rack-2",
    );
    let unknown = delete(&world.controller, "rack-3/pvc-a").await;
    assert_refused(unknown, Code::FailedPrecondition, "backend rack-3 is not configured");
    world.end().await;
}

#[tokio::test]
async fn one_array_that_is_down_or_hangs_does_not_disturb_the_other() {
    let places = Places::new(false);
    let other = places.other.occupy(|_| {}).await;
    let controller = places.controller().await;
    reads(&controller, "ready, but array rack-1 is not connected\n").await;
    assert_eq!(world::admin(&controller, "/readyz").await.0, 200);
    let (_, metrics) = world::admin(&controller, "/metrics").await;
    for line in
        [r#"rds_csi_array_connected{backend="rack-1"} 0"#, r#"rds_csi_array_connected{backend="rack-2"} 1"#]
    {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert_refused(
        world::create(&controller, on("rack-1", "a")).await,
        Code::Unavailable,
        "Connection refused",
    );
    let quick = world::create(&controller, on("rack-2", "a")).await.unwrap();
    delete(&controller, &quick.volume_id).await.unwrap();

    // It comes, and takes every session with commands that do not end.
    let one = places.one.occupy(|_| {}).await;
    reads(&controller, "ready\n").await;
    one.inject(Fault::new(Effect::Hold));
    let held: Vec<_> = (0..12)
        .map(|index| {
            let mut csi = controller.csi();
            tokio::spawn(async move { csi.create_volume(on("rack-1", &format!("held-{index}"))).await })
        })
        .collect();
    while one.state().unwrap().disks.is_empty() && one.commands().lines.len() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    for index in 0..12 {
        let quick = world::create(&controller, on("rack-2", &format!("quick-{index}"))).await.unwrap();
        delete(&controller, &quick.volume_id).await.unwrap();
    }
    assert!(held.iter().all(|call| !call.is_finished()), "they were not held");
    one.clear_faults();
    for call in held {
        let volume = call.await.unwrap().unwrap().into_inner().volume.unwrap();
        delete(&controller, &volume.volume_id).await.unwrap();
    }
    Both { places, one, other, controller }.end().await;
}

#[tokio::test]
async fn a_volume_goes_to_an_array_that_its_pod_reaches_and_says_so() {
    let world = Both::new(true).await;
    let service = csi::plugin_capability::service::Type::VolumeAccessibilityConstraints;
    assert!(offers(&world.controller, service).await);
    let volume = world::create(&world.controller, near(&["2", "1"], wanted("a", GIB))).await.unwrap();
    assert!(volume.volume_id.starts_with("rack-2/"), "{volume:?}");
    let segments: Vec<_> =
        volume.accessible_topology.iter().map(|topology| topology.segments[RACK].clone()).collect();
    assert_eq!(segments, ["2"]);
    // The same request finds the same volume.
    let again = world::create(&world.controller, near(&["2", "1"], wanted("a", GIB))).await.unwrap();
    assert_eq!(again, volume);
    let apart = world::create(&world.controller, near(&["1"], on("rack-2", "b"))).await;
    assert_refused(apart, Code::ResourceExhausted, "rack-2 has topology.rds.csi.srvlab.io/rack=2");
    let nowhere = world::create(&world.controller, near(&["3"], wanted("b", GIB))).await;
    assert_refused(nowhere, Code::ResourceExhausted, "no array that the volume may lie on is reached");
    delete(&world.controller, &volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn without_topology_in_the_configuration_none_is_offered() {
    let world = Both::new(false).await;
    let service = csi::plugin_capability::service::Type::VolumeAccessibilityConstraints;
    assert!(!offers(&world.controller, service).await);
    world.end().await;
}

async fn offers(controller: &Controller, wanted: csi::plugin_capability::service::Type) -> bool {
    use csi::plugin_capability::Type;
    let request = csi::GetPluginCapabilitiesRequest {};
    let answer = controller.identity().get_plugin_capabilities(request).await.unwrap().into_inner();
    answer.capabilities.iter().any(|capability| match &capability.r#type {
        Some(Type::Service(service)) => service.r#type() == wanted,
        _ => false,
    })
}

#[tokio::test]
async fn a_fence_that_was_proved_on_another_release_is_told() {
    for (fence, proved) in [("acl@7.21", 1), ("acl@7.20.1", 0), ("acl", 0)] {
        let site = Site::vacant();
        let array = site.occupy(|options| options.dialect.version = Version::new(7, 21)).await;
        let controller = world::controller(&site, |settings| settings.fence = fence).await;
        reads(&controller, "ready\n").await;
        let (_, metrics) = world::admin(&controller, "/metrics").await;
        let line = format!("rds_csi_fence_proved{{backend=\"default\"}} {proved}");
        assert!(metrics.contains(&line), "{fence}: {metrics}");
        if proved == 0 {
            let warned = async {
                while !controller.log().contains("was not proved on the RouterOS release") {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(30), warned).await.expect("it warns");
        }
        array.stop().await.unwrap();
        reads(&controller, "array default is not connected\n").await;
        let (_, metrics) = world::admin(&controller, "/metrics").await;
        assert!(!metrics.contains("rds_csi_fence_proved{"), "what is not known is not told: {metrics}");
        let log = controller.log();
        assert_eq!(log.contains("was not proved on the RouterOS release"), proved == 0, "{log}");
        assert_eq!(log.contains("nobody says that it works there"), fence == "acl", "{log}");
        controller.stop().await.unwrap();
    }
}
