//! The kernel's NVMe/TCP target through configfs: one subsystem with namespace 1 for each export, one port
//! for each TCP port in use.
//!
//! The order of steps is the kernel's: hosts can only be linked while not every host is allowed, a namespace
//! takes its file only while it is disabled, and a subsystem on a port is reachable at once.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::super::{Error, Export, Hosts, PoolPath};
use super::system;

/// The target of this machine.
#[derive(Debug)]
pub(super) struct Target {
    root: PathBuf,
    address: IpAddr,
}

/// One change of the configfs tree, with paths relative to its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Make(String),
    Write(String, String),
    /// The second path becomes a link to the first.
    Link(String, String),
    Unlink(String),
    Remove(String),
    /// Removes what others may still use; if they do, it stays.
    RemoveIfUnused(String),
}

impl Target {
    pub(super) fn new(root: PathBuf, address: IpAddr) -> Self {
        Self { root, address }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if self.root.join("subsystems").is_dir() {
            return Ok(());
        }
        let missing = io::Error::other("mount configfs and load the modules nvmet and nvmet-tcp");
        Err(system(format!("find the kernel's NVMe target at {}", self.root.display()), missing))
    }

    pub(super) fn export(&self, export: &Export, file: &Path) -> Result<(), Error> {
        if self.root.join(subsystem(&export.nqn)).exists() {
            return Err(Error::Exists(export.nqn.clone()));
        }
        // A port without subsystems listens to nobody yet and may be half made: its settings are written again.
        let listening = |port: &Port| port.number == export.port && !port.subsystems.is_empty();
        let has_port = self.ports()?.iter().any(listening);
        let made = self.apply(&export_steps(export, file, self.address, has_port));
        if made.is_err() {
            // Half a subsystem would block the next attempt; the first error is the one worth telling.
            if let Err(error) = self.unexport(&export.nqn) {
                tracing::warn!(nqn = export.nqn, %error, "half an export stays behind");
            }
        }
        made
    }

    pub(super) fn unexport(&self, nqn: &str) -> Result<(), Error> {
        let hosts = self.names(&format!("{}/allowed_hosts", subsystem(nqn)))?;
        let ports: Vec<Port> = self.ports()?.into_iter().filter(|port| port.offers(nqn)).collect();
        let namespace = self.root.join(namespace(nqn)).exists();
        self.apply(&unexport_steps(nqn, &ports, &hosts, namespace))
    }

    pub(super) fn set_hosts(&self, nqn: &str, hosts: &Hosts) -> Result<(), Error> {
        let present = self.names(&format!("{}/allowed_hosts", subsystem(nqn)))?;
        self.apply(&host_steps(nqn, &present, hosts))
    }

    /// Tells connected hosts that the file has another size.
    pub(super) fn revalidate(&self, nqn: &str) -> Result<(), Error> {
        self.apply(&[write(format!("{}/revalidate_size", namespace(nqn)), "1")])
    }

    /// What is offered of files below `pool`.
    pub(super) fn exports(&self, pool: &Path) -> Result<Vec<Export>, Error> {
        let mut exports = Vec::new();
        for port in self.ports()? {
            for nqn in &port.subsystems {
                let device = self.read(&format!("{}/device_path", namespace(nqn)))?;
                let inside = Path::new(&device).strip_prefix(pool).ok().and_then(Path::to_str);
                let Some(file) = inside.and_then(PoolPath::new) else { continue };
                let any = self.read(&format!("{}/attr_allow_any_host", subsystem(nqn)))?;
                let hosts = match any.as_str() {
                    "1" => Hosts::Any,
                    _ => Hosts::Only(self.names(&format!("{}/allowed_hosts", subsystem(nqn)))?),
                };
                exports.push(Export { nqn: nqn.clone(), port: port.number, file, hosts });
            }
        }
        exports.sort_by(|a, b| a.nqn.cmp(&b.nqn));
        Ok(exports)
    }

    fn ports(&self) -> Result<Vec<Port>, Error> {
        let mut ports = Vec::new();
        for name in self.names("ports")? {
            // Ports are named by their number; one that is not was made by somebody else.
            if let Ok(number) = name.parse() {
                ports.push(Port { number, subsystems: self.names(&format!("{}/subsystems", port(number)))? });
            }
        }
        Ok(ports)
    }

