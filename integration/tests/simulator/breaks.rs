//! Sessions that end in the middle of a script, and arrays that end in the middle of everything.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rds_csi_integration::simulator::backend::PoolPath;
use rds_csi_integration::simulator::{Effect, Fault, MAX_LINE};

use crate::client::Bench;

/// Three changes in one line, the second of them in brackets and in a frame that would catch an error.
const THREE: &str = "/disk/btrfs/subvolume add fs=storage-pool name=a; \
     :onerror e in={:local id [/disk/btrfs/subvolume add fs=storage-pool name=b]; :put $id} do={:put caught}; \
     /disk/btrfs/subvolume add fs=storage-pool name=c; :put done";

fn names(bench: &Bench) -> Vec<String> {
    let subvolumes = bench.simulator.state().unwrap().subvolumes;
    subvolumes.into_iter().map(|subvolume| subvolume.name).collect()
}

fn stop_after(statements: u32) -> Fault {
    Fault::new(Effect::StopAfter { statements }).times(1)
}

#[tokio::test]
async fn a_session_may_end_between_any_two_changes_of_a_line() {
    for (changes, expected) in [(0, &[][..]), (1, &["a"]), (2, &["a", "b"]), (3, &["a", "b", "c"])] {
        let bench = Bench::start().await;
        bench.simulator.inject(stop_after(changes));
        let output = bench.client.exec(THREE).await;
        assert_eq!((output.status.code(), output.stdout.len()), (Some(255), 0), "after {changes}");
        assert_eq!(names(&bench), expected, "after {changes}");
        assert_eq!(bench.run(":put again").await, "again\r\n");
    }
}

#[tokio::test]
async fn a_line_with_fewer_changes_ends_as_ever() {
    let bench = Bench::start().await;
    bench.simulator.inject(stop_after(4));
    assert!(bench.run(THREE).await.ends_with("done\r\n"));
    // What fails, or finds nothing to do, is no change.
    bench.simulator.inject(stop_after(1));
    let nothing = "/disk/btrfs/subvolume remove [find name=none]; \
                   :do {/disk/btrfs/subvolume add fs=storage-pool name=a} on-error={}; :put done";
    assert_eq!(bench.run(nothing).await, "done\r\n");
}

#[tokio::test]
async fn the_fault_meets_only_the_line_it_is_meant_for() {
    let bench = Bench::start().await;
    bench.simulator.inject(stop_after(1).containing("name=b"));
    bench.run("/disk/btrfs/subvolume add fs=storage-pool name=x").await;
    assert_eq!(bench.client.exec(THREE).await.status.code(), Some(255));
    assert_eq!(names(&bench), ["a", "x"]);
}

#[tokio::test]
async fn a_line_may_wait_before_one_of_its_changes_while_others_run() {
    let bench = Bench::start().await;
    bench.simulator.inject(Fault::new(Effect::PauseBefore { change: 2 }).times(1).containing("name=b"));
    let mut line = Box::pin(bench.run(THREE));
    tokio::select! {
        () = bench.simulator.paused() => {}
        output = &mut line => panic!("{output}"),
    }
    bench.run("/disk/btrfs/subvolume add fs=storage-pool name=x").await;
    assert_eq!(names(&bench), ["a", "x"]);
    bench.simulator.clear_faults();
    assert!(line.await.ends_with("done\r\n"));
    assert_eq!(names(&bench), ["a", "b", "c", "x"]);
}

#[tokio::test]
async fn what_a_filesystem_loses_is_gone_from_under_its_disk_and_from_no_other() {
    let bench = Bench::start().await;
    for name in ["a", "b"] {
        bench.run(&format!("/disk/btrfs/subvolume add fs=storage-pool name={name}")).await;
        let disk = format!("file-path=/storage-pool/{name}/disk.img slot={name} nvme-tcp-export=yes");
        bench.run(&format!("/disk add type=file file-size=1M {disk}")).await;
    }
    bench.simulator.lose(&PoolPath::new("a/disk.img").unwrap()).unwrap();
    let there = ":put ([:len [/file find name=\"storage-pool/a/disk.img\"]] . [:len [/disk find slot=a]])";
    assert_eq!(bench.run(there).await, "01\r\n");
    bench.simulator.switch_off().await;
    bench.simulator.switch_on().await;
    let exported: Vec<_> = bench.simulator.state().unwrap().exports.into_iter().map(|it| it.nqn).collect();
    assert_eq!(exported, ["nqn.2000-02.com.mikrotik:b"]);
    bench.simulator.lose(&PoolPath::new("b").unwrap()).unwrap();
    assert_eq!(names(&bench), ["a"]);
    bench.simulator.lose(&PoolPath::new("b").unwrap()).unwrap_err();
}

