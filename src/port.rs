//! The port: listeners that are bound exclusively by a first generation and joined by a successor, who else listens,
//! and how a listener closes. It never passes a descriptor and never decides when to close.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustix::fs::fstat;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::drain::Drain;
use crate::error::{Error, Kind};
use crate::generation::{Address, Predecessor};
use crate::steering::Steering;

mod accept;
pub(crate) mod members;

/// What is done with an accepted connection.
pub(crate) type Sink = Arc<dyn Fn(TcpStream, SocketAddr) + Send + Sync>;

#[derive(Debug)]
pub(crate) struct Port {
    listeners: Vec<Listener>,
    acceptors: JoinSet<()>,
    close: watch::Sender<bool>,
}

#[derive(Debug)]
struct Listener {
    address: Address,
    /// The predecessor listens here too.
    joined: bool,
    inode: u64,
    socket: Arc<TcpListener>,
}

impl Listener {
    fn others(&self) -> io::Result<Vec<members::Member>> {
        let mut members = members::of(self.address.actual)?;
        members.retain(|m| m.inode != self.inode);
        Ok(members)
    }
}

impl Port {
    /// Listens on every address: exclusively, or with the predecessor where that one listens already.
    pub(crate) fn open(
        asked: &[SocketAddr],
        predecessor: Option<&Predecessor>,
        backlog: u32,
    ) -> Result<Port, Error> {
        let inherited = predecessor.map_or(&[][..], |p| &p.addresses);
        let listeners = assign(asked, inherited)
            .into_iter()
            .map(|(asked, actual)| match actual {
                Some(actual) => join(Address { asked, actual }, backlog),
                None => exclusive(asked, backlog, predecessor.map(|p| p.parent.pid())),
            })
            .collect::<Result<_, _>>()?;
        Ok(Port { listeners, acceptors: JoinSet::new(), close: watch::Sender::new(false) })
    }

    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.listeners.iter().map(|l| l.address).collect()
    }

    /// Starts the accept loops. A listener that can be steered to must always be accepted from: if it stops, its
    /// share of the connections waits in vain.
    pub(crate) fn accept(&mut self, sink: &Sink, drain: &Drain) {
        for listener in &self.listeners {
            let task = accept::run(
                Arc::clone(&listener.socket),
                self.close.subscribe(),
                drain.clone(),
                Arc::clone(sink),
            );
            self.acceptors.spawn(task);
        }
    }

    /// New connections come to the older listener of each address: to us, if the other is a successor.
    pub(crate) fn hold(&self) -> io::Result<()> {
        self.steer(|_| Some(Steering::Hold))
    }

    /// Hold on the addresses that no predecessor shares. On the others the predecessor's hold is in force.
    pub(crate) fn hold_own(&self) -> io::Result<()> {
        self.steer(|l| (!l.joined).then_some(Steering::Hold))
    }

    /// New connections come to us and not to the predecessor.
    pub(crate) fn flip(&self) -> io::Result<()> {
        self.steer(|l| Some(if l.joined { Steering::Flip } else { Steering::Hold }))
    }

    /// The first refusal is returned, the other addresses are still tried.
    fn steer(&self, how: impl Fn(&Listener) -> Option<Steering>) -> io::Result<()> {
        let attach = |l: &Listener| how(l).map_or(Ok(()), |steering| steering.attach(&*l.socket));
        self.listeners.iter().map(attach).fold(Ok(()), Result::and)
    }

    /// Fails if anyone but us and one predecessor listens: with a third the indices of `steering` are wrong. Fails too where
    /// the predecessor does not, although its address was joined. Returns why that cannot be known, where it cannot.
    pub(crate) fn check_crowd(&self, predecessor: Option<&Predecessor>) -> Result<Option<io::Error>, Error> {
        let mut unknown = None;
        for listener in &self.listeners {
            let addr = listener.address.actual;
            match listener.others() {
                Ok(others) if others.len() > usize::from(listener.joined) => {
                    return Err(Kind::Crowd { addr, holders: members::describe(&others) }.into());
                }
                // Asked last: one that is dead now may have been so when it was looked for.
                Ok(others) if others.is_empty() && listener.joined => {
                    if let Some(parent) = predecessor.map(|p| &p.parent).filter(|parent| !parent.is_dead()) {
                        return Err(Kind::Alone { addr, predecessor: parent.pid() }.into());
                    }
                }
                Ok(_) => {}
                Err(error) => unknown = Some(error),
            }
        }
        Ok(unknown)
    }

    /// Whether it can be seen that nobody else listens on an address that was joined.
    pub(crate) fn is_left_alone(&self) -> bool {
        let mut joined = self.listeners.iter().filter(|listener| listener.joined).peekable();
        joined.peek().is_some()
            && joined.all(|listener| listener.others().is_ok_and(|others| others.is_empty()))
    }

    /// The first address on which more than `expected` others listen, and who they are.
    pub(crate) fn crowd(&self, expected: usize) -> Option<(SocketAddr, String)> {
        self.others()
            .find(|(_, others)| others.len() > expected)
            .map(|(listener, others)| (listener.address.actual, members::describe(&others)))
    }

    /// Whether any other socket listens on one of our addresses.
    pub(crate) fn is_shared(&self) -> bool {
        self.others().any(|(_, others)| !others.is_empty())
    }

    /// Where sock_diag is not to be had (a sandbox) there is nobody to be seen.
    fn others(&self) -> impl Iterator<Item = (&Listener, Vec<members::Member>)> {
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

    /// Every listener is accepted from until its queue is empty and then closed; [`Port::closed`] says when.
    pub(crate) fn begin_close(&mut self) {
        self.listeners.clear();
        self.close.send_replace(true);
    }

    /// Returns when the last listener is closed. Cancel safe.
    pub(crate) async fn closed(&mut self) {
        while self.acceptors.join_next().await.is_some() {}
    }
}

