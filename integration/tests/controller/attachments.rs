//! Who may hold a volume, and how a node lets it go: by its own word, or shut out by the array.

use rds_csi_api::{HostNqn, NodeName};
use rds_csi_integration::certificates::{Authority, CONTROLLER, Identity, NODE_AGENT};
use rds_csi_integration::simulator::FileDisk;
use tonic::Code;

use crate::agent::{Agent, connected, held_open};
use crate::world::{Site, World, assert_refused, filesystem, shared_block, wanted};

const GIB: i64 = 1 << 30;

fn host(node: &str) -> String {
    let node: NodeName = node.parse().unwrap();
    HostNqn::of(&node).to_string()
}

/// The one disk on the array.
fn disk(world: &World) -> FileDisk {
    let [disk] = &world.simulator.state().unwrap().disks[..] else { panic!("one volume") };
    disk.clone()
}

/// Whom the array lets in: nobody, or these hosts.
#[track_caller]
fn assert_admitted(world: &World, nodes: &[&str]) {
    let disk = disk(world);
    let mut expected: Vec<_> = nodes.iter().map(|node| host(node)).collect();
    expected.sort();
    assert_eq!(disk.nvme_tcp_export, !nodes.is_empty());
    if disk.nvme_tcp_export {
        assert_eq!(disk.nvme_tcp_server_allow_host_name, expected.join(","));
    }
}

/// A world whose nodes w1, w2, … have agents.
pub(crate) async fn with_agents(fence: &'static str, count: usize) -> (World, Vec<Agent>) {
    let site = Site::vacant();
    let authority = Authority::new(&site.folder.path().join("pki")).unwrap();
    let agent = authority.issue_for_agents(&["w1", "w2", "w3"]).unwrap();
    let controller = authority.issue(CONTROLLER).unwrap();
    let mut agents = Vec::new();
    for _ in 0..count {
        agents.push(Agent::start(&agent));
    }
    let addresses =
        agents.iter().enumerate().map(|(n, agent)| (format!("w{}", n + 1), agent.address)).collect();
    let world = World::at(site, |settings| {
        settings.fence = fence;
        settings.agents = addresses;
        settings.identity = Some(controller);
    })
    .await;
    (world, agents)
}

