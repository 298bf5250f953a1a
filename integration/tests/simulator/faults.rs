//! What goes wrong on purpose, in this process and over HTTP.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rds_csi_integration::simulator::{Effect, Fault};

use crate::client::Bench;

const ADD: &str = "/disk/btrfs/subvolume add fs=storage-pool name=a; :put done";

fn names(bench: &Bench) -> Vec<String> {
    let subvolumes = bench.simulator.state().unwrap().subvolumes;
    subvolumes.into_iter().map(|subvolume| subvolume.name).collect()
}

#[tokio::test]
async fn a_connection_dropped_before_the_effect_changes_nothing() {
    let bench = Bench::start().await;
    bench.simulator.inject(Fault::new(Effect::DropBefore).times(1));
    let output = bench.client.exec(ADD).await;
    assert_eq!((output.status.code(), output.stdout.len()), (Some(255), 0));
    assert_eq!(names(&bench), [""; 0]);
    assert_eq!(bench.run(ADD).await, "done\r\n", "it happens once");
}

#[tokio::test]
async fn a_connection_dropped_after_the_effect_leaves_it_in_doubt_for_the_client_only() {
    let bench = Bench::start().await;
    bench.simulator.inject(Fault::new(Effect::DropAfter).times(1).containing("subvolume add"));
    assert_eq!(bench.run(":put [/system/identity get name]").await, "rds\r\n", "other commands are spared");
    let output = bench.client.exec(ADD).await;
    assert_eq!((output.status.code(), output.stdout.len()), (Some(255), 0));
    assert_eq!(names(&bench), ["a"]);
}

#[tokio::test]
async fn refused_connections_come_back_when_the_fault_is_cleared() {
    let bench = Bench::start().await;
    bench.simulator.inject(Fault::new(Effect::RefuseConnections));
    assert_eq!(bench.client.exec(":put 1").await.status.code(), Some(255));
    assert_eq!(bench.client.exec(":put 1").await.status.code(), Some(255));
    bench.simulator.clear_faults();
    assert_eq!(bench.run(":put 1").await, "1\r\n");
    assert_eq!(bench.simulator.commands().refused, 2);
}

#[tokio::test]
async fn garbage_is_no_answer_though_the_effect_is_there() {
    let bench = Bench::start().await;
    bench.simulator.inject(Fault::new(Effect::Garbage).times(1));
    let output = bench.client.exec(ADD).await;
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).is_err(), "garbage is not even text");
    assert_eq!(names(&bench), ["a"]);
}

#[tokio::test]
async fn a_full_disk_and_a_user_without_rights_are_errors_that_scripts_can_catch() {
    let bench = Bench::start().await;
    bench.framed(ADD).await.unwrap();
    let disk = "/disk add type=file slot=a file-path=/storage-pool/a/disk.img file-size=1M";
    bench.simulator.inject(Fault::new(Effect::DiskFull).times(1));
    assert_eq!(bench.framed(disk).await, Err("failure: not enough space".to_owned()));
    bench.simulator.inject(Fault::new(Effect::ReadOnlyUser).times(1));
    assert_eq!(bench.framed(disk).await, Err("not enough permissions (9)".to_owned()));
    bench.framed(disk).await.unwrap();
}

#[tokio::test]
async fn a_silent_array_answers_nothing_until_it_speaks_again() {
    let bench = Bench::start().await;
    bench.simulator.inject(Fault::new(Effect::Silence));
    // The connection is accepted, but not even the server's name comes.
    let patience = bench.client.ssh().args(["-o", "ConnectTimeout=1", "--", ADD]).output().await.unwrap();
    assert_eq!(patience.status.code(), Some(255));
    assert_eq!(names(&bench), [""; 0]);

    let waiting = tokio::spawn(bench.client.ssh().args(["--", ADD]).output());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished());
    bench.simulator.clear_faults();
    assert_eq!(waiting.await.unwrap().unwrap().stdout, b"done\r\n");
}

#[tokio::test]
async fn a_client_that_counts_keepalives_leaves_a_silent_array() {
    let bench = Bench::start().await;
    let keepalive = ["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1"];
    let mut ssh = bench.client.ssh();
    ssh.args(keepalive).args(["--", ":delay 60s"]).stderr(Stdio::null());
    let mut client = ssh.spawn().unwrap();
    let since = Instant::now();
    while bench.simulator.commands().lines.is_empty() {
        assert!(since.elapsed() < Duration::from_secs(10), "the command runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.simulator.inject(Fault::new(Effect::Silence));
    let left = tokio::time::timeout(Duration::from_secs(10), client.wait()).await;
    assert_eq!(left.unwrap().unwrap().code(), Some(255));
    bench.simulator.stop().await.unwrap();
}

#[tokio::test]
async fn latency_delays_the_answer() {
    let bench = Bench::start().await;
    bench.simulator.inject(Fault::latency(Duration::from_millis(700)).times(1));
    let since = Instant::now();
    bench.run(":put 1").await;
    assert!(since.elapsed() >= Duration::from_millis(700));
}

#[tokio::test]
async fn other_processes_inject_and_look_over_http() {
    let bench = Bench::start_with(|options| options.control = Some(([127, 0, 0, 1], 0).into())).await;
    let control = format!("http://{}", bench.simulator.control_address().unwrap());
    // reqwest wants a TLS provider even where nothing but plain HTTP is spoken.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::new();
    let post = |body: &'static str| {
        let request = http.post(format!("{control}/faults")).header("content-type", "application/json");
        request.body(body).send()
    };

    let told = post(r#"{"effect":"drop-before","times":1}"#).await.unwrap();
    assert_eq!(told.status(), 204);
    assert_eq!(bench.client.exec(ADD).await.status.code(), Some(255));
    assert_eq!(post(r#"{"effect":"meteor"}"#).await.unwrap().status(), 422);

    post(r#"{"effect":"disk-full"}"#).await.unwrap();
    assert_eq!(http.delete(format!("{control}/faults")).send().await.unwrap().status(), 204);
    let pending: serde_json::Value =
        http.get(format!("{control}/faults")).send().await.unwrap().json().await.unwrap();
    assert_eq!(pending, serde_json::json!([]));

    bench.run(ADD).await;
    bench
        .framed(
            "/disk add type=file slot=a file-path=/storage-pool/a/disk.img file-size=1M nvme-tcp-export=yes",
        )
        .await
        .unwrap();
    let state: serde_json::Value =
        http.get(format!("{control}/state")).send().await.unwrap().json().await.unwrap();
    assert_eq!(state["disks"][0]["slot"], "a");
    assert_eq!(state["disks"][0]["file-size"], 1 << 20);
    assert_eq!(state["subvolumes"][0]["name"], "a");
    assert_eq!(state["files"][1]["path"], "a/disk.img");
    assert_eq!(state["exports"][0]["nqn"], "nqn.2000-02.com.mikrotik:a");
    assert_eq!(state["exports"][0]["hosts"], "any");

    let commands: serde_json::Value =
        http.get(format!("{control}/commands")).send().await.unwrap().json().await.unwrap();
    assert_eq!(commands["lines"][0]["line"], ADD);
    assert_eq!(commands["connections"], 3);
}
