//! Waiting for whatever may change how volumes are: the kernel's announcements of devices, and its table of mounts.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::{Error, uevent};

/// A removal is announced just before sysfs shows it, and changes come in flocks: so long they are gathered.
const SETTLE: Duration = Duration::from_millis(100);

const MOUNTS: &str = "/proc/self/mountinfo";

/// Both sources, open, so that nothing is missed between two waits.
#[derive(Debug)]
pub struct Watch {
    uevents: OwnedFd,
    /// A file of this kind remembers which state of the table it has told (mounts_poll in fs/proc_namespace.c).
    mounts: File,
}

impl Watch {
    /// Watches from now on.
    pub fn open() -> Result<Self, Error> {
        let uevents = uevent::subscribe().map_err(Error::system("listen to", Path::new("uevents")))?;
        let mounts = File::open(MOUNTS).map_err(Error::system("open", Path::new(MOUNTS)))?;
        Ok(Self { uevents, mounts })
    }

    /// Waits for a change, or for `limit` at most. It may return for changes of somebody else's.
    pub fn next(&mut self, limit: Duration) -> Result<(), Error> {
        let failed = || Error::system("wait for", Path::new("uevents"));
        let timeout = limit.try_into().map_err(|_| failed()(Errno::INVAL))?;
        let mut sources =
            [PollFd::new(&self.uevents, PollFlags::IN), PollFd::new(&self.mounts, PollFlags::PRI)];
        match poll(&mut sources, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(failed()(error)),
        }
        sleep(SETTLE);
        uevent::drain(&self.uevents).map(drop).map_err(failed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_change_it_waits_no_longer_than_its_limit() {
        let mut watch = Watch::open().unwrap();
        // Whatever was announced meanwhile by this machine.
        watch.next(Duration::ZERO).unwrap();
        watch.next(Duration::from_millis(1)).unwrap();
    }
}
