//! Steers new connections to one generation with a BPF program on the SO_REUSEPORT group of a port.
//!
//! A classic BPF program returns an index into the group, and the index is the order of `listen()` (socket(7),
//! SO_ATTACH_REUSEPORT_CBPF). With at most two generations listening the older is 0 and the newer is 1. An index
//! that is out of range falls back to the kernel's hash over the members that are left. The program belongs to the
//! group: any member may replace it, joiners inherit it, and it outlives its author. It must be attached after
//! `listen()`; before, the socket would form a group of its own.

use std::io;
use std::os::fd::AsFd;

use nix::libc::{BPF_K, BPF_RET, sock_filter, sock_fprog};
use nix::sys::socket::{setsockopt, sockopt};

/// Where new connections go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steering {
    /// To the older of two listeners, or to the only one.
    Hold,
    /// To the newer of two listeners, or to the only one left.
    Flip,
}

impl Steering {
    pub(crate) fn attach(self, listener: impl AsFd) -> io::Result<()> {
        let index = match self {
            Steering::Hold => 0,
            Steering::Flip => 1,
        };
        let mut program = [sock_filter { code: (BPF_RET | BPF_K) as u16, jt: 0, jf: 0, k: index }];
        let fprog = sock_fprog { len: 1, filter: program.as_mut_ptr() };
        setsockopt(&listener, sockopt::AttachReusePortCbpf, &fprog)?;
        Ok(())
    }
}
