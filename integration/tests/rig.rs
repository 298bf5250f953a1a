//! The rig itself, without a line of the driver: guests that boot, die and are cut off, and the kernel's NVMe/TCP
//! between them.

#[path = "rig/export.rs"]
mod export;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use export::Export;
use rds_csi_integration::rig::{self, ArrayKind, Exit, PORTAL, Plan, Rig, Target, Worker};
use tokio::process::Command;

fn main() -> ExitCode {
    rig::group::<Rig>(Plan { array: ArrayKind::Bare, ..Plan::default() })
        .test("a_guest_runs_what_it_is_told", a_guest_runs_what_it_is_told)
        .test("a_person_runs_commands_in_a_guest", a_person_runs_commands_in_a_guest)
        .test("a_program_that_hangs_is_killed", a_program_that_hangs_is_killed)
        .test(
            "programs_in_a_guest_reach_the_host_and_are_reached",
            programs_in_a_guest_reach_the_host_and_are_reached,
        )
        .test("orphans_are_reaped", orphans_are_reaped)
        .test("every_worker_reaches_the_portal_from_its_own_address", every_worker_reaches_the_portal)
        .test("what_one_worker_writes_the_other_reads", what_one_worker_writes_the_other_reads)
        .test("a_host_that_is_not_allowed_is_refused", a_host_that_is_not_allowed_is_refused)
        .test("a_pulled_cable_stalls_writes_and_loses_none", a_pulled_cable_stalls_writes_and_loses_none)
        .test(
            "a_paused_worker_does_nothing_until_it_is_resumed",
            a_paused_worker_does_nothing_until_it_is_resumed,
        )
        .test("a_killed_worker_boots_again_with_its_disk", a_killed_worker_boots_again_with_its_disk)
        .test("the_array_reboots_with_its_pool", the_array_reboots_with_its_pool)
        .test("whatever_is_left_behind_is_found", whatever_is_left_behind_is_found)
        .run()
}

async fn a_guest_runs_what_it_is_told(rig: &Rig) -> Result<()> {
    let w1 = rig.worker("w1");
    ensure!(w1.sh("hostname").await? == "w1");
    let failed = w1.run("echo to stdout; echo to stderr >&2; exit 3").await?;
    ensure!(failed.exit == Exit::Code(3), "{failed}");
    ensure!((failed.stdout.as_str(), failed.stderr.as_str()) == ("to stdout\n", "to stderr\n"), "{failed}");
    ensure!(w1.sh("exit 3").await.is_err(), "sh must not hide a failure");
    Ok(())
}

async fn a_person_runs_commands_in_a_guest(rig: &Rig) -> Result<()> {
    let told = Command::new(env!("CARGO_BIN_EXE_rds-csi-rig"))
        .arg("run")
        .arg(rig.worker("w2").guest().directory())
        .arg("hostname; exit 5")
        .output()
        .await?;
    ensure!((told.stdout.as_slice(), told.status.code()) == (b"w2\n".as_slice(), Some(5)), "{told:?}");

    let wrong =
        Command::new(env!("CARGO_BIN_EXE_rds-csi-rig")).args(["run", "/nowhere", "true"]).output().await?;
    let complaint = String::from_utf8_lossy(&wrong.stderr);
    ensure!(complaint.contains("/nowhere is no guest's directory"), "{complaint}");
    Ok(())
}

async fn a_program_that_hangs_is_killed(rig: &Rig) -> Result<()> {
    let w1 = rig.worker("w1");
    let hung = w1.guest().run_for(Duration::from_secs(1), "sleep 1000 & sleep 1000").await?;
    ensure!(hung.exit == Exit::TimedOut, "{hung}");
    // The dead are reaped a moment later.
    nothing_runs_on(w1).await
}

async fn programs_in_a_guest_reach_the_host_and_are_reached(rig: &Rig) -> Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let guest = rig.worker("w1").guest();
    let port = guest.forward(Target::Port(9999)).await?;
    guest.start("echo", ["nc", "-l", "-p", "9999", "-e", "cat"], &[]).await?;
    // `nc` takes one connection only, so ask the kernel whether it listens: 270F is 9999.
    guest.sh("until grep -q :270F /proc/net/tcp; do sleep 0.05; done").await?;
    let mut stream = tokio::net::TcpStream::connect(port).await?;
    stream.write_all(b"to the guest").await?;
    stream.shutdown().await?;
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await?;
    ensure!(heard == "to the guest", "heard {heard:?}");
    ensure!(guest.wait("echo", Duration::from_secs(10)).await? == Exit::Code(0));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let call = format!("echo from the guest | nc {} {}", rig::HOST, listener.local_addr()?.port());
    let (called, accepted) = tokio::join!(guest.sh(&call), async {
        let (mut stream, _) = listener.accept().await?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await?;
        anyhow::Ok(heard)
    });
    called?;
    ensure!(accepted? == "from the guest\n");
    Ok(())
}

