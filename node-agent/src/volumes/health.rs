//! Whether a volume is well: a judgement on what was seen, without looking itself.

use rds_csi_api::VolumeId;

use crate::host::{Attachment, DeviceNumber, Mount};

/// What is known of a volume on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Which volume.
    pub volume: VolumeId,
    /// What the kernel knows of its subsystem.
    pub attachment: Attachment,
    /// By what it is used.
    pub used: Used,
}

/// By what a volume is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Used {
    /// By nobody: nothing of it is mounted or published. Whatever its connection is, nobody suffers.
    Nothing,
    /// By its device, through the node with this number if there is one.
    Block(Option<DeviceNumber>),
    /// By its filesystem.
    Filesystem {
        /// The mount that is closest to the device: the staged one, if it is there.
        mount: Mount,
        /// How many errors the filesystem has written down since it was last checked.
        errors: u64,
    },
}

/// Whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing is known against it.
    Sound,
    /// Something is, and what can be done.
    Abnormal(String),
}

/// What can be wrong, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ailment {
    /// The kernel has given the connection up, and input and output fail.
    GivenUp,
    /// What is mounted or made is of a device that is gone for good.
    Stale,
    /// The array does not answer, and input and output wait.
    Unanswered,
    /// There is a connection, and no device.
    NoDevice,
    /// The device is mounted so often that nothing more is done to it.
    Storm,
    /// The filesystem takes no more writes.
    ReadOnly,
    /// The filesystem has written down errors.
    Errors,
}

/// Something that is wrong with a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What.
    pub ailment: Ailment,
    /// What, and what can be done, for people.
    pub told: String,
}

/// Whether it is well, by its worst trouble.
pub fn judge(facts: &Facts) -> Condition {
    diagnose(facts).map_or(Condition::Sound, |trouble| Condition::Abnormal(trouble.told))
}

/// What is worst comes first: without a connection nothing else matters.
pub fn diagnose(facts: &Facts) -> Option<Trouble> {
    let trouble = |ailment, told| Some(Trouble { ailment, told });
    let Facts { volume, attachment, used } = facts;
    let restage = "delete the pods that use it, so that it is staged again";
    let device = match attachment {
        _ if *used == Used::Nothing => return None,
        Attachment::Absent | Attachment::Lost => {
            let told = format!(
                "the kernel has given up the connection of volume {volume}, and its input and output fail: {restage}"
            );
            return trouble(Ailment::GivenUp, told);
        }
        Attachment::Connecting(_) => {
            let told = format!(
                "the array does not answer, and the kernel keeps trying: input and output of volume {volume} wait; \
                 check the storage network between this node and the array"
            );
            return trouble(Ailment::Unanswered, told);
        }
        Attachment::Live(None) => {
            let told =
                format!("volume {volume} is connected, and has no device: look at its disk on the array");
            return trouble(Ailment::NoDevice, told);
        }
        Attachment::Live(Some(device)) => device,
    };
    let (number, how) = match used {
        Used::Nothing | Used::Block(None) => return None,
        Used::Block(Some(number)) => (*number, "device node"),
        Used::Filesystem { mount, .. } => (mount.device, "mount"),
    };
    if number != device.number {
        let told = format!(
            "the {how} of volume {volume} is of a device that is gone, {number}; it is {device} ({}) now: {restage}",
            device.number
        );
        return trouble(Ailment::Stale, told);
    }
    match used {
        // Mounted for writing, and the filesystem does not let anybody: nobody but the kernel does that.
        Used::Filesystem { mount, errors }
            if mount.stopped_writing() || (*errors > 0 && mount.stops_at_errors()) =>
        {
            let told = format!(
                "the filesystem of volume {volume} became read-only after an error: see the node's kernel log, and \
                 {restage} and its filesystem is checked"
            );
            trouble(Ailment::ReadOnly, told)
        }
        Used::Filesystem { errors, .. } if *errors > 0 => trouble(
            Ailment::Errors,
            format!(
                "the filesystem of volume {volume} has recorded {errors} errors on {device}: see the node's kernel log, \
                 and check it when nothing uses the volume"
            ),
        ),
        Used::Nothing | Used::Block(_) | Used::Filesystem { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Device;
    use rds_csi_api::Bytes;

    fn device(minor: u32) -> Device {
        Device {
            name: format!("nvme{minor}n1"),
            number: DeviceNumber { major: 259, minor },
            size: Bytes::gib(1),
            nqn: "nqn.2000-02.com.mikrotik:pvc-a".parse().unwrap(),
        }
    }

    fn mounted(minor: u32, options: &str, super_options: &str, errors: u64) -> Used {
        let words = |text: &str| text.split(',').map(Into::into).collect();
        let mount = Mount {
            device: device(minor).number,
            root: "/".into(),
            at: "/staging".into(),
            options: words(options),
            filesystem: "ext4".into(),
            source: "/dev/x".into(),
            super_options: words(super_options),
        };
        Used::Filesystem { mount, errors }
    }

    #[test]
    fn every_state_has_its_judgement() {
        let live = || Attachment::Live(Some(device(1)));
        for (attachment, used, told) in [
            (live(), Used::Block(None), None),
            (live(), Used::Block(Some(device(1).number)), None),
            (live(), mounted(1, "rw,noatime", "rw", 0), None),
            (live(), mounted(1, "ro", "ro", 0), None),
            (live(), mounted(1, "ro", "rw", 0), None),
            (
                live(),
                Used::Block(Some(device(2).number)),
                Some("device node of volume pvc-a is of a device that is gone, 259:2"),
            ),
            (live(), mounted(2, "rw", "rw", 0), Some("it is /dev/nvme1n1 (259:1) now")),
            (live(), mounted(1, "rw,noatime", "ro", 3), Some("became read-only after an error")),
            (live(), mounted(1, "rw", "rw,emergency_ro", 0), Some("became read-only after an error")),
            (live(), mounted(1, "rw", "rw,errors=remount-ro", 0), None),
            (live(), mounted(1, "rw", "rw,errors=remount-ro", 1), Some("became read-only after an error")),
            (live(), mounted(1, "rw", "rw", 3), Some("recorded 3 errors on /dev/nvme1n1")),
            (Attachment::Live(None), Used::Block(None), Some("has no device")),
            (
                Attachment::Connecting(Some(device(1))),
                mounted(1, "rw", "ro", 3),
                Some("the kernel keeps trying"),
            ),
            (Attachment::Lost, mounted(1, "rw", "rw", 0), Some("given up the connection")),
            (Attachment::Absent, Used::Block(None), Some("given up the connection")),
            (Attachment::Absent, Used::Nothing, None),
            (Attachment::Connecting(None), Used::Nothing, None),
        ] {
            let facts = Facts { volume: "pvc-a".parse().unwrap(), attachment, used };
            match (judge(&facts), told) {
                (Condition::Sound, None) => {}
                (Condition::Abnormal(message), Some(told)) => assert!(message.contains(told), "{message}"),
                (found, told) => panic!("{told:?}: {found:?}"),
            }
        }
    }
}
