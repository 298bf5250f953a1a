//! The part that runs in the worker: the driver's calls, and the bare system calls below them, in turn.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rds_csi_api::Portal;
use serde::{Deserialize, Serialize};

use super::agent::Agent;
use super::bare;
use crate::driver::Pod;

/// What to measure.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    pub(super) rounds: usize,
    pub(super) subject: Subject,
}

/// A volume that this node is let in to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subject {
    pub(super) volume: String,
    /// Its filesystem; none of a block volume.
    pub(super) fs: Option<String>,
    pub(super) staging: PathBuf,
    pub(super) target: PathBuf,
    pub(super) publish_context: HashMap<String, String>,
    pub(super) volume_context: HashMap<String, String>,
    pub(super) nqn: String,
    pub(super) portal: String,
    pub(super) port: u16,
}

impl Subject {
    /// The volume of a pod.
    pub(super) fn of(pod: &Pod<'_>) -> Result<Self> {
        let told = |key: &str| pod.context.get(key).or_else(|| pod.volume.context.get(key));
        let portal = told("nvmeAddress").or_else(|| told("rdsAddress")).context("no address is told")?;
        let portal = Portal::parse(portal, told("nvmePort").map(String::as_str))?;
        Ok(Self {
            volume: pod.volume.id.clone(),
            fs: pod.volume.fs_type().map(ToOwned::to_owned),
            staging: pod.staging_path().into(),
            target: pod.path().into(),
            publish_context: pod.context.clone(),
            volume_context: pod.volume.context.clone(),
            nqn: told("nqn").context("no NQN is told")?.clone(),
            portal: portal.address.to_string(),
            port: portal.port,
        })
    }
}

/// What came out.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// A call that does nothing.
    pub(super) idle: Vec<Duration>,
    /// The first stage of all, which formats.
    pub(super) first: Step,
    pub(super) bare: Vec<Round>,
    pub(super) driver: Vec<Round>,
}

/// From nothing to a published volume, and back.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Round {
    pub(super) stage: Step,
    pub(super) again: Step,
    pub(super) publish: Step,
    pub(super) unpublish: Step,
    pub(super) unstage: Step,
}

/// One call.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Step {
    pub(super) took: Duration,
    pub(super) programs: Programs,
}

/// Whether a call ran programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Programs {
    /// It did not.
    #[default]
    None,
    /// It did.
    Some,
}

/// Does what the order in this file says, and prints what came out.
pub async fn run(order: &Path) -> Result<()> {
    let Order { rounds, subject } = serde_json::from_slice(&std::fs::read(order)?)?;
    let mut agent = Agent::find(subject.clone())?;
    let mut idle = Vec::new();
    for _ in 0..rounds {
        idle.push(agent.nothing().await?.took);
    }
    std::fs::create_dir_all(&subject.staging)?;
    std::fs::create_dir_all(subject.target.parent().context("the target has no parent")?)?;
    let first = agent.stage().await?;
    // The name by which the array lets this node in.
    let host = bare::Host::of(&subject)?;
    agent.unstage().await?;
    let (mut by_hand, mut by_driver) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        by_hand.push(bare::round(&subject, &host)?);
        by_driver.push(Round {
            stage: agent.stage().await?,
            again: agent.stage().await?,
            publish: agent.publish().await?,
            unpublish: agent.unpublish().await?,
            unstage: agent.unstage().await?,
        });
    }
    println!("{}", serde_json::to_string(&Measured { idle, first, bare: by_hand, driver: by_driver })?);
    Ok(())
}

/// How long something takes.
pub(super) fn timed<T>(act: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let begun = Instant::now();
    let done = act()?;
    Ok((begun.elapsed(), done))
}
