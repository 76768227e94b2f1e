//! The listening sockets: a first generation binds exclusively, and a successor joins. This module also finds foreign listeners
//! and closes listeners without losing queued connections. It never passes a descriptor and never decides when to close.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::fstat;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{Instrument, Span};

use crate::drain::{Drain, Pool};
use crate::error::{Error, Kind};
use crate::generation::{Address, Predecessor};
use crate::steering::Steering;

mod accept;
mod foreign;
mod plan;
pub(crate) mod port_group;
pub(crate) use accept::Serve;
use plan::Planned;

#[derive(Debug)]
pub(crate) struct Listeners {
    predecessor: Option<u32>,
    listeners: Vec<Listener>,
    acceptors: JoinSet<()>,
    close: watch::Sender<bool>,
}

#[derive(Debug)]
struct Listener {
    address: Address,
    /// Whether the predecessor listens on this address too.
    joined: bool,
    inode: u64,
    socket: Arc<AsyncFd<OwnedFd>>,
}

impl Listener {
    fn others(&self) -> io::Result<Vec<port_group::Member>> {
        let mut members = port_group::of(self.address.actual)?;
        members.retain(|m| m.inode != self.inode);
        Ok(members)
    }
}

impl Listeners {
    /// Listens on every address: together with the predecessor where it listens already, otherwise exclusively.
    pub(crate) fn open(
        asked: &[SocketAddr],
        predecessor: Option<&Predecessor>,
        backlog: u32,
    ) -> Result<Listeners, Error> {
        let inherited = predecessor.map_or(&[][..], |p| &p.addresses);
        let listeners = plan::plan(asked, inherited, plan::is_dual())
            .into_iter()
            .map(|planned| match planned.inherited {
                Some(actual) => join(planned, actual, backlog),
                None => exclusive(planned, backlog, predecessor.map(|p| p.parent.pid())),
            })
            .collect::<Result<_, _>>()?;
        Ok(Listeners {
            predecessor: predecessor.map(|p| p.parent.pid()),
            listeners,
            acceptors: JoinSet::new(),
            close: watch::Sender::new(false),
        })
    }

