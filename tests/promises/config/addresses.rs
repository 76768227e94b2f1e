//! Addresses to listen on, in the config and in flags: both families, host names, and addresses that conflict.

use std::net::{IpAddr, SocketAddr, TcpListener};

use nix::sys::signal::Signal;
use support::harness::{QUICK, Traffic, get, skip};
use support::load::Clients;
use support::process::{Server, command, signal};

use super::{Bed, finish};
use crate::HANDOVER;

/// The loopback addresses of both families.
fn loopback(port: u16) -> [SocketAddr; 2] {
    ["127.0.0.1", "::1"].map(|ip| SocketAddr::new(ip.parse::<IpAddr>().expect("literal"), port))
}

fn has_ipv6() -> bool {
    let has = TcpListener::bind("[::1]:0").is_ok();
    if !has {
        skip("there is no IPv6");
    }
    has
}

/// Hands over under load to a generation for each of `others`, and asserts that each serves both families.
#[track_caller]
fn assert_served_by_both(first: &str, others: &[&str]) {
    let bed = Bed::make();
    let rest = "log-format = 'json'\nstandby = '300ms'\n";
    let listen = |addresses: &str| {
        let root = bed.path("root");
        bed.file("handover.toml", format!("{rest}listen = {addresses}\nroot = {root:?}\n"));
    };
    listen(first);
    let server = Server::start(bed.command(&[]));
    let port = server.address().port();
    let mut pid = server.first_pid();
    // The load uses only the families that the first generation listens on.
    let families = if first.contains("::") { &loopback(port)[..] } else { &loopback(port)[..1] };
    let traffic: Vec<_> = families.iter().map(|addr| Traffic::start(*addr, Clients::Fresh, 4)).collect();
    for (n, addresses) in others.iter().enumerate() {
        let generation = n as u64 + 2;
        listen(&addresses.replace('P', &port.to_string()));
        signal(pid, Signal::SIGHUP);
        pid = server.wait_serving(generation);
        server.wait_retired(generation - 1);
        for addr in loopback(port) {
            assert!(get(addr, "/").contains("200 OK"), "{addresses}: {addr}");
        }
    }
    traffic.into_iter().for_each(|traffic| drop(traffic.stop_lossless(&server)));
}

#[test]
fn both_wildcards_of_a_port_are_served_whichever_the_predecessor_listened_on() {
    if !has_ipv6() {
        return;
    }
    let both = "['0.0.0.0:P', '[::]:P']";
    assert_served_by_both("'0.0.0.0:0'", &[both, "['[::]:P', '0.0.0.0:P']", "'[::]:P'", both]);
    assert_served_by_both("'[::]:0'", &[both, "'[::]:P'", both, "'[::]:P'"]);
    assert_served_by_both("'0.0.0.0:0'", &["'[::]:P'", "'[::]:P'", both]);
}

#[test]
fn a_first_generation_listens_on_both_wildcards_as_the_readme_says() {
    let readme = include_str!("../../../README.md");
    let line = readme.lines().find(|line| line.starts_with("listen = [\"0.0.0.0:")).expect("an example");
    let bed = Bed::make();
    bed.file("handover.toml", format!("{line}\n"));
    let (code, stdout, stderr) = finish(&mut bed.command(&["--check"]));
    assert_eq!((code, &*stderr), (Some(0), ""), "{stdout}");
    if !has_ipv6() {
        return;
    }
    let port = TcpListener::bind("[::]:0").and_then(|l| l.local_addr()).expect("a free port").port();
    bed.config("");
    let server = Server::start(bed.command(&[
        "--listen",
        &format!("0.0.0.0:{port}"),
        "--listen",
        &format!("[::]:{port}"),
    ]));
    assert_eq!(server.addresses(1).len(), 2);
    for addr in loopback(port) {
        assert!(get(addr, "/").contains("200 OK"), "{addr}");
    }
}

#[test]
fn a_host_name_is_resolved_and_its_addresses_are_kept_over_a_handover() {
    let mut started = command(HANDOVER);
    started.args(QUICK).args(["--listen", "localhost:0"]);
    let server = Server::start(started);
    let addresses = server.addresses(1);
    assert!(addresses.iter().all(|addr| addr.ip().is_loopback()), "{addresses:?}");
    for addr in addresses {
        assert!(get(addr, "/").contains("generation 1,"));
    }
    signal(server.first_pid(), Signal::SIGHUP);
    server.wait_serving(2);
    assert_eq!(server.addresses(2), server.addresses(1));
    let unknown = ["--listen", "no-such-host.invalid:8080"];
    for check in [&["--check"][..], &[]] {
        let (code, _, stderr) = finish(command(HANDOVER).args(check).args(unknown));
        assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.contains("cannot find the address of no-such-host.invalid"), "{stderr}");
    }
    for wrong in ["1.2.3:80", "::1:80", "[::1:80", "a b:80", "localhost:", ":80", "localhost:+80"] {
        assert_eq!(finish(command(HANDOVER).args(["--listen", wrong])).0, Some(2), "{wrong}");
    }
}

