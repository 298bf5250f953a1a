use tokio::net::TcpListener;

use super::*;

/// Connects to somebody who answers the first unit with these bytes, and closes.
async fn connected_to(answer: &'static [u8]) -> Error {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answering = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 128]).await.unwrap();
        stream.write_all(answer).await.unwrap();
    };
    let nqn = "nqn.2000-02.com.mikrotik:pvc-x".parse().unwrap();
    let host = Host::fresh();
    let ((), outcome) = tokio::join!(answering, Controller::connect(address, &nqn, &host));
    outcome.err().expect("that is no array")
}

#[tokio::test]
async fn whoever_does_not_speak_nvme_is_told_from_who_is_not_there() {
    assert!(matches!(connected_to(b"HTTP/1.1 400 Bad Request\r\n\r\n").await, Error::Malformed(_)));
    assert!(matches!(connected_to(b"").await, Error::Cut(HELLO)));
    let terminated = &[3, 0, 24, 0, 24, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(matches!(connected_to(terminated).await, Error::Terminated(2)));

    let vacant = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = Controller::connect(vacant, &"nqn.x".parse().unwrap(), &Host::fresh()).await;
    assert!(matches!(refused, Err(Error::Closed { .. })));
    // No route leads to a TCP connection with everybody.
    let nowhere = "255.255.255.255:4420".parse().unwrap();
    let unreachable = Controller::connect(nowhere, &"nqn.x".parse().unwrap(), &Host::fresh()).await;
    assert!(matches!(unreachable, Err(Error::Unreachable { .. })));
}

#[test]
fn a_namespace_has_as_many_bytes_as_its_blocks() {
    let mut told = [0; 4096];
    told[..8].copy_from_slice(&32_768_u64.to_le_bytes());
    told[26] = 1;
    told[128 + 4 + 2] = 12;
    assert_eq!(namespace(&told), Some(Namespace { size: Bytes::new(128 << 20), block: 4096 }));
    // Blocks of 8 KiB are larger than what is written at a time, and blocks of one byte are none.
    for shift in [0, 13, 255] {
        told[128 + 4 + 2] = shift;
        assert_eq!(namespace(&told), None);
    }
}

#[test]
fn a_capsule_takes_what_its_command_leaves() {
    let mut told = [0; 4096];
    assert_eq!(capsule_data(&told), 0);
    // As Linux's target has it: 16 KiB beside the command.
    told[1792..1796].copy_from_slice(&1028_u32.to_le_bytes());
    assert_eq!(capsule_data(&told), 16 << 10);
}
