//! Connections, keys, the session limit, and the shell.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rds_csi_integration::simulator::{Effect, Fault};
use tokio::io::AsyncWriteExt;

use crate::client::Bench;

#[tokio::test]
async fn errors_are_ordinary_output_and_the_exit_status_is_zero() {
    let bench = Bench::start().await;
    let output = bench.client.exec("/disk/nonsense").await;
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "bad command name nonsense (line 1 column 7)\r\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[tokio::test]
async fn many_commands_go_over_one_shared_connection() {
    let bench = Bench::start().await;
    let master = bench.client.ssh().args(["-M", "-N", "-o", "ControlPersist=no"]).spawn().unwrap();
    let control = bench.client.path("control");
    let since = Instant::now();
    while !control.exists() {
        assert!(since.elapsed() < Duration::from_secs(10), "the master connection comes up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // More commands than sessions, so that finished ones must make room.
    for number in 0..30 {
        assert_eq!(bench.run(&format!(":put {number}")).await, format!("{number}\r\n"));
    }
    drop(master);
    let commands = bench.simulator.commands();
    assert_eq!((commands.connections, commands.lines.len()), (1, 30));
    assert_eq!(commands.lines[29].line, ":put 29");
}

#[tokio::test]
async fn sessions_beyond_the_limit_are_refused() {
    let bench = Bench::start_with(|options| options.max_sessions = 2).await;
    bench.simulator.inject(Fault::new(Effect::Hold).containing("held"));
    let waiting = [bench.client.ssh(), bench.client.ssh()]
        .map(|mut ssh| ssh.args(["--", ":put held"]).spawn().unwrap());
    let since = Instant::now();
    while bench.simulator.commands().lines.len() < 2 {
        assert!(since.elapsed() < Duration::from_secs(10), "two sessions run");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let third = bench.client.exec(":put hello").await;
    assert_eq!(third.status.code(), Some(255), "{third:?}");
    assert!(bench.simulator.commands().refused > 0);

    // A script goes on without its client, and keeps its session until it ends.
    drop(waiting);
    assert_eq!(bench.client.exec(":put hello").await.status.code(), Some(255));
    bench.simulator.clear_faults();
    let since = Instant::now();
    while bench.client.exec(":put hello").await.stdout != b"hello\r\n" {
        assert!(since.elapsed() < Duration::from_secs(10), "there is room again");
    }
}

#[tokio::test]
async fn only_the_authorized_key_and_user_get_in() {
    let bench = Bench::start_with(|options| options.access.user = Some("csi".to_owned())).await;
    let output = bench.client.exec(":put hello").await;
    assert_eq!(output.status.code(), Some(255));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"), "{output:?}");

    let stranger = Bench::start().await;
    let other = Bench::start_with(|options| options.listen.set_port(0)).await;
    std::fs::copy(stranger.client.path("id"), other.client.path("id")).unwrap();
    assert_eq!(other.client.exec(":put hello").await.status.code(), Some(255));
    assert_eq!(other.simulator.commands().connections, 0);
}

#[tokio::test]
async fn an_array_with_another_host_key_is_not_spoken_to() {
    let bench = Bench::start().await;
    let known = std::fs::read_to_string(bench.client.path("known_hosts")).unwrap();
    let impostor = Bench::start().await;
    let renamed = known.replace(
        &bench.simulator.address().port().to_string(),
        &impostor.simulator.address().port().to_string(),
    );
    std::fs::write(impostor.client.path("known_hosts"), renamed).unwrap();
    let output = impostor.client.exec(":put hello").await;
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("HOST IDENTIFICATION HAS CHANGED"),
        "{output:?}"
    );
    assert_eq!(impostor.simulator.commands().lines, []);
}

#[tokio::test]
async fn a_person_may_type_at_a_prompt() {
    let bench = Bench::start().await;
    let mut shell = bench
        .client
        .ssh()
        .arg("-tt")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut keys = shell.stdin.take().unwrap();
    keys.write_all(b"/disk/btrfs\rsubvolume add fs=storage-pool name=a\r/quit\r").await.unwrap();
    let output = shell.wait_with_output().await.unwrap();
    let screen = String::from_utf8(output.stdout).unwrap();
    let expected = "[admin@rds] > /disk/btrfs\r\n\
                    [admin@rds] /disk/btrfs> subvolume add fs=storage-pool name=a\r\n\
                    [admin@rds] /disk/btrfs> /quit\r\n";
    assert_eq!(screen, expected);
    assert_eq!(bench.simulator.state().unwrap().subvolumes[0].name, "a");
}

#[tokio::test]
async fn lines_from_a_pipe_are_run_without_a_prompt() {
    let bench = Bench::start().await;
    let mut shell =
        bench.client.ssh().arg("-T").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut keys = shell.stdin.take().unwrap();
    keys.write_all(b":put 1\n:put 2\n").await.unwrap();
    drop(keys);
    let output = shell.wait_with_output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\r\n2\r\n");
}

#[tokio::test]
async fn stopping_ends_what_still_runs() {
    let bench = Bench::start().await;
    let mut waiting = bench.client.ssh().args(["--", ":delay 600s; :put late"]).spawn().unwrap();
    let since = Instant::now();
    while bench.simulator.commands().lines.is_empty() {
        assert!(since.elapsed() < Duration::from_secs(10), "the command runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::timeout(Duration::from_secs(10), bench.simulator.stop()).await.unwrap().unwrap();
    assert_eq!(waiting.wait().await.unwrap().code(), Some(255));
}

#[tokio::test]
async fn scripts_of_two_sessions_interleave() {
    let bench = Bench::start().await;
    let slow = bench.client.exec(
        ":local before [:len [/disk/btrfs/subvolume find]]; :delay 1500ms; :put ([:len [/disk/btrfs/subvolume find]] - $before)",
    );
    let quick = async {
        let since = Instant::now();
        while bench.simulator.commands().lines.is_empty() {
            assert!(since.elapsed() < Duration::from_secs(10), "the slow script runs");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bench.run("/disk/btrfs/subvolume add fs=storage-pool name=between").await
    };
    let (slow, _) = tokio::join!(slow, quick);
    assert_eq!(String::from_utf8_lossy(&slow.stdout), "1\r\n");
}
