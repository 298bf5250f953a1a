//! The simulator as a program, started as a person or a rig would start it.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A started program and the `ssh` command line that it printed.
struct Program {
    child: Child,
    login: Vec<String>,
}

impl Program {
    async fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rds-csi-simulator"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let login = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                let line = lines.next_line().await.unwrap().expect("it tells how to log in");
                if line.trim().starts_with("ssh ") {
                    return line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
                }
            }
        });
        let login = login.await.unwrap();
        // What it prints further is not read, but must not end it either.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, login }
    }

    async fn run(&self, line: &str) -> String {
        let output = Command::new(&self.login[0])
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"])
            .args(&self.login[1..])
            .args(["--", line])
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn known_hosts(&self) -> String {
        let option = self.login.iter().find_map(|word| word.strip_prefix("UserKnownHostsFile=")).unwrap();
        let text = std::fs::read_to_string(option).unwrap();
        text.split_once(' ').unwrap().1.to_owned()
    }

    async fn terminate(mut self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let ended = tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await;
        assert!(ended.unwrap().unwrap().success(), "a stop on request is no failure");
    }
}

#[tokio::test]
async fn the_program_tells_how_to_log_in_and_keeps_its_host_key() {
    let home = tempfile::tempdir().unwrap();
    let key = home.path().join("host_key");
    let arguments = ["--host-key", key.to_str().unwrap(), "--pool", "tank", "--routeros-version", "7.22"];

    let first = Program::start(&arguments).await;
    assert_eq!(first.run("/disk/btrfs/subvolume add fs=tank name=a; :put made").await, "made\r\n");
    assert_eq!(first.run(":put [/system/resource get version]").await, "7.22 (stable)\r\n");
    let known = first.known_hosts();
    first.terminate().await;

    let second = Program::start(&arguments).await;
    assert_eq!(second.known_hosts(), known);
    assert_eq!(second.run("/disk/btrfs/subvolume print count-only").await, "0\r\n", "memory forgets");
    second.terminate().await;
}

#[tokio::test]
async fn a_real_array_needs_a_btrfs() {
    let refused = Command::new(env!("CARGO_BIN_EXE_rds-csi-simulator"))
        .args(["--listen", "127.0.0.1:0", "--backend", "linux", "--pool-mount", "/proc"])
        .output()
        .await
        .unwrap();
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("cannot use /proc as a pool"), "{told}");
    assert!(told.contains("no btrfs is mounted there"), "{told}");
}
