//! The service manager gets its notifications in order, from the generation that stands for the service. A manager that does
//! not read delays no generation.

use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt};
use support::harness::{get, playground};
use support::process::{PATIENCE, Server, signal};

/// A service manager: the socket that `NOTIFY_SOCKET` names.
pub(crate) struct Manager {
    socket: UnixDatagram,
    pub(crate) name: String,
}

/// One notification: the pid of the sender, the time of arrival and the text.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) from: u32,
    pub(crate) at: Instant,
    pub(crate) text: String,
}

impl Message {
    pub(crate) fn says(&self, field: &str) -> bool {
        self.text.lines().any(|line| line == field)
    }
}

impl Manager {
    /// Listens on a socket with an abstract name.
    pub(crate) fn new() -> Manager {
        static MANAGERS: AtomicU64 = AtomicU64::new(0);
        let number = MANAGERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("handover-test-{}-{number}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        Manager::listen(UnixDatagram::bind_addr(&address).expect("the name is unused"), format!("@{name}"))
    }

    fn at(path: &std::path::Path) -> Manager {
        let name = path.to_str().expect("UTF-8").to_owned();
        Manager::listen(UnixDatagram::bind(path).expect("the name is unused"), name)
    }

    fn listen(socket: UnixDatagram, name: String) -> Manager {
        setsockopt(&socket, PassCred, &true).expect("every Unix socket has SO_PASSCRED");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Manager { socket, name }
    }

    pub(crate) fn next(&self) -> Message {
        let (mut text, mut room) = ([0; 4096], nix::cmsg_space!(UnixCredentials));
        let mut parts = [IoSliceMut::new(&mut text)];
        let fd = self.socket.as_raw_fd();
        let told = recvmsg::<()>(fd, &mut parts, Some(&mut room), MsgFlags::empty()).expect("a message");
        let from = told.cmsgs().expect("whole").find_map(|one| match one {
            ControlMessageOwned::ScmCredentials(who) => u32::try_from(who.pid()).ok(),
            _ => None,
        });
        let (from, length) = (from.expect("SO_PASSCRED is set"), told.bytes);
        Message { from, at: Instant::now(), text: String::from_utf8_lossy(&text[..length]).into_owned() }
    }

    /// Returns all messages up to the first that has this field.
    pub(crate) fn until(&self, field: &str) -> Vec<Message> {
        let mut heard = vec![];
        loop {
            heard.push(self.next());
            if heard.last().is_some_and(|last| last.says(field)) {
                return heard;
            }
        }
    }

    pub(crate) fn told_by(&self, mut command: Command) -> Command {
        command.env("NOTIFY_SOCKET", &self.name);
        command
    }
}

/// Returns the name of the first field of each message.
fn words(heard: &[Message]) -> Vec<String> {
    let word = |one: &Message| {
        one.text.lines().next().unwrap_or_default().split('=').next().unwrap_or_default().to_owned()
    };
    heard.iter().map(word).collect()
}

#[test]
fn a_manager_at_a_path_hears_of_a_handover_in_its_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let manager = Manager::at(&dir.path().join("notify"));
    let server = Server::start(manager.told_by(playground(&[])));
    assert_eq!(words(&manager.until("READY=1")), ["READY"]);
    signal(server.first_pid(), Signal::SIGHUP);
    let heard = manager.until("READY=1");
    assert!(heard.iter().all(|one| one.from == server.first_pid()), "{heard:?}");
    assert_eq!(words(&heard), ["X_HANDOVER_SUCCESSOR", "RELOADING", "READY"], "{heard:?}");
    let second = server.wait_serving(2);
    let moved = manager.next();
    assert_eq!((moved.from, moved.text), (server.first_pid(), format!("MAINPID={second}")));
    let taken = manager.next();
    assert_eq!((taken.from, taken.text.starts_with("STATUS=")), (second, true), "{}", taken.text);
    signal(second, Signal::SIGTERM);
    assert_eq!(manager.until("STOPPING=1")[0].from, second);
}

#[test]
fn a_manager_that_never_reads_delays_no_handover() {
    let manager = Manager::new();
    full(&manager);
    let mut server = Server::start(manager.told_by(playground(&[])));
    let first = server.first_pid();
    signal(first, Signal::SIGHUP);
    let second = server.wait_serving(2);
    server.wait_state(1, "draining");
    assert!(get(server.address(), "/").contains("generation=2 "));
    server.log().wait_for("does not read");
    assert!(server.first_exit().success());
    signal(second, Signal::SIGTERM);
    server.log().wait_for("stopped");
}

/// Fills the receive queue of a manager, and returns how many messages are in it.
pub(crate) fn full(manager: &Manager) -> usize {
    let address = SocketAddr::from_abstract_name(manager.name.trim_start_matches('@')).expect("a name");
    let mut sent = 0;
    loop {
        // The kernel limits the bytes that one sender may have in flight, so one sender is not enough.
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.connect_addr(&address).expect("the manager is bound");
        sender.set_nonblocking(true).expect("a socket");
        match (0..).take_while(|_| sender.send(b"NOISE=1").is_ok()).count() {
            0 => return sent,
            more => sent += more,
        }
    }
}

#[test]
fn a_manager_that_reads_late_hears_all_in_its_order() {
    let manager = Manager::new();
    let noise = full(&manager);
    let server = Server::start(manager.told_by(playground(&[])));
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_serving(2);
    server.wait_state(1, "standby");
    for _ in 0..noise {
        assert_eq!(manager.next().text, "NOISE=1");
    }
    let heard = [manager.until("READY=1"), manager.until("READY=1")].concat();
    assert_eq!(words(&heard), ["READY", "X_HANDOVER_SUCCESSOR", "RELOADING", "READY"], "{heard:?}");
}

#[test]
fn a_manager_that_is_nowhere_is_one_warning_and_the_server_serves() {
    for nowhere in ["/nowhere/notify", "@handover-test-unbound"] {
        let mut started = playground(&[]);
        started.env("NOTIFY_SOCKET", nowhere);
        let server = Server::start(started);
        signal(server.first_pid(), Signal::SIGTERM);
        server.log().wait_for("stopped");
        let lines = server.log().lines();
        let warned = lines.iter().filter(|line| line.message().contains("cannot tell the service manager"));
        assert_eq!(warned.count(), 1, "{}", server.log().history());
    }
}

#[test]
fn the_watchdog_is_answered_at_half_the_time_by_the_generation_that_stands_for_the_service() {
    let manager = Manager::new();
    let mut shell = support::process::command("sh");
    shell.args(["-c", "WATCHDOG_PID=$$ exec \"$0\" \"$@\""]).arg(support::harness::example("playground"));
    shell.args(support::harness::QUICK).env("WATCHDOG_USEC", "1000000");
    let server = Server::start(manager.told_by(shell));
    let first = server.first_pid();
    let alive = |from: u32, times: usize| {
        let mut beats: Vec<Message> = vec![];
        while beats.len() < times {
            beats.extend(Some(manager.next()).filter(|one| one.says("WATCHDOG=1")));
        }
        assert!(beats.iter().all(|one| one.from == from), "{from}: {beats:?}");
        let gaps = beats.windows(2).map(|two| two[1].at - two[0].at);
        assert!(gaps.into_iter().all(|gap| gap < Duration::from_millis(950)), "{beats:?}");
    };
    alive(first, 3);
    signal(first, Signal::SIGHUP);
    let second = server.wait_serving(2);
    manager.until(&format!("MAINPID={second}"));
    alive(second, 3);
}
