//! Answers as devices give them, and as nobody should.

use proptest::prelude::*;

use super::*;

fn shown(properties: &str) -> Result<Disk, Unreadable> {
    let mut disks = list(&format!("[{{{properties}}}]"))?;
    Ok(disks.pop().expect("one is listed"))
}

/// A file disk with that size.
fn size(json: &str) -> Result<u64, Unreadable> {
    Ok(shown(&format!("\"type\":\"file\",\"file-size\":{json}"))?.size.get())
}

#[test]
fn a_failure_is_one_of_ours_or_one_that_is_known_or_any_other() {
    let cases = [
        ("rds-csi: missing", Reply::Stopped(Mark::Missing)),
        ("rds-csi: leftover (:error; line 1)", Reply::Stopped(Mark::Leftover)),
        ("failure: not enough space", Reply::Failed(Known::NoSpace, "failure: not enough space".into())),
        (
            "failure: already have such slot",
            Reply::Failed(Known::Raced, "failure: already have such slot".into()),
        ),
        (
            "not enough permissions (9)",
            Reply::Failed(Known::NoPermission, "not enough permissions (9)".into()),
        ),
        (
            "action timed out - try again",
            Reply::Failed(Known::Unfinished, "action timed out - try again".into()),
        ),
        ("interrupted", Reply::Failed(Known::Unfinished, "interrupted".into())),
        ("no such item", Reply::Failed(Known::Raced, "no such item".into())),
        ("no such command", Reply::Failed(Known::Other, "no such command".into())),
        ("a\nb", Reply::Failed(Known::Other, "a\nb".into())),
    ];
    for (message, reply) in cases {
        assert_eq!(Reply::failed(message), reply, "{message:?}");
    }
}

#[test]
fn sizes_are_exact_or_refused() {
    assert_eq!(size("1649267441664"), Ok(1_649_267_441_664));
    assert_eq!(size("1649267441664.000000"), Ok(1_649_267_441_664));
    assert_eq!(size("\"1649267441664\""), Ok(1_649_267_441_664));
    // Beyond the 53 bits in which a float would still be exact.
    assert_eq!(size("9007199254740993.000000"), Ok(9_007_199_254_740_993));
    for inexact in [
        "1649267441664.5",
        "1.6e12",
        "-1",
        "\"50.0GiB\"",
        "\"53 687 091 200\"",
        "\"\"",
        "99999999999999999999",
        "null",
        "[]",
    ] {
        assert!(size(inexact).is_err(), "{inexact}");
    }
}

#[test]
fn a_disk_is_read_in_every_dress() {
    let typed = shown(
        r#""type":"file","file-path":"/p/x/disk.img","file-size":4096.0,"nvme-tcp-export":true,
           "nvme-tcp-server-port":4420.000000,"nvme-tcp-server-nqn":"nqn.x","nvme-tcp-server-allow-host-name":["b","a"],
           "comment":"rds-csi:blue","slot":"x","raid-master":"none""#,
    );
    let texts = shown(
        r#""type":"file","file-path":"/p/x/disk.img","file-size":"4096","nvme-tcp-export":"yes",
           "nvme-tcp-server-port":"4420","nvme-tcp-server-nqn":"nqn.x","nvme-tcp-server-allow-host-name":"a,b",
           "comment":"rds-csi:blue","slot":"x""#,
    );
    assert_eq!(typed, texts);
    let disk = typed.unwrap();
    assert_eq!((disk.port, disk.exported, disk.hosts.len()), (4420, true, 2));
}

#[test]
fn what_is_absent_is_not_set() {
    let disk = shown(r#""type":"file","file-size":4096"#).unwrap();
    assert!(!disk.exported && disk.hosts.is_empty() && disk.nqn.is_empty() && disk.comment.is_empty());
    assert!(shown(r#""nvme-tcp-server-allow-host-name":"""#).unwrap().hosts.is_empty());
}

#[test]
fn a_file_without_a_size_is_no_file_of_no_bytes() {
    assert_eq!(shown(r#""type":"file""#), Err(Unreadable::Absent("file-size")));
    assert_eq!(shown(r#""type":"hardware""#).unwrap().size, rds_csi_api::Bytes::new(0));
}

#[test]
fn what_looks_like_a_number_is_a_name_all_the_same() {
    let disk = shown(r#""type":"hardware","slot":7,"comment":true,"nvme-tcp-server-nqn":null"#).unwrap();
    assert_eq!((disk.slot.as_str(), disk.comment.as_str(), disk.nqn.as_str()), ("7", "true", ""));
}

#[test]
fn what_is_no_list_is_no_empty_list() {
    assert_eq!(list::<Disk>("[]"), Ok(vec![]));
    for text in ["", "{}", "null", "[1]", "[{]", "no such item"] {
        assert!(matches!(list::<Disk>(text), Err(Unreadable::Shape(_))), "{text:?}");
    }
}

#[test]
fn a_files_size_is_exact_or_not_known() {
    let files: Vec<File> =
        list(r#"[{"name":"p/a.img","size":4096.0},{"name":"p/b.img","size":"4.0KiB"}]"#).unwrap();
    assert_eq!(
        files.iter().map(|file| file.size.map(rds_csi_api::Bytes::get)).collect::<Vec<_>>(),
        [Some(4096), None]
    );
}

#[test]
fn a_pool_without_numbers_has_no_capacity() {
    let pools: Vec<Pool> = list(r#"[{"slot":"raid1","size":8796093022208,"free":"4096"}]"#).unwrap();
    assert_eq!(pools[0].free, rds_csi_api::Bytes::new(4096));
    assert_eq!(list::<Pool>(r#"[{"size":1}]"#), Err(Unreadable::Absent("free")));
    assert!(list::<Pool>(r#"[{"size":"8.0TiB","free":1}]"#).is_err());
}

#[test]
fn a_long_answer_is_kept_short() {
    assert_eq!(kept(&"ä".repeat(100_000)).chars().count(), KEPT + 1);
}

proptest! {
    #[test]
    fn no_answer_makes_the_reader_panic(answer in any::<String>()) {
        let _ = (list::<Disk>(&answer), list::<Subvolume>(&answer), list::<File>(&answer), list::<Pool>(&answer));
        let _ = Reply::failed(&answer);
    }

    #[test]
    fn no_json_makes_the_reader_panic(
        key in "(name|read-only|size|free|slot|comment|type|file-path|file-size|nvme-tcp-export|nvme-tcp-server-port|nvme-tcp-server-allow-host-name)",
        value in "(-?[0-9]{1,25}(\\.[0-9]{0,8})?|\"[ -!#-\\[\\]-~]{0,20}\"|true|false|null|\\[\\]|\\{\\}|\\[\"a\"\\])",
    ) {
        let answer = format!("[{{\"{key}\":{value}}}]");
        let _ = (list::<Disk>(&answer), list::<Subvolume>(&answer), list::<File>(&answer), list::<Pool>(&answer));
    }
}
