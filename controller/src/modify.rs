//! ControllerModifyVolume: another reconnect policy, in force from the volume's next publish on.

use std::collections::HashMap;

use rds_csi_api::reconnect::NotMutable;
use rds_csi_api::{Failure, Kind, ReconnectPolicy, VolumeId};

use crate::array::{self, Array, Owner, Volume};

/// What is to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The volume.
    pub id: VolumeId,
    /// The VolumeAttributesClass.
    pub changes: HashMap<String, String>,
}

/// Why the volume is not modified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It cannot be modified so.
    #[error("volume {id} is not modified")]
    NotMutable {
        /// The volume.
        id: VolumeId,
        /// Why not.
        #[source]
        source: NotMutable,
    },
    /// Only its StorageClass knows what the changes would be added to, and that is not asked here.
    #[error(
        "volume {0} was made by the earlier driver, so the array does not know its reconnect policy: give all of {keys} in \
         the VolumeAttributesClass",
        keys = ReconnectPolicy::MUTABLE.join(", ")
    )]
    UnknownPolicy(VolumeId),
    /// The array did not keep it.
    #[error(transparent)]
    Array(#[from] array::Error),
}

impl Failure for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NotMutable { .. } | Self::UnknownPolicy(_) => Kind::Invalid,
            Self::Array(error) => error.kind(),
        }
    }
}

/// Changes the volume's policy.
pub async fn modify(array: &impl Array, request: Request) -> Result<(), Error> {
    let Request { id, changes } = request;
    let not_mutable = |source| Error::NotMutable { id: id.clone(), source };
    // What nothing could be changed by is refused before the array is asked.
    ReconnectPolicy::STANDARD.modified(&changes).map_err(not_mutable)?;
    let Volume { reconnect, owner, .. } = array.volume(&id).await?;
    let whole = ReconnectPolicy::MUTABLE.iter().all(|key| changes.contains_key(*key));
    let present = match (reconnect, owner) {
        (Some(policy), _) => policy,
        (None, Owner::ThisCluster) => ReconnectPolicy::STANDARD,
        (None, Owner::Nobody) if whole || changes.is_empty() => ReconnectPolicy::STANDARD,
        (None, Owner::Nobody) => return Err(Error::UnknownPolicy(id)),
    };
    let policy = present.modified(&changes).map_err(not_mutable)?;
    if policy != present || (reconnect.is_none() && !changes.is_empty()) {
        array.modify(&id, &policy).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rds_csi_api::Bytes;
    use rds_csi_api::status::chain;

    use super::*;
    use crate::array::Wanted;
    use crate::array::fake::{FakeArray, wanted};

    fn request(id: &VolumeId, pairs: &[(&str, &str)]) -> Request {
        let changes = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Request { id: id.clone(), changes }
    }

    async fn array(policy: Option<&str>) -> (FakeArray, VolumeId) {
        let array = FakeArray::new(Bytes::gib(10));
        let reconnect = policy.map(|text| text.parse().unwrap());
        let wanted = Wanted { reconnect, ..wanted("pvc-a", Bytes::gib(1)) };
        array.create(&wanted).await.unwrap();
        (array, wanted.id)
    }

    fn policy(array: &FakeArray) -> Option<String> {
        array.volumes()[0].reconnect.map(|policy| policy.to_string())
    }

    #[tokio::test]
    async fn changes_are_added_to_what_the_volume_has() {
        let (array, id) = array(Some("600,5,30,off")).await;
        for (pairs, after) in [
            (&[][..], "600,5,30,off"),
            (&[("fastIoFailTmo", "20")], "600,5,30,20"),
            (&[("ctrlLossTmo", "-1"), ("reconnectDelay", "3")], "-1,3,30,20"),
        ] {
            for _ in 0..2 {
                modify(&array, request(&id, pairs)).await.unwrap();
                assert_eq!(policy(&array).as_deref(), Some(after));
            }
        }
    }

    #[tokio::test]
    async fn a_volume_that_keeps_no_policy_has_the_standard_one() {
        let (array, id) = array(None).await;
        modify(&array, request(&id, &[("fastIoFailTmo", "20")])).await.unwrap();
        assert_eq!(policy(&array).as_deref(), Some("-1,2,5,20"));
    }

    #[tokio::test]
    async fn of_a_volume_of_the_earlier_driver_the_whole_policy_is_to_be_given() {
        let (array, id) = array(None).await;
        array.put(Volume { owner: Owner::Nobody, ..array.volumes()[0].clone() });
        let refused = modify(&array, request(&id, &[("ctrlLossTmo", "600")])).await.unwrap_err();
        assert!(refused.kind() == Kind::Invalid && refused.to_string().contains("give all of"), "{refused}");
        let whole = [("ctrlLossTmo", "600"), ("reconnectDelay", "2"), ("fastIoFailTmo", "off")];
        modify(&array, request(&id, &whole)).await.unwrap();
        assert_eq!(policy(&array).as_deref(), Some("600,2,5,off"));
    }

    #[tokio::test]
    async fn what_cannot_be_changed_is_named_and_nothing_is() {
        let (array, id) = array(Some("600,5,30,off")).await;
        for (key, value, says) in [
            ("iops", "5", "only ctrlLossTmo"),
            ("keepAliveTmo", "5", "cannot be changed"),
            ("fastIoFailTmo", "soon", "give off"),
            ("fastIoFailTmo", "601", "no more than ctrlLossTmo"),
        ] {
            let refused = modify(&array, request(&id, &[(key, value)])).await.unwrap_err();
            assert!(refused.kind() == Kind::Invalid && chain(&refused).contains(says), "{refused:?}");
        }
        assert_eq!(policy(&array).as_deref(), Some("600,5,30,off"));
        let missing = modify(&array, request(&"pvc-b".parse().unwrap(), &[])).await.unwrap_err();
        assert_eq!(missing.kind(), Kind::Missing);
    }
}
