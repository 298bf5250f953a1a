//! Pods on the driver's volumes, with a real kubelet, a real control plane and the real attacher between them and the driver.
//!
//! They need Kubernetes' programs, which `./just kubelet` builds, and so are left out of `cargo test`.

mod pods;
mod registration;
mod restarts;

use std::process::ExitCode;

use rds_csi_integration::cluster::Cluster;
use rds_csi_integration::rig::group;

const MIB: u64 = 1 << 20;

fn main() -> ExitCode {
    group::<Cluster>(1)
        .test("kubelet_registers_the_driver", registration::kubelet_registers_the_driver)
        .test(
            "a_pod_keeps_its_filesystem_and_nothing_is_left_after_it",
            pods::a_pod_keeps_its_filesystem_and_nothing_is_left_after_it,
        )
        .test(
            "a_pod_keeps_its_raw_block_and_nothing_is_left_after_it",
            pods::a_pod_keeps_its_raw_block_and_nothing_is_left_after_it,
        )
        .test(
            "kubelet_restarts_under_pods_and_finds_the_driver_again",
            restarts::kubelet_restarts_under_pods_and_finds_the_driver_again,
        )
        .test("a_killed_agent_disturbs_no_pod", restarts::a_killed_agent_disturbs_no_pod)
        .test(
            "a_node_that_lost_its_power_brings_its_pods_back_with_their_data",
            restarts::a_node_that_lost_its_power_brings_its_pods_back_with_their_data,
        )
        .only_if_asked_for()
        .run()
}
