//! Recorded answers of devices, beside what the simulator answers for the same things.

use rds_csi_integration::simulator::Storage;

use crate::client::Bench;

/// A recording without the lines that say where it comes from.
fn recorded(name: &str) -> Vec<String> {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(str::to_owned);
    let mut about = || lines.next().unwrap_or_default();
    assert!(about().starts_with("# source: ") && about().starts_with("# sure: "), "{name} has a source");
    lines.collect()
}

/// The text of an item without its line breaks.
fn unwrapped(lines: &[String]) -> String {
    let words = lines.iter().flat_map(|line| line.split_whitespace());
    words.collect::<Vec<_>>().join(" ")
}

/// Names of properties, in their order.
fn keys(lines: &[String]) -> Vec<String> {
    let words = lines.iter().flat_map(|line| line.split_whitespace());
    words.filter_map(|word| Some(word.split_once('=')?.0.to_owned())).collect()
}

/// An array with this pool, and an answer of it as lines.
async fn answer(pool: &str, make: &str, print: &str) -> Vec<String> {
    let bench = Bench::start_with(|options| {
        options.storage = Storage::Memory { pool_size: 16 << 40 };
        pool.clone_into(&mut options.pool);
    })
    .await;
    assert_eq!(bench.run(make).await, "");
    bench.run(print).await.lines().map(str::to_owned).collect()
}

/// Lines after the first begin where the first property does.
fn assert_hanging(lines: &[String]) {
    let column = lines[0].find("type=").unwrap();
    for line in &lines[1..] {
        assert_eq!(line.len() - line.trim_start().len(), column, "{line}");
    }
}

#[tokio::test]
async fn a_disk_is_printed_as_a_session_without_a_terminal_gets_it() {
    let sample = recorded("routeros-disk-detail.txt");
    let lines = answer(
        "storage-pool",
        "/disk add type=file slot=pvc-test-123 file-path=/storage-pool/test.img file-size=50G \
         nvme-tcp-export=yes nvme-tcp-server-nqn=nqn.2000-02.com.mikrotik:pvc-test-123",
        "/disk print detail where slot=\"pvc-test-123\"",
    )
    .await;
    assert_eq!(lines[0], "Flags: B - BLOCK-DEVICE; t - NVME-TCP-EXPORT");
    assert!(unwrapped(&lines[1..]).ends_with(&unwrapped(&sample)), "{lines:#?}");
    assert!(lines.iter().chain(&sample).all(|line| line.len() <= 80), "both wrap at 80 columns");
    assert_hanging(&lines[1..]);
    assert!(sample[1..].iter().all(|line| line.starts_with("               ")));
}

#[tokio::test]
async fn a_disk_is_printed_as_on_a_rose_data_server() {
    let sample = recorded("routeros-disk-detail-terminal.txt");
    let lines = answer(
        "raid10",
        "/disk add type=file slot=vm-storage-001 file-path=raid10/vm-storage-001.img file-size=1T \
         mount-filesystem=no nvme-tcp-export=yes \
         nvme-tcp-server-nqn=nqn.2026-09.com.mikrotik:rds2216.vm-storage-001",
        "/disk/print detail where slot=\"vm-storage-001\"",
    )
    .await;
    assert_eq!(lines[0], sample[0], "the legend names the flags that occur");
    // The number is the item's place in the listing.
    assert_eq!(unwrapped(&lines[1..]), unwrapped(&sample[1..]).replacen("31 ", "0 ", 1));
    assert_hanging(&lines[1..]);
    assert_hanging(&sample[1..]);
}

#[tokio::test]
async fn a_pool_is_printed_as_on_a_rose_data_server() {
    let sample = recorded("routeros-disk-detail-raid.txt");
    let gap = sample.iter().position(|line| line.trim().is_empty()).expect("items are apart");
    let lines = answer(
        "ocp-storage",
        "/disk add type=file slot=a file-path=ocp-storage/a.img file-size=1",
        "/disk/print detail",
    )
    .await;
    let own_gap = lines.iter().position(|line| line.trim().is_empty()).expect("items are apart");
    assert_eq!(lines[0], "Flags: B - BLOCK-DEVICE; M - MOUNTED");
    assert!(lines[1].starts_with("0 BM type=raid slot=\"raid1\""), "{lines:#?}");
    assert!(lines[own_gap + 1].starts_with("1 B  type=file"), "a flag that only others have is a blank");
    assert!(sample[1].starts_with("26 BM  ") && sample[gap + 1].starts_with("27 B r "));
    assert_hanging(&lines[1..own_gap]);
    assert_hanging(&sample[1..gap]);

    // What is told of the simulated pool is told of a real one, in the same order.
    let (own, real) = (keys(&lines[1..own_gap]), keys(&sample[1..gap]));
    let mut rest = real.iter();
    let strange: Vec<_> = own.iter().filter(|key| !rest.any(|known| known == *key)).collect();
    assert!(strange.is_empty(), "{strange:?} of {own:?} in {real:?}");
    assert!(unwrapped(&lines).contains("size=17 592 186 044 416 free=17 592 186 044 415 "), "{lines:#?}");
}