    /// Returns an error if two of the addresses conflict.
    pub(crate) fn check(asked: &[SocketAddr]) -> Result<(), Error> {
        Ok(plan::conflict(asked, plan::is_dual())?)
    }

    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.listeners.iter().map(|l| l.address).collect()
    }

    /// Starts the accept loops. A listener that the kernel may steer connections to must always have a running loop: otherwise
    /// its share of the connections is never accepted. Connections to the `reserved` addresses use a separate pool.
    pub(crate) fn accept(&mut self, serve: &Serve, drain: &Drain, reserved: &[SocketAddr]) {
        let asked = |listener: &Listener| listener.address.asked;
        for (number, listener) in self.listeners.iter().enumerate() {
            // An address with port 0 may be given several times; the reserved ones come last.
            let is_same = |other: &&Listener| asked(other) == asked(listener);
            let left = self.listeners[number..].iter().filter(is_same).count();
            let is_reserved = reserved.iter().filter(|one| **one == asked(listener)).count() >= left;
            let pool = if is_reserved { Pool::Reserved } else { Pool::Public };
            let admission = accept::Admission {
                drain: drain.clone(),
                pool,
                serve: Arc::clone(serve),
                span: Span::current(),
            };
            self.acceptors.spawn(accept::run(
                Arc::clone(&listener.socket),
                admission,
                self.close.subscribe(),
            ));
        }
        let ours = self.listeners.iter().map(|l| (l.address.actual, l.inode)).collect();
        let watch = foreign::run(ours, self.predecessor, self.close.subscribe());
        self.acceptors.spawn(watch.in_current_span());
    }

    /// Steers new connections to the older listener of each address: to us, if the other one is a successor's.
    pub(crate) fn hold(&self) -> io::Result<()> {
        self.steer(|_| Some(Steering::Hold))
    }

    /// Attaches hold to the addresses that the predecessor does not share. On the others the predecessor's hold is in force.
    pub(crate) fn hold_own(&self) -> io::Result<()> {
        self.steer(|l| (!l.joined).then_some(Steering::Hold))
    }

    /// Steers new connections to us and no longer to the predecessor.
    pub(crate) fn flip(&self) -> io::Result<()> {
        self.steer(|l| Some(if l.joined { Steering::Flip } else { Steering::Hold }))
    }

    /// Attaches the steering programs. After an error the other addresses are still tried, and the first error is returned.
    fn steer(&self, how: impl Fn(&Listener) -> Option<Steering>) -> io::Result<()> {
        let attach = |l: &Listener| how(l).map_or(Ok(()), |steering| steering.attach(l.socket.get_ref()));
        self.listeners.iter().map(attach).fold(Ok(()), Result::and)
    }

    /// Fails if there is a foreign listener, because with a third socket the indices of `steering` are wrong. Also fails if the
    /// predecessor is alive but does not listen on an address that was joined. If the listeners cannot be listed, returns the
    /// cause as `Ok(Some(error))`.
    pub(crate) fn check_foreign_listeners(
        &self,
        predecessor: Option<&Predecessor>,
    ) -> Result<Option<io::Error>, Error> {
        let mut unknown = None;
        for listener in &self.listeners {
            let addr = listener.address.actual;
            match listener.others() {
                Ok(others) if others.len() > usize::from(listener.joined) => {
                    return Err(Kind::ForeignListener { addr, holders: port_group::describe(&others) }.into());
                }
                // Checked after the listing: a predecessor that has died may have closed its socket before the listing.
                Ok(others) if others.is_empty() && listener.joined => {
                    if let Some(parent) = predecessor.map(|p| &p.parent).filter(|parent| !parent.is_dead()) {
                        return Err(Kind::PredecessorNotSeen { addr, predecessor: parent.pid() }.into());
                    }
                }
                Ok(_) => {}
                Err(error) => unknown = Some(error),
            }
        }
        Ok(unknown)
    }

    /// Returns whether there are joined addresses and it is certain that no other socket listens on any of them.
    pub(crate) fn no_other_listener(&self) -> bool {
        let mut joined = self.listeners.iter().filter(|listener| listener.joined).peekable();
        joined.peek().is_some()
            && joined.all(|listener| listener.others().is_ok_and(|others| others.is_empty()))
    }

    /// The first address on which more than `expected` other sockets listen, and a description of their owners.
    pub(crate) fn foreign_listener(&self, expected: usize) -> Option<(SocketAddr, String)> {
        self.others()
            .find(|(_, others)| others.len() > expected)
            .map(|(listener, others)| (listener.address.actual, port_group::describe(&others)))
    }

    /// Returns whether another socket listens on one of our addresses.
    pub(crate) fn is_shared(&self) -> bool {
        self.others().any(|(_, others)| !others.is_empty())
    }

    /// The other sockets on each of our addresses. Where sock_diag is not available (a sandbox), there are none.
    fn others(&self) -> impl Iterator<Item = (&Listener, Vec<port_group::Member>)> {
        self.listeners.iter().map(|listener| {
            let others = listener.others().unwrap_or_else(|error| {
                tracing::debug!(%error, "cannot list the listeners of a port");
                vec![]
            });
            (listener, others)
        })
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// Tells every accept loop to empty its queue and close its listener; [`Listeners::closed`] waits for that.
    pub(crate) fn begin_close(&mut self) {
        self.listeners.clear();
        self.close.send_replace(true);
    }

    /// Waits until the last listener is closed. Cancel safe.
    pub(crate) async fn closed(&mut self) {
        while self.acceptors.join_next().await.is_some() {}
    }
}

