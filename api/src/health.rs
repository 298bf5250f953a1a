//! The health calls of CSI 1.13, which are alpha there.

use std::str::FromStr;

use crate::text::Malformed;

/// Whether the health calls of CSI 1.13 are served: sidecars of 1.12 refuse what they do not know, so only if somebody asks
/// for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HealthCalls {
    /// They are neither advertised nor answered.
    #[default]
    Off,
    /// They are.
    On,
}

impl FromStr for HealthCalls {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text {
            "1.13" => Ok(Self::On),
            _ => Err(Malformed::new("CSI release", text, "give 1.13, or leave it away")),
        }
    }
}
