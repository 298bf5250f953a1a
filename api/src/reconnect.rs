//! How long, and how, a node's kernel holds on to a connection that broke.

use std::time::Duration;

use crate::text::Malformed;

/// When the kernel gives a broken controller up (`ctrl_loss_tmo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CtrlLoss {
    /// Never: input and output wait for the array, however long it is away.
    Never,
    /// After that time: they fail, and a filesystem on the volume is lost to its pods until it is staged again.
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
}

impl ReconnectPolicy {
    /// Waits for ever, since a filesystem does not survive failing input and output; 2 s between attempts, and 5 s of silence,
    /// the kernel's own default, before the first.
    pub const STANDARD: Self = Self {
        ctrl_loss: CtrlLoss::Never,
        reconnect_delay: Duration::from_secs(2),
        keep_alive: Duration::from_secs(5),
    };

    /// Reads the three StorageClass parameters; what is not given is as in [`Self::STANDARD`].
    pub fn parse(
        ctrl_loss: Option<&str>,
        reconnect_delay: Option<&str>,
        keep_alive: Option<&str>,
    ) -> Result<Self, Malformed> {
        let standard = Self::STANDARD;
        let ctrl_loss = match ctrl_loss {
            None => standard.ctrl_loss,
            Some("-1") => CtrlLoss::Never,
            Some(text) => {
                CtrlLoss::After(seconds("ctrlLossTmo", text, 0, "give -1 (never) or 0 to 86400 seconds")?)
            }
        };
        let or = |text: Option<&str>, what, rule, standard| match text {
            None => Ok(standard),
            Some(text) => seconds(what, text, 1, rule),
        };
        Ok(Self {
            ctrl_loss,
            reconnect_delay: or(
                reconnect_delay,
                "reconnectDelay",
                "give 1 to 86400 seconds",
                standard.reconnect_delay,
            )?,
            keep_alive: or(keep_alive, "keepAliveTmo", "give 1 to 86400 seconds", standard.keep_alive)?,
        })
    }

    /// `ctrl_loss_tmo` as the kernel and the contexts write it: -1 or seconds.
    pub fn ctrl_loss_text(&self) -> String {
        match self.ctrl_loss {
            CtrlLoss::Never => "-1".into(),
            CtrlLoss::After(time) => time.as_secs().to_string(),
        }
    }
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

    #[test]
    fn nothing_given_waits_for_ever() {
        assert_eq!(ReconnectPolicy::parse(None, None, None), Ok(ReconnectPolicy::STANDARD));
    }

    #[test]
    fn what_is_given_is_taken() {
        let policy = ReconnectPolicy::parse(Some("600"), Some("5"), Some("30")).unwrap();
        assert_eq!(policy.ctrl_loss, CtrlLoss::After(Duration::from_mins(10)));
        assert_eq!((policy.reconnect_delay.as_secs(), policy.keep_alive.as_secs()), (5, 30));
        assert_eq!(policy.ctrl_loss_text(), "600");
    }

    #[test]
    fn a_bad_value_is_named_with_its_parameter_and_the_way_out() {
        for (ctrl_loss, delay, keep_alive, name) in [
            (Some("-2"), None, None, "ctrlLossTmo"),
            (Some("1m"), None, None, "ctrlLossTmo"),
            (None, Some("0"), None, "reconnectDelay"),
            (None, None, Some("86401"), "keepAliveTmo"),
        ] {
            let error = ReconnectPolicy::parse(ctrl_loss, delay, keep_alive).unwrap_err().to_string();
            assert!(error.starts_with(name) && error.contains("give"), "{error}");
        }
    }
}
