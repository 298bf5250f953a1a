//! The system calls that neither this program nor anything it runs ever needs, and that would be worth something to an attacker.
//!
//! They are listed and denied, and all others are allowed. A list of what is allowed would have to know each libc, mkfs and
//! fsck of each node's image: a forgotten call would show at the first repair, when a node can least do without it.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use libc::c_long;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// Why system calls are not filtered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter cannot be made for this processor.
    #[error("there is no filter for this processor")]
    Backend(#[from] seccompiler::BackendError),
    /// The kernel does not take it.
    #[error("the kernel does not take the filter")]
    Kernel(#[from] seccompiler::Error),
}

macro_rules! denied {
    ($($(#[$condition:meta])* $name:ident,)*) => {
        /// What is answered with EPERM, by name and by number.
        pub const DENIED: &[(&str, c_long)] = &[$($(#[$condition])* (stringify!($name), libc::$name),)*];
    };
}

denied! {
    // Another kernel, or more of it.
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_reboot,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    // Queues that act past this filter.
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    // Other processes' memory, descriptors and secrets. /proc is all that is looked at.
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_process_madvise,
    SYS_pidfd_getfd,
    SYS_kcmp,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    // Other namespaces and other roots.
    SYS_setns,
    SYS_unshare,
    SYS_chroot,
    SYS_pivot_root,
    // Files past every path and mount.
    SYS_open_by_handle_at,
    SYS_fanotify_init,
    // The machine's clock, name, swap, accounting, quotas and log.
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_quotactl,
    SYS_syslog,
    SYS_vhangup,
    // Ports and segments of the processor.
    #[cfg(target_arch = "x86_64")]
    SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    SYS_modify_ldt,
}

/// x86-64 kernels may serve a second table under the same architecture (CONFIG_X86_X32_ABI), with this bit in the number.
const X32: c_long = 0x4000_0000;

/// Of that table only: ptrace, kexec_load, process_vm_readv and process_vm_writev (arch/x86/entry/syscalls/syscall_64.tbl).
const X32_ONLY: [c_long; 4] = [521, 528, 539, 540];

/// For the calling thread, and for all threads and processes that it starts.
pub(super) fn install() -> Result<(), Error> {
    let twice = |number: c_long| if ARCH == "x86_64" { vec![number, number | X32] } else { vec![number] };
    let only = if ARCH == "x86_64" { X32_ONLY.map(|number| number | X32).to_vec() } else { Vec::new() };
    let numbers = DENIED.iter().flat_map(|(_, number)| twice(*number)).chain(only);
    // No rule about arguments: the call is denied whatever they are.
    let rules: BTreeMap<_, _> = numbers.map(|number| (number, Vec::new())).collect();
    let denied = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, ARCH.try_into()?)?;
    Ok(apply_filter(&BpfProgram::try_from(filter)?)?)
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    use super::*;

    #[test]
    fn a_denied_call_is_refused_on_the_thread_and_on_those_it_starts() {
        let take = || {
            let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
            pidfd_getfd(own, 0, PidfdGetfdFlags::empty()).map(drop)
        };
        let (before, after, child) = std::thread::spawn(move || {
            let before = take();
            install().unwrap();
            (before, take(), std::thread::spawn(take).join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!((before, after, child), (Ok(()), Err(Errno::PERM), Err(Errno::PERM)));
        assert_eq!(take(), Ok(()), "other threads are not touched");
    }
}
