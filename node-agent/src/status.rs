//! `rds-csi-node-agent status`: how this node's volumes are, for a person at a terminal or a script.
//!
//! It reads records, sysfs and /proc itself, and asks neither the agent nor the array, so it answers when both are gone.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use rds_csi_api::{HostId, HostNqn, ManagedPrefix, NodeName};

use crate::host::{Initiator, KubeletDir, Linux, Use};
use crate::inspect::{self, Volume};
use crate::reads::Reads;
use crate::repairs::Repairs;
use crate::volumes::{Records, Volumes};

/// Reading sysfs and /proc takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// Shows how the volumes of this node are. Exits with 0 if nothing is known against any, with 1 if something is, and with 2 if that
/// cannot be read.
#[derive(Debug, Parser)]
#[command(name = "rds-csi-node-agent status", version)]
pub struct Args {
    /// A table for people, or JSON, the same as of /debug/volumes
    #[arg(long, value_name = "table|json", default_value = "table")]
    output: Output,
    /// Name of the Kubernetes node, for the heading
    #[arg(long, env = "NODE_NAME", value_name = "NAME", default_value = "this-node")]
    node_name: NodeName,
    /// kubelet's directory, as the agent has it
    #[arg(long, env = "RDS_CSI_KUBELET_DIR", value_name = "PATH", default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,
    /// Where the agent keeps the volumes' records
    #[arg(long, env = "RDS_CSI_STATE_DIR", value_name = "PATH", default_value = "/var/lib/rds-csi")]
    state_dir: PathBuf,
    /// Beginning of the NQNs that are the driver's, as the agent has it
    #[arg(
        long,
        env = "CSI_MANAGED_NQN_PREFIX",
        value_name = "PREFIX",
        default_value = "nqn.2000-02.com.mikrotik:pvc-"
    )]
    managed_nqn_prefix: ManagedPrefix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Prints them.
pub fn run(args: Args) -> ExitCode {
    let (output, node) = (args.output, args.node_name.clone());
    // A thread that hangs in the kernel cannot be stopped, so it is not waited for.
    let (done, reading) = mpsc::channel();
    thread::spawn(move || done.send(read(args)));
    let lines = match reading.recv_timeout(DEADLINE) {
        Ok(Ok(lines)) => lines,
        Ok(Err(error)) => {
            eprintln!("the volumes of this node cannot be read: {error:#}");
            return ExitCode::from(2);
        }
        Err(_) => {
            eprintln!("the kernel does not answer within {DEADLINE:?}: see its log for hung tasks");
            return ExitCode::from(2);
        }
    };
    match output {
        Output::Table => print!("{}", table(&node, &lines)),
        Output::Json => match serde_json::to_string_pretty(&lines) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("the volumes cannot be told as JSON: {error}");
                return ExitCode::from(2);
            }
        },
    }
    ExitCode::from(u8::from(lines.iter().any(|line| line.condition.is_some())))
}

fn read(args: Args) -> anyhow::Result<Vec<Volume>> {
    let Args { output: _, node_name, kubelet_dir, state_dir, managed_nqn_prefix } = args;
    // Opening the records would make the directory.
    Path::read_dir(&state_dir).with_context(|| {
        format!("the records at --state-dir {}: did an agent run here?", state_dir.display())
    })?;
    let kubelet =
        KubeletDir::open(&kubelet_dir).with_context(|| format!("--kubelet-dir {}", kubelet_dir.display()))?;
    // Who we are to an array matters to nobody here: nothing is connected.
    let initiator = Initiator { nqn: HostNqn::of(&node_name), id: HostId::of(&node_name) };
    let records = Records::open(&state_dir)?;
    let volumes = Volumes {
        host: Linux::new(initiator),
        records,
        kubelet,
        prefix: managed_nqn_prefix,
        reads: Reads::default(),
        repairs: Repairs::default(),
    };
    Ok(inspect::all(&volumes)?)
}

const HEAD: [&str; 6] = ["VOLUME", "CONNECTION", "DEVICE", "STAGED", "PUBLISHED", "CONDITION"];

/// A line for each volume, and below what there is to say of one in more than a word.
fn table(node: &NodeName, lines: &[Volume]) -> String {
    if lines.is_empty() {
        return format!("{node} has no volumes\n");
    }
    let rows: Vec<_> = std::iter::once(HEAD.map(str::to_owned)).chain(lines.iter().map(row)).collect();
    let widths: Vec<_> =
        (0..HEAD.len()).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    for Volume { volume, holders, condition, .. } in lines {
        let users = holders.iter().filter(|holder| matches!(holder.how, Use::OpenFile | Use::BlockDevice));
        let notes = condition.iter().cloned().chain(users.map(ToString::to_string));
        for (number, note) in notes.enumerate() {
            let heading = if number == 0 { format!("\n{volume}\n") } else { String::new() };
            // Writing to a text does not fail.
            let _ = writeln!(text, "{heading}  {note}");
        }
    }
    text
}

fn row(line: &Volume) -> [String; 6] {
    let Volume { volume, connection, device, staging_path, publish_paths, condition, .. } = line;
    [
        volume.to_string(),
        connection.as_str().into(),
        device.as_ref().map_or_else(|| "-".into(), |device| device.display().to_string()),
        if staging_path.is_some() { "yes" } else { "no" }.into(),
        publish_paths.len().to_string(),
        if condition.is_some() { "abnormal" } else { "sound" }.into(),
    ]
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::debug::Section;
    use crate::events::Reason;
    use crate::host::fake::Holds;
    use crate::world::world;
    use crate::{publish, stage};

    #[test]
    fn a_volume_has_a_line_and_what_is_wrong_stands_below() {
        let world = world(Holds::Nothing);
        let node = "w1".parse().unwrap();
        assert_eq!(table(&node, &inspect::all(&world.volumes).unwrap()), "w1 has no volumes\n");
        stage::stage(&world.volumes, &world.stage_filesystem()).unwrap();
        let usage = publish::Usage::Filesystem(publish::Writing::Allowed);
        publish::publish(&world.volumes, &world.publish_as(usage)).unwrap();
        let told = table(&node, &inspect::all(&world.volumes).unwrap());
        assert_eq!(
            told,
            "VOLUME  CONNECTION  DEVICE        STAGED  PUBLISHED  CONDITION\n\
             pvc-a   live        /dev/nvme1n1  yes     1          sound\n"
        );
        world.host.open_file(&world.nqn, 4711, "postgres", "/data/base");
        world.host.unplug();
        let told = table(&node, &inspect::all(&world.volumes).unwrap());
        assert!(told.contains("\npvc-a   connecting  /dev/nvme1n1  yes     1          abnormal\n"), "{told}");
        assert!(told.contains("\n\npvc-a\n  the array does not answer"), "{told}");
        assert!(told.ends_with("\n  process 4711 (postgres) has /data/base open\n"), "{told}");
    }

    #[test]
    fn the_document_names_whatever_a_node_tells() {
        let document = include_str!("../../docs/node.md");
        let named =
            |what: &str| assert!(document.contains(&format!("`{what}`")), "{what} is not in docs/node.md");
        let command = Args::command();
        for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
            named(&format!("--{flag}"));
        }
        let others = ["/debug", "rds_csi_volumes{connection}", "rds_csi_volumes_abnormal"];
        let words = Reason::ALL.map(Reason::as_str).into_iter().chain(Section::ALL.map(Section::path));
        for word in words.chain(HEAD).chain(others) {
            named(word);
        }
        assert!(include_str!("../../README.md").contains("rds-csi-node-agent status"));
    }
}
