//! A sandbox in which connections cannot be steered.

use nix::libc::{EPERM, SO_ATTACH_REUSEPORT_CBPF, SOL_SOCKET, SYS_setsockopt};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// Makes setsockopt(2) refuse `SO_ATTACH_REUSEPORT_CBPF` in this thread and in everything that it starts: seccomp(2) filters are
/// inherited.
pub fn refuse() -> Result<(), String> {
    let filter = filter().map_err(|error| error.to_string())?;
    apply_filter(&filter).map_err(|error| error.to_string())
}

/// A filter that allows everything except setsockopt(2) with this option.
fn filter() -> Result<BpfProgram, BackendError> {
    let is = |argument, value: i32| {
        let value = u64::from(value.unsigned_abs());
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let rule = SeccompRule::new(vec![is(1, SOL_SOCKET)?, is(2, SO_ATTACH_REUSEPORT_CBPF)?])?;
    let refused = SeccompAction::Errno(EPERM.unsigned_abs());
    let rules = [(SYS_setsockopt, vec![rule])].into_iter().collect();
    SeccompFilter::new(rules, SeccompAction::Allow, refused, std::env::consts::ARCH.try_into()?)?.try_into()
}