/// Which of the asked addresses the predecessor has already, and where. Explicit ports choose first, so that `:0`
/// cannot take a port that is asked for by its number.
fn assign(asked: &[SocketAddr], inherited: &[Address]) -> Vec<(SocketAddr, Option<SocketAddr>)> {
    let mut free = inherited.to_vec();
    let mut found = vec![None; asked.len()];
    for explicit in [true, false] {
        for (&asked, found) in asked.iter().zip(&mut found) {
            if (asked.port() != 0) == explicit {
                let fits = |i: &Address| if explicit { i.actual == asked } else { i.asked == asked };
                *found = free.iter().position(fits).map(|i| free.remove(i).actual);
            }
        }
    }
    asked.iter().copied().zip(found).collect()
}

/// Binds without SO_REUSEPORT, which fails if anyone at all holds the port, and sets it only then so that a
/// successor may join (bind(2) compares the option as it is at that moment).
fn exclusive(asked: SocketAddr, backlog: u32, predecessor: Option<u32>) -> Result<Listener, Error> {
    let listen = || {
        let socket = new_socket(asked)?;
        socket.set_reuse_address(true)?;
        socket.bind(&asked.into())?;
        socket.set_reuse_port(true)?;
        listen(&socket, backlog)?;
        finish(socket, |actual| Address { asked, actual }, false)
    };
    let in_use = |addr| {
        let holders = members::overlapping(addr).unwrap_or_default();
        Error::from(Kind::InUse { addr, holders: members::advise(&holders, predecessor) })
    };
    let listener = listen().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => in_use(asked),
        _ => Kind::Listen { addr: asked, source }.into(),
    })?;
    // Two that start in the same instant both pass bind(): SO_REUSEADDR lets sockets that do not listen yet share
    // a port. The second to listen finds the first here.
    let actual = listener.address.actual;
    match members::of(actual) {
        Ok(found) if found.iter().any(|m| m.inode != listener.inode) => Err(in_use(actual)),
        _ => Ok(listener),
    }
}

fn join(address: Address, backlog: u32) -> Result<Listener, Error> {
    let join = || {
        let socket = new_socket(address.actual)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.actual.into())?;
        listen(&socket, backlog)?;
        finish(socket, |_| address, true)
    };
    join().map_err(|source| Kind::Join { addr: address.actual, source }.into())
}

fn new_socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn listen(socket: &Socket, backlog: u32) -> io::Result<()> {
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

fn finish(socket: Socket, address: impl Fn(SocketAddr) -> Address, joined: bool) -> io::Result<Listener> {
    let inode = fstat(&socket)?.st_ino;
    let socket = TcpListener::from_std(socket.into())?;
    let address = address(socket.local_addr()?);
    Ok(Listener { address, joined, inode, socket: Arc::new(socket) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("literal")
    }

    fn kept(asked: &str, actual: &str) -> Address {
        Address { asked: addr(asked), actual: addr(actual) }
    }

    #[test]
    fn port_zero_keeps_its_port_and_an_explicit_port_is_not_mistaken_for_it() {
        let inherited = [
            kept("127.0.0.1:8080", "127.0.0.1:8080"),
            kept("127.0.0.1:0", "127.0.0.1:4001"),
            kept("[::1]:0", "[::1]:4002"),
        ];
        let asked = [addr("127.0.0.1:0"), addr("[::1]:0"), addr("127.0.0.1:9000")];
        let got: Vec<_> = assign(&asked, &inherited).into_iter().map(|(_, actual)| actual).collect();
        assert_eq!(got, [Some(addr("127.0.0.1:4001")), Some(addr("[::1]:4002")), None]);
    }

    #[test]
    fn two_zero_ports_stay_two_and_a_picked_port_may_be_named() {
        let inherited = [kept("127.0.0.1:0", "127.0.0.1:4001"), kept("127.0.0.1:0", "127.0.0.1:4002")];
        let got = assign(&[addr("127.0.0.1:0"), addr("127.0.0.1:4001")], &inherited);
        let got: Vec<_> = got.into_iter().map(|(_, actual)| actual).collect();
        assert_eq!(got, [Some(addr("127.0.0.1:4002")), Some(addr("127.0.0.1:4001"))]);
    }

    #[tokio::test]
    async fn a_second_exclusive_bind_is_refused_and_names_the_holder() {
        let first = Port::open(&[addr("127.0.0.1:0")], None, 16).expect("a free port");
        let taken = first.addresses()[0].actual;
        let error = Port::open(&[taken], None, 16).expect_err("the port is held");
        assert!(error.is_address_in_use());
        let text = error.to_string();
        assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
    }

    #[tokio::test]
    async fn a_listener_that_closes_accepts_what_is_queued_first() {
        let mut port = Port::open(&[addr("127.0.0.1:0")], None, 64).expect("a free port");
        let local = port.addresses()[0].actual;
        let queued: Vec<_> =
            (0..50).map(|_| std::net::TcpStream::connect(local).expect("it listens")).collect();
        let delivered = Arc::new(std::sync::Mutex::new(Vec::new()));
        let sink: Sink = Arc::new({
            let delivered = Arc::clone(&delivered);
            move |stream, _| delivered.lock().expect("nobody panics with it").push(stream)
        });
        // This test's runtime has one thread, so the accept loop first runs when it is told to close already.
        port.accept(&sink, &Drain::new());
        port.begin_close();
        port.closed().await;
        assert_eq!(delivered.lock().expect("nobody panics with it").len(), queued.len());
        std::net::TcpStream::connect(local).expect_err("it is closed");
    }
}
