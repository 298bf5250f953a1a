//! The life of a volume on the array, told as a driver tells it.

use serde_json::{Value, json};

use crate::client::Bench;
use rds_csi_integration::simulator::backend::{EntryKind, Hosts, PoolPath};
use rds_csi_integration::simulator::{Numbers, Unset, Version};

const GIB: u64 = 1 << 30;

/// Creates `slot` unless it is there, and tells what is there.
fn create(slot: &str, size: u64) -> String {
    format!(
        r#":if ([:len [/disk find slot="{slot}"]] = 0) do={{ /disk/btrfs/subvolume add fs=storage-pool name="{slot}"; :onerror f in={{ /disk add type=file file-path="/storage-pool/{slot}/disk.img" file-size={size} slot="{slot}" mount-filesystem=no nvme-tcp-export=no nvme-tcp-server-port=4420 nvme-tcp-server-nqn="nqn.2000-02.com.mikrotik:{slot}" comment="rds-csi:cluster" }} do={{ /disk/btrfs/subvolume remove [find name="{slot}" fs=storage-pool]; :error $f }} }}; {}"#,
        show(slot)
    )
}

fn show(slot: &str) -> String {
    format!(
        r#":put [:serialize to=json options=json.no-string-conversion [/disk print detail as-value where slot="{slot}"]]"#
    )
}

fn disks(answer: &str) -> Vec<Value> {
    serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error} in {answer}"))
}

fn file_size(bench: &Bench, path: &str) -> Option<u64> {
    let files = bench.simulator.state().unwrap().files;
    files.iter().find(|entry| entry.path.as_str() == path).and_then(|entry| match entry.kind {
        EntryKind::File { size, .. } => Some(size),
        EntryKind::Directory => None,
    })
}

fn content(bench: &Bench, path: &str) -> Option<u64> {
    let files = bench.simulator.state().unwrap().files;
    files.iter().find(|entry| entry.path.as_str() == path).and_then(|entry| match entry.kind {
        EntryKind::File { content, .. } => content,
        EntryKind::Directory => None,
    })
}

