//! The controller against a real etcd and a real API server, with a simulated array and made-up agents: no machine, no pod.
//!
//! They need Kubernetes' programs, which `./just kubernetes` builds, and so are left out of `cargo test`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops there")]

mod agent;
mod attacher;
mod attachments;
mod bench;
mod leading;
mod migrations;
mod nodes;
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
        .test(
            "a_second_node_fails_at_once_and_gets_it_after_the_first",
            attachments::a_second_node_fails_at_once_and_gets_it_after_the_first,
        )
        .test("without_the_api_server_nobody_is_let_in", attachments::without_the_api_server_nobody_is_let_in)
        .test(
            "of_two_replicas_that_race_for_two_nodes_one_wins",
            attachments::of_two_replicas_that_race_for_two_nodes_one_wins,
        )
        .test(
            "a_replica_that_dies_in_the_middle_is_finished_by_the_other",
            attachments::a_replica_that_dies_in_the_middle_is_finished_by_the_other,
        )
        .test("a_lost_record_lets_nobody_else_in", attachments::a_lost_record_lets_nobody_else_in)
        .test(
            "a_volume_without_a_persistent_volume_is_not_attached",
            attachments::a_volume_without_a_persistent_volume_is_not_attached,
        )
        .test(
            "two_nodes_share_a_block_volume_and_a_third_does_not",
            attachments::two_nodes_share_a_block_volume_and_a_third_does_not,
        )
        .test(
            "when_the_leader_dies_or_is_cut_off_the_other_leads",
            leading::when_the_leader_dies_or_is_cut_off_the_other_leads,
        )
        .test(
            "a_vm_migrates_by_proof_and_a_restart_in_between_forgets_nothing",
            migrations::a_vm_migrates_by_proof_and_a_restart_in_between_forgets_nothing,
        )
        .test(
            "a_node_that_is_not_ready_is_waited_for_unless_it_is_down_for_good",
            migrations::a_node_that_is_not_ready_is_waited_for_unless_it_is_down_for_good,
        )
        .test(
            "a_holder_that_nobody_wants_is_let_go_once_it_lets_go",
            migrations::a_holder_that_nobody_wants_is_let_go_once_it_lets_go,
        )
        .test(
            "an_annotation_resets_a_breaker_and_goes_once_that_is_done",
            nodes::an_annotation_resets_a_breaker_and_goes_once_that_is_done,
        )
        .test(
            "what_a_node_tells_is_an_event_of_the_claim_once",
            nodes::what_a_node_tells_is_an_event_of_the_claim_once,
        )
        .test(
            "a_burst_of_attachments_takes_one_patch_and_one_command_each",
            bench::a_burst_of_attachments_takes_one_patch_and_one_command_each,
        )
        .test("attachments_that_are_gone_take_no_memory", bench::attachments_that_are_gone_take_no_memory)
        .only_if_asked_for()
        .run()
}
