//! The socket at which the process in front hears its generations, in the words of sd_notify(3), and who said it: the
//! kernel's word (SCM_CREDENTIALS, unix(7)).

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixDatagram;

use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials, bind,
    recvmsg, setsockopt, socket,
};
use tokio::io::unix::AsyncFd;

/// No message of a generation is longer.
const LONGEST: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Mailbox {
    socket: AsyncFd<OwnedFd>,
    name: String,
}

#[derive(Debug)]
pub(super) struct Letter {
    pub(super) from: u32,
    pub(super) text: String,
}

impl Mailbox {
    /// With an abstract name that the kernel picks ("autobind"), which leaves no file behind.
    pub(super) fn open() -> io::Result<Mailbox> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        // Before anybody can send: a message that was sent earlier says nobody's name.
        setsockopt(&socket, PassCred, &true)?;
        bind(socket.as_fd().as_raw_fd(), &UnixAddr::new_unnamed())?;
        let socket = UnixDatagram::from(socket);
        let address = socket.local_addr()?;
        let name = address.as_abstract_name().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let name = format!("@{}", String::from_utf8_lossy(name));
        #[allow(deprecated, reason = "sound for an OwnedFd; its replacement cannot be called in this crate")]
        let socket = AsyncFd::new(OwnedFd::from(socket))?;
        Ok(Mailbox { socket, name })
    }

    /// For NOTIFY_SOCKET.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Cancel safe.
    pub(super) async fn readable(&self) {
        // Cleared at once: `next` is called until there is nothing more.
        if let Ok(mut ready) = self.socket.readable().await {
            ready.clear_ready();
        }
    }

    /// The next message that is there.
    pub(super) fn next(&self) -> Option<Letter> {
        let mut text = [0; LONGEST];
        loop {
            // Room for nothing else, so that a descriptor that somebody sends is closed by the kernel.
            let mut room = nix::cmsg_space!(UnixCredentials);
            let mut parts = [IoSliceMut::new(&mut text)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let fd = self.socket.get_ref().as_raw_fd();
            let (length, from) = match recvmsg::<()>(fd, &mut parts, Some(&mut room), flags) {
                Ok(message) => {
                    let from = message.cmsgs().ok().and_then(|mut all| {
                        all.find_map(|one| match one {
                            ControlMessageOwned::ScmCredentials(who) => Some(who.pid()),
                            _ => None,
                        })
                    });
                    (message.bytes, from.map(i32::cast_unsigned))
                }
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return None,
            };
            if let Some(from) = from {
                return Some(Letter { from, text: String::from_utf8_lossy(&text[..length]).into_owned() });
            }
        }
    }
}