#[tokio::test]
async fn a_line_that_is_too_long_runs_nothing() {
    let bench = Bench::start().await;
    let line = |length: usize| {
        let start = "/disk/btrfs/subvolume add fs=storage-pool name=a; :put \"";
        format!("{start}{}\"", "x".repeat(length - start.len() - 1))
    };
    let refused = bench.run(&line(MAX_LINE + 1)).await;
    assert_eq!(refused, "syntax error (line 1 column 2049)\r\n");
    assert_eq!(names(&bench), [""; 0]);
    assert!(bench.run(&line(MAX_LINE)).await.starts_with("xxx"));
    assert_eq!(names(&bench), ["a"]);

    let generous = Bench::start_with(|options| options.max_line = 3 * MAX_LINE).await;
    assert!(generous.run(&line(3 * MAX_LINE)).await.starts_with("xxx"));
}

const EXPORT: &str = "/disk/btrfs/subvolume add fs=storage-pool name=v; \
     /disk add type=file slot=v file-path=/storage-pool/v/disk.img file-size=1M nvme-tcp-export=yes";

#[tokio::test]
async fn a_reboot_cuts_everybody_and_keeps_everything() {
    let bench = Bench::start().await;
    bench.run(EXPORT).await;
    bench.run(":global kept 1").await;
    let before = bench.simulator.state().unwrap();
    let waiting = tokio::spawn(bench.client.ssh().args(["--", ":delay 60s"]).output());
    let since = Instant::now();
    while bench.simulator.commands().lines.len() < 3 {
        assert!(since.elapsed() < Duration::from_secs(10), "the last command runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    bench.simulator.switch_off().await;
    assert_eq!(waiting.await.unwrap().unwrap().status.code(), Some(255), "open connections break");
    assert_eq!(bench.client.exec(":put 1").await.status.code(), Some(255), "new ones are refused");
    assert_eq!(bench.simulator.state().unwrap().exports, [], "nothing is exported");
    bench.simulator.switch_on().await;
    assert_eq!(bench.run(":put 1").await, "1\r\n");
    let after = bench.simulator.state().unwrap();
    assert_eq!((&after.disks, &after.exports), (&before.disks, &before.exports));
    assert_eq!(bench.run(":global kept; :put [:typeof $kept]").await, "nothing\r\n", "scripts begin anew");
}

#[tokio::test]
async fn a_reboot_loses_some_commands_and_keeps_others_by_its_seed() {
    let mut fates = BTreeSet::new();
    for seed in 0..12 {
        let bench = Bench::start().await;
        bench.simulator.inject(Fault::reboot(Duration::ZERO, seed).containing("name=a"));
        let output = bench.client.exec(THREE).await;
        assert_eq!((output.status.code(), output.stdout.len()), (Some(255), 0));
        let since = Instant::now();
        while bench.client.exec(":put back").await.stdout != b"back\r\n" {
            assert!(since.elapsed() < Duration::from_secs(10), "it comes back");
        }
        fates.insert(names(&bench).concat());
    }
    assert_eq!(Vec::from_iter(&fates), ["", "a", "ab", "abc"], "every outcome there is");
}

#[tokio::test]
async fn the_journal_tells_how_long_each_line_took_and_what_arrives_besides() {
    let bench = Bench::start().await;
    bench.simulator.inject(Fault::latency(Duration::from_millis(300)).containing("slow"));
    let (slow, quick) = (bench.run(":put slow"), bench.run(":put quick"));
    tokio::join!(slow, quick);
    bench.simulator.inject(Fault::new(Effect::DropAfter).times(1));
    bench.client.exec(":put lost").await;

    let commands = bench.simulator.commands();
    let took = |text: &str| commands.lines.iter().find(|line| line.line.contains(text)).unwrap().took;
    assert!(took("slow").unwrap() >= Duration::from_millis(300));
    assert!(took("quick").unwrap() < took("slow").unwrap(), "lines do not wait for each other");
    assert_eq!(took("lost"), None);
    assert!(commands.bytes > commands.arrivals && commands.arrivals > 0);
}
