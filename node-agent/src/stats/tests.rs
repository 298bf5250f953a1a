use rds_csi_api::FsType;
use rustix::io::Errno;

use super::*;
use crate::host::fake::{Act, FakeHost, Holds};
use crate::publish::{self, Writing, publish};
use crate::stage::{Usage as As, stage};
use crate::world::{GIB, World, world};

struct Node {
    world: World,
    volumes: Arc<Volumes<FakeHost>>,
    measuring: Measuring,
}

impl Node {
    fn new(holds: Holds) -> Self {
        let world = world(holds);
        let volumes = Arc::new(world.volumes_again());
        Self { world, volumes, measuring: Measuring::new(Duration::from_mins(1)) }
    }

    fn with_filesystem() -> Self {
        let node = Self::new(Holds::Nothing);
        stage(&node.volumes, &node.world.stage_filesystem()).unwrap();
        let usage = publish::Usage::Filesystem(Writing::Forbidden);
        publish(&node.volumes, &node.world.publish_as(usage)).unwrap();
        node
    }

    fn with_block() -> Self {
        let node = Self::new(Holds::Nothing);
        stage(&node.volumes, &node.world.stage_as(As::Block)).unwrap();
        publish(&node.volumes, &node.world.publish_as(publish::Usage::Block)).unwrap();
        node
    }

    async fn at(&self, path: &KubeletPath) -> Result<Report, Error> {
        let wanted = Wanted { volume: self.world.volume.clone(), path: path.as_path().into() };
        stats(Arc::clone(&self.volumes), &self.measuring, wanted).await
    }

    /// What is wrong with the volume.
    async fn trouble(&self) -> (Fullness, String) {
        let Report { fullness, condition, .. } = self.at(&self.world.target()).await.unwrap();
        let Condition::Abnormal(message) = condition else { panic!("the volume is told to be well") };
        (fullness, message)
    }
}

#[tokio::test]
async fn a_filesystem_says_how_full_it_is_wherever_it_is_mounted() {
    let node = Node::with_filesystem();
    for path in [node.world.staging(), node.world.target()] {
        let report = node.at(&path).await.unwrap();
        let Fullness::Filesystem(Usage { bytes, inodes }) = report.fullness else { panic!("{report:?}") };
        assert_eq!((bytes.total, bytes.used, bytes.available), (GIB, Bytes::mib(512), Bytes::mib(512)));
        assert_eq!((inodes.total, inodes.used, inodes.available), (100, 11, 89));
        assert_eq!(report.condition, Condition::Sound);
    }
}

#[tokio::test]
async fn a_block_volume_says_how_large_it_is() {
    let node = Node::with_block();
    for path in [node.world.staging(), node.world.target()] {
        let report = node.at(&path).await.unwrap();
        assert_eq!((report.fullness, report.condition), (Fullness::Block(GIB), Condition::Sound));
    }
}

#[tokio::test]
async fn where_nothing_of_the_volume_is_there_is_nothing_to_say() {
    for node in [Node::with_filesystem(), Node::with_block()] {
        let elsewhere = node.at(&node.world.path("pods/q/target")).await.unwrap_err();
        assert_eq!(elsewhere.kind(), Kind::Missing);
        let wanted = Wanted { volume: "pvc-other".parse().unwrap(), path: "some/path".into() };
        let unknown = stats(Arc::clone(&node.volumes), &node.measuring, wanted).await.unwrap_err();
        assert_eq!(unknown.kind(), Kind::Missing);
        // Known by its record, and gone.
        crate::unpublish::unpublish(&node.volumes, &node.world.unpublish()).unwrap();
        assert_eq!(node.at(&node.world.target()).await.unwrap_err().kind(), Kind::Missing);
        node.world.host.reboot();
        assert_eq!(node.at(&node.world.staging()).await.unwrap_err().kind(), Kind::Missing);
    }
}

#[tokio::test]
async fn with_the_array_gone_the_answer_comes_and_says_so() {
    for node in [Node::with_filesystem(), Node::with_block()] {
        node.world.host.unplug();
        let (fullness, message) = node.trouble().await;
        assert_ne!(fullness, Fullness::Unknown);
        assert!(message.contains("the array does not answer"), "{message}");
    }
}

#[tokio::test]
async fn a_filesystem_that_became_read_only_or_recorded_errors_is_no_longer_well() {
    let node = Node::with_filesystem();
    node.world.host.record_errors(2);
    assert!(node.trouble().await.1.contains("recorded 2 errors"));
    node.world.host.remount_read_only();
    assert!(node.trouble().await.1.contains("became read-only"));
    // What was meant to be read-only is well.
    let reading = Node::new(Holds::Filesystem(FsType::Ext4, GIB));
    let options = crate::host::MountOptions::parse(&["ro"]).unwrap();
    let usage = As::Filesystem { fs: FsType::Ext4, options };
    stage(&reading.volumes, &reading.world.stage_as(usage)).unwrap();
    reading.world.host.remount_read_only();
    let report = reading.at(&reading.world.staging()).await.unwrap();
    assert_eq!(report.condition, Condition::Sound);
}

#[tokio::test]
async fn a_filesystem_that_fails_is_told_as_the_volume_s_condition() {
    let node = Node::with_filesystem();
    node.world.host.fail_once(Act::Measure, Errno::IO);
    let (fullness, message) = node.trouble().await;
    assert_eq!(fullness, Fullness::Unknown);
    assert!(message.contains("does not answer") && message.contains("os error 5"), "{message}");
}

#[tokio::test]
async fn a_filesystem_that_hangs_takes_one_thread_and_no_call() {
    let node = Node { measuring: Measuring::new(Duration::from_millis(50)), ..Node::with_filesystem() };
    node.world.host.hang();
    for _ in 0..3 {
        let (fullness, message) = node.trouble().await;
        assert_eq!(fullness, Fullness::Unknown);
        assert!(message.contains("does not answer for"), "{message}");
    }
    assert_eq!(node.measuring.running()[&node.world.volume].len(), 1);
    node.world.host.answer_again();
    while !node.measuring.running().is_empty() {
        tokio::task::yield_now().await;
    }
    let patient = Measuring { limit: Duration::from_mins(1), ..node.measuring.clone() };
    let node = Node { measuring: patient, ..node };
    assert_eq!(node.at(&node.world.staging()).await.unwrap().condition, Condition::Sound);
}

#[tokio::test]
async fn a_device_node_of_another_device_is_told() {
    let node = Node::with_block();
    node.world.host.renumber();
    assert!(node.trouble().await.1.contains("device that is gone"));
}

#[tokio::test]
async fn a_volume_that_an_earlier_driver_published_is_told_of_and_no_other() {
    for (node, is_filesystem) in [(Node::with_filesystem(), true), (Node::with_block(), false)] {
        node.volumes.records.remove(&node.world.volume).unwrap();
        let report = node.at(&node.world.target()).await.unwrap();
        assert_eq!(matches!(report.fullness, Fullness::Filesystem(_)), is_filesystem);
        assert_eq!(report.condition, Condition::Sound);
        let elsewhere = node.at(&node.world.path("pods/q/target")).await;
        assert!(matches!(elsewhere, Err(Error::Unknown { .. })), "{elsewhere:?}");
    }
}