#[test]
fn a_check_finds_the_addresses_that_a_start_would_refuse() {
    for (one, other) in
        [("0.0.0.0:8089", "127.0.0.1:8089"), ("[::]:8089", "[::1]:8089"), ("[::]:8089", "127.0.0.1:8089")]
    {
        for pair in [[one, other], [other, one]] {
            for check in [&["--check"][..], &[]] {
                let flags = ["--listen", pair[0], "--listen", pair[1]];
                let (code, stdout, stderr) = finish(command(HANDOVER).args(check).args(flags));
                assert_eq!((code, &*stdout, stderr.lines().count()), (Some(1), "", 1), "{pair:?}: {stderr}");
                assert!(stderr.contains(one) && stderr.contains(other), "{pair:?}: {stderr}");
            }
        }
    }
}

#[test]
fn an_admin_address_that_the_server_listens_on_is_refused() {
    let bed = Bed::make();
    let token = bed.path("token");
    std::fs::write(&token, "0123456789abcdef").expect("writable");
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("we own it");
    let listen = ["127.0.0.1:8087", "127.0.0.2:8088"];
    for (admin, listen) in [
        ("127.0.0.1:8087", &listen[..]),
        ("127.0.0.2:8088", &listen[..]),
        ("127.0.0.1:8087", &["0.0.0.0:8087", "127.0.0.1:8088"]),
        ("0.0.0.0:8087", &listen[..]),
        ("127.0.0.1:8087", &["[::]:8087"]),
        ("0.0.0.0:8087", &["[::]:8087"]),
    ] {
        for check in [&["--check"][..], &[]] {
            // With a token file, so that a missing token is not the reason for the refusal.
            bed.config(&format!("admin = '{admin}'\nadmin-token-file = {token:?}\n"));
            let flags: Vec<_> =
                listen.iter().flat_map(|addr| ["--listen", addr]).chain(check.iter().copied()).collect();
            let (code, _, stderr) = finish(&mut bed.command(&flags));
            assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{admin} {listen:?}: {stderr}");
            for word in ["handover.toml:5:9: admin: ", "cannot open the admin address", "another port"] {
                assert!(stderr.contains(word), "{word:?} is missing: {stderr}");
            }
        }
    }
}

#[test]
fn the_same_link_local_address_on_two_interfaces_is_served_and_handed_over() {
    // Two interfaces with the same address, in a separate network namespace.
    let network = "ip link set lo up && for i in lan0 lan1; do
        ip link add $i type veth peer name $i-peer && ip link set $i up && ip link set $i-peer up &&
        ip -6 address add fe80::1/64 dev $i nodad || exit 77; done; exec \"$@\"";
    let unshare = || {
        let mut unshare = command("unshare");
        unshare.args(["--user", "--map-root-user", "--net", "sh", "-c", network, "sh"]);
        unshare
    };
    if !unshare().arg("true").stderr(std::process::Stdio::null()).status().is_ok_and(|s| s.success()) {
        return skip("no network namespace with two interfaces");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut started = unshare();
    // The interfaces are given by name, because their numbers are unknown.
    started.arg(HANDOVER).args(["--log-format", "json", "--standby", "300ms"]);
    started
        .args(["--listen", "[fe80::1%lan0]:8080", "--listen", "[fe80::1%lan1]:8080", "--control"])
        .arg(dir.path());
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("ours");
    let server = Server::start(started);
    let mut pid = server.first_pid();
    for generation in 2..=4 {
        signal(pid, Signal::SIGHUP);
        pid = server.wait_serving(generation);
        server.wait_retired(generation - 1);
    }
    let mut status = command("nsenter");
    let target = pid.to_string();
    status.args(["--target", &target, "--user", "--net", "--preserve-credentials", HANDOVER, "status"]);
    let (code, stdout, stderr) = finish(status.arg("--control").arg(dir.path()));
    assert_eq!(code, Some(0), "{stderr}");
    let listed = stdout.lines().filter(|line| line.starts_with("[fe80::1%")).collect::<Vec<_>>();
    assert_eq!(listed.len(), 2, "{stdout}");
    assert!(listed.iter().all(|line| line.ends_with(&format!("]:8080: pid {pid}"))), "{stdout}");
}
