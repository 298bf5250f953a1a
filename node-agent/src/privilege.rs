//! What the program keeps of root's power: at its start it gives up the rest for good, for itself and for whatever it runs.
//!
//! `docs/privileges.md` says what is kept and for which act; a test compares it with this file and with `host`.

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::umask;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

pub mod filter;

/// The capabilities that are used, and so kept.
pub const KEPT: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SYS_RESOURCE)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::DAC_READ_SEARCH);

/// Nothing that we make is for everybody; what is for us alone says so where it is made.
pub const UMASK: Mode = Mode::RWXO;

/// What became of the process's privileges.
#[derive(Debug)]
pub struct Reduced {
    missing: CapabilitySet,
    filter: Result<(), filter::Error>,
}

/// A privilege could not be given up. It should always be possible to have less.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}")]
pub struct Error {
    doing: &'static str,
    #[source]
    source: Errno,
}

/// Gives up what is not used. Of the calling thread only, and of all that it starts: so before there is another one.
pub fn reduce() -> Result<Reduced, Error> {
    let failed = |doing| move |source| Error { doing, source };
    umask(UMASK);
    let held = capabilities(None).map_err(failed("read the capabilities"))?.permitted;
    drop_bounding(held).map_err(failed("empty the bounding set of capabilities"))?;
    clear_ambient_capability_set().map_err(failed("empty the ambient set of capabilities"))?;
    let kept = held & KEPT;
    // Children need nothing inheritable: to root's programs the kernel gives the bounding set (capabilities(7)), and under
    // no_new_privs not more than we have.
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(failed("drop capabilities"))?;
    set_no_new_privs(true).map_err(failed("set no_new_privs"))?;
    Ok(Reduced { missing: KEPT - kept, filter: filter::install() })
}

/// Without `CAP_SETPCAP` the set stays as it was given to us; then `no_new_privs` alone keeps children from having more than we.
fn drop_bounding(held: CapabilitySet) -> Result<(), Errno> {
    if !held.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(capability) {
            Ok(true) if !KEPT.contains(capability) => remove_capability_from_bounding_set(capability)?,
            Ok(_) => {}
            // Behind the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Reduced {
    /// Tells the log, which is not there yet when privileges are given up.
    pub fn tell(&self) {
        if !self.missing.is_empty() {
            tracing::warn!(
                missing = names(self.missing),
                "capabilities are missing, and calls that need them will fail: run the agent as root, with the capabilities of \
                 docs/privileges.md"
            );
        }
        if let Err(error) = &self.filter {
            tracing::warn!(
                reason = rds_csi_api::status::chain(error),
                "system calls are not filtered; everything else works: use a kernel with CONFIG_SECCOMP_FILTER"
            );
        }
        tracing::debug!(kept = names(KEPT - self.missing), "all other privileges are given up");
    }
}

/// As capabilities(7) writes them.
pub fn names(capabilities: CapabilitySet) -> String {
    let names: Vec<_> = capabilities.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of one thread only, which ends: the other tests keep what they have.
    fn on_its_own_thread<T: Send>(look: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(look).join().unwrap())
    }

    #[test]
    fn nothing_is_held_afterwards_but_what_is_kept() {
        let (reduced, sets, bounding, mask) = on_its_own_thread(|| {
            let before = capabilities(None).unwrap().permitted;
            let reduced = reduce().unwrap();
            let bounding = capability_is_in_bounding_set(CapabilitySet::SYS_MODULE).unwrap();
            let mask = umask(UMASK);
            let sets = capabilities(None).unwrap();
            assert_eq!(sets.permitted, before & KEPT);
            (reduced, sets, bounding && before.contains(CapabilitySet::SETPCAP), mask)
        });
        assert_eq!((sets.effective, sets.inheritable), (sets.permitted, CapabilitySet::empty()));
        assert_eq!(reduced.missing, KEPT - sets.permitted);
        assert!(!bounding, "a child could have it");
        assert_eq!(mask, UMASK);
    }

    #[test]
    fn a_thread_that_was_reduced_can_be_reduced_again() {
        on_its_own_thread(|| {
            reduce().unwrap();
            assert!(reduce().unwrap().filter.is_ok());
        });
    }

    #[test]
    fn capabilities_are_called_by_their_names() {
        assert_eq!(names(CapabilitySet::MKNOD | CapabilitySet::SYS_ADMIN), "CAP_SYS_ADMIN, CAP_MKNOD");
    }
}
