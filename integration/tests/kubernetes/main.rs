//! The controller against a real etcd and a real API server, with a simulated array and made-up agents: no machine, no pod.
//!
//! They need Kubernetes' programs, which `./just kubernetes` builds, and so are left out of `cargo test`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]
#![allow(dead_code, reason = "the tests that attach volumes come next")]

mod agent;
mod attacher;
mod orphans;
mod plane;
mod proxy;
mod site;

use std::process::ExitCode;

use rds_csi_integration::rig::group;

use crate::plane::Plane;

fn main() -> ExitCode {
    group::<Plane>(())
        .test("what_nobody_claims_is_told_of_on_the_controllers_pod", orphans::what_nobody_claims_is_told_of)
        .only_if_asked_for()
        .run()
}
