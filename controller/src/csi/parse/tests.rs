//! Requests that are wrong, and what is said about them.

use rds_csi_api::csi::volume_capability::access_mode::Mode;
use rds_csi_api::csi::volume_capability::{AccessMode as WireMode, AccessType, BlockVolume, MountVolume};
use rds_csi_api::csi::volume_content_source::{SnapshotSource, Type, VolumeSource};
use rds_csi_api::status::chain;
use rds_csi_api::{AccessMode, BackendName, NodeName, SnapshotId};

use super::*;
use crate::array::Source;
use crate::attachments::{Claim, Rights, Second, Shape};
use crate::backends::{Backends, fake};
use crate::create;
use crate::list_snapshots::Which;
use crate::size::CapacityRange;

fn capability(access: AccessType, mode: Mode) -> csi::VolumeCapability {
    csi::VolumeCapability { access_type: Some(access), access_mode: Some(WireMode { mode: mode.into() }) }
}

fn filesystem() -> csi::VolumeCapability {
    capability(AccessType::Mount(MountVolume::default()), Mode::SingleNodeWriter)
}

/// The default backend and `rack-2`.
fn backends() -> Backends<()> {
    let other: BackendName = "rack-2".parse().unwrap();
    Backends::only(fake::backend(None, ())).with(other.clone(), fake::backend(Some(other), ()))
}

fn prefix() -> ManagedPrefix {
    "nqn.2000-02.com.mikrotik:pvc-".parse().unwrap()
}

fn map(pairs: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

fn creation() -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        name: "pvc-1".into(),
        volume_capabilities: vec![filesystem()],
        ..csi::CreateVolumeRequest::default()
    }
}

fn created(request: &csi::CreateVolumeRequest) -> Result<On<(), create::Request>, Error> {
    volume::create(request, &backends(), &prefix())
}

#[allow(clippy::needless_pass_by_value, reason = "reads better where it is called")]
fn refused(request: csi::CreateVolumeRequest) -> String {
    let error = created(&request).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    chain(&error)
}

fn publication() -> csi::ControllerPublishVolumeRequest {
    csi::ControllerPublishVolumeRequest {
        volume_id: "pvc-1".into(),
        node_id: "w1".into(),
        volume_capability: Some(filesystem()),
        ..csi::ControllerPublishVolumeRequest::default()
    }
}

fn published(
    request: &csi::ControllerPublishVolumeRequest,
) -> Result<On<(), crate::publish::Request>, Error> {
    attachment::publish(request, &backends(), &prefix())
}

#[test]
fn a_plain_request_is_understood() {
    let (backend, request) = created(&creation()).unwrap();
    assert_eq!(request.range, CapacityRange::default());
    assert_eq!((request.parameters.portal, request.source), (backend.portal, None));
}

#[test]
fn a_storage_class_picks_its_array() {
    let (backend, request) =
        created(&csi::CreateVolumeRequest { parameters: map(&[("backend", "rack-2")]), ..creation() })
            .unwrap();
    assert_eq!(
        (&backend.name, request.id.backend()),
        (&Some("rack-2".parse().unwrap()), backend.name.clone())
    );
    let unknown = map(&[("backend", "rack-3")]);
    assert!(
        refused(csi::CreateVolumeRequest { parameters: unknown, ..creation() })
            .contains("backend rack-3 is not configured")
    );
}