    fn names(&self, directory: &str) -> Result<Vec<String>, Error> {
        let list = || -> io::Result<Vec<String>> {
            let entries = match fs::read_dir(self.root.join(directory)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            let mut names = names.collect::<io::Result<Vec<_>>>()?;
            names.sort();
            Ok(names)
        };
        list().map_err(|error| system(format!("list {directory} of the NVMe target"), error))
    }

    fn read(&self, path: &str) -> Result<String, Error> {
        let text = fs::read_to_string(self.root.join(path));
        text.map(|text| text.trim_end().to_owned())
            .map_err(|error| system(format!("read {path} of the NVMe target"), error))
    }

    pub(super) fn apply(&self, steps: &[Step]) -> Result<(), Error> {
        for step in steps {
            let at = |path: &String| self.root.join(path);
            let done = match step {
                Step::Make(path) => fs::create_dir_all(at(path)),
                Step::Write(path, text) => fs::write(at(path), text),
                Step::Link(to, path) => std::os::unix::fs::symlink(at(to), at(path)),
                Step::Unlink(path) => fs::remove_file(at(path)),
                Step::Remove(path) => fs::remove_dir(at(path)),
                Step::RemoveIfUnused(path) => match fs::remove_dir(at(path)) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
                    done => done,
                },
            };
            done.map_err(|error| match error.kind() {
                // The target opens files for writing, which a read-only subvolume refuses.
                io::ErrorKind::ReadOnlyFilesystem => Error::ReadOnly(format!("{step:?}")),
                _ => system(format!("set up the NVMe target ({step:?})"), error),
            })?;
        }
        Ok(())
    }
}

/// A TCP port of the target and the NQNs it offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) number: u16,
    pub(super) subsystems: Vec<String>,
}

impl Port {
    fn offers(&self, nqn: &str) -> bool {
        self.subsystems.iter().any(|offered| offered == nqn)
    }
}

fn subsystem(nqn: &str) -> String {
    format!("subsystems/{nqn}")
}

fn namespace(nqn: &str) -> String {
    format!("subsystems/{nqn}/namespaces/1")
}

fn port(number: u16) -> String {
    format!("ports/{number}")
}

fn write(path: String, text: impl Into<String>) -> Step {
    Step::Write(path, text.into())
}

/// Makes the subsystem, and last of all puts it on its port.
pub(super) fn export_steps(export: &Export, file: &Path, address: IpAddr, has_port: bool) -> Vec<Step> {
    let (nqn, on_port) = (&export.nqn, port(export.port));
    // An initiator takes a namespace that comes back with other identifiers for another disk and gives up
    // on the old one. So an export that is switched off and on must come back as the same.
    let identity = Uuid::new_v5(&Uuid::NAMESPACE_URL, nqn.as_bytes());
    let serial = identity.simple().to_string()[..20].to_owned();
    let mut steps =
        vec![Step::Make(subsystem(nqn)), write(format!("{}/attr_serial", subsystem(nqn)), serial)];
    steps.extend(host_steps(nqn, &[], &export.hosts));
    steps.extend([
        Step::Make(namespace(nqn)),
        write(format!("{}/device_path", namespace(nqn)), file.to_string_lossy()),
        write(format!("{}/device_uuid", namespace(nqn)), identity.hyphenated().to_string()),
        write(format!("{}/enable", namespace(nqn)), "1"),
    ]);
    if !has_port {
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        steps.extend([
            Step::Make(on_port.clone()),
            write(format!("{on_port}/addr_trtype"), "tcp"),
            write(format!("{on_port}/addr_adrfam"), family),
            write(format!("{on_port}/addr_traddr"), address.to_string()),
            write(format!("{on_port}/addr_trsvcid"), export.port.to_string()),
        ]);
    }
    steps.push(Step::Link(subsystem(nqn), format!("{on_port}/subsystems/{nqn}")));
    steps
}

/// Takes the subsystem off its ports, which cuts its hosts, and removes it and what only it used.
pub(super) fn unexport_steps(nqn: &str, ports: &[Port], hosts: &[String], has_namespace: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    for Port { number, subsystems } in ports {
        steps.push(Step::Unlink(format!("{}/subsystems/{nqn}", port(*number))));
        if subsystems.len() == 1 {
            steps.push(Step::Remove(port(*number)));
        }
    }
    if has_namespace {
        steps.push(write(format!("{}/enable", namespace(nqn)), "0"));
        steps.push(Step::Remove(namespace(nqn)));
    }
    for host in hosts {
        steps.push(Step::Unlink(format!("{}/allowed_hosts/{host}", subsystem(nqn))));
        steps.push(Step::RemoveIfUnused(format!("hosts/{host}")));
    }
    steps.push(Step::Remove(subsystem(nqn)));
    steps
}

/// Changes who may connect; no step touches a connection.
pub(super) fn host_steps(nqn: &str, present: &[String], wanted: &Hosts) -> Vec<Step> {
    let any_host = format!("{}/attr_allow_any_host", subsystem(nqn));
    let link = |host: &String| format!("{}/allowed_hosts/{host}", subsystem(nqn));
    let admit = |host: &String| {
        [Step::Make(format!("hosts/{host}")), Step::Link(format!("hosts/{host}"), link(host))]
    };
    let dismiss = |host: &String| [Step::Unlink(link(host)), Step::RemoveIfUnused(format!("hosts/{host}"))];
    match wanted {
        Hosts::Any => {
            let mut steps: Vec<Step> = present.iter().flat_map(dismiss).collect();
            steps.push(write(any_host, "1"));
            steps
        }
        Hosts::Only(wanted) => {
            let mut steps = vec![write(any_host, "0")];
            steps.extend(wanted.iter().filter(|host| !present.contains(host)).flat_map(admit));
            steps.extend(present.iter().filter(|host| !wanted.contains(host)).flat_map(dismiss));
            steps
        }
    }
}
