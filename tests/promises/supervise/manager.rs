//! The supervisor relays the notifications of its generations to its service manager.

use nix::sys::signal::Signal;
use support::process::{Server, signal};

use super::supervised;
use crate::notify::{Manager, Message};

#[test]
fn a_manager_hears_of_everything_from_the_pid_that_stays() {
    let manager = Manager::new();
    let mut server = Server::start(manager.told_by(supervised(&[])));
    let front = server.first_pid();
    let mut heard = manager.until("READY=1");
    assert_eq!(heard.len(), 1, "{heard:?}");
    for generation in 1..=2 {
        signal(front, Signal::SIGHUP);
        let reload = manager.until("READY=1");
        assert!(reload.iter().any(|one| one.says("RELOADING=1")), "{reload:?}");
        assert!(reload.iter().any(|one| one.text.contains("MONOTONIC_USEC=")), "{reload:?}");
        heard.extend(reload);
        // Until then the new generation does not know that it stands for the service, and sends nothing.
        let next = format!("STATUS=generation {} serves", generation + 1);
        heard.push(manager.next());
        assert!(heard.last().is_some_and(|last| last.text.starts_with(&next)), "{heard:?}");
    }
    signal(front, Signal::SIGTERM);
    heard.extend(manager.until("STOPPING=1"));
    assert_eq!(server.first_exit().code(), Some(0));
    assert!(heard.iter().all(|one| one.from == front), "{heard:?}");
    let ours = |one: &Message| one.text.contains("MAINPID") || one.text.contains("X_");
    assert!(!heard.iter().any(ours), "{heard:?}");
}

#[test]
fn the_watchdog_of_a_supervisor_is_answered_by_the_generation_that_serves() {
    let manager = Manager::new();
    let mut started = manager.told_by(supervised(&[]));
    started.env("WATCHDOG_USEC", "600000");
    let server = Server::start(started);
    let front = server.first_pid();
    manager.until("WATCHDOG=1");
    signal(front, Signal::SIGHUP);
    server.wait_serving(2);
    server.wait_state(1, "draining");
    server.wait_retired(1);
    for _ in 0..3 {
        assert!(manager.until("WATCHDOG=1").iter().all(|one| one.from == front));
    }
}

#[test]
fn a_manager_that_never_reads_delays_no_handover() {
    let manager = Manager::new();
    crate::notify::full(&manager);
    let mut server = Server::start(manager.told_by(supervised(&[])));
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_serving(2);
    server.wait_state(1, "draining");
    signal(server.first_pid(), Signal::SIGTERM);
    assert_eq!(server.first_exit().code(), Some(0), "{}", server.log().history());
}

#[test]
fn only_the_generation_that_stands_for_the_service_is_believed() {
    let server = Server::start(supervised(&[]));
    let generation = server.wait_serving(1);
    let environment = std::fs::read(format!("/proc/{generation}/environ")).expect("it is alive");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let path =
        environment.split('\0').find_map(|entry| entry.strip_prefix("NOTIFY_SOCKET=")).expect("a path");
    let mut favourite = support::process::command("sleep").arg("60").spawn().expect("it starts");
    let stranger = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    stranger.send_to(format!("MAINPID={}", favourite.id()).as_bytes(), path).expect("the supervisor listens");
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_serving(2);
    server.wait_state(1, "draining");
    assert!(favourite.try_wait().expect("a child").is_none(), "a forged MAINPID got SIGHUP");
    favourite.kill().and_then(|()| favourite.wait()).expect("a child");
}

#[test]
fn a_flood_of_messages_keeps_the_supervisor_from_nothing() {
    use std::os::linux::net::SocketAddrExt;
    use std::sync::atomic::{AtomicBool, Ordering};
    let mut server = Server::start(supervised(&[]));
    let generation = server.wait_serving(1);
    let environment = std::fs::read(format!("/proc/{generation}/environ")).expect("it is alive");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let name =
        environment.split('\0').find_map(|entry| entry.strip_prefix("NOTIFY_SOCKET=")).expect("a name");
    let address = match name.strip_prefix('@') {
        Some(name) => std::os::unix::net::SocketAddr::from_abstract_name(name),
        None => std::os::unix::net::SocketAddr::from_pathname(name),
    };
    let (address, over) = (address.expect("a name"), AtomicBool::new(false));
    let junk = [b'x'; 16 * 1024];
    let sent = std::thread::scope(|scope| {
        let flood = || {
            let stranger = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
            let mut sent = 0_u64;
            while !over.load(Ordering::Relaxed) {
                sent += u64::from(stranger.send_to_addr(&junk, &address).is_ok());
            }
            sent
        };
        let floods: Vec<_> = (0..4).map(|_| scope.spawn(flood)).collect();
        let heard = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for next in 2..=3 {
                signal(server.first_pid(), Signal::SIGHUP);
                server.wait_serving(next);
                server.wait_state(next - 1, "draining");
            }
            signal(server.first_pid(), Signal::SIGTERM);
            server.log().wait("the last one stops", |line| (line.message() == "stopped").then_some(()));
        }));
        over.store(true, Ordering::Relaxed);
        let sent = floods.into_iter().map(|flood| flood.join().expect("it does not panic")).sum::<u64>();
        heard.expect("the supervisor reacts");
        sent
    });
    println!("{sent} messages of 16 KiB");
    assert_eq!(server.first_exit().code(), Some(0), "{}", server.log().history());
}

#[test]
fn the_directory_of_the_supervisor_s_socket_is_private_and_is_removed_at_the_end() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    // The directory's mode must not depend on the umask, even on one that removes every permission.
    let mut umask = support::process::command("sh");
    let playground = supervised(&[]);
    umask
        .args(["-c", "umask 777; exec \"$@\"", "sh"])
        .arg(playground.get_program())
        .args(playground.get_args());
    let mut server = Server::start(umask);
    let generation = server.wait_serving(1);
    let environment = std::fs::read(format!("/proc/{generation}/environ")).expect("it is alive");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let path =
        environment.split('\0').find_map(|entry| entry.strip_prefix("NOTIFY_SOCKET=")).expect("a path");
    let dir = std::path::Path::new(path).parent().expect("a directory").to_owned();
    let is = std::fs::metadata(&dir).expect("it exists");
    assert_eq!((is.permissions().mode() & 0o7777, is.uid()), (0o700, nix::unistd::geteuid().as_raw()));
    signal(server.first_pid(), Signal::SIGTERM);
    assert_eq!(server.first_exit().code(), Some(0), "{}", server.log().history());
    assert!(!dir.exists());
}
