//! Which pod something belongs to, from names that kubelet gives: a container's control group, and a volume's directory.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;

/// A pod's uid, as in its metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodUid(String);

impl PodUid {
    /// A UUID; a static pod's uid is a digest and has no dashes. systemd's slices have underscores for dashes.
    fn parse(text: &str) -> Option<Self> {
        let uid = text.replace('_', "-");
        let digits = uid.bytes().filter(u8::is_ascii_hexdigit).count();
        let dashes = uid.bytes().filter(|byte| *byte == b'-').count();
        let formed = digits == 32 && (dashes == 0 || dashes == 4) && digits + dashes == uid.len();
        formed.then_some(Self(uid))
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The pod that a process runs in; none of a process that is in no pod, or over.
pub(super) fn of_process(process: &Path) -> Option<PodUid> {
    let groups = fs::read_to_string(process.join("cgroup")).ok()?;
    groups.lines().find_map(of_group)
}

/// `0::/kubepods/burstable/podUID/CONTAINER` where kubelet makes the groups itself, and
/// `0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice/CONTAINER.scope` where systemd does.
fn of_group(line: &str) -> Option<PodUid> {
    let uid = |name: &str| {
        let name = name.strip_suffix(".slice").unwrap_or(name);
        PodUid::parse(name.rsplit_once("pod")?.1)
    };
    line.split('/').find_map(uid)
}

/// `/var/lib/kubelet/pods/UID/volumes/…`, wherever the kubelet directory is.
pub(super) fn of_path(path: &Path) -> Option<PodUid> {
    let mut names = path.iter().skip_while(|name| *name != OsStr::new("pods")).skip(1);
    PodUid::parse(names.next()?.to_str()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f1c9d3a-52d1-4a51-9f9e-0c7c8a1e6b11";

    #[test]
    fn a_pod_is_told_by_the_control_group_of_its_processes() {
        let underscored = UID.replace('-', "_");
        for group in [
            format!("0::/kubepods/burstable/pod{UID}/3f2a"),
            format!("0::/kubepods/pod{UID}/3f2a"),
            format!("0::/../../pod{UID}/3f2a"),
            format!("11:memory:/kubepods/besteffort/pod{UID}/3f2a"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{underscored}.slice/cri-containerd-3f2a.scope"
            ),
        ] {
            assert_eq!(of_group(&group), Some(PodUid(UID.into())), "{group}");
        }
        let of_static = "8ab3bd65ff1c0ab2ec16afe8a51a0b4d";
        assert_eq!(of_group(&format!("0::/kubepods/pod{of_static}/3f2a")), Some(PodUid(of_static.into())));
    }

    #[test]
    fn what_is_in_no_pod_is_told_to_be_in_none() {
        for group in
            ["0::/", "0::/system.slice/kubelet.service", "0::/kubepods.slice", "0::/podman-1.scope/pod", ""]
        {
            assert_eq!(of_group(group), None, "{group}");
        }
        assert_eq!(of_process(Path::new("/nonexistent")), None);
    }

    #[test]
    fn a_pod_is_told_by_its_directory() {
        let path = format!("/srv/kubelet/pods/{UID}/volumes/kubernetes.io~csi/pvc-a/mount");
        assert_eq!(of_path(Path::new(&path)), Some(PodUid(UID.into())));
        for path in ["/var/lib/kubelet/pods", "/var/lib/kubelet/pods/x/volumes", "/dev/nvme1n1"] {
            assert_eq!(of_path(Path::new(path)), None, "{path}");
        }
    }
}
