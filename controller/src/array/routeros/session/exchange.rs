//! One line over a link, and what came back.

use openssh::Stdio;
use rds_csi_api::status;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Error;
use super::master::Link;

/// How much is kept of what ssh says on standard error.
const LONGEST_COMPLAINT: usize = 4 << 10;

/// Runs a line to its end and gives what it prints to `read`, piece by piece. The exit status is dropped: RouterOS exits
/// with 0 either way.
pub(super) async fn exchange(link: &Link, text: String, mut read: impl FnMut(&[u8])) -> Result<(), Error> {
    let mut remote = link.session().raw_command(text);
    remote.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = remote.spawn().await.map_err(|error| not_started(&error))?;
    let pipes = (child.stdout().take(), child.stderr().take());
    let (Some(mut stdout), Some(stderr)) = pipes else { return Err(Error::Lost("ssh gave no pipes".into())) };
    let answer = async {
        let (mut chunk, mut silent) = ([0; 4096], true);
        while let Ok(count @ 1..) = stdout.read(&mut chunk).await {
            silent = false;
            read(&chunk[..count]);
        }
        silent
    };
    let (silent, complaint) = tokio::join!(answer, bounded(stderr));
    if silent {
        read(&complaint);
    }
    match child.wait().await {
        // Exit 127 is told as an error, and says no more than any other status.
        Ok(_) | Err(openssh::Error::Remote(_)) => Ok(()),
        Err(error) => Err(Error::Lost(status::chain(&error))),
    }
}

/// An array that opens no further session has not seen the line. After anything else that went wrong it may have.
fn not_started(error: &openssh::Error) -> Error {
    let text = status::chain(error);
    if text.contains("refused the request") {
        Error::Unreachable(format!("the array opened no session: {text}"))
    } else {
        Error::Lost(text)
    }
}

/// What a pipe gives until its end, and no more than is of use; the rest is read and dropped.
async fn bounded(mut pipe: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        let room = LONGEST_COMPLAINT - kept.len();
        kept.extend_from_slice(&chunk[..count.min(room)]);
    }
    kept
}
