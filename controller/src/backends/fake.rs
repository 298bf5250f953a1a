//! A backend as tests want it.

use rds_csi_api::{BackendName, Portal};

use super::Backend;
use super::topology::Segments;
use crate::attachments::Fence;

/// With a fence, reached from everywhere, and whatever array.
pub fn backend<A>(name: Option<BackendName>, array: A) -> Backend<A> {
    Backend {
        title: name.clone().unwrap_or_else(|| "default".parse().expect("the name is valid")),
        name,
        array,
        fence: Fence::Acl,
        pool: "pool".parse().expect("the name is valid"),
        portal: Portal::parse("10.0.0.1", None).expect("the address is valid"),
        address: "array.example".into(),
        topology: Segments::default(),
    }
}
