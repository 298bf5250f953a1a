//! The arrays that the driver serves, by name. Each has its own connection, pool, fence and portal; one that is down is no
//! other one's business.

use std::collections::BTreeMap;
use std::sync::Arc;

use rds_csi_api::{BackendName, Failure, Kind, Portal};

use crate::array::Pool;
use crate::attachments::Fence;

/// One array, and how it is used.
#[derive(Debug)]
pub struct Backend<A> {
    /// Its name in the ids of its volumes; the default backend has none there.
    pub name: Option<BackendName>,
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
}

/// All of them: the default one, whose ids are bare, and others by name.
#[derive(Debug)]
pub struct Backends<A> {
    standard: Arc<Backend<A>>,
    others: BTreeMap<BackendName, Arc<Backend<A>>>,
}

/// A backend that is not configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("backend {name} is not configured; there are: the default one{}", list(.known))]
pub struct Unknown {
    /// Its name.
    pub name: BackendName,
    /// Those that are.
    pub known: Vec<BackendName>,
}

fn list(known: &[BackendName]) -> String {
    known.iter().map(|name| format!(", {name}")).collect::<Vec<_>>().concat()
}

impl Failure for Unknown {
    fn kind(&self) -> Kind {
        Kind::Refused
    }
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

    /// The one of this name; the default one for none.
    pub fn of(&self, name: Option<&BackendName>) -> Result<Arc<Backend<A>>, Unknown> {
        let Some(name) = name else { return Ok(Arc::clone(&self.standard)) };
        let unknown = || Unknown { name: name.clone(), known: self.others.keys().cloned().collect() };
        self.others.get(name).cloned().ok_or_else(unknown)
    }

    /// Every one, the default one first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Backend<A>>> {
        std::iter::once(&self.standard).chain(self.others.values())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(name: Option<BackendName>) -> Backend<()> {
        let (pool, portal) = ("pool".parse().unwrap(), Portal::parse("10.0.0.1", None).unwrap());
        Backend { name, array: (), fence: Fence::Acl, pool, portal, address: "array".into() }
    }

    #[test]
    fn a_backend_that_is_not_configured_is_named_with_those_that_are() {
        let name: BackendName = "rack-2".parse().unwrap();
        let backends = Backends::only(backend(None)).with(name.clone(), backend(Some(name.clone())));
        assert_eq!(backends.of(None).unwrap().name, None);
        assert_eq!(backends.of(Some(&name)).unwrap().name, Some(name));
        let unknown = backends.of(Some(&"rack-3".parse().unwrap())).unwrap_err().to_string();
        assert_eq!(unknown, "backend rack-3 is not configured; there are: the default one, rack-2");
        assert_eq!(backends.iter().count(), 2);
    }
}
