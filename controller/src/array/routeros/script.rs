//! The only place that writes RouterOS script: one call per operation, which observes, does what is left to do, and proves
//! what it did.
//!
//! Values get in as numbers or through [`quote`], and in no other way. How several calls become one line, and what tells
//! their reports from everything else, is the session's business.

use std::borrow::Cow;
use std::fmt;

use rds_csi_api::{Bytes, Nqn, VolumeId};

use super::session::Call;
use crate::array::{ClusterId, Export, Label, Pool};

/// How much of an answer is read. One disk in JSON takes about 2 kB.
const LONGEST_ANSWER: usize = 64 << 10;

/// What our own lines say when they stop themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Missing,
    /// The slot's disk is no file, or lies elsewhere, or has another NQN.
    NotAVolume,
    /// Its comment names another cluster.
    OtherCluster,
    /// The subvolume holds more than a volume does.
    OtherFiles,
    /// There is an image file and no disk.
    Leftover,
    /// Hosts are let in that nobody spoke of.
    Strangers,
    /// Every host is let in.
    Open,
}

impl Mark {
    pub(super) const ALL: [Self; 7] = [
        Self::Missing,
        Self::NotAVolume,
        Self::OtherCluster,
        Self::OtherFiles,
        Self::Leftover,
        Self::Strangers,
        Self::Open,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "rds-csi: missing",
            Self::NotAVolume => "rds-csi: not a volume",
            Self::OtherCluster => "rds-csi: other cluster",
            Self::OtherFiles => "rds-csi: other files",
            Self::Leftover => "rds-csi: leftover file",
            Self::Strangers => "rds-csi: other hosts",
            Self::Open => "rds-csi: every host",
        }
    }

    /// The statement that stops the line with this mark.
    fn stop(self) -> String {
        format!(":error {}", quote(self.as_str()))
    }
}

/// Shows the disk as JSON, an empty list if there is none.
pub(super) const SHOW: &str = ":put [:serialize to=json [/disk print detail as-value where slot=$volume]]";

/// One volume's place on an array: everything that its lines need to name.
pub(super) struct Place<'a> {
    pub(super) pool: &'a Pool,
    pub(super) cluster: &'a ClusterId,
    pub(super) id: &'a VolumeId,
    pub(super) nqn: &'a Nqn,
}

