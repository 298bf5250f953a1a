//! ValidateVolumeCapabilities: whether the volume is there, is the one that is meant, and can be used as somebody wishes.

use std::collections::HashMap;

use rds_csi_api::{ReconnectPolicy, VolumeContext, VolumeId};

use crate::array::{self, Array, Owner};
use crate::parameters::Parameters;

/// What is known of the volume to whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What its PersistentVolume says.
    pub context: Option<VolumeContext>,
    /// What its StorageClass says.
    pub parameters: Option<Parameters>,
    /// What its VolumeAttributesClass says.
    pub changes: HashMap<String, String>,
}

/// Whether it is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Confirmed,
    /// No, and why not.
    Different(String),
}

/// Judges what is known of a volume that is there. What can be asked of one can be asked of all, so its capabilities are
/// judged when they are read; why they cannot be kept comes here instead of what is known.
pub async fn validate(
    array: &impl Array,
    id: &VolumeId,
    known: Result<Known, String>,
) -> Result<Verdict, array::Error> {
    let volume = array.volume(id).await?;
    let Known { context, parameters, changes } = match known {
        Ok(known) => known,
        Err(why) => return Ok(Verdict::Different(why)),
    };
    let changed = |policy: ReconnectPolicy| policy.modified(&changes).map_err(|why| why.to_string());
    let mut compared = Vec::new();
    if !changes.is_empty() {
        let present = match (volume.reconnect, volume.owner) {
            (Some(policy), _) => Some(policy),
            (None, Owner::ThisCluster) => Some(ReconnectPolicy::STANDARD),
            // The earlier driver did not tell the array.
            (None, Owner::Nobody) => context.as_ref().map(|context| context.reconnect),
        };
        let Some(present) = present else {
            let why = format!(
                "the reconnect policy of volume {id} is not known, so no mutable_parameters are its own"
            );
            return Ok(Verdict::Different(why));
        };
        let asked = match changed(present) {
            Ok(asked) => asked.to_string(),
            Err(why) => return Ok(Verdict::Different(why)),
        };
        compared.push(("reconnect policy by mutable_parameters", asked, present.to_string()));
    }
    if let Some(context) = &context {
        compared.push(("NQN in volume_context", context.nqn.to_string(), volume.nqn.to_string()));
        compared.push((
            "NVMe port in volume_context",
            context.portal.port.to_string(),
            volume.port.to_string(),
        ));
    }
    if let Some(parameters) = &parameters {
        let port = parameters.portal.port.to_string();
        compared.push(("nvmePort in parameters", port, volume.port.to_string()));
    }
    if let (Some(context), Some(parameters)) = (&context, &parameters) {
        let (asked, has) = (parameters.portal.to_string(), context.portal.to_string());
        compared.push(("portal in parameters", asked, has));
        // What a VolumeAttributesClass changed since is in neither; it is compared with the volume itself.
        let (asked, has) = match (changed(parameters.reconnect), changed(context.reconnect)) {
            (Ok(asked), Ok(has)) => (asked.to_string(), has.to_string()),
            (Err(why), _) | (_, Err(why)) => return Ok(Verdict::Different(why)),
        };
        compared.push(("reconnect policy in parameters", asked, has));
    }
    Ok(match compared.into_iter().find(|(_, asked, has)| asked != has) {
        Some((what, asked, has)) => {
            Verdict::Different(format!("volume {id} is another: {what} is {asked}, and it has {has}"))
        }
        None => Verdict::Confirmed,
    })
}

#[cfg(test)]
mod tests {
    use rds_csi_api::Bytes;

    use super::*;
    use crate::array::Volume;
    use crate::array::fake::{FakeArray, wanted};

    fn changes(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    async fn judged(array: &FakeArray, pairs: &[(&str, &str)]) -> Verdict {
        let known = Known { context: None, parameters: None, changes: changes(pairs) };
        validate(array, &"pvc-a".parse().unwrap(), Ok(known)).await.unwrap()
    }

    #[tokio::test]
    async fn mutable_parameters_are_confirmed_only_if_the_volume_has_them() {
        let array = FakeArray::new(Bytes::gib(10));
        let volume = array.create(&wanted("pvc-a", Bytes::gib(1))).await.unwrap();
        assert_eq!(judged(&array, &[]).await, Verdict::Confirmed);
        assert!(matches!(judged(&array, &[("ctrlLossTmo", "600")]).await, Verdict::Different(_)));
        let policy = ReconnectPolicy::STANDARD.modified(&changes(&[("ctrlLossTmo", "600")])).unwrap();
        array.modify(&volume.id, &policy).await.unwrap();
        assert_eq!(judged(&array, &[("ctrlLossTmo", "600")]).await, Verdict::Confirmed);
        let Verdict::Different(why) = judged(&array, &[("ctrlLossTmo", "601")]).await else {
            panic!("it is another")
        };
        assert!(why.contains("mutable_parameters"), "{why}");
        array.put(Volume { owner: Owner::Nobody, reconnect: None, ..volume });
        assert!(matches!(judged(&array, &[("ctrlLossTmo", "600")]).await, Verdict::Different(_)));
    }
}
