//! The socket on which the supervisor receives the generations' messages, in the protocol of sd_notify(3). The kernel names
//! the sender (SCM_CREDENTIALS, unix(7)). The socket lies in a directory that no other user may enter, so that no other user
//! can flood it. If no directory is writable, it is an abstract socket, to which every user can send.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials, bind,
    recvmsg, setsockopt, socket,
};
use rustix::process::geteuid;
use tokio::io::unix::AsyncFd;

/// A received message.
#[derive(Debug)]
pub(super) enum Received {
    Datagram(Datagram),
    /// A message from a process that may not send any.
    Junk,
}

/// The maximum length of a message; those of a generation are shorter.
const LONGEST: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct NotifySocket {
    socket: AsyncFd<OwnedFd>,
    name: String,
    /// The directory of the socket, removed on drop. `None` for an abstract socket.
    _dir: Option<OwnDir>,
}

#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) from: u32,
    pub(super) text: String,
}

impl NotifySocket {
    pub(super) fn open() -> io::Result<NotifySocket> {
        let place = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
        // `/dev/shm` is writable even in a container with a read-only file system.
        let places = [
            place("RUNTIME_DIRECTORY"),
            place("XDG_RUNTIME_DIR"),
            Some(std::env::temp_dir()),
            Some("/dev/shm".into()),
        ];
        places
            .into_iter()
            .flatten()
            .find_map(|place| NotifySocket::open_in(&place).ok())
            .map_or_else(NotifySocket::abstract_, Ok)
    }

    fn open_in(place: &Path) -> io::Result<NotifySocket> {
        let dir = OwnDir::make(place)?;
        let path = dir.0.join("notify");
        let name = path.to_str().ok_or(io::ErrorKind::InvalidFilename)?.to_owned();
        let socket = bound(&UnixAddr::new(&path)?)?;
        // Explicitly, because the umask may be anything.
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(NotifySocket { socket: readable(socket)?, name, _dir: Some(dir) })
    }

    /// Opens an abstract socket with a name that the kernel picks ("autobind").
    fn abstract_() -> io::Result<NotifySocket> {
        let socket = bound(&UnixAddr::new_unnamed())?;
        let address = socket.local_addr()?;
        let name = address.as_abstract_name().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let name = format!("@{}", String::from_utf8_lossy(name));
        Ok(NotifySocket { socket: readable(socket)?, name, _dir: None })
    }

    /// Returns the value of NOTIFY_SOCKET for the generations.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Waits until there may be a message. Cancel safe.
    pub(super) async fn readable(&self) {
        // Cleared at once, because the caller calls `next` until there are no more messages.
        if let Ok(mut ready) = self.socket.readable().await {
            ready.clear_ready();
        }
    }

    /// Returns the next message, if there is one. Its text is ignored unless its sender may speak.
    pub(super) fn next(&self, may_speak: impl Fn(u32) -> bool) -> Option<Received> {
        let mut text = [0; LONGEST];
        loop {
            // Room for credentials only, so that the kernel closes any file descriptor that is sent.
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
            let Some(from) = from.filter(|from| may_speak(*from)) else { return Some(Received::Junk) };
            let text = String::from_utf8_lossy(&text[..length]).into_owned();
            return Some(Received::Datagram(Datagram { from, text }));
        }
    }
}

fn bound(address: &UnixAddr) -> io::Result<UnixDatagram> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    // Before `bind`, because a message that is sent before this option is set has no credentials.
    setsockopt(&socket, PassCred, &true)?;
    bind(socket.as_raw_fd(), address)?;
    Ok(socket.into())
}

fn readable(socket: UnixDatagram) -> io::Result<AsyncFd<OwnedFd>> {
    #[allow(deprecated, reason = "sound for an OwnedFd; its replacement cannot be called in this crate")]
    AsyncFd::new(OwnedFd::from(socket))
}

const PREFIX: &str = "handover-supervisor-";

/// Removes this user's directories that were left behind by killed supervisors: their sockets have no reader.
fn remove_dead(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let (dir, socket) = (entry.path(), entry.path().join("notify"));
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let ours = || entry.metadata().is_ok_and(|m| m.is_dir() && m.uid() == geteuid().as_raw());
        let unread = || {
            let asked = UnixDatagram::unbound().and_then(|probe| probe.connect(&socket));
            asked.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        if named && ours() && unread() {
            let _ = fs::remove_file(&socket).and_then(|()| fs::remove_dir(&dir));
        }
    }
}

/// A directory that no other user may enter, until it is dropped.
#[derive(Debug)]
struct OwnDir(PathBuf);

impl OwnDir {
    fn make(place: &Path) -> io::Result<OwnDir> {
        remove_dead(place);
        let pid = std::process::id();
        // The name may be taken, by a killed supervisor with the same pid or by a user who guessed it. mkdir(2) follows no
        // symbolic link and never reuses an existing directory.
        for n in 0..1000 {
            let path = place.join(format!("{PREFIX}{pid}-{n}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => {
                    made?;
                    let dir = OwnDir(path);
                    fs::set_permissions(&dir.0, Permissions::from_mode(0o700))?;
                    return Ok(dir);
                }
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

impl Drop for OwnDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
