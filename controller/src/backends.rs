//! The arrays that the driver serves, by name. Each has its own connection, pool, fence and portal; one that is down is no
//! other one's business.

#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod topology;

use std::collections::BTreeMap;
use std::sync::Arc;

use rds_csi_api::{BackendName, Failure, Kind, Portal};

use crate::array::Pool;
use crate::attachments::Fence;
use topology::{Accessibility, Segments};

/// One array, and how it is used.
#[derive(Debug)]
pub struct Backend<A> {
    /// Its name in the ids of its volumes; the default backend has none there.
    pub name: Option<BackendName>,
    /// Its name in the configuration, which is what people, StorageClasses and metrics call it.
    pub title: BackendName,
    /// The array.
    pub array: A,
    /// How a node is kept from writing to it.
    pub fence: Fence,
    /// Where volumes live on it.
    pub pool: Pool,
    /// Where nodes connect, unless a StorageClass says otherwise.
    pub portal: Portal,
    /// Its name for control, for people to read in a volume's context.
    pub address: String,
    /// The labels of the nodes that reach it; none if all do.
    pub topology: Segments,
}

/// All of them: the default one, whose ids are bare, and others by name.
#[derive(Debug)]
pub struct Backends<A> {
    standard: Arc<Backend<A>>,
    others: BTreeMap<BackendName, Arc<Backend<A>>>,
}

/// The same arrays.
impl<A> Clone for Backends<A> {
    fn clone(&self) -> Self {
        Self { standard: Arc::clone(&self.standard), others: self.others.clone() }
    }
}

/// A backend that is not configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("backend {name} is not configured; there are: {}", list(.known))]
pub struct Unknown {
    /// Its name.
    pub name: BackendName,
    /// Those that are, the default one first.
    pub known: Vec<BackendName>,
}

fn list(known: &[BackendName]) -> String {
    let names = known.iter().enumerate().map(|(index, name)| {
        if index == 0 { format!("{name} (the default one, whose ids are bare)") } else { name.to_string() }
    });
    names.collect::<Vec<_>>().join(", ")
}

impl Failure for Unknown {
    fn kind(&self) -> Kind {
        Kind::Refused
    }
}

/// Why no array can take a new volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// The StorageClass names one that is not there.
    #[error("StorageClass parameter backend cannot be followed")]
    Unknown(#[source] Unknown),
    /// The StorageClass names one, and the volume's source lies on another.
    #[error(
        "StorageClass parameter backend names {named}, but the volume is to be a copy of something on {source_on}: a copy \
         lies on the array of its source, so use a StorageClass with backend {source_on}"
    )]
    ElsewhereThanSource {
        /// Where it was to lie.
        named: BackendName,
        /// Where its source lies.
        source_on: BackendName,
    },
    /// None of those that come into question can be reached from where the volume is to be used.
    #[error(
        "no array that the volume may lie on is reached from {wanted} ({offered}): allow another topology, or correct the \
         backends' topology in the configuration"
    )]
    OutOfReach {
        /// From where it is to be reached.
        wanted: Accessibility,
        /// What could be had.
        offered: String,
    },
}

impl Failure for Misplaced {
    fn kind(&self) -> Kind {
        match self {
            Self::Unknown(_) | Self::ElsewhereThanSource { .. } => Kind::Invalid,
            // CSI 1.13, `CreateVolume`: 'unable to provision in accessible_topology' is RESOURCE_EXHAUSTED.
            Self::OutOfReach { .. } => Kind::Full,
        }
    }
}

/// Where the source of a new volume lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside<'a> {
    /// There is none.
    Nothing,
    /// On this backend, as the source's id names it.
    Source(Option<&'a BackendName>),
}

impl<A> Backends<A> {
    /// One array alone.
    pub fn only(standard: Backend<A>) -> Self {
        Self { standard: Arc::new(standard), others: BTreeMap::new() }
    }

    /// One array more. Of two with the same name the later stays; the configuration has told them apart before.
    #[must_use]
    pub fn with(mut self, name: BackendName, backend: Backend<A>) -> Self {
        self.others.insert(name, Arc::new(backend));
        self
    }

    /// The one that an id names; the default one for none.
    pub fn of(&self, name: Option<&BackendName>) -> Result<Arc<Backend<A>>, Unknown> {
        let Some(name) = name else { return Ok(Arc::clone(&self.standard)) };
        self.others.get(name).cloned().ok_or_else(|| self.unknown(name))
    }

    /// The one that a StorageClass names, as the configuration does.
    pub fn titled(&self, title: &BackendName) -> Result<Arc<Backend<A>>, Unknown> {
        self.iter().find(|backend| backend.title == *title).cloned().ok_or_else(|| self.unknown(title))
    }

    /// Every one, the default one first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Backend<A>>> {
        std::iter::once(&self.standard).chain(self.others.values())
    }

    /// Whether there are nodes that do not reach every array.
    pub fn constrain_topology(&self) -> bool {
        self.iter().any(|backend| !backend.topology.is_empty())
    }

    /// Whether what the arrays say of exports shows that a record of holders was lost. An array without a fence lets every host
    /// in always, so there a lost record looks like a volume that nobody holds.
    pub fn show_lost_records(&self) -> bool {
        self.iter().all(|backend| backend.fence != Fence::None)
    }

    /// The array that a new volume goes to: where its source lies, or the one that the StorageClass names, or the first, the
    /// default one before the others, that is reached from the place which is preferred most.
    ///
    /// It follows from the request alone, since the volume's id names the array: a repeat must find the same one.
    pub fn choose(
        &self,
        named: Option<&BackendName>,
        beside: Beside<'_>,
        from: &Accessibility,
    ) -> Result<Arc<Backend<A>>, Misplaced> {
        let named = named.map(|name| self.titled(name)).transpose().map_err(Misplaced::Unknown)?;
        let candidates = match (named, beside) {
            (Some(named), Beside::Source(source)) => {
                let there = self.of(source).map_err(Misplaced::Unknown)?;
                if there.title != named.title {
                    let (named, source_on) = (named.title.clone(), there.title.clone());
                    return Err(Misplaced::ElsewhereThanSource { named, source_on });
                }
                vec![there]
            }
            (None, Beside::Source(source)) => vec![self.of(source).map_err(Misplaced::Unknown)?],
            (Some(named), Beside::Nothing) => vec![named],
            (None, Beside::Nothing) => self.iter().cloned().collect(),
        };
        let offers = candidates.iter().map(|backend| &backend.topology);
        let Some(index) = from.first_met(&offers) else {
            let offer = |backend: &Arc<Backend<A>>| format!("{} has {}", backend.title, backend.topology);
            let offered = candidates.iter().map(offer).collect::<Vec<_>>().join(", ");
            return Err(Misplaced::OutOfReach { wanted: from.clone(), offered });
        };
        Ok(Arc::clone(&candidates[index]))
    }

    fn unknown(&self, name: &BackendName) -> Unknown {
        Unknown { name: name.clone(), known: self.iter().map(|backend| backend.title.clone()).collect() }
    }
}

#[cfg(test)]
mod tests;