#[test]
fn a_creation_that_cannot_be_served_says_which_field_and_what_to_do() {
    let request = creation;
    let named = |name: &str| csi::CreateVolumeRequest { name: name.into(), ..request() };
    assert!(refused(named("")).contains("volume name \"\" is not valid: give 1 to 128 bytes"));
    assert!(refused(named("a\nb")).contains("without control characters"));
    assert!(refused(named(&"x".repeat(129))).contains("1 to 128 bytes"));

    let sized = |required_bytes, limit_bytes| csi::CreateVolumeRequest {
        capacity_range: Some(csi::CapacityRange { required_bytes, limit_bytes }),
        ..request()
    };
    assert!(refused(sized(-1, 0)).contains("capacity_range.required_bytes is malformed: a size of -1 bytes"));
    assert!(refused(sized(0, -1)).contains("capacity_range.limit_bytes"));

    let capable = |volume_capabilities| csi::CreateVolumeRequest { volume_capabilities, ..request() };
    assert!(refused(capable(vec![])).contains("volume_capabilities is empty"));
    let shared = capability(AccessType::Mount(MountVolume::default()), Mode::MultiNodeMultiWriter);
    assert!(refused(capable(vec![filesystem(), shared])).contains("volumeMode: Block"));

    let unknown = csi::CreateVolumeRequest { parameters: map(&[("colour", "red")]), ..request() };
    assert!(refused(unknown).contains("parameter \"colour\" = \"red\" is not known"));
    let mutable = csi::CreateVolumeRequest { mutable_parameters: map(&[("x", "y")]), ..request() };
    assert!(refused(mutable).contains("the VolumeAttributesClass cannot be kept: \"x\" cannot be changed"));
}

