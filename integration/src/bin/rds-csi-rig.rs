//! A rig to play with: boots the array and workers with their node agents, and runs commands in guests of any rig that
//! is up.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use rds_csi_integration::rig::{Exit, Plan, Rig, run_in};

#[derive(Debug, Parser)]
#[command(version, about = "Boot microVMs with the array and node agents, and look around in them")]
struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Boot a rig, say how to reach what is in it, and end it on Ctrl-C (the default)
    Boot {
        /// How many workers
        #[arg(long, default_value_t = 2)]
        workers: u8,
    },
    /// Run a shell command in a guest of a rig that is up
    Run {
        /// The guest's directory, as the rig's owner prints it
        guest: PathBuf,
        /// The command
        script: String,
    },
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    match Arguments::parse().action.unwrap_or(Action::Boot { workers: 2 }) {
        Action::Boot { workers } => boot(workers).await,
        Action::Run { guest, script } => {
            let output = run_in(&guest, &script).await?;
            print!("{}", output.stdout);
            eprint!("{}", output.stderr);
            Ok(match output.exit {
                Exit::Code(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
                Exit::Signal(_) | Exit::TimedOut => ExitCode::FAILURE,
            })
        }
    }
}

async fn boot(workers: u8) -> Result<ExitCode> {
    let rig = Rig::boot(Plan { workers, ..Plan::default() }).await?;
    for worker in rig.workers() {
        worker.start_agent(&[]).await?;
    }
    eprintln!("{}\nCtrl-C ends it", rig.directions());
    tokio::signal::ctrl_c().await?;
    // Whatever was made by hand may lie about: this is no test, so nothing is asserted.
    drop(rig);
    Ok(ExitCode::SUCCESS)
}
