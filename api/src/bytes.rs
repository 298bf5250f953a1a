//! Sizes. Always bytes, never rounded.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(u64);

/// A negative number where a size belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a size of {0} bytes is negative: give 0 or more")]
pub struct Negative(i64);

impl Bytes {
    /// That many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// That many GiB.
    pub const fn gib(gib: u64) -> Self {
        Self(gib << 30)
    }

    /// That many MiB.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// As CSI's messages carry it. Sizes beyond 8 EiB do not exist on any array; such a one is cut off there.
    pub fn to_wire(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl TryFrom<i64> for Bytes {
    type Error = Negative;

    fn try_from(bytes: i64) -> Result<Self, Negative> {
        u64::try_from(bytes).map(Self).map_err(|_| Negative(bytes))
    }
}

/// The exact number first, since that is what was asked for and what is compared.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)?;
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.into_iter().find(|(shift, _)| self.0 >> shift > 0) {
            Some((shift, unit)) if self.0.is_multiple_of(1 << shift) => {
                write!(f, " ({} {unit})", self.0 >> shift)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_told_to_the_byte() {
        assert_eq!(Bytes::gib(1).to_string(), "1073741824 bytes (1 GiB)");
        assert_eq!(Bytes::new(1_649_267_441_664).to_string(), "1649267441664 bytes");
        assert_eq!(Bytes::new(1_073_741_825).to_string(), "1073741825 bytes");
        assert_eq!(Bytes::new(0).to_string(), "0 bytes");
    }

    #[test]
    fn a_negative_size_is_an_error() {
        assert_eq!(
            Bytes::try_from(-1).unwrap_err().to_string(),
            "a size of -1 bytes is negative: give 0 or more"
        );
        assert_eq!(Bytes::try_from(5), Ok(Bytes::new(5)));
    }
}
