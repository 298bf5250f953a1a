//! How long, and how, a node's kernel holds on to a connection that broke.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::text::Malformed;

const CTRL_LOSS: &str = "ctrlLossTmo";
const RECONNECT_DELAY: &str = "reconnectDelay";
const KEEP_ALIVE: &str = "keepAliveTmo";
const FAST_IO_FAIL: &str = "fastIoFailTmo";

/// When the kernel gives a broken controller up (`ctrl_loss_tmo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtrlLoss {
    /// Never: input and output wait for the array, however long it is away.
    Never,
    /// After that time: they fail, and a filesystem on the volume is lost to its pods until it is staged again.
    After(Duration),
}

/// When input and output begin to fail while the kernel still tries to reconnect (`fast_io_fail_tmo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FastIoFail {
    /// They wait for as long as the kernel tries.
    Off,
    /// After that time. For raw blocks of virtual machines: ext4 goes read-only by it, and XFS shuts down.
    After(Duration),
}

/// The NVMe/TCP reconnect policy of a volume, given by its StorageClass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReconnectPolicy {
    /// `ctrlLossTmo`: -1 for never, or seconds.
    pub ctrl_loss: CtrlLoss,
    /// `reconnectDelay`: the pause between two attempts, in whole seconds.
    pub reconnect_delay: Duration,
    /// `keepAliveTmo`: how long an array may be silent before the connection counts as broken, in whole seconds.
    pub keep_alive: Duration,
    /// `fastIoFailTmo`: off, or seconds.
    pub fast_io_fail: FastIoFail,
}

impl ReconnectPolicy {
    /// Waits for ever, since a filesystem does not survive failing input and output; 2 s between attempts, and 5 s of silence,
    /// the kernel's own default, before the first.
    pub const STANDARD: Self = Self {
        ctrl_loss: CtrlLoss::Never,
        reconnect_delay: Duration::from_secs(2),
        keep_alive: Duration::from_secs(5),
        fast_io_fail: FastIoFail::Off,
    };

    /// Its keys in StorageClasses and in both contexts.
    pub const KEYS: [&'static str; 4] = [CTRL_LOSS, RECONNECT_DELAY, KEEP_ALIVE, FAST_IO_FAIL];

    /// Those that may change while the volume is in use: the kernel cannot be told another `keep_alive_tmo` later.
    pub const MUTABLE: [&'static str; 3] = [CTRL_LOSS, RECONNECT_DELAY, FAST_IO_FAIL];

    /// Asks for the value of each of [`Self::KEYS`]; what is not given is as in [`Self::STANDARD`].
    pub fn parse<'a>(mut given: impl FnMut(&'static str) -> Option<&'a str>) -> Result<Self, Malformed> {
        let mut policy = Self::STANDARD;
        for key in Self::KEYS {
            if let Some(text) = given(key) {
                policy.set(key, text)?;
            }
        }
        policy.checked()
    }

    /// This policy with the changes that somebody asks for, by [`Self::MUTABLE`] and no other key.
    pub fn modified(self, changes: &HashMap<String, String>) -> Result<Self, NotMutable> {
        let mut policy = self;
        // In order, so that the first to be refused is always the same.
        for (key, text) in changes.iter().collect::<BTreeMap<_, _>>() {
            let Some(known) = Self::MUTABLE.into_iter().find(|known| known == key) else {
                return Err(NotMutable::Unknown { key: key.chars().take(80).collect() });
            };
            policy.set(known, text)?;
        }
        Ok(policy.checked()?)
    }

    /// `ctrl_loss_tmo` as the kernel and the contexts write it: -1 or seconds.
    pub fn ctrl_loss_text(&self) -> String {
        match self.ctrl_loss {
            CtrlLoss::Never => "-1".into(),
            CtrlLoss::After(time) => time.as_secs().to_string(),
        }
    }

    /// `fast_io_fail_tmo` as the contexts write it: off or seconds.
    pub fn fast_io_fail_text(&self) -> String {
        match self.fast_io_fail {
            FastIoFail::Off => "off".into(),
            FastIoFail::After(time) => time.as_secs().to_string(),
        }
    }

    /// Its keys and values, as a map on the wire has them.
    pub fn to_pairs(self) -> [(&'static str, String); 4] {
        [
            (CTRL_LOSS, self.ctrl_loss_text()),
            (RECONNECT_DELAY, self.reconnect_delay.as_secs().to_string()),
            (KEEP_ALIVE, self.keep_alive.as_secs().to_string()),
            (FAST_IO_FAIL, self.fast_io_fail_text()),
        ]
    }

    fn set(&mut self, key: &'static str, text: &str) -> Result<(), Malformed> {
        match key {
            CTRL_LOSS if text == "-1" => self.ctrl_loss = CtrlLoss::Never,
            CTRL_LOSS => {
                let time = seconds(key, text, 0, "give -1 (never) or 0 to 86400 seconds")?;
                self.ctrl_loss = CtrlLoss::After(time);
            }
            RECONNECT_DELAY => self.reconnect_delay = seconds(key, text, 1, "give 1 to 86400 seconds")?,
            KEEP_ALIVE => self.keep_alive = seconds(key, text, 1, "give 1 to 86400 seconds")?,
            FAST_IO_FAIL if text == "off" => self.fast_io_fail = FastIoFail::Off,
            FAST_IO_FAIL => {
                let time = seconds(key, text, 0, "give off or 0 to 86400 seconds")?;
                self.fast_io_fail = FastIoFail::After(time);
            }
            _ => return Err(Malformed::new("key of a reconnect policy", key, "give one of its keys")),
        }
        Ok(())
    }

    /// Input and output that are to fail later than the controller is given up would never fail fast.
    fn checked(self) -> Result<Self, Malformed> {
        match (self.fast_io_fail, self.ctrl_loss) {
            (FastIoFail::After(fail), CtrlLoss::After(loss)) if fail > loss => {
                Err(Malformed::new(FAST_IO_FAIL, &self.fast_io_fail_text(), "give no more than ctrlLossTmo"))
            }
            _ => Ok(self),
        }
    }
}

/// The values of [`ReconnectPolicy::KEYS`] with commas between, such as `-1,2,5,off`: only digits, `-`, `,` and `off`.
impl fmt::Display for ReconnectPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_pairs().map(|(_, value)| value).join(","))
    }
}