#[tokio::test]
async fn a_volume_is_created_once_however_often_it_is_asked_for() {
    let bench = Bench::start().await;
    let first = bench.framed(&create("pvc-x", GIB)).await.unwrap();
    let second = bench.framed(&create("pvc-x", GIB)).await.unwrap();
    assert_eq!(first, second);

    let [disk] = &disks(&first)[..] else { panic!("one disk, not {first}") };
    assert_eq!(disk["slot"], "pvc-x");
    assert_eq!(disk["file-path"], "/storage-pool/pvc-x/disk.img");
    assert_eq!(disk["nvme-tcp-server-nqn"], "nqn.2000-02.com.mikrotik:pvc-x");
    assert_eq!(disk["nvme-tcp-export"], false);
    assert_eq!(disk["mount-filesystem"], false);
    assert_eq!(disk["comment"], "rds-csi:cluster");
    assert_eq!(disk.get("nvme-tcp-server-allow-host-name"), None, "what is unset has no key");
    assert!(first.contains(r#""file-size":1073741824.000000"#), "integers come out as floats: {first}");

    let state = bench.simulator.state().unwrap();
    assert_eq!(state.subvolumes.len(), 1);
    assert_eq!(file_size(&bench, "pvc-x/disk.img"), Some(GIB));
    assert_eq!(state.exports, []);
}

#[tokio::test]
async fn a_volume_that_does_not_fit_leaves_nothing_behind() {
    let bench = Bench::start().await;
    let error = bench.framed(&create("pvc-big", 2 << 40)).await.unwrap_err();
    assert_eq!(error, "failure: not enough space");
    let state = bench.simulator.state().unwrap();
    assert_eq!((state.disks.len(), state.subvolumes.len(), state.files.len()), (0, 0, 0));
}

#[tokio::test]
async fn removing_a_disk_leaves_its_file_and_removing_the_subvolume_takes_it() {
    let bench = Bench::start().await;
    bench.framed(&create("pvc-x", GIB)).await.unwrap();

    let busy = bench.framed(r#"/disk/btrfs/subvolume remove [find name="pvc-x"]"#).await.unwrap_err();
    assert_eq!(busy, "failure: device or resource busy");

    bench.framed(r#"/disk remove [find slot="pvc-x"]"#).await.unwrap();
    assert_eq!(file_size(&bench, "pvc-x/disk.img"), Some(GIB));

    bench.framed(r#"/disk btrfs subvolume remove [find name="pvc-x" fs=storage-pool]"#).await.unwrap();
    assert_eq!(bench.simulator.state().unwrap().files, []);

    bench.framed(r#"/disk remove [find slot="pvc-x"]"#).await.expect("removing nothing is no error");
}

#[tokio::test]
async fn an_export_follows_the_settings_of_its_disk() {
    let bench = Bench::start().await;
    bench.framed(&create("pvc-x", GIB)).await.unwrap();
    bench
        .framed(r#"/disk set [find slot="pvc-x"] nvme-tcp-export=yes nvme-tcp-server-allow-host-name="nqn.h:1,nqn.h:2""#)
        .await
        .unwrap();
    let exports = bench.simulator.state().unwrap().exports;
    assert_eq!(exports.len(), 1);
    assert_eq!(exports[0].nqn, "nqn.2000-02.com.mikrotik:pvc-x");
    assert_eq!(exports[0].file.as_str(), "pvc-x/disk.img");
    assert_eq!(exports[0].hosts, Hosts::Only(vec!["nqn.h:1".to_owned(), "nqn.h:2".to_owned()]));

    bench.framed(r#"/disk set [find slot="pvc-x"] nvme-tcp-server-allow-host-name="""#).await.unwrap();
    assert_eq!(bench.simulator.state().unwrap().exports[0].hosts, Hosts::Any);

    bench.framed(r#"/disk set [find slot="pvc-x"] nvme-tcp-export=no"#).await.unwrap();
    assert_eq!(bench.simulator.state().unwrap().exports, []);
}

#[tokio::test]
async fn an_export_that_fails_leaves_the_disk_unexported_and_may_be_tried_again() {
    let bench = Bench::start().await;
    bench.framed(&create("pvc-x", GIB)).await.unwrap();
    bench.framed("/disk/btrfs/subvolume set [find name=pvc-x] read-only=yes").await.unwrap();
    let export = "/disk set pvc-x nvme-tcp-export=yes";
    assert_eq!(bench.framed(export).await.unwrap_err(), "failure: read-only file system");
    let state = bench.simulator.state().unwrap();
    assert!(!state.disks[0].nvme_tcp_export && state.exports.is_empty(), "{state:?}");
    bench.framed("/disk/btrfs/subvolume set [find name=pvc-x] read-only=no").await.unwrap();
    bench.framed(export).await.unwrap();
    assert_eq!(bench.simulator.state().unwrap().exports.len(), 1);
}

#[tokio::test]
async fn a_disk_grows_and_never_shrinks() {
    let bench = Bench::start().await;
    bench.framed(&create("pvc-x", GIB)).await.unwrap();
    bench.framed(r#"/disk set [find slot="pvc-x"] file-size=3221225473"#).await.unwrap();
    assert_eq!(file_size(&bench, "pvc-x/disk.img"), Some(3 * GIB + 1), "sizes are exact to the byte");
    let size = bench.framed(r#":put [/disk get [find slot="pvc-x"] file-size]"#).await.unwrap();
    assert_eq!(size, "3221225473");

    bench.framed(r#"/disk set [find slot="pvc-x"] file-size=4G"#).await.unwrap();
    assert_eq!(file_size(&bench, "pvc-x/disk.img"), Some(4 * GIB), "suffixes are binary");

    let error = bench.framed(r#"/disk set [find slot="pvc-x"] file-size=1G"#).await.unwrap_err();
    assert_eq!(error, "failure: file can not be made smaller");
    assert_eq!(file_size(&bench, "pvc-x/disk.img"), Some(4 * GIB));
}

#[tokio::test]
async fn a_snapshot_keeps_what_its_source_held_then() {
    let bench = Bench::start().await;
    bench.framed(&create("pvc-x", GIB)).await.unwrap();
    let source = PoolPath::new("pvc-x/disk.img").unwrap();
    bench.simulator.write(&source, 7).unwrap();
    bench
        .framed("/disk/btrfs/subvolume add fs=storage-pool parent=pvc-x name=snap-y read-only=yes")
        .await
        .unwrap();
    bench.simulator.write(&source, 8).unwrap();
    assert_eq!(content(&bench, "snap-y/disk.img"), Some(7));
    assert_eq!(content(&bench, "pvc-x/disk.img"), Some(8));

    let snapshot = PoolPath::new("snap-y/disk.img").unwrap();
    assert!(bench.simulator.write(&snapshot, 9).is_err(), "a read-only snapshot cannot be written to");

    bench.framed("/disk/btrfs/subvolume add fs=storage-pool parent=snap-y name=pvc-z").await.unwrap();
    bench
        .framed("/disk add type=file file-path=/storage-pool/pvc-z/disk.img slot=pvc-z nvme-tcp-export=yes")
        .await
        .unwrap();
    let state = bench.simulator.state().unwrap();
    assert_eq!(state.disks[1].file_size, GIB, "an existing file is taken as it is");
    assert_eq!(content(&bench, "pvc-z/disk.img"), Some(7));
    assert_eq!(state.capacity.free, (1 << 40) - 2 * GIB, "copies share what they have in common");

    let listed = bench
        .framed(
            ":put [:serialize to=json [/disk/btrfs/subvolume print as-value where snapshot and read-only]]",
        )
        .await
        .unwrap();
    let listed = disks(&listed);
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0]["name"], &listed[0]["parent"]), (&json!("snap-y"), &json!("pvc-x")));
}

#[tokio::test]
async fn copy_from_copies_settings_and_not_a_byte_of_data() {
    let bench = Bench::start().await;
    bench.framed(&create("pvc-x", GIB)).await.unwrap();
    bench.simulator.write(&PoolPath::new("pvc-x/disk.img").unwrap(), 7).unwrap();
    bench
        .framed(r#"/disk add type=file copy-from=[find slot="pvc-x"] slot=pvc-c file-path=/storage-pool/c.img file-size=1G"#)
        .await
        .unwrap();
    let disks = bench.simulator.state().unwrap().disks;
    assert_eq!(disks[0].slot, "pvc-c");
    assert_eq!(disks[0].nvme_tcp_server_nqn, "nqn.2000-02.com.mikrotik:pvc-x", "even the NQN is repeated");
    assert_eq!(content(&bench, "c.img"), Some(0));
}

#[tokio::test]
async fn files_have_no_leading_slash_and_stay_while_a_disk_uses_them() {
    let bench = Bench::start().await;
    bench.framed(r#"/file add type=directory name="storage-pool/metal-csi""#).await.unwrap();
    bench
        .framed("/disk add type=file slot=pvc-old file-path=/storage-pool/metal-csi/pvc-old.img file-size=1M")
        .await
        .unwrap();
    let remove = r#"/file remove [find name="storage-pool/metal-csi/pvc-old.img"]"#;
    assert_eq!(bench.framed(remove).await.unwrap_err(), "failure: file is in use");
    bench.framed("/disk remove [find slot=pvc-old]").await.unwrap();
    let slash = bench.framed(r#":put [:len [/file find name="/storage-pool/metal-csi/pvc-old.img"]]"#).await;
    assert_eq!(slash.unwrap(), "0");
    bench.framed(remove).await.unwrap();
    assert_eq!(file_size(&bench, "metal-csi/pvc-old.img"), None);

    bench.framed("/file add name=storage-pool/metal-csi/notes.txt").await.unwrap();
    assert_eq!(file_size(&bench, "metal-csi/notes.txt"), Some(0));
    let full = bench.framed("/file remove [find name=storage-pool/metal-csi]").await.unwrap_err();
    assert_eq!(full, "failure: device or resource busy");
}

#[tokio::test]
async fn what_cannot_be_is_refused_in_the_devices_words() {
    let bench = Bench::start().await;
    bench.framed(&create("pvc-x", GIB)).await.unwrap();
    let table = [
        (
            "/disk add type=file slot=pvc-x file-path=/storage-pool/x.img file-size=1M",
            "failure: already have such slot",
        ),
        (
            "/disk add type=file slot=pvc-y file-path=/storage-pool/pvc-x/disk.img",
            "failure: already have such file-path",
        ),
        (
            "/disk add type=file slot=pvc-y file-path=/storage-pool/nowhere/disk.img file-size=1M",
            "failure: no such file or directory",
        ),
        (
            "/disk add type=file slot=pvc-y file-path=/storage-pool/../etc/shadow file-size=1M",
            "invalid value for argument file-path",
        ),
        (
            "/disk add type=file slot=pvc-y file-path=/other-pool/x.img file-size=1M",
            "invalid value for argument file-path",
        ),
        ("/disk/btrfs/subvolume add fs=storage-pool name=pvc-x", "failure: already have such subvolume"),
        ("/disk/btrfs/subvolume add fs=elsewhere name=pvc-y", "input does not match any value of fs"),
        ("/disk/btrfs/subvolume add fs=storage-pool name=../up", "invalid value for argument name"),
        (":put [/disk get [find slot=none] size]", "no such item"),
        ("/disk set raid1 comment=mine", "failure: can not change the pool's disk while it is mounted"),
    ];
    for (line, expected) in table {
        assert_eq!(bench.framed(line).await, Err(expected.to_owned()), "{line}");
    }
    assert_eq!(bench.simulator.state().unwrap().disks.len(), 1);
}

#[tokio::test]
async fn a_line_that_is_not_understood_has_no_effect_and_no_sentinel() {
    let bench = Bench::start().await;
    let add = "/disk/btrfs/subvolume add fs=storage-pool name=a";
    let table = [
        (format!("{add}; /disk frobnicate"), "bad command name frobnicate (line 1 column 57)"),
        (format!("{add}; /disk add quota=1"), "expected end of command (line 1 column 61)"),
        (format!("{add}; /disk add type=tape"), "input does not match any value of type"),
        (format!("{add}; /disk add file-size=much"), "invalid value for argument file-size"),
        (format!("{add}; :put \"open"), "syntax error (line 1 column 61)"),
        (
            format!(":do {{ {add}; /disky }} on-error={{ :put caught }}"),
            "bad command name disky (line 1 column 58)",
        ),
        (format!("{add}\n:put 2"), "syntax error (line 1 column 49)"),
    ];
    for (line, expected) in table {
        assert_eq!(bench.run(&line).await, format!("{expected}\r\n"), "{line}");
    }
    assert_eq!(bench.simulator.state().unwrap().subvolumes, []);
}

#[tokio::test]
async fn text_in_quotes_stays_text_whatever_it_says() {
    let bench = Bench::start().await;
    // What a careful client sends for a comment that tries to break out of its quotes.
    let evil = r#"x\"; /disk/btrfs/subvolume add fs=storage-pool name=evil; :put \"\$slot[/system/identity set name=evil]"#;
    bench.framed("/disk/btrfs/subvolume add fs=storage-pool name=v").await.unwrap();
    let add = format!(
        r#"/disk add type=file slot=v file-path=/storage-pool/v/disk.img file-size=1M comment="{evil}""#
    );
    bench.framed(&add).await.unwrap();
    let state = bench.simulator.state().unwrap();
    assert_eq!(
        state.disks[0].comment,
        r#"x"; /disk/btrfs/subvolume add fs=storage-pool name=evil; :put "$slot[/system/identity set name=evil]"#
    );
    assert_eq!(state.subvolumes.len(), 1);

    // And what happens to a careless one.
    bench.framed(r#":put "$[/system/identity set name=evil]""#).await.unwrap();
    assert_eq!(bench.framed(":put [/system/identity get name]").await.unwrap(), "evil");
}

#[tokio::test]
async fn print_for_people_is_unfit_for_programs() {
    let bench = Bench::start().await;
    assert!(bench.run("/disk/print detail where slot=none").await.starts_with("Flags: B - BLOCK-DEVICE"));

    bench.framed(&create("pvc-01234567-89ab-cdef-0123-456789abcdef", GIB)).await.unwrap();
    let shown = bench.run("/disk/print detail where type=file").await;
    assert!(shown.contains("size=1 073 741 824"), "{shown}");
    assert!(shown.contains("file-size=1024.0MiB"), "{shown}");
    assert!(shown.lines().all(|line| line.len() <= 80), "{shown}");
    assert!(
        !shown.contains("nqn.2000-02.com.mikrotik:pvc-01234567-89ab-cdef-0123-456789abcdef")
            || shown.lines().count() > 6
    );
    assert_eq!(bench.run("/disk/print count-only where type=file").await, "1\r\n");
}

#[tokio::test]
async fn releases_and_dialects_differ() {
    let strings = Bench::start_with(|options| {
        options.dialect.numbers = Numbers::Texts;
        options.dialect.unset = Unset::Empty;
    })
    .await;
    let answer = disks(&strings.framed(&create("pvc-x", GIB)).await.unwrap());
    assert_eq!(answer[0]["file-size"], "1073741824");
    assert_eq!(answer[0]["nvme-tcp-export"], "false");
    assert_eq!(answer[0]["nvme-tcp-server-allow-host-name"], "");

    let old = Bench::start_with(|options| options.dialect.version = Version::new(7, 17)).await;
    let refused = old.run("/disk/btrfs/subvolume add fs=storage-pool name=a").await;
    assert_eq!(refused, "bad command name subvolume (line 1 column 13)\r\n");
    assert_eq!(old.run(":put [/system/resource get version]").await, "7.17 (stable)\r\n");

    let new = Bench::start_with(|options| options.dialect.version = Version::new(7, 24)).await;
    let long = new.framed(&create("pvc-01234567-89ab-cdef-0123-456789abcdef", GIB)).await;
    assert_eq!(long.unwrap_err(), "invalid value for argument slot");
}
