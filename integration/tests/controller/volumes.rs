//! Volumes come, are found again, and go; what cannot be made says why.

use rds_csi_api::csi;
use tonic::Code;

use crate::world::{self, World, assert_refused, filesystem, shared_filesystem, wanted};

const GIB: i64 = 1 << 30;

#[tokio::test]
async fn a_volume_is_made_found_again_and_removed_in_one_round_trip_each() {
    let world = World::new().await;
    let volume = world.create(wanted("pvc-123e4567-e89b-12d3-a456-426614174000", GIB)).await.unwrap();
    assert_eq!(world.commands(), 1);
    assert_eq!((volume.volume_id.len(), volume.capacity_bytes), (30, GIB));
    let context = |key| volume.volume_context.get(key).map(String::as_str);
    assert_eq!(context("nqn"), Some(format!("nqn.2000-02.com.mikrotik:{}", volume.volume_id).as_str()));
    assert_eq!((context("nvmeAddress"), context("nvmePort")), (Some("10.77.0.1"), Some("4420")));

    let again = world.create(wanted("pvc-123e4567-e89b-12d3-a456-426614174000", GIB)).await.unwrap();
    assert_eq!((again, world.commands()), (volume.clone(), 2));

    let state = world.simulator.state().unwrap();
    let [disk] = &state.disks[..] else { panic!("{state:?}") };
    assert_eq!(disk.slot, volume.volume_id);
    assert_eq!(disk.file_path, format!("/storage-pool/{}/disk.img", volume.volume_id));
    assert!(!disk.mount_filesystem && !disk.nvme_tcp_export);
    assert_eq!(state.subvolumes.len(), 1);

    world.delete(&volume.volume_id).await.unwrap();
    assert_eq!(world.commands(), 3);
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn whoever_stands_at_the_array_sees_whose_volume_it_is() {
    let world = World::new().await;
    let named = [("pv/name", "pvc-1"), ("pvc/name", "db-0"), ("pvc/namespace", "shop")];
    let parameters = named.map(|(key, value)| (format!("csi.storage.k8s.io/{key}"), value.to_owned())).into();
    let volume = world.create(csi::CreateVolumeRequest { parameters, ..wanted("a", GIB) }).await.unwrap();
    assert_eq!(
        world.simulator.state().unwrap().disks[0].comment,
        "rds-csi:rig params=c66e7f43 pv=pvc-1 pvc=shop/db-0"
    );
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn sizes_are_exact_to_the_byte() {
    let world = World::new().await;
    for (asked, made) in [
        (824_633_720_832, 824_633_720_832), // 0.75 TiB, once rounded to 1T
        (GIB + 4096, GIB + 4096),
        (GIB + 1, GIB + 4096),
        (0, GIB),
        (1, 16 << 20),
    ] {
        let volume = world.create(wanted("exact", asked)).await.unwrap();
        assert_eq!(volume.capacity_bytes, made);
        assert_eq!(i64::try_from(world.simulator.state().unwrap().disks[0].file_size), Ok(made));
        world.delete(&volume.volume_id).await.unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn the_same_name_with_another_size_is_a_conflict_and_leaves_the_volume_alone() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    let before = world.simulator.state().unwrap().disks;
    assert_refused(
        world.create(wanted("a", 2 * GIB)).await,
        Code::AlreadyExists,
        "size 1073741824, not 2147483648",
    );
    let other = [("nvmePort".to_owned(), "4421".to_owned())].into();
    let other = csi::CreateVolumeRequest { parameters: other, ..wanted("a", GIB) };
    assert_refused(world.create(other).await, Code::AlreadyExists, "port 4420, not 4421");
    assert_eq!(world.simulator.state().unwrap().disks, before);
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_size_that_cannot_be_is_out_of_range() {
    let world = World::new().await;
    let ranged = |required_bytes, limit_bytes| csi::CreateVolumeRequest {
        capacity_range: Some(csi::CapacityRange { required_bytes, limit_bytes }),
        ..wanted("a", 0)
    };
    assert_refused(world.create(ranged(i64::MAX, 0)).await, Code::OutOfRange, "more than the largest volume");
    assert_refused(world.create(ranged(GIB + 1, GIB + 2)).await, Code::OutOfRange, "limit_bytes");
    assert_refused(world.create(ranged(2 * GIB, GIB)).await, Code::InvalidArgument, "limit_bytes");
    assert_refused(world.create(ranged(-1, 0)).await, Code::InvalidArgument, "required_bytes");
    assert_eq!(world.commands(), 0);
    world.end().await;
}

#[tokio::test]
async fn a_full_array_is_exhausted_and_keeps_nothing_of_the_attempt() {
    let world = World::new().await;
    assert_refused(world.create(wanted("a", 2 << 40)).await, Code::ResourceExhausted, "no space left");
    world.end().await;
}

#[tokio::test]
async fn bad_names_ids_and_parameters_are_refused_before_the_array_is_asked() {
    let world = World::new().await;
    for name in ["", "a\nb", &"x".repeat(129)] {
        assert_refused(world.create(wanted(name, GIB)).await, Code::InvalidArgument, "volume name");
    }
    assert_refused(world.delete("").await, Code::InvalidArgument, "volume_id is empty");
    for id in ["a b", "../a", "a\"; /disk remove [find]; :put \"", "$a", &"x".repeat(64), "nixos-var"] {
        let strange = csi::Volume { volume_id: id.into(), ..Default::default() };
        assert_refused(world.publish(&strange, "w1", filesystem()).await, Code::NotFound, "");
        world.delete(id).await.unwrap();
    }
    for (key, value, says) in [
        ("nvmeAdress", "10.0.0.1", "\"nvmeAdress\" = \"10.0.0.1\" is not known"),
        ("nvmeAddress", "array; /quit", "give an IPv4 or IPv6 address"),
        ("volumePath", "/storage-pool/\"; /quit", "volumePath"),
        ("ctrlLossTmo", "soon", "ctrlLossTmo \"soon\""),
    ] {
        let parameters = [(key.to_owned(), value.to_owned())].into();
        let request = csi::CreateVolumeRequest { parameters, ..wanted("a", GIB) };
        assert_refused(world.create(request).await, Code::InvalidArgument, says);
    }
    let shared =
        csi::CreateVolumeRequest { volume_capabilities: vec![shared_filesystem()], ..wanted("a", GIB) };
    assert_refused(world.create(shared).await, Code::InvalidArgument, "volumeMode: Block");
    let source = Some(csi::VolumeContentSource::default());
    let copy = csi::CreateVolumeRequest { volume_content_source: source, ..wanted("a", GIB) };
    assert_refused(world.create(copy).await, Code::InvalidArgument, "volume_content_source");
    let mutable_parameters = [("iops".to_owned(), "1".to_owned())].into();
    let modified = csi::CreateVolumeRequest { mutable_parameters, ..wanted("a", GIB) };
    assert_refused(world.create(modified).await, Code::InvalidArgument, "\"iops\" cannot be changed");
    // Whether there is a volume of ours that a wrong prefix hides.
    assert_eq!(world.commands(), 1);
    world.end().await;
}

#[tokio::test]
async fn a_strange_name_is_data_and_never_a_command() {
    let world = World::new().await;
    let volume = world.create(wanted("\"; /disk remove [find]; :put \"$[/quit] ä \\", GIB)).await.unwrap();
    assert_eq!(world.simulator.state().unwrap().disks.len(), 1);
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn what_is_validated_must_exist_and_be_possible() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    let validate = |volume_id: &str, volume_capabilities| {
        let request = csi::ValidateVolumeCapabilitiesRequest {
            volume_id: volume_id.into(),
            volume_capabilities,
            volume_context: volume.volume_context.clone(),
            ..Default::default()
        };
        let mut client = world.controller.csi();
        async move { client.validate_volume_capabilities(request).await.map(tonic::Response::into_inner) }
    };
    let possible = vec![filesystem()];
    let confirmed = validate(&volume.volume_id, possible.clone()).await.unwrap().confirmed.unwrap();
    assert_eq!(confirmed.volume_capabilities, possible);
    let impossible = validate(&volume.volume_id, vec![shared_filesystem()]).await.unwrap();
    assert!(impossible.confirmed.is_none() && impossible.message.contains("volumeMode: Block"));
    assert_refused(validate("pvc-none", possible).await, Code::NotFound, "pvc-none does not exist");
    assert_refused(validate(&volume.volume_id, vec![]).await, Code::InvalidArgument, "volume_capabilities");
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_subvolume_with_somebody_elses_files_in_it_is_left_alone() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    world::shell(&world.site, "/disk/btrfs/subvolume add fs=storage-pool name=pvc-backups").await;
    for directory in [volume.volume_id.as_str(), "pvc-backups"] {
        // Taken off the list of disks again, its file stays.
        let file = format!("/storage-pool/{directory}/notes.img");
        world::shell(&world.site, &format!("/disk add type=file file-path={file} file-size=16M slot=notes"))
            .await;
        world::shell(&world.site, "/disk remove [find slot=notes]").await;
    }
    assert_refused(world.delete(&volume.volume_id).await, Code::FailedPrecondition, "holds other files");
    // No volume has ever had this name, so there is none to delete.
    world.delete("pvc-backups").await.unwrap();
    let files = world.simulator.state().unwrap().files;
    assert_eq!(files.iter().filter(|entry| format!("{:?}", entry.path).contains("notes.img")).count(), 2);
    world.end_with_leftovers().await;
}

/// Whoever lists volumes without a fence is not told that a record was lost, so nobody is to attach again what is not listed.
#[tokio::test]
async fn without_a_fence_who_holds_volumes_is_not_promised_in_listings() {
    use rds_csi_api::csi::controller_service_capability::Type;
    use rds_csi_api::csi::controller_service_capability::rpc::Type as Rpc;
    let world = World::with(|settings| settings.fence = "none").await;
    let request = csi::ControllerGetCapabilitiesRequest {};
    let answer = world.controller.csi().controller_get_capabilities(request).await.unwrap().into_inner();
    let served: Vec<_> = answer
        .capabilities
        .into_iter()
        .map(|capability| match capability.r#type.unwrap() {
            Type::Rpc(rpc) => rpc.r#type(),
        })
        .collect();
    assert!(
        served.contains(&Rpc::ListVolumes) && !served.contains(&Rpc::ListVolumesPublishedNodes),
        "{served:?}"
    );
    world.end().await;
}

#[tokio::test]
async fn what_is_not_served_is_not_advertised() {
    use rds_csi_api::csi::controller_service_capability::Type;
    use rds_csi_api::csi::controller_service_capability::rpc::Type as Rpc;
    let world = World::new().await;
    let mut client = world.controller.csi();
    let capabilities =
        client.controller_get_capabilities(csi::ControllerGetCapabilitiesRequest {}).await.unwrap();
    let served = |wanted: Rpc| {
        capabilities.get_ref().capabilities.iter().any(|capability| match capability.r#type.unwrap() {
            Type::Rpc(rpc) => rpc.r#type() == wanted,
        })
    };
    for rpc in (1..=17).map(|number| Rpc::try_from(number).unwrap()) {
        assert_eq!(served(rpc), !matches!(rpc, Rpc::GetVolumeHealth | Rpc::ListVolumeHealth), "{rpc:?}");
    }
    let refused = client.controller_get_volume_health(csi::ControllerGetVolumeHealthRequest::default()).await;
    assert_refused(refused, Code::Unimplemented, "ControllerGetVolumeHealth is not served");
    let info = world.controller.identity().get_plugin_info(csi::GetPluginInfoRequest {}).await.unwrap();
    assert_eq!(info.into_inner().name, "rds.csi.srvlab.io");
    let offered = world
        .controller
        .identity()
        .get_plugin_capabilities(csi::GetPluginCapabilitiesRequest {})
        .await
        .unwrap();
    assert!(format!("{offered:?}").contains("Online"), "{offered:?}");
    world.end().await;
}