async fn orphans_are_reaped(rig: &Rig) -> Result<()> {
    let w1 = rig.worker("w1");
    w1.sh("(sleep 0.2 &) ; (sleep 0.1 &)").await?;
    nothing_runs_on(w1).await
}

async fn nothing_runs_on(worker: &Worker) -> Result<()> {
    let nothing = async || Ok(worker.processes().await?.is_empty());
    rig::eventually("every process has ended", Duration::from_secs(5), nothing).await
}

async fn every_worker_reaches_the_portal(rig: &Rig) -> Result<()> {
    for worker in rig.workers() {
        worker.sh(&format!("ping -c 1 -W 5 {PORTAL}")).await?;
        let route = worker.sh(&format!("ip route get {PORTAL}")).await?;
        ensure!(route.contains(&format!("src {}", worker.address())), "{route}");
    }
    Ok(())
}

async fn what_one_worker_writes_the_other_reads(rig: &Rig) -> Result<()> {
    let export = Export::create(rig.array(), "shared", &[]).await?;
    let (w1, w2) = (rig.worker("w1"), rig.worker("w2"));
    let from = export.connect(w1).await?;
    let to = export.connect(w2).await?;

    let random = "dd if=/dev/urandom of=/tmp/block bs=64k count=1 status=none";
    w1.sh(&format!("{random} && dd if=/tmp/block of={from} bs=64k seek=7 oflag=direct,sync status=none"))
        .await?;
    let written = w1.sh("sha256sum </tmp/block").await?;
    let read =
        w2.sh(&format!("dd if={to} bs=64k skip=7 count=1 iflag=direct status=none | sha256sum")).await?;
    ensure!(written == read, "wrote {written}, read {read}");

    w1.sh("rm /tmp/block").await?;
    export.disconnect(w1).await?;
    export.disconnect(w2).await?;
    export.remove(rig.array()).await
}

async fn a_host_that_is_not_allowed_is_refused(rig: &Rig) -> Result<()> {
    let (w1, w2) = (rig.worker("w1"), rig.worker("w2"));
    let export = Export::create(rig.array(), "private", &[w1]).await?;
    export.connect(w1).await?;
    let messages = w2.kernel_messages("w2 connects uninvited").await?;
    let refused = export.connect(w2).await;
    ensure!(refused.is_err(), "w2 is not on the list, but is connected: {refused:?}");
    let log = w2.sh(&messages).await?;
    ensure!(log.contains("is not allowed"), "{log}");

    export.disconnect(w1).await?;
    export.remove(rig.array()).await
}

async fn a_pulled_cable_stalls_writes_and_loses_none(rig: &Rig) -> Result<()> {
    const PULLED: Duration = Duration::from_secs(3);
    const WRITES: usize = 40;

    let w1 = rig.worker("w1");
    let export = Export::create(rig.array(), "cable", &[]).await?;
    let device = export.connect(w1).await?;
    // A number goes to the log only after its block is on the array. The target's blocks are its filesystem's: 4 KiB.
    let writer = format!(
        "for i in $(seq {WRITES}); do printf '%-4095s\\n' $i >/tmp/block
         dd if=/tmp/block of={device} bs=4k seek=$i oflag=direct status=none && echo $i; sleep 0.05; done; rm /tmp/block"
    );
    w1.guest().start("writer", ["sh", "-c", &writer], &[]).await?;
    w1.sh("until [ $(wc -l </var/log/writer.log) -ge 3 ]; do sleep 0.05; done").await?;

    w1.cut_network().await?;
    let pulled = Instant::now();
    // The write in flight may have been answered just before the cable was pulled.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = w1.guest().log("writer").await?.lines().count();
    tokio::time::sleep(PULLED.saturating_sub(pulled.elapsed())).await;
    let after = w1.guest().log("writer").await?.lines().count();
    w1.restore_network().await?;
    ensure!(before == after, "{} writes went through a pulled cable", after - before);

    let exit = w1.guest().wait("writer", Duration::from_mins(1)).await?;
    let log = w1.guest().log("writer").await?;
    ensure!(exit == Exit::Code(0) && log.lines().count() == WRITES, "{exit:?}\n{log}");
    let read = format!(
        "for i in $(seq {WRITES}); do dd if={device} bs=4k skip=$i count=1 iflag=direct status=none | tr -d ' '; done"
    );
    ensure!(w1.sh(&read).await? == log.trim_end(), "what is on the array is not what was written");

    export.disconnect(w1).await?;
    export.remove(rig.array()).await
}

