//! A server to which a seccomp filter refuses a system call, as a sandbox or an old kernel does.

use std::process::Command;

use nix::libc::{AF_NETLINK, ENOSYS, EPERM, NETLINK_SOCK_DIAG, SYS_pidfd_open, SYS_socket};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};
use support::process::Server;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Refused {
    /// The netlink socket that tells which sockets listen on a port.
    SockDiag,
    /// pidfd_open(2), which holds a process.
    PidfdOpen,
    /// These system calls, with this error.
    Calls(&'static [i64], i32),
}

/// Starts `command` under the filter, without waiting until it serves.
pub(crate) fn launch(command: Command, refused: Refused) -> Server {
    // A filter applies to the thread that installs it and to the processes which that thread starts.
    let confined = move || {
        apply_filter(&filter(refused).expect("a program")).expect("seccomp(2)");
        Server::launch(command)
    };
    std::thread::spawn(confined).join().expect("the server starts")
}

fn filter(refused: Refused) -> Result<BpfProgram, BackendError> {
    let is = |argument, value: i32| {
        let value = u64::from(value.unsigned_abs());
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let sock_diag = SeccompRule::new(vec![is(0, AF_NETLINK)?, is(2, NETLINK_SOCK_DIAG)?])?;
    let (rules, errno) = match refused {
        Refused::SockDiag => (vec![(SYS_socket, vec![sock_diag])], EPERM),
        Refused::PidfdOpen => (vec![(SYS_pidfd_open, vec![])], ENOSYS),
        Refused::Calls(calls, errno) => (calls.iter().map(|call| (*call, vec![])).collect(), errno),
    };
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    let rules = rules.into_iter().collect();
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, std::env::consts::ARCH.try_into()?)?.try_into()
}
