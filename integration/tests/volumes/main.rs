//! The driver's main job on real NVMe/TCP: its two binaries, the simulated array, and the kernel on both ends.

mod agent;
mod attaching;
mod contract;
mod copies;
mod data;
mod doctor;
mod earlier;
mod failing;
mod failures;
mod fences;
mod forced;
mod foreign;
mod growth;
mod health;
mod protection;
mod repairs;
mod restart;
mod using;

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use rds_csi_integration::rig::{Plan, Rig, group};
use tonic::{Code, Status};

const MIB: u64 = 1 << 20;

fn main() -> ExitCode {
    group::<Rig>(Plan::default())
        .test("a_filesystem_volume_moves_with_its_data", data::a_filesystem_volume_moves_with_its_data)
        .test("a_block_volume_moves_with_its_data", data::a_block_volume_moves_with_its_data)
        .test("two_pods_of_a_node_share_a_volume", data::two_pods_of_a_node_share_a_volume)
        .test("sizes_are_exact_to_the_byte", data::sizes_are_exact_to_the_byte)
        .test("repeating_every_call_changes_nothing", data::repeating_every_call_changes_nothing)
        .test(
            "a_device_with_foreign_data_is_never_formatted",
            foreign::a_device_with_foreign_data_is_never_formatted,
        )
        .test("a_second_node_is_refused_by_name", attaching::a_second_node_is_refused_by_name)
        .test(
            "two_nodes_share_a_block_volume_and_a_third_is_refused",
            attaching::two_nodes_share_a_block_volume_and_a_third_is_refused,
        )
        .test(
            "a_node_that_was_not_admitted_cannot_connect",
            attaching::a_node_that_was_not_admitted_cannot_connect,
        )
        .test(
            "a_detach_while_a_process_has_the_device_open_names_it",
            attaching::a_detach_while_a_process_has_the_device_open_names_it,
        )
        .test(
            "a_detach_while_the_volume_is_mounted_is_refused",
            attaching::a_detach_while_the_volume_is_mounted_is_refused,
        )
        .test(
            "one_trace_tells_of_attaching_staging_and_publishing",
            attaching::one_trace_tells_of_attaching_staging_and_publishing,
        )
        .test(
            "a_filesystem_that_recorded_an_error_is_checked_before_it_is_mounted",
            repairs::a_filesystem_that_recorded_an_error_is_checked_before_it_is_mounted,
        )
        .test(
            "a_filesystem_that_does_not_mount_is_repaired",
            repairs::a_filesystem_that_does_not_mount_is_repaired,
        )
        .test(
            "the_log_of_an_xfs_is_replayed_by_its_mount",
            repairs::the_log_of_an_xfs_is_replayed_by_its_mount,
        )
        .test("volumes_grow_while_they_are_in_use", growth::volumes_grow_while_they_are_in_use)
        .test("a_snapshot_keeps_what_was_there", copies::a_snapshot_keeps_what_was_there)
        .test(
            "a_clone_of_a_mounted_xfs_lives_beside_its_source_and_after_it",
            copies::a_clone_of_a_mounted_xfs_lives_beside_its_source_and_after_it,
        )
        .test(
            "a_connection_in_use_follows_another_reconnect_policy",
            using::a_connection_in_use_follows_another_reconnect_policy,
        )
        .test("a_volume_says_how_full_and_how_well_it_is", using::a_volume_says_how_full_and_how_well_it_is)
        .test(
            "a_cable_pulled_for_ten_seconds_loses_nothing",
            failures::a_cable_pulled_for_ten_seconds_loses_nothing,
        )
        .test(
            "an_array_that_reboots_comes_back_to_its_mounts",
            failures::an_array_that_reboots_comes_back_to_its_mounts,
        )
        .test("two_pods_of_a_node_share_a_device", earlier::two_pods_of_a_node_share_a_device)
        .test(
            "a_zombie_ends_its_old_connection_before_it_has_the_volume_again",
            earlier::a_zombie_ends_its_old_connection_before_it_has_the_volume_again,
        )
        .test(
            "a_mount_whose_device_is_gone_for_good_is_told_and_recovered",
            earlier::a_mount_whose_device_is_gone_for_good_is_told_and_recovered,
        )
        .test(
            "what_an_earlier_driver_staged_is_taken_over",
            earlier::what_an_earlier_driver_staged_is_taken_over,
        )
        .test(
            "a_connection_that_is_given_up_is_told_and_staged_anew",
            health::a_connection_that_is_given_up_is_told_and_staged_anew,
        )
        .test(
            "controllers_with_other_numbers_are_the_same_volumes",
            health::controllers_with_other_numbers_are_the_same_volumes,
        )
        .test("a_killed_agent_goes_on_where_it_was", failures::a_killed_agent_goes_on_where_it_was)
        .test(
            "an_agent_killed_in_the_middle_is_made_good_by_the_next_call",
            restart::an_agent_killed_in_the_middle_is_made_good_by_the_next_call,
        )
        .test(
            "a_format_that_was_cut_off_is_begun_again_on_whichever_node",
            restart::a_format_that_was_cut_off_is_begun_again_on_whichever_node,
        )
        .test(
            "a_dead_node_is_fenced_before_its_volume_moves",
            failures::a_dead_node_is_fenced_before_its_volume_moves,
        )
        .test(
            "a_paused_node_behind_acl_writes_nothing_when_it_wakes",
            fences::a_paused_node_behind_acl_writes_nothing_when_it_wakes,
        )
        .test(
            "a_paused_node_behind_epoch_writes_nothing_when_it_wakes",
            fences::a_paused_node_behind_epoch_writes_nothing_when_it_wakes,
        )
        .test(
            "a_node_cut_off_behind_acl_writes_nothing_when_it_is_back",
            fences::a_node_cut_off_behind_acl_writes_nothing_when_it_is_back,
        )
        .test(
            "a_node_cut_off_behind_epoch_writes_nothing_when_it_is_back",
            fences::a_node_cut_off_behind_epoch_writes_nothing_when_it_is_back,
        )
        .test(
            "a_survivor_goes_on_writing_through_a_fence",
            fences::a_survivor_goes_on_writing_through_a_fence,
        )
        .test(
            "without_a_fence_a_silent_node_keeps_its_volume",
            fences::without_a_fence_a_silent_node_keeps_its_volume,
        )
        .test(
            "paths_outside_the_kubelet_directory_are_refused",
            agent::paths_outside_the_kubelet_directory_are_refused,
        )
        .test("a_system_volume_is_never_touched", agent::a_system_volume_is_never_touched)
        .test(
            "only_the_controller_may_call_the_internal_api",
            agent::only_the_controller_may_call_the_internal_api,
        )
        .test("the_agent_tells_people_what_it_holds", agent::the_agent_tells_people_what_it_holds)
        .test(
            "the_agent_keeps_the_privileges_of_the_document_and_no_others",
            agent::the_agent_keeps_the_privileges_of_the_document_and_no_others,
        )
        .test(
            "a_connection_that_nobody_uses_is_ended_and_no_other",
            protection::a_connection_that_nobody_uses_is_ended_and_no_other,
        )
        .test(
            "an_array_that_refuses_is_asked_three_times_and_again_after_a_reset",
            protection::an_array_that_refuses_is_asked_three_times_and_again_after_a_reset,
        )
        .test(
            "an_unmount_that_waits_for_a_fenced_connection_is_let_go",
            forced::an_unmount_that_waits_for_a_fenced_connection_is_let_go,
        )
        .test(
            "a_person_takes_a_volume_away_from_those_who_use_it",
            forced::a_person_takes_a_volume_away_from_those_who_use_it,
        )
        .test(
            "a_policy_that_is_changed_live_outlasts_a_repeated_stage",
            forced::a_policy_that_is_changed_live_outlasts_a_repeated_stage,
        )
        .test(
            "a_filesystem_that_stops_writing_is_told_and_well_when_it_is_staged_again",
            failing::a_filesystem_that_stops_writing_is_told_and_well_when_it_is_staged_again,
        )
        .test(
            "a_filesystem_that_cannot_be_mounted_is_told_once",
            failing::a_filesystem_that_cannot_be_mounted_is_told_once,
        )
        .test("a_worker_s_kernel_keeps_the_contract", contract::a_worker_s_kernel_keeps_the_contract)
        .test("everything_is_proved_on_a_real_target", doctor::everything_is_proved_on_a_real_target)
        .run()
}

/// A refusal with that code, whose message names all of these. Anything else is an error.
fn expect_refusal<T>(answer: Result<T, Status>, code: Code, names: &[&str]) -> Result<()> {
    let Err(status) = answer else { bail!("this should have been refused with {code:?}") };
    ensure!(status.code() == code, "this should have been refused with {code:?}, not: {status}");
    for name in names {
        ensure!(status.message().contains(name), "the refusal does not name {name:?}: {}", status.message());
    }
    Ok(())
}
