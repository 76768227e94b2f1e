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

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use socket2::{Domain, Socket, Type};

    use super::*;

    fn listener(address: SocketAddr) -> TcpListener {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_port(true).expect("a new socket");
        socket.bind(&address.into()).expect("the port is free, or ours");
        socket.listen(64).expect("it is bound");
        socket.set_nonblocking(true).expect("it is open");
        socket.into()
    }

    fn accepted(listener: &TcpListener) -> usize {
        std::iter::from_fn(|| listener.accept().ok()).count()
    }

    #[test]
    fn hold_gives_all_connections_to_the_older_listener_and_flip_to_the_newer_until_it_closes() {
        let older = listener(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = older.local_addr().expect("it is bound");
        let newer = listener(address);
        let connect =
            || (0..32).map(|_| TcpStream::connect(address).expect("they listen")).collect::<Vec<_>>();
        for (steering, through, expected) in [
            (Steering::Hold, &older, (32, 0)),
            (Steering::Flip, &newer, (0, 32)),
            (Steering::Hold, &newer, (32, 0)),
            (Steering::Flip, &older, (0, 32)),
        ] {
            steering.attach(through).expect("the kernel can steer");
            let _clients = connect();
            assert_eq!((accepted(&older), accepted(&newer)), expected, "{steering:?}");
        }
        drop(newer);
        let _clients = connect();
        assert_eq!(accepted(&older), 32, "the index of the newer is out of range");
    }
}