/// Binds without SO_REUSEPORT, which fails if any other socket holds the port, and sets the option afterwards so that a
/// successor may join (bind(2) compares the option as it is at that moment).
fn exclusive(planned: Planned, backlog: u32, predecessor: Option<u32>) -> Result<Listener, Error> {
    let asked = planned.asked;
    let listen = || {
        let socket = new_socket(asked, planned.only_v6)?;
        socket.set_reuse_address(true)?;
        socket.bind(&asked.into())?;
        socket.set_reuse_port(true)?;
        listen(&socket, backlog)?;
        finish(socket, |actual| Address { asked, actual }, false)
    };
    let in_use = |addr| {
        let holders = port_group::overlapping(addr).unwrap_or_default();
        Error::from(Kind::InUse { addr, holders: port_group::advise(&holders, predecessor) })
    };
    let listener = listen().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => in_use(asked),
        _ => Kind::Listen { addr: asked, source }.into(),
    })?;
    // Two servers that start at the same moment both pass bind(), because SO_REUSEADDR lets sockets that do not listen
    // yet share a port. The second one to listen finds the first one here.
    let actual = listener.address.actual;
    match port_group::of(actual) {
        Ok(found) if found.iter().any(|m| m.inode != listener.inode) => Err(in_use(actual)),
        _ => Ok(listener),
    }
}

/// Binds with SO_REUSEPORT to the address on which the predecessor listens.
fn join(planned: Planned, actual: SocketAddr, backlog: u32) -> Result<Listener, Error> {
    let address = Address { asked: planned.asked, actual };
    let join = || {
        let socket = new_socket(actual, planned.only_v6)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.actual.into())?;
        listen(&socket, backlog)?;
        finish(socket, |_| address, true)
    };
    join().map_err(|source| {
        let members = port_group::overlapping(actual).unwrap_or_default();
        Kind::Join { addr: actual, source, users: members.iter().map(|m| m.uid).collect() }.into()
    })
}

fn new_socket(addr: SocketAddr, only_v6: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if only_v6 {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn listen(socket: &Socket, backlog: u32) -> io::Result<()> {
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

fn finish(socket: Socket, address: impl Fn(SocketAddr) -> Address, joined: bool) -> io::Result<Listener> {
    let inode = fstat(&socket)?.st_ino;
    let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    #[allow(deprecated, reason = "sound for an OwnedFd; its replacement cannot be called in this crate")]
    let socket = AsyncFd::new(OwnedFd::from(socket))?;
    let address = address(local);
    Ok(Listener { address, joined, inode, socket: Arc::new(socket) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("literal")
    }

    #[tokio::test]
    async fn a_second_exclusive_bind_is_refused_and_names_the_holder() {
        let first = Listeners::open(&[addr("127.0.0.1:0")], None, 16).expect("a free port");
        let taken = first.addresses()[0].actual;
        let error = Listeners::open(&[taken], None, 16).expect_err("the port is held");
        assert_eq!(error.kind(), crate::error::ErrorKind::AddressInUse);
        let text = error.to_string();
        assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
    }

    #[tokio::test]
    async fn a_closing_listener_first_accepts_the_queued_connections() {
        let mut listeners = Listeners::open(&[addr("127.0.0.1:0")], None, 64).expect("a free port");
        let local = listeners.addresses()[0].actual;
        let queued: Vec<_> =
            (0..50).map(|_| std::net::TcpStream::connect(local).expect("it listens")).collect();
        let delivered = Arc::new(std::sync::Mutex::new(Vec::new()));
        let serve: Serve = Arc::new({
            let delivered = Arc::clone(&delivered);
            move |conn| delivered.lock().expect("no thread panics while it holds the lock").push(conn)
        });
        // This test's runtime has one thread, so the accept loop does not run before it has been told to close.
        listeners.accept(&serve, &Drain::new(), &[]);
        listeners.begin_close();
        listeners.closed().await;
        assert_eq!(delivered.lock().expect("no thread panics while it holds the lock").len(), queued.len());
        std::net::TcpStream::connect(local).expect_err("it is closed");
    }
}
