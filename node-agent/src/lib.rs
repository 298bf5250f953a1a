//! The CSI node agent of rds-csi: the privileged half, which holds no credentials.

pub mod host;
