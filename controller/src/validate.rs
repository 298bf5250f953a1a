//! ValidateVolumeCapabilities: whether the volume is there, is the one that is meant, and can be used as somebody wishes.

use rds_csi_api::{VolumeContext, VolumeId};

use crate::array::{self, Array};
use crate::parameters::Parameters;

/// What is known of the volume to whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What its PersistentVolume says.
    pub context: Option<VolumeContext>,
    /// What its StorageClass says.
    pub parameters: Option<Parameters>,
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
    let Known { context, parameters } = match known {
        Ok(known) => known,
        Err(why) => return Ok(Verdict::Different(why)),
    };
    let mut compared = Vec::new();
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
        let (asked, has) = (parameters.reconnect.to_string(), context.reconnect.to_string());
        compared.push(("reconnect policy in parameters", asked, has));
    }
    Ok(match compared.into_iter().find(|(_, asked, has)| asked != has) {
        Some((what, asked, has)) => {
            Verdict::Different(format!("volume {id} is another: {what} is {asked}, and it has {has}"))
        }
        None => Verdict::Confirmed,
    })
}
