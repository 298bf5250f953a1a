//! No name, and no text at all, adds a command to a line or changes one: read by a parser of RouterOS' language, a line with it
//! is the same as a line with a harmless one.

use std::sync::LazyLock;

use proptest::prelude::*;
use rds_csi_api::{HostNqn, VolumeId, csi};
use rds_csi_controller::array::routeros::{lines, saying};
use rds_csi_controller::array::{ClusterId, Export, KubeName, Label, Pool};
use rds_csi_integration::simulator::outline;

use crate::world::{World, cloned, filesystem, map, restored, wanted};

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
    let hosts = (0..hosts).map(|n| HostNqn::of(&format!("worker-{n}").parse().unwrap()));
    of(&id.parse().unwrap(), &pool.parse().unwrap(), &cluster.parse().unwrap(), label, hosts.collect())
}

fn of(id: &VolumeId, pool: &Pool, cluster: &ClusterId, label: &Label, hosts: Vec<HostNqn>) -> Vec<String> {
    let lines = lines(id, pool, cluster, label, &Export::to_hosts(hosts));
    lines.iter().map(|line| outline(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

static HARMLESS: LazyLock<Vec<String>> =
    LazyLock::new(|| outlines("pvc-a", "pool", "blue", &Label::default(), 1));

/// Through the program itself: what is refused does nothing, and what is taken does what it is asked for and no more.
#[tokio::test]
async fn what_people_try_in_any_field_of_any_call_adds_nothing_to_the_array() {
    const PARAMETERS: [&str; 16] = [
        "backend",
        "nvmeAddress",
        "nvmePort",
        "volumePath",
        "ctrlLossTmo",
        "fastIoFailTmo",
        "reconnectDelay",
        "keepAliveTmo",
        "migrationTimeoutSeconds",
        "restrictToKubevirt",
        "csi.storage.k8s.io/fstype",
        "csi.storage.k8s.io/pv/name",
        "csi.storage.k8s.io/pvc/name",
        "csi.storage.k8s.io/pvc/namespace",
        "csi.storage.k8s.io/unheard-of",
        "unheardOf",
    ];
    let world = World::new().await;
    let volume = world.create(wanted("a", 1 << 30)).await.unwrap();
    let id = volume.volume_id.as_str();
    let looks = || {
        let state = world.simulator.state().unwrap();
        let subvolumes: Vec<_> = state.subvolumes.into_iter().map(|subvolume| subvolume.name).collect();
        let files: Vec<_> = state.files.into_iter().map(|file| (file.path, file.kind)).collect();
        format!("{:#?}", (state.disks, subvolumes, files, state.exports, state.addresses))
    };
    let before = looks();
    for nasty in NASTY {
        let parameters = PARAMETERS.map(|key| map(&[(key, nasty)])).into_iter().chain([map(&[(nasty, "1")])]);
        let requests = parameters
            .map(|parameters| csi::CreateVolumeRequest { parameters, ..wanted("b", 1 << 30) })
            .chain([wanted(nasty, 1 << 30), cloned("b", nasty, 1 << 30), restored("b", nasty, 1 << 30)]);
        for request in requests {
            if let Ok(made) = world.create(request).await {
                world.delete(&made.volume_id).await.unwrap();
            }
        }
        if let Ok(taken) = world.snapshot(nasty, id).await {
            world.delete_snapshot(&taken.snapshot_id).await.unwrap();
        }
        world.snapshot("b", nasty).await.unwrap_err();
        world.publish(&volume, nasty, filesystem()).await.unwrap_err();
        let named = csi::Volume { volume_id: nasty.into(), ..volume.clone() };
        world.publish(&named, "w1", filesystem()).await.unwrap_err();
        world.get_volume(nasty).await.unwrap_err();
        world.expand(nasty, 2 << 30).await.unwrap_err();
        world.modify(nasty, &[("ctrlLossTmo", "600")]).await.unwrap_err();
        for change in [("ctrlLossTmo", nasty), (nasty, "600")] {
            world.modify(id, &[change]).await.unwrap_err();
        }
        // Whether what cannot be there counts as gone is not the question here.
        let _ = world.delete(nasty).await;
        let _ = world.delete_snapshot(nasty).await;
        let _ = world.list_volumes(0, nasty).await;
        let _ = world.unpublish(&volume, nasty).await;
        let _ = world.unpublish(&named, "w1").await;
        assert_eq!(looks(), before, "{nasty:?}");
    }
    for line in world.simulator.commands().lines {
        assert!(outline(&line.line).is_ok(), "{}", line.line);
    }
    world.delete(id).await.unwrap();
    world.end().await;
}

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

/// A name with something in it that does not belong there, or just may.
fn spoilt(name: &'static str) -> impl Strategy<Value = String> {
    let wrong = prop_oneof![
        proptest::sample::select(&NASTY[..]).prop_map(str::to_owned),
        "[ -~]{1,3}",
        any::<char>().prop_map(String::from),
    ];
    (0..=name.len(), wrong).prop_map(move |(at, wrong)| format!("{}{wrong}{}", &name[..at], &name[at..]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Whatever is taken for a name, wherever it stands.
    #[test]
    fn a_name_that_is_not_refused_is_harmless(
        id in prop_oneof![spoilt("pvc-a"), spoilt("far/pvc-a")],
        pool in spoilt("pool"),
        cluster in spoilt("blue"),
        names in [spoilt("pvc-1"), spoilt("shop"), spoilt("db-0")],
        host in spoilt("nqn.2014-08.org.nvmexpress:uuid:1"),
    ) {
        let id = id.parse().unwrap_or_else(|_| "pvc-a".parse().unwrap());
        let pool = pool.parse().unwrap_or_else(|_| "pool".parse().unwrap());
        let cluster = cluster.parse().unwrap_or_else(|_| "blue".parse().unwrap());
        let [pv, namespace, pvc] = names.map(|name| KubeName::parse("name", &name).ok());
        let host = host.parse().unwrap_or_else(|_| HostNqn::of(&"w1".parse().unwrap()));
        let outlines = of(&id, &pool, &cluster, &Label { pv, namespace, pvc }, vec![host]);
        prop_assert_eq!(outlines, HARMLESS.clone());
    }

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
