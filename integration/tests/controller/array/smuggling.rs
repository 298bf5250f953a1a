//! No name, and no text at all, adds a command to a line or changes one: read by a parser of RouterOS' language, a line with it
//! is the same as a line with a harmless one.

use std::sync::LazyLock;

use proptest::prelude::*;
use rds_csi_api::{HostNqn, VolumeId};
use rds_csi_controller::array::routeros::{lines, saying};
use rds_csi_controller::array::{ClusterId, Export, KubeName, Label, Pool};
use rds_csi_integration::simulator::outline;

/// What people try, and what languages trip over.
const NASTY: [&str; 22] = [
    "\"; /system/reset-configuration; :put \"",
    "$(/disk/remove [find])",
    "$[/disk/remove [find]]",
    "$volume",
    "\\",
    "\\\"",
    "\\\\\"; :put 1",
    "\r\n/disk/remove [find]",
    "\n",
    "\0",
    "?",
    "}; /disk/remove [find]; :do {",
    "]]; /disk/remove [find]",
    "# comment",
    " volume=\"other\"",
    "a\" slot=\"b",
    "\u{feff}",
    "\u{2028}",
    "ÿ\u{10ffff}",
    "\\41\\42",
    "\\_",
    "OK x\"; :put \"OK x",
];

fn outlines(id: &str, pool: &str, cluster: &str, label: &Label, hosts: usize) -> Vec<String> {
    let (id, pool, cluster): (VolumeId, Pool, ClusterId) =
        (id.parse().unwrap(), pool.parse().unwrap(), cluster.parse().unwrap());
    let hosts = (0..hosts).map(|n| HostNqn::of(&format!("worker-{n}").parse().unwrap()));
    let lines = lines(&id, &pool, &cluster, label, &Export::to_hosts(hosts));
    lines.iter().map(|line| outline(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

static HARMLESS: LazyLock<Vec<String>> =
    LazyLock::new(|| outlines("pvc-a", "pool", "blue", &Label::default(), 1));

fn says_one_text(text: &str) {
    assert_eq!(outline(&saying(text)), outline(&saying("harmless")), "{text:?}");
}

#[test]
fn an_outline_tells_another_command_and_hides_a_text() {
    let say = |text: &str| outline(&format!(":put \"{text}\"")).unwrap();
    assert_eq!(say("a"), say("Text(\\\"b"));
    assert_ne!(say("a"), say("a\"; :put \"b"));
    assert_ne!(say("a"), say("$a"));
    outline(":put \"a").unwrap_err();
}

#[test]
fn what_people_try_stays_a_text() {
    for nasty in NASTY {
        for text in [nasty.to_owned(), format!("a{nasty}"), format!("{nasty}b"), nasty.repeat(7)] {
            says_one_text(&text);
        }
    }
}

#[test]
fn what_people_try_is_no_name() {
    for text in NASTY {
        assert!(text.parse::<VolumeId>().is_err(), "{text:?}");
        assert!(text.parse::<Pool>().is_err() && text.parse::<ClusterId>().is_err(), "{text:?}");
        assert!(KubeName::parse("pvc", text).is_err(), "{text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_one_text(text in any::<String>()) {
        says_one_text(&text);
    }

    #[test]
    fn any_mixture_of_what_matters_is_one_text(text in "[\"\\\\$?;{}\\[\\]() \r\n\t\0a0F_=/:#~]{0,40}") {
        says_one_text(&text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn whatever_its_names_a_line_runs_the_same(
        id in "[A-Za-z0-9]([._-]?[A-Za-z0-9]){0,30}",
        pool in "[A-Za-z0-9][A-Za-z0-9_-]{0,31}",
        cluster in "[A-Za-z0-9][A-Za-z0-9_-]{0,35}",
        names in proptest::array::uniform3(proptest::option::of("[a-z0-9.-]{1,253}")),
        hosts in 1_usize..4,
    ) {
        let [pv, namespace, pvc] =
            names.map(|name| name.map(|name| KubeName::parse("name", &name).unwrap()));
        prop_assert_eq!(outlines(&id, &pool, &cluster, &Label { pv, namespace, pvc }, hosts), HARMLESS.clone());
    }
}