#[tokio::test]
async fn a_loop_from_a_rose_data_server_runs_here() {
    let lines = answer(
        "raid10",
        "",
        ":foreach r in={\"raid1\"} do={:local state ([/disk print detail as-value where slot=$r]->0->\"state\"); \
         :put ($r . \" = \" . $state)}",
    )
    .await;
    assert_eq!(lines, ["raid1 = clean"]);
}

#[tokio::test]
async fn a_short_listing_has_the_columns_that_it_names() {
    let shape = |lines: &[String]| {
        let [flags, columns, head, rows @ ..] = lines else { panic!("{lines:#?}") };
        assert!(flags.starts_with("Flags: B - BLOCK-DEVICE; M"), "{flags}");
        let named = columns.strip_prefix("Columns: ").unwrap().replace(',', "");
        assert_eq!(unwrapped(std::slice::from_ref(head)), format!("# {named}"));
        let end = |name: &str| head.find(name).unwrap() + name.len();
        for row in rows {
            // Sizes are grouped and stand under the end of their head.
            let size = row[..end("SIZE")].rsplit("  ").next().unwrap();
            assert!(size.split(' ').all(|group| group.parse::<u16>().is_ok()), "{size:?} in {row}");
            assert_ne!(row.as_bytes().get(end("SIZE")), Some(&b'0'), "{row}");
        }
        named.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let real = shape(&recorded("routeros-disk-print.txt"));
    let make = "/disk add type=file slot=a file-path=storage-pool/a.img file-size=12345678";
    let own = shape(&answer("storage-pool", make, "/disk print").await);
    assert_eq!(own[..2], real[..2]);
    assert!(["SIZE", "FREE", "FS"].iter().all(|name| own.iter().chain(&real).any(|known| known == name)));
}

#[tokio::test]
async fn files_are_named_as_in_the_manual() {
    let sample = recorded("routeros-file-print.txt");
    let add = "/disk/btrfs/subvolume add fs=BtrfsDisk name=";
    let make = format!(
        "{add}Documents; /file add name=BtrfsDisk/Documents/document1.txt; \
         {add}Documents-22012025 parent=Documents read-only=yes"
    );
    let names = "/file print as-value proplist=name";
    let lines =
        answer("BtrfsDisk", &make, &format!(":foreach f in=[{names}] do={{:put ($f->\"name\")}}")).await;
    // Directories, subvolumes and what is in a snapshot are files; none has a slash in front.
    for name in ["BtrfsDisk", "BtrfsDisk/Documents", "BtrfsDisk/Documents/document1.txt"] {
        assert!(lines.iter().any(|line| line == name), "{name} in {lines:?}");
        assert!(
            sample.iter().any(|line| line.split_whitespace().last() == Some(name)),
            "{name} in {sample:?}"
        );
    }
    assert!(lines.contains(&"BtrfsDisk/Documents-22012025/document1.txt".to_owned()), "{lines:?}");
}

#[tokio::test]
async fn a_group_lists_what_is_granted_and_what_is_denied() {
    let sample = recorded("routeros-user-group.txt");
    let policy = |lines: &[String]| {
        let text: String = lines.iter().flat_map(|line| line.split_whitespace()).collect();
        let (_, policy) = text.split_once("policy=").unwrap();
        policy.split_once("skin=").unwrap().0.to_owned()
    };
    let bench = Bench::start_with(|options| options.group = "ssh,read,write,password".parse().unwrap()).await;
    let printed = bench.run("/user/group print detail where name=\"rds-csi\"").await;
    let lines: Vec<String> = printed.lines().map(str::to_owned).collect();
    assert_eq!(policy(&lines), policy(&sample));
}
