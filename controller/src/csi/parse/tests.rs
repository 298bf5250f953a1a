//! Requests that are wrong, and what is said about them.

use rds_csi_api::csi::volume_capability::access_mode::Mode;
use rds_csi_api::csi::volume_capability::{AccessMode as WireMode, AccessType, BlockVolume, MountVolume};
use rds_csi_api::status::chain;
use rds_csi_api::{AccessMode, NodeName, Portal};

use super::*;
use crate::attachments::Fence;
use crate::backends::topology::Segments;

fn capability(access: AccessType, mode: Mode) -> csi::VolumeCapability {
    csi::VolumeCapability { access_type: Some(access), access_mode: Some(WireMode { mode: mode.into() }) }
}

fn filesystem() -> csi::VolumeCapability {
    capability(AccessType::Mount(MountVolume::default()), Mode::SingleNodeWriter)
}

fn backends() -> Backends<()> {
    let (pool, portal) = ("pool".parse().unwrap(), Portal::parse("10.0.0.1", None).unwrap());
    Backends::only(Backend {
        name: None,
        array: (),
        fence: Fence::Acl,
        pool,
        portal,
        address: "array".into(),
        title: "default".parse().unwrap(),
        topology: Segments::default(),
    })
}

fn prefix() -> ManagedPrefix {
    "nqn.2000-02.com.mikrotik:pvc-".parse().unwrap()
}

fn creation() -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        name: "pvc-1".into(),
        volume_capabilities: vec![filesystem()],
        ..csi::CreateVolumeRequest::default()
    }
}

#[allow(clippy::needless_pass_by_value, reason = "reads better where it is called")]
fn refused(request: csi::CreateVolumeRequest) -> String {
    let error = create(&request, &backends(), &prefix()).unwrap_err();
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

#[test]
fn a_plain_request_is_understood() {
    let (backend, request) = create(&creation(), &backends(), &prefix()).unwrap();
    assert_eq!(request.range, CapacityRange::default());
    assert_eq!(request.parameters.portal, backend.portal);
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

    let unknown = [("colour".to_owned(), "red".to_owned())].into();
    let unknown = csi::CreateVolumeRequest { parameters: unknown, ..request() };
    assert!(refused(unknown).contains("parameter \"colour\" = \"red\" is not known"));

    let source = Some(csi::VolumeContentSource::default());
    assert!(
        refused(csi::CreateVolumeRequest { volume_content_source: source, ..request() })
            .contains("volume_content_source is not supported")
    );
    let mutable = [("x".to_owned(), "y".to_owned())].into();
    assert!(
        refused(csi::CreateVolumeRequest { mutable_parameters: mutable, ..request() })
            .contains("VolumeAttributesClass")
    );
}

#[test]
fn a_publication_says_which_node_and_how() {
    let (_, request) = publish(&publication(), &backends(), &prefix()).unwrap();
    let node: NodeName = "w1".parse().unwrap();
    assert_eq!(
        request.claim,
        Claim { node, shape: Shape::Filesystem, mode: AccessMode::SingleNodeWriter, rights: Rights::Write }
    );
    let block = capability(AccessType::Block(BlockVolume {}), Mode::MultiNodeMultiWriter);
    let shared = csi::ControllerPublishVolumeRequest {
        volume_capability: Some(block),
        readonly: true,
        ..publication()
    };
    let (_, publish::Request { claim, .. }) = publish(&shared, &backends(), &prefix()).unwrap();
    assert_eq!((claim.shape, claim.rights), (Shape::Block, Rights::Read));
}

#[test]
fn a_volume_is_reached_where_its_own_context_says() {
    let context = [("nvmeAddress", "10.9.9.9"), ("nqn", "nqn.2000-02.com.mikrotik:pvc-1")];
    let volume_context = context.map(|(key, value)| (key.into(), value.into())).into();
    let request = csi::ControllerPublishVolumeRequest { volume_context, ..publication() };
    assert_eq!(publish(&request, &backends(), &prefix()).unwrap().1.portal.to_string(), "10.9.9.9:4420");
    let volume_context = [("nqn".to_owned(), "x".to_owned())].into();
    let request = csi::ControllerPublishVolumeRequest { volume_context, ..publication() };
    assert_eq!(publish(&request, &backends(), &prefix()).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn malformed_ids_are_refused_before_anything_else() {
    for id in ["", "../x", "a b", "a\"; /system/reset-configuration", "a/b/c"] {
        let request = csi::ControllerPublishVolumeRequest { volume_id: id.into(), ..publication() };
        assert!(chain(&publish(&request, &backends(), &prefix()).unwrap_err()).contains("volume id"), "{id}");
        let request = csi::ControllerUnpublishVolumeRequest { volume_id: id.into(), ..Default::default() };
        assert!(
            unpublish(&request, &backends(), &prefix()).is_err()
                && volume_id(id, &backends(), &prefix()).is_err(),
            "{id}"
        );
    }
    let request = csi::ControllerPublishVolumeRequest { node_id: String::new(), ..publication() };
    assert!(chain(&publish(&request, &backends(), &prefix()).unwrap_err()).contains("node name"));
    let request = csi::ControllerPublishVolumeRequest { volume_capability: None, ..publication() };
    assert!(
        chain(&publish(&request, &backends(), &prefix()).unwrap_err())
            .contains("volume_capability is missing")
    );
}

#[test]
fn a_volume_that_the_prefix_does_not_cover_is_nobody_s_business_here() {
    let id = "nixos-var";
    let publication = csi::ControllerPublishVolumeRequest { volume_id: id.into(), ..publication() };
    let detach = csi::ControllerUnpublishVolumeRequest { volume_id: id.into(), ..Default::default() };
    let other = "nqn.2000-02.com.mikrotik:other-".parse().unwrap();
    for refused in [
        publish(&publication, &backends(), &prefix()).err(),
        unpublish(&detach, &backends(), &prefix()).err(),
        volume_id(id, &backends(), &prefix()).err(),
        create(&creation(), &backends(), &other).err(),
    ] {
        let refused = refused.unwrap();
        assert_eq!(refused.kind(), Kind::Invalid);
        assert!(chain(&refused).contains("correct --managed-nqn-prefix"), "{refused}");
    }
    let refused = volume_id(id, &backends(), &prefix()).unwrap_err().to_string();
    assert!(
        refused.contains("volume nixos-var") && refused.contains("nqn.2000-02.com.mikrotik:pvc-;"),
        "{refused}"
    );
}