#[tokio::test]
async fn a_volume_is_attached_to_one_node_and_its_name_is_told_to_the_next() {
    let (world, _agents) = with_agents("acl", 1).await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    let before = world.commands();
    let answer = world.publish(&volume, "w1", filesystem()).await.unwrap();
    assert_eq!(world.commands(), before + 1);
    let context = |key| answer.publish_context.get(key).map(String::as_str);
    assert_eq!((context("nvmeAddress"), context("nvmePort")), (Some("10.77.0.1"), Some("4420")));
    assert_eq!(context("sizeBytes"), Some("1073741824"));
    assert_eq!(context("nqn"), volume.volume_context.get("nqn").map(String::as_str));
    assert_admitted(&world, &["w1"]);

    assert_eq!(world.publish(&volume, "w1", filesystem()).await.unwrap(), answer);
    assert_refused(
        world.publish(&volume, "w2", filesystem()).await,
        Code::FailedPrecondition,
        "node w1 holds",
    );
    assert_refused(world.publish(&volume, "w1", shared_block()).await, Code::AlreadyExists, "otherwise");
    assert_refused(world.delete(&volume.volume_id).await, Code::FailedPrecondition, "attached to w1");
    assert_admitted(&world, &["w1"]);

    let before = world.commands();
    world.unpublish(&volume, "w1").await.unwrap();
    assert_eq!(world.commands(), before + 1);
    assert_admitted(&world, &[]);
    world.unpublish(&volume, "w1").await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_shared_block_volume_is_held_by_two_nodes_and_no_third() {
    let (world, _agents) = with_agents("acl", 2).await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    for node in ["w1", "w2"] {
        world.publish(&volume, node, shared_block()).await.unwrap();
    }
    assert_admitted(&world, &["w1", "w2"]);
    assert_refused(
        world.publish(&volume, "w3", shared_block()).await,
        Code::FailedPrecondition,
        "w1 and w2 hold",
    );
    world.unpublish(&volume, "w1").await.unwrap();
    assert_admitted(&world, &["w2"]);
    world.unpublish(&volume, "w2").await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_shared_filesystem_is_never_attached() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    let shared = crate::world::shared_filesystem();
    assert_refused(world.publish(&volume, "w1", shared).await, Code::InvalidArgument, "volumeMode: Block");
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn what_is_not_there_is_not_attached_and_not_remembered() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    assert_refused(world.publish(&volume, "w1", filesystem()).await, Code::NotFound, "does not exist");
    world.create(wanted("a", GIB)).await.unwrap();
    world.publish(&volume, "w2", filesystem()).await.unwrap();
    world.unpublish(&volume, "w2").await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_node_that_uses_the_volume_keeps_it_and_the_user_reads_what_holds_it() {
    let (world, agents) = with_agents("acl", 1).await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    world.publish(&volume, "w1", filesystem()).await.unwrap();
    agents[0].say(Some(held_open(4711, "postgres", "/data/base/1")));
    let says = "in use on node w1: process 4711 (postgres) has /data/base/1 open";
    assert_refused(world.unpublish(&volume, "w1").await, Code::FailedPrecondition, says);
    agents[0].say(Some(connected()));
    let says = "in use on node w1: it is connected as /dev/nvme1n1";
    assert_refused(world.unpublish(&volume, "w1").await, Code::FailedPrecondition, says);
    assert_admitted(&world, &["w1"]);
    agents[0].say(None);
    world.unpublish(&volume, "w1").await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_shut_out_first_and_the_other_goes_on() {
    let (world, mut agents) = with_agents("acl", 2).await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    for node in ["w1", "w2"] {
        world.publish(&volume, node, shared_block()).await.unwrap();
    }
    drop(agents.remove(0));
    world.unpublish(&volume, "w1").await.unwrap();
    assert_admitted(&world, &["w2"]);
    let fence = world.simulator.commands().lines.pop().unwrap().line;
    let (off, on) = (
        fence.find("set $ours nvme-tcp-export=no nvme-tcp-server-allow-host-name=$hosts}").unwrap(),
        fence.rfind("=$hosts nvme-tcp-export=yes}").unwrap(),
    );
    assert!(off < on, "the survivor is let in again: {fence}");
    drop(agents);
    world.unpublish(&volume, "w2").await.unwrap();
    assert_admitted(&world, &[]);
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn without_a_fence_a_node_that_does_not_answer_keeps_the_volume() {
    let (world, agents) = with_agents("none", 1).await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    assert!(disk(&world).nvme_tcp_export);
    // A node without an agent could never be asked, so it gets nothing.
    assert_refused(world.publish(&volume, "w2", shared_block()).await, Code::NotFound, "w2 is not known");
    world.publish(&volume, "w1", shared_block()).await.unwrap();
    world.unpublish(&volume, "w1").await.unwrap();
    world.publish(&volume, "w1", shared_block()).await.unwrap();
    drop(agents);
    assert_refused(world.unpublish(&volume, "w1").await, Code::FailedPrecondition, "--fence acl");
    world.end_with_leftovers().await;
}

/// Its record may be lost, and the array cannot tell: every host may reach it always.
/// The name travels with each attach; while nobody holds the volume nobody is let in at all.
#[tokio::test]
async fn behind_the_fence_epoch_a_volume_goes_on_under_another_name() {
    let (world, mut agents) = with_agents("epoch", 3).await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    let first = volume.volume_context["nqn"].clone();
    let mut expected = first.clone();
    for (number, node) in (2..).zip(["w1", "w2"]) {
        let told = world.publish(&volume, node, filesystem()).await.unwrap().publish_context;
        assert_eq!((&told["nqn"], disk(&world).nqn()), (&expected, expected.clone()));
        assert!(disk(&world).nvme_tcp_export && disk(&world).nvme_tcp_server_allow_host_name.is_empty());
        assert_eq!(world.publish(&volume, node, filesystem()).await.unwrap().publish_context, told);
        drop(agents.remove(0));
        world.unpublish(&volume, node).await.unwrap();
        expected = format!("{first}:e{number}");
        assert!(!disk(&world).nvme_tcp_export && disk(&world).nqn() == expected, "{:?}", disk(&world));
        world.unpublish(&volume, node).await.unwrap();
        assert_eq!(disk(&world).nqn(), expected, "a repeat fences nobody");
    }
    // By its own word a node goes without a fence.
    world.publish(&volume, "w3", filesystem()).await.unwrap();
    world.unpublish(&volume, "w3").await.unwrap();
    assert_eq!((disk(&world).nqn(), disk(&world).nvme_tcp_export), (expected, false));
    assert_eq!(world.create(wanted("a", GIB)).await.unwrap().volume_id, volume.volume_id);
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn behind_the_fence_epoch_an_open_export_without_a_record_lets_nobody_join() {
    let (world, _agents) = with_agents("epoch", 2).await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    world.publish(&volume, "w1", filesystem()).await.unwrap();
    let world = world.restart_with("epoch").await;
    for node in ["w1", "w2"] {
        let refused = world.publish(&volume, node, filesystem()).await;
        assert_refused(refused, Code::FailedPrecondition, "open to every host");
    }
    assert_refused(world.delete(&volume.volume_id).await, Code::FailedPrecondition, "every host may reach");
    world.end_with_leftovers().await;
}

#[tokio::test]
async fn without_a_fence_a_volume_is_deleted_by_the_word_of_the_nodes_and_in_one_command() {
    let (world, agents) = with_agents("none", 2).await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    agents[1].say(Some(held_open(4711, "qemu", "/dev/vda")));
    let refused = world.delete(&volume.volume_id).await;
    assert_refused(refused, Code::FailedPrecondition, "still in use on node w2: process 4711 (qemu)");
    agents[1].say(None);
    let before = world.commands();
    world.delete(&volume.volume_id).await.unwrap();
    assert_eq!(world.commands(), before + 1);
    world.end().await;
}

#[tokio::test]
async fn a_program_that_was_started_again_lets_no_second_writer_in() {
    let world = World::new().await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    world.publish(&volume, "w1", filesystem()).await.unwrap();
    let world = world.restart().await;
    assert_refused(
        world.publish(&volume, "w2", filesystem()).await,
        Code::FailedPrecondition,
        "no record names",
    );
    assert_refused(world.delete(&volume.volume_id).await, Code::FailedPrecondition, "no record names");
    assert_admitted(&world, &["w1"]);
    world.publish(&volume, "w1", filesystem()).await.unwrap();
    let world = world.restart().await;
    world.unpublish(&volume, "w2").await.unwrap();
    assert_admitted(&world, &["w1"]);
    world.unpublish(&volume, "w1").await.unwrap();
    assert_admitted(&world, &[]);
    assert!(world.controller.log().contains("no --node-agent names the node"));
    world.publish(&volume, "w2", filesystem()).await.unwrap();
    world.unpublish(&volume, "w2").await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_controller_that_cannot_ask_shuts_nobody_out() {
    let (world, agents) = with_agents("acl", 1).await;
    let volume = world.create(wanted("a", GIB)).await.unwrap();
    world.publish(&volume, "w1", filesystem()).await.unwrap();
    // Renewed by hand, and forgotten half-way.
    let (there, away) = (world.site.folder.path().join("pki"), world.site.folder.path().join("pki.old"));
    std::fs::rename(&there, &away).unwrap();
    assert_refused(world.unpublish(&volume, "w1").await, Code::Unavailable, "ca.crt cannot be read");
    assert_admitted(&world, &["w1"]);
    std::fs::rename(&away, &there).unwrap();
    agents[0].say(None);
    world.unpublish(&volume, "w1").await.unwrap();
    world.delete(&volume.volume_id).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn an_agent_that_does_not_trust_us_or_we_it_is_nobody_to_shut_out() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [ours, theirs] = folders.each_ref().map(|folder| Authority::new(folder.path()).unwrap());
    let [foreign, own, elsewhere, shared] = [
        theirs.issue_for_agents(&["w1"]).unwrap(),
        ours.issue_for_agents(&["w1"]).unwrap(),
        ours.issue_for_agents(&["w2"]).unwrap(),
        ours.issue(NODE_AGENT).unwrap(),
    ];
    // It has a certificate of ours, and wants one of theirs.
    let suspicious = Identity { authority: foreign.authority.clone(), ..own };
    // The agent of another node, or of any node: neither may speak for this one.
    for identity in [foreign, suspicious, elsewhere, shared] {
        let agent = Agent::start(&identity);
        let world = World::with(|settings| {
            settings.agents = vec![("w1".into(), agent.address)];
            settings.identity = Some(ours.issue(CONTROLLER).unwrap());
        })
        .await;
        let volume = world.create(wanted("a", GIB)).await.unwrap();
        world.publish(&volume, "w1", filesystem()).await.unwrap();
        let refused = world.unpublish(&volume, "w1").await;
        assert_refused(refused, Code::Unavailable, "did not say whether it still uses the volume");
        assert_admitted(&world, &["w1"]);
        world.end_with_leftovers().await;
    }
}