fn copy_of(r#type: Option<Type>) -> csi::CreateVolumeRequest {
    let source = csi::VolumeContentSource { r#type };
    csi::CreateVolumeRequest { volume_content_source: Some(source), ..creation() }
}

fn copy_of_volume(volume_id: &str) -> csi::CreateVolumeRequest {
    copy_of(Some(Type::Volume(VolumeSource { volume_id: volume_id.into() })))
}

fn copy_of_snapshot(snapshot_id: &str) -> csi::CreateVolumeRequest {
    copy_of(Some(Type::Snapshot(SnapshotSource { snapshot_id: snapshot_id.into() })))
}

#[test]
fn a_copy_names_its_source() {
    let source = |request| created(&request).unwrap().1.source.unwrap();
    assert_eq!(source(copy_of_volume("pvc-2")), Source::Volume("pvc-2".parse().unwrap()));
    assert_eq!(source(copy_of_snapshot("snap-2")), Source::Snapshot("snap-2".parse().unwrap()));
}

#[test]
fn a_source_that_cannot_be_there_is_missing_and_one_elsewhere_is_a_mistake() {
    for (request, kind) in [
        (copy_of_volume("a b"), Kind::Missing),
        (copy_of_volume("nixos-var"), Kind::Missing),
        (copy_of_snapshot("pvc-2"), Kind::Missing),
        (copy_of_volume("rack-3/pvc-2"), Kind::Refused),
        (copy_of_snapshot("rack-3/snap-2"), Kind::Refused),
    ] {
        let error = created(&request).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    assert!(refused(copy_of(None)).contains("names neither"));
    assert!(refused(copy_of_volume("")).contains("volume_id is empty"));
    assert!(refused(copy_of_snapshot("")).contains("snapshot_id is empty"));
    let elsewhere = csi::CreateVolumeRequest {
        parameters: map(&[("backend", "default")]),
        ..copy_of_snapshot("rack-2/snap-2")
    };
    assert!(refused(elsewhere).contains("use a StorageClass with backend rack-2"));
    let (backend, _) = created(&copy_of_snapshot("rack-2/snap-2")).unwrap();
    assert_eq!(backend.title.as_str(), "rack-2", "a copy lies beside its source");
}

#[test]
fn a_publication_says_which_node_and_how() {
    let (_, request) = published(&publication()).unwrap();
    let node: NodeName = "w1".parse().unwrap();
    assert_eq!(
        request.claim,
        Claim {
            node,
            shape: Shape::Filesystem,
            mode: AccessMode::SingleNodeWriter,
            rights: Rights::Write,
            second: Second::default()
        }
    );
    let block = capability(AccessType::Block(BlockVolume {}), Mode::MultiNodeMultiWriter);
    let shared = csi::ControllerPublishVolumeRequest {
        volume_capability: Some(block),
        readonly: true,
        ..publication()
    };
    let claim = published(&shared).unwrap().1.claim;
    assert_eq!((claim.shape, claim.rights), (Shape::Block, Rights::Read));
}

#[test]
fn a_volume_is_reached_where_and_how_its_own_context_says() {
    let context =
        [("nvmeAddress", "10.9.9.9"), ("nqn", "nqn.2000-02.com.mikrotik:pvc-1"), ("ctrlLossTmo", "600")];
    let request = csi::ControllerPublishVolumeRequest { volume_context: map(&context), ..publication() };
    let request = published(&request).unwrap().1;
    assert_eq!(request.portal.to_string(), "10.9.9.9:4420");
    assert_eq!(request.reconnect.unwrap().to_string(), "600,2,5,off");
    let request =
        csi::ControllerPublishVolumeRequest { volume_context: map(&[("nqn", "x")]), ..publication() };
    assert_eq!(published(&request).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn an_id_that_nobody_was_given_is_missing_and_no_id_is_a_mistake() {
    let found = |id: &str| id::volume(id, &backends(), &prefix());
    assert_eq!(found("").unwrap_err().kind(), Kind::Invalid);
    for (id, kind) in [
        ("../x", Kind::Missing),
        ("a b", Kind::Missing),
        ("a\"; /system/reset-configuration", Kind::Missing),
        ("a/b/c", Kind::Missing),
        ("nixos-var", Kind::Missing),
        // It may be there, so nobody is told that it is not.
        ("rack-3/pvc-1", Kind::Refused),
    ] {
        assert_eq!(found(id).unwrap_err().kind(), kind, "{id}");
        let request = csi::ControllerPublishVolumeRequest { volume_id: id.into(), ..publication() };
        assert_eq!(published(&request).unwrap_err().kind(), kind, "{id}");
        let request = csi::ControllerUnpublishVolumeRequest { volume_id: id.into(), ..Default::default() };
        let refused = attachment::unpublish(&request, &backends(), &prefix()).unwrap_err();
        assert_eq!(refused.kind(), kind, "a volume that may be attached is never called detached");
    }
    let named = |node_id: &str| {
        let request = csi::ControllerPublishVolumeRequest { node_id: node_id.into(), ..publication() };
        published(&request).unwrap_err()
    };
    assert_eq!(named("").kind(), Kind::Invalid);
    assert!(named("No Node").kind() == Kind::Missing && chain(&named("No Node")).contains("node name"));
    let request = csi::ControllerPublishVolumeRequest { volume_capability: None, ..publication() };
    assert!(chain(&published(&request).unwrap_err()).contains("volume_capability is missing"));
}

#[test]
fn what_cannot_be_there_is_deleted_already_but_not_what_is_on_an_array_that_is_not_configured() {
    let volume = |id: &str| id::to_delete(id::volume(id, &backends(), &prefix()));
    let snapshot = |id: &str| id::to_delete(id::snapshot(id, &backends()));
    for id in ["a b", "../x"] {
        assert!(volume(id).unwrap().is_none() && snapshot(id).unwrap().is_none(), "{id}");
    }
    assert!(snapshot("nixos-var").unwrap().is_none());
    let looked_for = |id: &str| id::not_managed(&id::volume(id, &backends(), &prefix()), &backends());
    let (backend, volume_to_look_for) = looked_for("rack-2/nixos-var").unwrap().unwrap();
    assert_eq!((backend.title.as_str(), volume_to_look_for.id.as_str()), ("rack-2", "rack-2/nixos-var"));
    assert_eq!(looked_for("rack-3/nixos-var").unwrap().unwrap_err().kind(), Kind::Refused);
    assert!(looked_for("pvc-1").is_none() && looked_for("a b").is_none());
    assert_eq!(volume("pvc-1").unwrap().unwrap().1.as_str(), "pvc-1");
    assert_eq!(volume("").unwrap_err().kind(), Kind::Invalid);
    assert_eq!(snapshot("").unwrap_err().kind(), Kind::Invalid);
    for refused in [volume("rack-3/pvc-1").err(), snapshot("rack-3/snap-1").err()] {
        let refused = refused.unwrap();
        assert_eq!(refused.kind(), Kind::Refused);
        assert!(
            chain(&refused).contains("there are: default (the default one, whose ids are bare), rack-2"),
            "{refused}"
        );
    }
}

#[test]
fn a_volume_that_the_prefix_does_not_cover_is_nobody_s_business_here() {
    let refused = id::volume("nixos-var", &backends(), &prefix()).unwrap_err().to_string();
    assert!(
        refused.contains("volume nixos-var") && refused.contains("nqn.2000-02.com.mikrotik:pvc-;"),
        "{refused}"
    );
    let other = "nqn.2000-02.com.mikrotik:other-".parse().unwrap();
    let refused = volume::create(&creation(), &backends(), &other).unwrap_err();
    assert!(refused.kind() == Kind::Invalid && refused.to_string().contains("correct --managed-nqn-prefix"));
}

#[test]
fn a_snapshot_is_on_the_array_of_its_volume() {
    let take = |name: &str, source_volume_id: &str, parameters| {
        let (name, source_volume_id) = (name.into(), source_volume_id.into());
        let request = csi::CreateSnapshotRequest { name, source_volume_id, parameters, ..Default::default() };
        snapshot::take(&request, &backends(), &prefix()).map(|(_, ids)| ids)
    };
    let sidecars = map(&[("csi.storage.k8s.io/volumesnapshot/name", "nightly")]);
    let (id, source) = take("snapshot-1", "rack-2/pvc-1", sidecars).unwrap();
    assert_eq!(source.as_str(), "rack-2/pvc-1");
    assert_eq!(id, SnapshotId::for_name(source.backend().as_ref(), &"snapshot-1".parse().unwrap()));
    for (name, source, parameters, kind) in [
        ("", "pvc-1", map(&[]), Kind::Invalid),
        ("a", "", map(&[]), Kind::Invalid),
        ("a", "pvc-1", map(&[("incremental", "yes")]), Kind::Invalid),
        ("a", "a b", map(&[]), Kind::Missing),
        ("a", "rack-3/pvc-1", map(&[]), Kind::Refused),
    ] {
        assert_eq!(take(name, source, parameters).unwrap_err().kind(), kind, "{name:?} {source:?}");
    }
}

#[test]
fn a_listing_of_what_cannot_be_there_is_empty_and_a_bad_page_is_refused() {
    let list = |request: csi::ListSnapshotsRequest| snapshot::list(&request, &backends(), &prefix());
    let one = |id: &str| csi::ListSnapshotsRequest { snapshot_id: id.into(), ..Default::default() };
    let of = |id: &str| csi::ListSnapshotsRequest { source_volume_id: id.into(), ..Default::default() };
    for (request, expected) in [
        (csi::ListSnapshotsRequest::default(), "All"),
        (one("snap-1"), "One"),
        (of("pvc-1"), "Of"),
        (one("pvc-1"), "None"),
        (of("nixos-var"), "None"),
        (csi::ListSnapshotsRequest { source_volume_id: "a b".into(), ..one("snap-1") }, "None"),
    ] {
        let name = match list(request.clone()).unwrap().0 {
            Which::All => "All",
            Which::One(..) => "One",
            Which::Of(..) => "Of",
            Which::None => "None",
        };
        assert_eq!(name, expected, "{request:?}");
    }
    assert_eq!(list(one("rack-3/snap-1")).unwrap_err().kind(), Kind::Refused);
    let negative = csi::ListSnapshotsRequest { max_entries: -1, ..Default::default() };
    assert_eq!(list(negative).unwrap_err().kind(), Kind::Invalid);
    let stale = csi::ListSnapshotsRequest { starting_token: "x".into(), ..Default::default() };
    assert_eq!(list(stale).unwrap_err().kind(), Kind::Stale);
}

#[test]
fn a_volume_on_another_array_than_its_storage_class_names_is_another_volume() {
    let judged = |id: &str, backend: &str| {
        let request = csi::ValidateVolumeCapabilitiesRequest {
            volume_id: id.into(),
            volume_capabilities: vec![filesystem()],
            parameters: map(&[("backend", backend)]),
            ..Default::default()
        };
        volume::validate(&request, &backends(), &prefix()).unwrap().1.known.map_err(|why| why.to_string())
    };
    assert!(judged("pvc-1", "default").is_ok() && judged("rack-2/pvc-1", "rack-2").is_ok());
    let why = judged("pvc-1", "rack-2").unwrap_err();
    assert!(why.contains("is rack-2, and the volume is on default"), "{why}");
}