impl Place<'_> {
    /// The image as `/disk` names it: with a slash before it.
    pub(super) fn image(&self) -> String {
        format!("/{}", self.image_file())
    }

    /// The image as `/file` names it: without one.
    pub(super) fn image_file(&self) -> String {
        format!("{}/{}/disk.img", self.pool, self.id)
    }

    pub(super) fn owner(&self) -> String {
        format!("rds-csi:{}", self.cluster)
    }

    /// Makes subvolume and disk unless the disk is there, then shows it.
    ///
    /// A failed `/disk add` takes back only a subvolume that this very line made. A file without a disk stops the line
    /// before its first effect.
    pub(super) fn create(&self, size: Bytes, port: u16, export: &Export, label: &Label) -> String {
        let fs = quote(self.pool.as_str());
        let file = quote(self.image_file());
        let add = format!(
            "/disk add type=file file-path={path} file-size={size} slot=$volume mount-filesystem=no \
             nvme-tcp-server-port={port} nvme-tcp-server-nqn={nqn} nvme-tcp-server-allow-host-name={hosts} \
             nvme-tcp-export={export} comment={comment}",
            path = quote(self.image()),
            size = size.get(),
            nqn = quote(self.nqn.as_str()),
            hosts = quote(host_list(export)),
            export = yes_or_no(export),
            comment = quote(format!("{}{label}", self.owner())),
        );
        let subvolume = format!("/disk/btrfs/subvolume find fs={fs} name=$volume");
        format!(
            ":if ([:len [/disk find slot=$volume]]=0) do={{\
             :if ([:len [/file find name={file}]]>0) do={{{leftover}}}; \
             :local before [:len [{subvolume}]]; \
             :if ($before=0) do={{/disk/btrfs/subvolume add fs={fs} name=$volume}}; \
             :onerror why in={{{add}}} \
             do={{:if ($before=0) do={{/disk/btrfs/subvolume remove [{subvolume}]}}; :error $why}}\
             }}; {SHOW}",
            leftover = Mark::Leftover.stop(),
        )
    }

    /// Lets hosts in, unless others than they are let in already.
    pub(super) fn admit(&self, export: &Export) -> String {
        let (ours, strangers) = (self.ours_or_stop(), strangers_or_go_on(export));
        let open = match export {
            Export::AnyHost => String::new(),
            Export::Off | Export::Hosts(_) => {
                format!(":if ([:len [{EXPORTED}]]>[:len $named]) do={{{}}}; ", Mark::Open.stop())
            }
        };
        format!("{ours}; {strangers}; {open}{}; {SHOW}", set(export))
    }

    /// Sets who may connect, unless others than those of `before` are let in.
    pub(super) fn dismiss(&self, before: &Export, after: &Export) -> String {
        format!("{}; {}; {}; {SHOW}", self.ours_or_stop(), strangers_or_go_on(before), set(after))
    }

    /// As [`Self::dismiss`], with the export off meanwhile, since a list alone cuts no connection.
    pub(super) fn fence(&self, before: &Export, after: &Export) -> String {
        let (ours, strangers) = (self.ours_or_stop(), strangers_or_go_on(before));
        format!("{ours}; {strangers}; {}; {}; {SHOW}", set_switch("no"), set(after))
    }

    /// Removes disk and subvolume, as far as they are there and ours, and unless hosts are let in by name.
    ///
    /// A flat image of the Go driver, `/<pool>/…/<id>.img`, is removed as a file, since its disk leaves it behind. A
    /// subvolume goes only if there is nothing but our image in it, which is looked at before the first effect.
    pub(super) fn delete(&self) -> String {
        let (pool, id) = (literally(self.pool.as_str()), literally(self.id.as_str()));
        let fs = quote(self.pool.as_str());
        let image = quote(self.image());
        let flat = quote(format!("^/{pool}/(.+/)?{id}[.]img$"));
        let files = format!(
            "[:len [/file find name~{}]]>[:len [/file find name={}]]",
            quote(format!("^{pool}/{id}/")),
            quote(self.image_file()),
        );
        let disks = format!("[:len [/disk find file-path~{}]]>0", quote(format!("^/{pool}/{id}/")));
        format!(
            ":if ({files}) do={{{other_files}}}; \
             :if ([:len [/disk find slot=$volume]]>0) do={{{ours}; {strangers}; \
             :local path [/disk get $ours file-path]; :local image {image}; \
             :if ($path!=$image && !($path~{flat})) do={{{not_a_volume}}}; \
             /disk remove $ours; \
             :if ($path!=$image) do={{/file remove [/file find name=[:pick $path 1 [:len $path]]]}}}}; \
             :local subvolume [/disk/btrfs/subvolume find fs={fs} name=$volume]; \
             :if ([:len $subvolume]>0) do={{\
             :if ({disks}) do={{{other_files}}}; \
             /disk/btrfs/subvolume remove $subvolume}}",
            ours = self.ours_or_stop(),
            strangers = strangers_or_go_on(&Export::Off),
            not_a_volume = Mark::NotAVolume.stop(),
            other_files = Mark::OtherFiles.stop(),
        )
    }

    /// The call that runs these statements with the id in `$volume`.
    pub(super) fn call(&self, name: &'static str, statements: String) -> Call {
        Call {
            name,
            body: statements.into(),
            arguments: format!("volume={}", quote(self.id.as_str())),
            answer_limit: LONGEST_ANSWER,
            about: self.id.to_string(),
        }
    }

    /// Leaves the disk in `$ours`, or stops. A disk without a comment counts as ours: the Go driver wrote none.
    fn ours_or_stop(&self) -> String {
        let nqn = quote(self.nqn.as_str());
        let below = quote(format!("^/{}/", literally(self.pool.as_str())));
        let owned = quote("^rds-csi:");
        let by_us = quote(format!("^{}( |$)", literally(&self.owner())));
        format!(
            ":if ([:len [/disk find slot=$volume]]=0) do={{{missing}}}; \
             :local ours [/disk find slot=$volume type=\"file\" nvme-tcp-server-nqn={nqn} file-path~{below}]; \
             :if ([:len $ours]=0) do={{{not_a_volume}}}; \
             :if ([:len [/disk find slot=$volume comment~{owned}]]>[:len [/disk find slot=$volume comment~{by_us}]]) \
             do={{{other_cluster}}}",
            missing = Mark::Missing.stop(),
            not_a_volume = Mark::NotAVolume.stop(),
            other_cluster = Mark::OtherCluster.stop(),
        )
    }
}

