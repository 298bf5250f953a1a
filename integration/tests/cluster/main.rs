//! Pods on the driver's volumes, with a whole Kubernetes between them and the driver: real kubelets, a real control plane and
//! upstream's sidecars.
//!
//! They need Kubernetes' programs, which `./just cluster` builds, and so are left out of `cargo test`.

mod claims;
mod conflicts;
mod disturbed;
mod lost;
mod migrations;
mod pods;
mod registration;
mod restarts;

use std::process::ExitCode;

use rds_csi_integration::cluster::Cluster;
use rds_csi_integration::rig::group;

const MIB: u64 = 1 << 20;

fn main() -> ExitCode {
    group::<Cluster>(2)
        .test("kubelet_registers_the_driver", registration::kubelet_registers_the_driver)
        .test(
            "a_claim_gets_a_volume_and_its_bytes_follow_its_pods",
            claims::a_claim_gets_a_volume_and_its_bytes_follow_its_pods,
        )
        .test(
            "a_filesystem_grows_under_the_pod_that_uses_it",
            claims::a_filesystem_grows_under_the_pod_that_uses_it,
        )
        .test("snapshots_and_clones_hold_what_was_there", claims::snapshots_and_clones_hold_what_was_there)
        .test(
            "a_virtual_machine_migrates_with_its_disk",
            migrations::a_virtual_machine_migrates_with_its_disk,
        )
        .test(
            "a_node_that_is_out_of_service_is_fenced_and_its_pod_goes_on_elsewhere",
            lost::a_node_that_is_out_of_service_is_fenced_and_its_pod_goes_on_elsewhere,
        )
        .test(
            "a_node_that_goes_down_in_mid_migration_leaves_nothing_undecided",
            migrations::a_node_that_goes_down_in_mid_migration_leaves_nothing_undecided,
        )
        .test(
            "a_plugged_disk_stays_until_the_virtual_machine_lets_go_of_it",
            migrations::a_plugged_disk_stays_until_the_virtual_machine_lets_go_of_it,
        )
        .test(
            "a_pod_on_a_second_node_waits_and_is_told_why",
            conflicts::a_pod_on_a_second_node_waits_and_is_told_why,
        )
        .test(
            "controllers_that_die_at_random_moments_spoil_nothing",
            disturbed::controllers_that_die_at_random_moments_spoil_nothing,
        )
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
