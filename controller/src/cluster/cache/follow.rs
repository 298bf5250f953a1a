//! How a cache hears: a list, and a watch from there, again and again.

use std::pin::pin;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use rds_csi_api::status;
use tokio_util::sync::CancellationToken;

use super::{Cache, Digest, Standing, State};

/// Objects per answer.
const PAGE: u32 = 500;

/// How long one page of a list may take.
const LISTING: Duration = Duration::from_secs(30);

/// How long one watch lasts. Then there is another, so that a connection that went silent is noticed.
const WATCH: u32 = 45;

/// How much longer than that it may take to end.
const LATE: Duration = Duration::from_secs(10);

/// Pauses after a failure: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Which objects are followed.
pub struct Followed<D: Digest> {
    /// Where they are asked for.
    pub api: Api<D::Object>,
    /// Restricts them by their fields.
    pub fields: Option<&'static str>,
    /// Restricts them by their labels.
    pub labels: Option<String>,
    /// Where they are kept.
    pub cache: Cache<D>,
}

/// Why it was not heard what changes.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("they are not listed")]
    List(#[source] kube::Error),
    #[error("they are not listed within {LISTING:?}")]
    ListLate,
    #[error("they are not watched")]
    Watch(#[source] kube::Error),
    #[error("the watch broke: {0}")]
    Ended(Box<kube::core::Status>),
    #[error("the watch went silent")]
    Silent,
}

impl Error {
    /// Whether what was heard before is too old to go on from.
    fn is_expired(&self) -> bool {
        match self {
            Self::Watch(kube::Error::Api(status)) | Self::Ended(status) => status.code == 410,
            _ => false,
        }
    }
}

/// Follows the objects until the token is cancelled.
pub async fn follow<D: Digest>(followed: Followed<D>, shutdown: CancellationToken) {
    let mut version = None;
    let mut pause = PAUSES.0;
    while !shutdown.is_cancelled() {
        let heard = shutdown.run_until_cancelled(step(&followed, &mut version)).await;
        match heard {
            None => return,
            Some(Ok(())) => pause = PAUSES.0,
            Some(Err(error)) => {
                let why = status::chain(&error);
                tracing::debug!(what = D::WHAT, why, "nothing is heard of Kubernetes");
                if error.is_expired() {
                    version = None;
                }
                followed.cache.write(|state| {
                    if state.standing != Standing::Unheard {
                        state.standing = Standing::Broken(why);
                    }
                });
                shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}

/// One list, if there was none, and one watch.
async fn step<D: Digest>(followed: &Followed<D>, version: &mut Option<String>) -> Result<(), Error> {
    let from = match version {
        Some(from) => from.clone(),
        None => version.insert(list(followed).await?).clone(),
    };
    let Followed { api, fields, labels, cache } = followed;
    let params = WatchParams {
        field_selector: fields.map(Into::into),
        label_selector: labels.clone(),
        timeout: Some(WATCH),
        bookmarks: true,
        ..WatchParams::default()
    };
    let silent = tokio::time::sleep(Duration::from_secs(WATCH.into()) + LATE);
    let watch = async {
        let events = api.watch(&params, &from).await.map_err(Error::Watch)?;
        // It is watched again, from where it was left.
        cache.write(|state| state.standing = Standing::Current);
        let mut events = pin!(events.map_err(Error::Watch));
        while let Some(event) = events.next().await {
            match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    *version = kube::ResourceExt::resource_version(&object);
                    cache.learn(object);
                }
                WatchEvent::Deleted(object) => {
                    *version = kube::ResourceExt::resource_version(&object);
                    cache.unlearn(&super::name(&object));
                }
                WatchEvent::Bookmark(bookmark) => *version = Some(bookmark.metadata.resource_version),
                WatchEvent::Error(status) => return Err(Error::Ended(status)),
            }
        }
        Ok(())
    };
    tokio::select! {
        outcome = watch => outcome,
        () = silent => Err(Error::Silent),
    }
}

/// Replaces what is known by a list of all; where to watch from.
async fn list<D: Digest>(followed: &Followed<D>) -> Result<String, Error> {
    let Followed { api, fields, labels, cache } = followed;
    let mut params = ListParams {
        field_selector: fields.map(Into::into),
        label_selector: labels.clone(),
        ..ListParams::default().limit(PAGE)
    };
    let mut fresh = State::<D> { standing: Standing::Current, ..State::default() };
    loop {
        let page = tokio::time::timeout(LISTING, api.list(&params)).await.map_err(|_| Error::ListLate)?;
        let page = page.map_err(Error::List)?;
        page.items.into_iter().for_each(|object| fresh.put(object));
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            cache.write(|state| *state = fresh);
            return Ok(page.metadata.resource_version.unwrap_or_default());
        }
    }
}
