//! What nobody claims, through the program itself: a simulated array, and an API server that has what the test puts there.

use std::time::Duration;

use rds_csi_api::csi;
use rds_csi_integration::driver::Settings;

use crate::kubernetes::{Fault, Kubernetes};
use crate::world::{self, Site, World, filesystem, wanted};

const GIB: i64 = 1 << 30;

/// A controller that looks for orphans every second, and removes them or not.
async fn world(kubernetes: &Kubernetes, removal: &[&str]) -> World {
    let site = Site::vacant();
    let kubeconfig = kubernetes.kubeconfig(site.folder.path()).display().to_string();
    World::at(site, |settings| looking(settings, &kubeconfig, removal)).await
}

fn looking(settings: &mut Settings, kubeconfig: &str, removal: &[&str]) {
    let flags = ["--kubernetes", kubeconfig, "--orphan-report-interval", "1s"];
    let pod = ["--pod-namespace", "storage", "--pod-name", "controller-0"];
    settings.flags = [&flags[..], &pod[..], removal].concat().into_iter().map(Into::into).collect();
}

/// Waits until the metrics have, or have not, this line.
async fn shows(world: &World, line: &str, present: bool) {
    let mut metrics = String::new();
    let shown = async {
        loop {
            metrics = world::admin(&world.controller, "/metrics").await.1;
            if metrics.contains(line) == present {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_mins(1), shown).await;
    assert!(outcome.is_ok(), "{line:?} should be there: {present}\n{metrics}\n{}", world.controller.log());
}

fn slots(world: &World) -> Vec<String> {
    world.simulator.state().unwrap().disks.iter().map(|disk| disk.slot.clone()).collect()
}

const VOLUMES: &str = r#"rds_csi_orphans{backend="default",kind="volume"} "#;

#[tokio::test]
async fn lesson_6_of_all_that_looks_like_an_orphan_only_the_proven_one_is_removed() {
    let kubernetes = Kubernetes::start().await;
    let world = world(&kubernetes, &["--remove-orphans-after", "1s"]).await;
    let attached = world.create(wanted("attached", GIB)).await.unwrap();
    kubernetes.has_volume("pv-attached", &attached.volume_id);
    world.publish(&attached, "w1", filesystem()).await.unwrap();
    // Nobody is asked until all is as it should be.
    kubernetes.fails(Some(Fault::Error));
    kubernetes.loses_volume("pv-attached");
    for name in ["pv-a", "pv-b", "pv-c"] {
        kubernetes.has_volume(name, &format!("pvc-of-{name}"));
    }
    let uid = "123e4567-e89b-12d3-a456-426614174000";
    let claimed = world.create(wanted("retained", GIB)).await.unwrap();
    let awaited = world.create(wanted(&format!("pvc-{uid}"), GIB)).await.unwrap();
    let lost = world.create(wanted("lost", GIB)).await.unwrap();
    kubernetes.has_volume("pv-retained", &claimed.volume_id);
    kubernetes.has_waiting_claim(uid);
    kubernetes.has_volume_of("another.driver", "pv-another", &lost.volume_id);
    // Made by the Go driver, and by another cluster.
    world::shell(
        &world.site,
        "/disk add type=file file-path=/storage-pool/pvc-go.img file-size=1073741824 slot=pvc-go nvme-tcp-export=no \
         nvme-tcp-server-nqn=nqn.2000-02.com.mikrotik:pvc-go",
    )
    .await;
    let green = world::controller_beside(&world.site, |settings| settings.cluster = "green").await;
    let theirs = world::create(&green, wanted("theirs", GIB)).await.unwrap();
    green.stop().await.unwrap();

    kubernetes.fails(None);
    shows(&world, r#"rds_csi_orphans_removed_total{backend="default"} 1"#, true).await;
    // What is left gets as many chances more as the one that went.
    kubernetes.is_read(4).await;
    let mut left = slots(&world);
    left.sort_unstable();
    let mut stayed = [&claimed, &awaited, &attached, &theirs].map(|volume| volume.volume_id.clone()).to_vec();
    stayed.push("pvc-go".into());
    stayed.sort_unstable();
    assert_eq!(left, stayed);
    shows(&world, &format!("{VOLUMES}1"), true).await;
    shows(&world, r#"rds_csi_orphans{backend="default",kind="unmarked"} 1"#, true).await;

    let log = world.controller.log();
    assert!(log.contains(&format!("removing an orphan: volume {}", lost.volume_id)), "{log}");
    assert!(log.contains("it stays, since the array does not keep everybody out of it"), "{log}");
    let events = kubernetes.events();
    let removed: Vec<_> = events.iter().filter(|(reason, _)| reason == "OrphanRemoved").collect();
    assert!(matches!(&removed[..], [(_, note)] if note.contains(&lost.volume_id)), "{events:?}");
    world.end_with_leftovers().await;
}

#[tokio::test]
async fn lesson_11_as_long_as_kubernetes_does_not_say_who_claims_what_nothing_is_an_orphan() {
    let kubernetes = Kubernetes::start().await;
    for name in ["pv-a", "pv-b", "pv-c"] {
        kubernetes.has_volume(name, &format!("pvc-of-{name}"));
    }
    kubernetes.fails(Some(Fault::Error));
    let world = world(&kubernetes, &["--remove-orphans-after", "1s"]).await;
    let kept = world.create(wanted("kept", GIB)).await.unwrap();
    let lost = world.create(wanted("lost", GIB)).await.unwrap();
    for fault in [Fault::Error, Fault::Expired, Fault::Silence] {
        kubernetes.fails(Some(fault));
        kubernetes.is_asked(3).await;
        let (_, metrics) = world::admin(&world.controller, "/metrics").await;
        assert!(!metrics.contains("rds_csi_orphans{"), "{fault:?}: {metrics}");
    }
    // A name that nobody understands may be anybody's.
    kubernetes.has_volume("pv-odd", &format!("/{}", kept.volume_id));
    kubernetes.fails(None);
    kubernetes.is_read(3).await;
    assert!(world.controller.log().contains("PersistentVolume pv-odd names"), "{}", world.controller.log());
    assert_eq!(slots(&world).len(), 2);
    kubernetes.has_volume("pv-kept", &kept.volume_id);
    kubernetes.loses_volume("pv-odd");
    shows(&world, r#"rds_csi_orphans_removed_total{backend="default"} 1"#, true).await;
    assert_eq!(slots(&world), [kept.volume_id.as_str()], "{} was lost", lost.volume_id);
    shows(&world, &format!("{VOLUMES}0"), true).await;
    // What was known is not what is known.
    kubernetes.fails(Some(Fault::Silence));
    shows(&world, VOLUMES, false).await;
    kubernetes.fails(None);
    world.delete(&kept.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn without_the_switch_an_orphan_is_told_once_and_stays() {
    let kubernetes = Kubernetes::start().await;
    kubernetes.has_content("content-1", "snap-elsewhere");
    let world = world(&kubernetes, &[]).await;
    let kept = world.create(wanted("kept", GIB)).await.unwrap();
    kubernetes.has_volume("pv-kept", &kept.volume_id);
    let lost = world.create(wanted("lost", GIB)).await.unwrap();
    let request = csi::CreateSnapshotRequest {
        source_volume_id: kept.volume_id.clone(),
        name: "snapshot-1".into(),
        ..Default::default()
    };
    let snapshot =
        world.controller.csi().create_snapshot(request).await.unwrap().into_inner().snapshot.unwrap();
    shows(&world, &format!("{VOLUMES}1"), true).await;
    shows(&world, r#"rds_csi_orphans{backend="default",kind="snapshot"} 1"#, true).await;
    kubernetes.is_read(3).await;
    let told: Vec<_> = kubernetes
        .events()
        .into_iter()
        .map(|(reason, note)| {
            assert_eq!(reason, "OrphanFound");
            note
        })
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains(&lost.volume_id) && told[0].contains("removal is switched off"), "{told:?}");
    assert!(told[1].contains(&snapshot.snapshot_id), "{told:?}");
    assert_eq!(slots(&world).len(), 2);
    world.end_with_leftovers().await;
}

#[tokio::test]
async fn systems_of_nodes_on_the_same_array_are_no_orphans() {
    let kubernetes = Kubernetes::start().await;
    let world = world(&kubernetes, &["--remove-orphans-after", "1s"]).await;
    for slot in ["nixos-var", "pvc-unmarked"] {
        let line = format!(
            "/disk add type=file file-path=/storage-pool/{slot}.img file-size=16M slot={slot} nvme-tcp-export=no \
             nvme-tcp-server-nqn=nqn.2000-02.com.mikrotik:{slot}"
        );
        world::shell(&world.site, &line).await;
    }
    // The one that differs in nothing but its name shows that both were looked at.
    shows(&world, r#"rds_csi_orphans{backend="default",kind="unmarked"} 1"#, true).await;
    kubernetes.is_read(3).await;
    let events = kubernetes.events();
    assert!(events.iter().any(|(_, note)| note.contains("pvc-unmarked")), "{events:?}");
    assert!(!format!("{events:?} {}", world.controller.log()).contains("nixos-var"), "{events:?}");
    assert_eq!(slots(&world), ["nixos-var", "pvc-unmarked"]);
    world.end_with_leftovers().await;
}

#[tokio::test]
async fn without_kubernetes_nothing_is_looked_for_and_it_says_so() {
    let world = World::new().await;
    assert!(world.controller.log().contains("orphans are not looked for"), "{}", world.controller.log());
    world.end().await;
}
