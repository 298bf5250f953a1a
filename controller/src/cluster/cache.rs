//! What was heard of Kubernetes' objects of one kind: listed once, and watched from there. Of each object only a digest is
//! kept, so that memory depends on how many there are, and not on what others write into them.
//!
//! A cache that lost its watch has not become empty: it says that it does not know.

mod follow;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use kube::Resource;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

pub use follow::{Followed, follow};

/// What is kept of an object.
pub trait Digest: Clone + Send + Sync + 'static {
    /// The object.
    type Object: Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + 'static;
    /// Whereby it is found, beside its name.
    type Place: Ord + Clone + Send + Sync + 'static;
    /// What the objects are called.
    const WHAT: &'static str;

    /// What is kept, if the object is any of our business.
    fn of(object: Self::Object) -> Option<Self>;

    /// Where it is to be found.
    fn places(&self) -> Vec<Self::Place>;
}

/// Digests of all objects of a kind.
pub struct Cache<D: Digest> {
    state: Arc<RwLock<State<D>>>,
    /// Told whenever something changed.
    changes: Arc<watch::Sender<()>>,
}

impl<D: Digest> Clone for Cache<D> {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), changes: Arc::clone(&self.changes) }
    }
}

impl<D: Digest> Default for Cache<D> {
    fn default() -> Self {
        Self { state: Arc::default(), changes: Arc::new(watch::Sender::default()) }
    }
}

impl<D: Digest> fmt::Debug for Cache<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("what", &D::WHAT).finish_non_exhaustive()
    }
}

/// Objects by name, and where they are found.
pub struct State<D: Digest> {
    standing: Standing,
    objects: BTreeMap<String, Entry<D>>,
    places: BTreeMap<D::Place, BTreeSet<String>>,
}

struct Entry<D> {
    version: String,
    digest: D,
}

/// Whether what was heard is how things are, as far as that can be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// Nothing was heard yet.
    Unheard,
    /// It is watched.
    Current,
    /// The watch is broken; what was heard is of before, and why nothing is heard now.
    Broken(String),
}

/// The cache does not know how things are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Kubernetes does not tell of its {what} ({why})")]
pub struct Unheard {
    what: &'static str,
    why: String,
}

impl<D: Digest> Default for State<D> {
    fn default() -> Self {
        Self { standing: Standing::Unheard, objects: BTreeMap::new(), places: BTreeMap::new() }
    }
}

impl<D: Digest> State<D> {
    /// These objects.
    pub fn of(objects: impl IntoIterator<Item = D::Object>) -> Self {
        let mut state = Self { standing: Standing::Current, ..Self::default() };
        objects.into_iter().for_each(|object| state.put(object));
        state
    }

    /// The digest of an object by its name, with its namespace and a `/` before it if it has one.
    pub fn named(&self, name: &str) -> Option<&D> {
        self.objects.get(name).map(|entry| &entry.digest)
    }

    /// Those at a place.
    pub fn at<'state>(&'state self, place: &D::Place) -> impl Iterator<Item = &'state D> + use<'state, D> {
        let names = self.places.get(place).into_iter().flatten();
        names.filter_map(|name| self.named(name))
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (&str, &D)> {
        self.objects.iter().map(|(name, entry)| (name.as_str(), &entry.digest))
    }

    /// Takes an object as it is now. One that is older than what is known changes nothing: what we wrote ourselves is known
    /// before the watch tells of it.
    fn put(&mut self, object: D::Object) {
        let name = name(&object);
        let version = object.meta().resource_version.clone().unwrap_or_default();
        if self.objects.get(&name).is_some_and(|entry| number(&entry.version) > number(&version)) {
            return;
        }
        self.drop(&name);
        if let Some(digest) = D::of(object) {
            for place in digest.places() {
                self.places.entry(place).or_default().insert(name.clone());
            }
            self.objects.insert(name, Entry { version, digest });
        }
    }

    fn drop(&mut self, name: &str) {
        let Some(Entry { digest, .. }) = self.objects.remove(name) else { return };
        for place in digest.places() {
            if let Some(names) = self.places.get_mut(&place) {
                names.remove(name);
                if names.is_empty() {
                    self.places.remove(&place);
                }
            }
        }
    }
}