/// The property that names the hosts that may connect; empty, all may.
const LIST: &str = "nvme-tcp-server-allow-host-name";

/// Finds the disk if it is exported.
const EXPORTED: &str = "/disk find slot=$volume nvme-tcp-export=yes";

/// Stops if the array lets a host in by name that is none of these. Leaves the disk in `$named` if it lets in any by name.
fn strangers_or_go_on(export: &Export) -> String {
    let known = match export {
        Export::Hosts(hosts) if !hosts.is_empty() => {
            let hosts: Vec<_> = hosts.iter().map(|host| literally(host.as_str())).collect();
            let known = format!("^(({})(, *|$))*$", hosts.join("|"));
            format!("[:len [{EXPORTED} {LIST}~{}]]", quote(known))
        }
        Export::Hosts(_) | Export::Off => "0".into(),
        // Without a fence nobody is kept from anything.
        Export::AnyHost => "[:len $named]".into(),
    };
    let (any, stop) = (quote("."), Mark::Strangers.stop());
    format!(":local named [{EXPORTED} {LIST}~{any}]; :if ([:len $named]>{known}) do={{{stop}}}")
}

/// Sets hosts and switch, where they differ: setting a property to what it is may tear the export down on the device.
/// The list is set while the export is off, or narrows it before it goes on, so that an empty one lets nobody in.
fn set(export: &Export) -> String {
    let hosts = format!(
        ":local hosts {}; :if ([:len [/disk find slot=$volume nvme-tcp-server-allow-host-name=$hosts]]=0) \
         do={{/disk set $ours nvme-tcp-server-allow-host-name=$hosts}}",
        quote(host_list(export))
    );
    let switch = set_switch(yes_or_no(export));
    if is_off(export) { format!("{switch}; {hosts}") } else { format!("{hosts}; {switch}") }
}

fn set_switch(to: &'static str) -> String {
    format!(
        ":if ([:len [/disk find slot=$volume nvme-tcp-export={to}]]=0) do={{/disk set $ours nvme-tcp-export={to}}}"
    )
}

fn is_off(export: &Export) -> bool {
    match export {
        Export::Off => true,
        Export::AnyHost => false,
        // An empty list would let everybody in.
        Export::Hosts(hosts) => hosts.is_empty(),
    }
}

fn yes_or_no(export: &Export) -> &'static str {
    if is_off(export) { "no" } else { "yes" }
}

fn host_list(export: &Export) -> String {
    match export {
        Export::Off | Export::AnyHost => String::new(),
        Export::Hosts(hosts) => hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    }
}

/// A text as a RouterOS string: whatever it holds, it is one value and nothing else.
fn quote<'a>(text: impl Into<Cow<'a, str>>) -> Quoted<'a> {
    Quoted(text.into())
}

/// A text that is written as a RouterOS string.
struct Quoted<'a>(Cow<'a, str>);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for byte in self.0.bytes() {
            match byte {
                b'"' | b'\\' | b'$' | b'?' => write!(f, "\\{}", char::from(byte))?,
                b' '..=b'~' => write!(f, "{}", char::from(byte))?,
                _ => write!(f, "\\{byte:02X}")?,
            }
        }
        f.write_str("\"")
    }
}

/// A text as a regular expression (POSIX extended) that matches it and nothing else.
fn literally(text: &str) -> String {
    let mut expression = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_ascii_alphanumeric() && !matches!(c, '/' | ':' | '_' | '-') {
            expression.push('\\');
        }
        expression.push(c);
    }
    expression
}

#[cfg(test)]
mod tests;