impl FromStr for ReconnectPolicy {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let values: Vec<_> = text.split(',').collect();
        if values.len() != Self::KEYS.len() {
            return Err(Malformed::new("reconnect policy", text, "give four values such as -1,2,5,off"));
        }
        let mut values = values.into_iter();
        Self::parse(|_| values.next())
    }
}

/// Why a policy is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotMutable {
    /// It is no key of what can change.
    #[error("{key:?} cannot be changed: of a volume that exists only {} can", ReconnectPolicy::MUTABLE.join(", "))]
    Unknown {
        /// The key.
        key: String,
    },
    /// The value cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Whole seconds from `least` to a day.
fn seconds(what: &'static str, text: &str, least: u64, rule: &'static str) -> Result<Duration, Malformed> {
    text.parse::<u64>()
        .ok()
        .filter(|seconds| (least..=86_400).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| Malformed::new(what, text, rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &'static str)]) -> Result<ReconnectPolicy, Malformed> {
        ReconnectPolicy::parse(|key| pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| *value))
    }

    fn modified(pairs: &[(&str, &str)]) -> Result<ReconnectPolicy, NotMutable> {
        let changes = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        parse(&[("ctrlLossTmo", "600"), ("keepAliveTmo", "30")]).unwrap().modified(&changes)
    }

    #[test]
    fn nothing_given_waits_for_ever() {
        assert_eq!(parse(&[]), Ok(ReconnectPolicy::STANDARD));
    }

    #[test]
    fn what_is_given_is_taken() {
        let policy = parse(&[
            ("ctrlLossTmo", "600"),
            ("reconnectDelay", "5"),
            ("keepAliveTmo", "30"),
            ("fastIoFailTmo", "20"),
        ])
        .unwrap();
        assert_eq!(policy.ctrl_loss, CtrlLoss::After(Duration::from_mins(10)));
        assert_eq!((policy.reconnect_delay.as_secs(), policy.keep_alive.as_secs()), (5, 30));
        assert_eq!(policy.fast_io_fail, FastIoFail::After(Duration::from_secs(20)));
        assert_eq!(policy.to_string(), "600,5,30,20");
    }

    #[test]
    fn a_bad_value_is_named_with_its_parameter_and_the_way_out() {
        for (key, value) in [
            ("ctrlLossTmo", "-2"),
            ("ctrlLossTmo", "1m"),
            ("reconnectDelay", "0"),
            ("keepAliveTmo", "86401"),
            ("fastIoFailTmo", "-1"),
            ("fastIoFailTmo", ""),
        ] {
            let error = parse(&[(key, value)]).unwrap_err().to_string();
            assert!(error.starts_with(key) && error.contains("give"), "{error}");
        }
    }

    #[test]
    fn failing_fast_later_than_giving_up_is_a_mistake() {
        let error = parse(&[("ctrlLossTmo", "10"), ("fastIoFailTmo", "11")]).unwrap_err().to_string();
        assert!(error.contains("fastIoFailTmo") && error.contains("no more than ctrlLossTmo"), "{error}");
        parse(&[("ctrlLossTmo", "10"), ("fastIoFailTmo", "10")]).unwrap();
        parse(&[("fastIoFailTmo", "86400")]).unwrap();
    }

    #[test]
    fn the_compact_form_is_read_as_it_was_written() {
        for text in ["-1,2,5,off", "0,1,86400,0", "600,5,30,20"] {
            assert_eq!(text.parse::<ReconnectPolicy>().unwrap().to_string(), text);
        }
        assert_eq!(ReconnectPolicy::STANDARD.to_string(), "-1,2,5,off");
        for text in ["", "-1,2,5", "-1,2,5,off,", "off,2,5,off", "-1, 2,5,off", "1,2,5,7"] {
            assert!(text.parse::<ReconnectPolicy>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_may_change_changes_and_the_rest_stays() {
        assert_eq!(modified(&[]).unwrap().to_string(), "600,2,30,off");
        let changed = modified(&[("fastIoFailTmo", "20"), ("ctrlLossTmo", "-1")]).unwrap();
        assert_eq!(changed.to_string(), "-1,2,30,20");
    }

    #[test]
    fn what_may_not_change_is_named() {
        for (key, value, told) in [
            ("keepAliveTmo", "5", "\"keepAliveTmo\" cannot be changed"),
            ("iops", "5", "only ctrlLossTmo, reconnectDelay, fastIoFailTmo can"),
            ("reconnectDelay", "soon", "reconnectDelay \"soon\""),
            ("fastIoFailTmo", "601", "no more than ctrlLossTmo"),
        ] {
            let error = modified(&[(key, value)]).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
