//! No request of CSI can print the secrets that it carries.

use rds_csi_api::csi::CreateVolumeRequest;

#[test]
fn a_request_prints_how_many_secrets_it_has_and_not_one_of_them() {
    let request = CreateVolumeRequest {
        name: "pvc-1".into(),
        secrets: [("password".to_owned(), "hunter2".to_owned())].into(),
        ..CreateVolumeRequest::default()
    };
    let text = format!("{request:?}");
    assert!(text.contains("pvc-1") && text.contains("<1 redacted>"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains("password"), "{text}");
}
