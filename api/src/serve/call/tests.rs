use std::sync::mpsc;

use prometheus_client::encoding::text::encode;
use tokio::sync::oneshot;

use super::*;
use crate::failure::Kind;

#[derive(Debug, thiserror::Error)]
#[error("the pool is full")]
struct PoolFull;

impl Failure for PoolFull {
    fn kind(&self) -> Kind {
        Kind::Full
    }
}

fn calls() -> (Calls, Registry) {
    let mut registry = Registry::default();
    (Calls::new(&mut registry), registry)
}

fn metrics(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text
}

fn volume() -> VolumeId {
    "pvc-x".parse().unwrap()
}

#[tokio::test]
async fn an_outcome_is_answered_and_counted() {
    let (calls, registry) = calls();
    let create = Call::new(Rpc::CreateVolume);
    assert_eq!(calls.run(create, async { Ok::<_, PoolFull>(7) }).await.unwrap().into_inner(), 7);
    let status = calls.run(create, async { Err::<(), _>(PoolFull) }).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "the pool is full"));
    let text = metrics(&registry);
    assert!(text.contains(r#"rds_csi_operations_total{rpc="CreateVolume",code="Ok"} 1"#), "{text}");
    assert!(
        text.contains(r#"rds_csi_operations_total{rpc="CreateVolume",code="ResourceExhausted"} 1"#),
        "{text}"
    );
    assert!(text.contains(r#"rds_csi_operations_running{rpc="CreateVolume"} 0"#), "{text}");
}

#[tokio::test]
async fn a_second_call_on_the_volume_is_aborted_and_reading_is_not() {
    let (calls, _registry) = calls();
    let (finish, finished) = oneshot::channel::<()>();
    let volume = volume();
    let first = calls.run(Call::on(Rpc::DeleteVolume, &volume), async move {
        finished.await.unwrap();
        Ok::<_, PoolFull>(())
    });
    let others = async {
        let second = calls.run(Call::on(Rpc::DeleteVolume, &volume), async { Ok::<_, PoolFull>(()) }).await;
        assert_eq!(second.unwrap_err().code(), Code::Aborted);
        let read = calls.run(Call::new(Rpc::AgentGetVolume), async { Ok::<_, PoolFull>(()) }).await;
        assert!(read.is_ok());
        finish.send(()).unwrap();
    };
    let (first, ()) = tokio::join!(first, others);
    assert!(first.is_ok());
    assert!(calls.run(Call::on(Rpc::DeleteVolume, &volume), async { Ok::<_, PoolFull>(()) }).await.is_ok());
}

#[tokio::test]
async fn a_departing_client_cuts_nothing_in_half() {
    let (calls, _registry) = calls();
    let (begun, has_begun) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel::<()>();
    let (end, ended) = oneshot::channel();
    let id = volume();
    let call = calls.run(Call::on(Rpc::NodeStageVolume, &id), async move {
        begun.send(()).unwrap();
        may_go_on.await.unwrap();
        end.send("mounted").unwrap();
        Ok::<_, PoolFull>(())
    });
    tokio::select! {
        _ = call => unreachable!("the work waits"),
        _ = has_begun => {} // and the client is gone, its call dropped
    }
    go_on.send(()).unwrap();
    assert_eq!(ended.await, Ok("mounted"));
    calls.drain().await;
}

#[tokio::test]
async fn a_hung_system_call_keeps_its_volume_and_no_other() {
    let (calls, _registry) = calls();
    let (wake, hung) = mpsc::channel::<()>();
    let call = Rpc::NodeUnstageVolume;
    let id = volume();
    let status = calls
        .run_blocking(Call::on(call, &id), Duration::from_millis(10), move || {
            hung.recv().unwrap();
            Ok::<_, PoolFull>(())
        })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let left = calls.running();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!((left[0].rpc, left[0].volume.as_ref()), (call, Some(&id)));
    let again =
        calls.run_blocking(Call::on(call, &id), Duration::from_mins(1), || Ok::<_, PoolFull>(())).await;
    assert_eq!(again.unwrap_err().code(), Code::Aborted);
    let other = "pvc-y".parse().unwrap();
    let other =
        calls.run_blocking(Call::on(call, &other), Duration::from_mins(1), || Ok::<_, PoolFull>(())).await;
    assert!(other.is_ok());
    wake.send(()).unwrap();
    calls.drain().await;
    assert!(calls.running().is_empty());
    assert!(calls.locks.try_lock(&id).is_ok());
}

#[tokio::test]
async fn a_panic_is_a_bug_and_frees_the_volume() {
    let (calls, registry) = calls();
    let id = volume();
    let status = calls
        .run_blocking(
            Call::on(Rpc::NodeStageVolume, &id),
            Duration::from_mins(1),
            || -> Result<(), PoolFull> { panic!("on purpose") },
        )
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(calls.locks.try_lock(&id).is_ok());
    assert!(metrics(&registry).contains(r#"rds_csi_operations_running{rpc="NodeStageVolume"} 0"#));
}
