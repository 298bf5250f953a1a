//! A program on a volume that never pauses, to tell afterwards whether a write was lost.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Pod;
use crate::rig::Worker;

/// Its name among the guest's programs.
const NAME: &str = "writer";

/// Which numbers the volume acknowledged, a line for each; on the node, not on the volume.
const ACKNOWLEDGED: &str = "/run/acknowledged";

const SIGTERM: i32 = 15;

/// How long the volume may stand still: a reboot of the array under load, with the reconnects after it.
const PATIENCE: Duration = Duration::from_mins(2);

/// A program that appends the numbers from 1 on to a file of a pod's volume, each with an fsync, and notes which of
/// them the volume acknowledged.
#[derive(Debug)]
pub struct Writer<'rig> {
    worker: &'rig Worker,
    file: String,
}

impl<'rig> Writer<'rig> {
    /// Starts it; a worker has one at a time.
    pub async fn start(pod: &Pod<'rig>) -> Result<Self> {
        let file = format!("{}/numbers", pod.path());
        let guest = pod.worker.guest();
        guest.write(ACKNOWLEDGED, 0o644, b"").await?;
        // The shell acts on a signal only when its pipeline has ended, so that no `dd` is left with the file open.
        let script = format!(
            "trap exit TERM; n=0; while n=$((n+1)); do \
             echo $n | dd of={file} oflag=append conv=notrunc,fsync 2>/dev/null || exit 1; \
             echo $n >>{ACKNOWLEDGED}; done"
        );
        guest.start(NAME, ["sh", "-c", &script], &[]).await?;
        Ok(Self { worker: pod.worker, file })
    }

    /// Waits until twenty more numbers are acknowledged than now.
    pub async fn acknowledges_more(&self) -> Result<()> {
        let count = format!("$(wc -l <{ACKNOWLEDGED})");
        let script = format!("enough=$(({count} + 20)); until [ {count} -ge $enough ]; do sleep 0.1; done");
        self.worker.guest().run_for(PATIENCE, &script).await?.ok().map(drop)
    }

    /// Ends it once the write that it is at is done, and returns how many numbers were acknowledged.
    pub async fn stop(&self) -> Result<u64> {
        let guest = self.worker.guest();
        guest.signal(NAME, SIGTERM).await?;
        guest.wait(NAME, PATIENCE).await?;
        let count = self.worker.sh(&format!("wc -l <{ACKNOWLEDGED}")).await?;
        count.trim().parse().context("the count of acknowledged numbers")
    }

    /// How many numbers the volume holds, each in its place; it must be mounted where it was.
    pub async fn written(&self) -> Result<u64> {
        let count = format!("awk '$1 != NR {{ exit 1 }} END {{ print NR }}' {}", self.file);
        self.worker.sh(&count).await?.parse().context("the count of written numbers")
    }
}