async fn a_paused_worker_does_nothing_until_it_is_resumed(rig: &Rig) -> Result<()> {
    let guest = rig.worker("w2").guest();
    guest.start("clock", ["sh", "-c", "while sleep 0.1; do echo tick; done"], &[]).await?;
    guest.sh("until [ -s /var/log/clock.log ]; do sleep 0.05; done").await?;

    rig.worker("w2").pause().await?;
    let asked = tokio::time::timeout(Duration::from_secs(1), guest.log("clock")).await;
    ensure!(asked.is_err(), "a paused guest answered: {asked:?}");
    rig.worker("w2").resume().await?;

    let ticks = guest.log("clock").await?.lines().count();
    guest.sh(&format!("until [ $(wc -l </var/log/clock.log) -gt {ticks} ]; do sleep 0.05; done")).await?;
    guest.signal("clock", 9).await?;
    ensure!(guest.wait("clock", Duration::from_secs(5)).await? == Exit::Signal(9));
    nothing_runs_on(rig.worker("w2")).await
}

async fn a_killed_worker_boots_again_with_its_disk(rig: &Rig) -> Result<()> {
    let w1 = rig.worker("w1");
    let export = Export::create(rig.array(), "death", &[]).await?;
    export.connect(w1).await?;
    w1.sh("echo remembered >/var/lib/note; sync; echo forgotten >/tmp/note").await?;

    w1.kill().await?;
    ensure!(w1.sh("true").await.is_err(), "a dead guest answers nothing");
    w1.boot().await?;

    ensure!(w1.sh("cat /var/lib/note; ls /tmp").await? == "remembered");
    ensure!(w1.nvme_connections().await?.is_empty(), "a new boot has no connections");
    export.connect(w1).await?;
    export.disconnect(w1).await?;
    export.remove(rig.array()).await
}

async fn the_array_reboots_with_its_pool(rig: &Rig) -> Result<()> {
    let array = rig.array();
    array.sh("echo kept >/storage-pool/note; sync").await?;
    array.reboot().await?;
    ensure!(array.sh("cat /storage-pool/note").await? == "kept");
    ensure!(array.subsystems().await?.is_empty(), "exports live in the kernel, and are gone");
    // The links are there again, too.
    rig.worker("w2").sh(&format!("ping -c 1 -W 5 {PORTAL}")).await?;
    array.sh("rm /storage-pool/note").await.map(drop)
}

async fn whatever_is_left_behind_is_found(rig: &Rig) -> Result<()> {
    let (array, w1) = (rig.array(), rig.worker("w1"));
    ensure!(rig.leftovers().await.is_empty(), "left by the tests before: {:?}", rig.leftovers().await);

    let export = Export::create(array, "left", &[]).await?;
    export.connect(w1).await?;
    w1.guest().start("sleeper", ["sleep", "1000"], &[]).await?;
    w1.sh("mkdir /mnt/left && mount -t tmpfs left /mnt/left").await?;
    w1.sh("modprobe loop && truncate -s 1M /var/left && losetup /dev/loop0 /var/left").await?;
    let found = rig.leftovers().await;
    for wanted in [
        "sleep 1000",
        "mount of left at /mnt/left",
        "is live with nqn.2000-02.com.mikrotik:left",
        "loop device /dev/loop0",
        "array: subsystem nqn.2000-02.com.mikrotik:left",
        "array: ./left.img in the pool",
    ] {
        ensure!(found.iter().any(|line| line.contains(wanted)), "{wanted:?} is not in {found:#?}");
    }

    w1.sh("losetup -d /dev/loop0 && rm /var/left && umount /mnt/left && rmdir /mnt/left").await?;
    w1.guest().signal("sleeper", 9).await?;
    w1.guest().wait("sleeper", Duration::from_secs(5)).await?;
    export.disconnect(w1).await?;
    export.remove(array).await
}
