//! The socket at which the supervisor hears its generations, in the words of sd_notify(3), and who said it: the
//! kernel's word (SCM_CREDENTIALS, unix(7)). It lies in a directory that no other user may enter, so that no other user can keep
//! its reader busy. Only where no directory can be written to has it a name that everybody can send to.

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

/// What was received.
#[derive(Debug)]
pub(super) enum Received {
    Datagram(Datagram),
    /// From a process that is not listened to.
    Junk,
}

/// No message of a generation is longer.
const LONGEST: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct NotifySocket {
    socket: AsyncFd<OwnedFd>,
    name: String,
    /// With the socket in it.
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
        // The last is there in a container whose file system is read-only.
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
        // Whatever the umask is.
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(NotifySocket { socket: readable(socket)?, name, _dir: Some(dir) })
    }

    /// With a name that the kernel picks ("autobind").
    fn abstract_() -> io::Result<NotifySocket> {
        let socket = bound(&UnixAddr::new_unnamed())?;
        let address = socket.local_addr()?;
        let name = address.as_abstract_name().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let name = format!("@{}", String::from_utf8_lossy(name));
        Ok(NotifySocket { socket: readable(socket)?, name, _dir: None })
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

    /// The next message that is there. Nothing of it is looked at before its sender.
    pub(super) fn next(&self, may_speak: impl Fn(u32) -> bool) -> Option<Received> {
        let mut text = [0; LONGEST];
        loop {
            // Room for nothing else, so that a descriptor that is sent is closed by the kernel.
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
    // Before anything can be sent: a message that was sent earlier has no sender's name.
    setsockopt(&socket, PassCred, &true)?;
    bind(socket.as_raw_fd(), address)?;
    Ok(socket.into())
}

fn readable(socket: UnixDatagram) -> io::Result<AsyncFd<OwnedFd>> {
    #[allow(deprecated, reason = "sound for an OwnedFd; its replacement cannot be called in this crate")]
    AsyncFd::new(OwnedFd::from(socket))
}

const PREFIX: &str = "handover-front-";

/// Removes the directories of this user whose process was killed: the socket in them has no reader.
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
        // The name may be taken: by one that was killed, with the same pid, or by a user who guesses it. mkdir(2) follows no
        // link and takes nothing over.
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
