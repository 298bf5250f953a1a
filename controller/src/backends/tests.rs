use std::collections::HashMap;

use rds_csi_api::csi;
use rds_csi_api::status::chain;

use super::*;

fn backend(name: Option<&str>, title: &str, rack: Option<&str>) -> Backend<()> {
    let topology = rack.map(|rack| ("rack".to_owned(), rack.to_owned()));
    Backend {
        name: name.map(|name| name.parse().unwrap()),
        title: title.parse().unwrap(),
        array: (),
        fence: Fence::Acl,
        pool: "pool".parse().unwrap(),
        portal: Portal::parse("10.0.0.1", None).unwrap(),
        address: "array".into(),
        topology: Segments::new(topology).unwrap(),
    }
}

/// The default one in rack 1, and one in rack 2.
fn two() -> Backends<()> {
    let other = backend(Some("rack-2"), "rack-2", Some("2"));
    Backends::only(backend(None, "rack-1", Some("1"))).with("rack-2".parse().unwrap(), other)
}

fn from(racks: &[&str]) -> Accessibility {
    let place =
        |rack: &&str| csi::Topology { segments: HashMap::from([("rack".into(), (*rack).to_owned())]) };
    let preferred = racks.iter().map(place).collect();
    Accessibility::from_wire(Some(&csi::TopologyRequirement { requisite: vec![], preferred }))
}

fn name(text: &str) -> BackendName {
    text.parse().unwrap()
}

#[test]
fn a_backend_that_is_not_configured_is_named_with_those_that_are() {
    let backends = two();
    assert_eq!(backends.of(None).unwrap().title, name("rack-1"));
    assert_eq!(backends.of(Some(&name("rack-2"))).unwrap().name, Some(name("rack-2")));
    let unknown = backends.of(Some(&name("rack-3"))).unwrap_err().to_string();
    let there = "there are: rack-1 (the default one, whose ids are bare), rack-2";
    assert_eq!(unknown, format!("backend rack-3 is not configured; {there}"));
    assert_eq!(backends.iter().count(), 2);
}

#[test]
fn an_id_names_the_default_backend_in_one_way_only() {
    // Two ids of one volume would have two records and two locks.
    assert!(two().of(Some(&name("rack-1"))).is_err());
    assert_eq!(two().titled(&name("rack-1")).unwrap().name, None);
}

#[test]
fn a_new_volume_goes_where_the_storage_class_says_and_its_pods_reach_it() {
    let backends = two();
    let chosen = |named: Option<&str>, beside, racks: &[&str]| {
        let chosen = backends.choose(named.map(name).as_ref(), beside, &from(racks));
        chosen.map(|backend| backend.title.to_string()).map_err(|error| (error.kind(), chain(&error)))
    };
    let (one, other) = (Ok("rack-1".to_owned()), Ok("rack-2".to_owned()));
    assert_eq!(chosen(None, Beside::Nothing, &[]), one);
    assert_eq!(chosen(None, Beside::Nothing, &["2", "1"]), other);
    assert_eq!(chosen(Some("rack-2"), Beside::Nothing, &[]), other);
    assert_eq!(chosen(Some("rack-1"), Beside::Source(None), &["1"]), one);
    let elsewhere = name("rack-2");
    assert_eq!(chosen(None, Beside::Source(Some(&elsewhere)), &[]), other);
    for (named, beside, racks, kind, told) in [
        (
            Some("rack-3"),
            Beside::Nothing,
            &[][..],
            Kind::Invalid,
            "backend rack-3 is not configured; there are: rack-1",
        ),
        (Some("rack-2"), Beside::Nothing, &["1"], Kind::Full, "reached from rack=1 (rack-2 has rack=2)"),
        (None, Beside::Nothing, &["3"], Kind::Full, "(rack-1 has rack=1, rack-2 has rack=2)"),
        (None, Beside::Source(None), &["2"], Kind::Full, "(rack-1 has rack=1)"),
        (Some("rack-2"), Beside::Source(None), &[], Kind::Invalid, "use a StorageClass with backend rack-1"),
    ] {
        let (found, text) = chosen(named, beside, racks).unwrap_err();
        assert!(found == kind && text.contains(told), "{found:?} {text}");
    }
}

#[test]
fn an_array_without_a_fence_does_not_show_that_a_record_was_lost() {
    let other = Backend { fence: Fence::None, ..backend(Some("rack-2"), "rack-2", None) };
    assert!(two().show_lost_records());
    assert!(!two().with(name("rack-2"), other).show_lost_records());
}