/// An object's name, with its namespace before it if it has one.
fn name(object: &impl Resource) -> String {
    let meta = object.meta();
    let name = meta.name.as_deref().unwrap_or_default();
    meta.namespace.as_ref().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

/// Versions of one kind's objects are numbers that grow (Kubernetes 1.35, and every etcd before it).
fn number(version: &str) -> Option<u64> {
    version.parse().ok()
}

impl<D: Digest> Cache<D> {
    /// How things are; an error while that is not known.
    pub fn current(&self) -> Result<RwLockReadGuard<'_, State<D>>, Unheard> {
        let state = self.read();
        let why = match &state.standing {
            Standing::Current => return Ok(state),
            Standing::Unheard => "they were not listed yet".to_owned(),
            Standing::Broken(why) => why.clone(),
        };
        Err(Unheard { what: D::WHAT, why })
    }

    /// How things were when something was heard last.
    pub fn last(&self) -> Option<RwLockReadGuard<'_, State<D>>> {
        let state = self.read();
        (state.standing != Standing::Unheard).then_some(state)
    }

    /// Takes an object that the API server answered with.
    pub fn learn(&self, object: D::Object) {
        self.write(|state| state.put(object));
    }

    /// Takes it that there is no such object.
    pub fn unlearn(&self, name: &str) {
        self.write(|state| state.drop(name));
    }

    /// Whoever wants to know when something changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn read(&self) -> RwLockReadGuard<'_, State<D>> {
        self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self, change: impl FnOnce(&mut State<D>)) {
        change(&mut self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.changes.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    /// A node by its first label.
    #[derive(Debug, Clone, PartialEq)]
    struct Label(String);

    impl Digest for Label {
        type Object = Node;
        type Place = String;
        const WHAT: &'static str = "nodes";

        fn of(node: Node) -> Option<Self> {
            node.metadata.labels?.into_keys().next().map(Label)
        }

        fn places(&self) -> Vec<String> {
            vec![self.0.clone()]
        }
    }

    fn node(version: &str, label: Option<&str>) -> Node {
        let labels = label.map(|label| [(label.to_owned(), String::new())].into());
        let metadata = ObjectMeta {
            name: Some("w1".into()),
            resource_version: Some(version.into()),
            labels,
            ..ObjectMeta::default()
        };
        Node { metadata, ..Node::default() }
    }

    #[test]
    fn an_object_is_found_where_it_is_now_and_not_where_it_was() {
        let mut state = State::<Label>::default();
        state.put(node("9", Some("a")));
        state.put(node("10", Some("b")));
        assert_eq!(state.at(&"a".into()).count(), 0);
        assert_eq!(state.at(&"b".into()).collect::<Vec<_>>(), [&Label("b".into())]);
        // Older news come later from a watch that lags behind what we wrote ourselves.
        state.put(node("9", Some("a")));
        assert_eq!(state.named("w1"), Some(&Label("b".into())));
        state.put(node("11", None));
        assert!(state.named("w1").is_none() && state.places.is_empty());
    }

    #[test]
    fn lesson_11_a_cache_that_heard_nothing_is_not_empty_but_ignorant() {
        let cache = Cache::<Label>::default();
        assert!(cache.current().is_err() && cache.last().is_none());
        cache.write(|state| state.standing = Standing::Current);
        assert!(cache.current().is_ok());
        cache.write(|state| state.standing = Standing::Broken("reset".into()));
        assert!(cache.current().err().unwrap().to_string().contains("reset"));
        assert!(cache.last().is_some());
    }
}
