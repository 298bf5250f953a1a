//! The kernel's own announcements of devices that come and go, so that nobody has to look again and again.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::Error;

/// The multicast group that the kernel itself speaks to; udev's daemon uses another (lib/kobject_uevent.c).
const KERNEL_GROUP: u32 = 1;

/// The kernel announces a removal just before sysfs shows it (device_del in drivers/base/core.c): look once more so soon after.
const SETTLE: Duration = Duration::from_millis(20);

/// Look again after this long even if nothing was announced: an event that was lost costs a second, and never the truth.
const UNANNOUNCED: Duration = Duration::from_secs(1);

/// Whether the kernel has said anything since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Something,
    Nothing,
}

/// Looks until there is something to see, again after each announcement, for `limit` at most.
pub(super) fn wait<T>(
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    let end = Instant::now() + limit;
    let events = subscribe().map_err(Error::system("listen to", Path::new("uevents")))?;
    let mut heard = Heard::Nothing;
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        let Some(left) = end.checked_duration_since(Instant::now()) else {
            return Ok(None);
        };
        let pause = match heard {
            Heard::Something => SETTLE,
            Heard::Nothing => UNANNOUNCED,
        };
        heard = next(&events, left.min(pause)).map_err(Error::system("listen to", Path::new("uevents")))?;
    }
}

/// Listens to the kernel.
pub(super) fn subscribe() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
    bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
    Ok(socket)
}

/// Waits for an announcement and takes all that are there. What they say does not matter: sysfs is the truth.
fn next(events: &OwnedFd, left: Duration) -> Result<Heard, Errno> {
    let timeout = left.try_into().map_err(|_| Errno::INVAL)?;
    match poll(&mut [PollFd::new(events, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error),
    }
    drain(events)
}

/// Takes all announcements that are there, without waiting.
pub(super) fn drain(events: &OwnedFd) -> Result<Heard, Errno> {
    let mut buffer = [0; 4096];
    let mut heard = Heard::Nothing;
    loop {
        match recv(events, &mut buffer, RecvFlags::empty()) {
            // An overflow means that there were many: look again.
            Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => heard = Heard::Something,
            Err(Errno::AGAIN) => return Ok(heard),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_already_is_not_waited_for() {
        assert_eq!(wait(Duration::ZERO, || Ok(Some(7))).unwrap(), Some(7));
    }

    #[test]
    fn a_wait_ends_at_its_limit_after_a_last_look() {
        let mut looks = 0;
        let seen = wait::<()>(Duration::from_millis(30), || {
            looks += 1;
            Ok(None)
        });
        assert_eq!(seen.unwrap(), None);
        assert!(looks >= 2, "while listening, and at the end; it was {looks}");
    }
}
