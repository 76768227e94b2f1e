//! Two network namespaces joined by two TUN devices and a simulated wire that delays packets and drops some.
//!
//! A user namespace makes this possible without root. This process is in the server's namespace and starts servers there;
//! the client's end is another namespace that threads can enter.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use tokio::runtime::{Builder, Runtime};

pub const SERVER: &str = "10.99.0.1";
const CLIENT: &str = "10.99.0.2";

/// The environment variable that tells a process inside the new namespaces what to run.
const INSIDE: &str = "HANDOVER_TEST_BED";

/// The delay and loss of packets in each direction.
#[derive(Debug, Clone, Copy)]
pub struct Wire {
    pub delay: Duration,
    /// The upper bound of a random extra delay; packets stay in order.
    pub jitter: Duration,
    /// The share of packets that are dropped.
    pub loss: f64,
    /// The random seed: runs that send the same packets lose the same packets.
    pub seed: u64,
}

/// A path between two continents, over a weak radio link.
pub const LOSSY: Wire =
    Wire { delay: Duration::from_millis(40), jitter: Duration::from_millis(20), loss: 0.01, seed: 1 };
/// A satellite path in the rain.
pub const TERRIBLE: Wire =
    Wire { delay: Duration::from_millis(190), jitter: Duration::from_millis(20), loss: 0.03, seed: 1 };

/// Runs `what` in a new process with its own network: this executable again, with `args` that lead it to this call; `name`
/// identifies the call. Returns the stdout of the process, or why there can be no such network.
pub fn run(name: &str, args: &[&str], what: impl FnOnce()) -> Result<String, String> {
    run_and_hear(name, args, what, |_| {})
}

/// Does the same as [`run`], and passes each line that the process writes to stderr to `hear` at once.
pub fn run_and_hear(
    name: &str,
    args: &[&str],
    what: impl FnOnce(),
    mut hear: impl FnMut(&str),
) -> Result<String, String> {
    if std::env::var(INSIDE).is_ok_and(|inside| inside == name) {
        what();
        return Ok(String::new());
    }
    let own_network = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--"]);
        command
    };
    if !own_network().arg("true").output().is_ok_and(|tried| tried.status.success()) {
        return Err("no user and network namespaces here, so no slow network to test with".into());
    }
    if let Err(error) = File::options().read(true).write(true).open("/dev/net/tun") {
        return Err(format!("no TUN devices here ({error}), so no slow network to test with"));
    }
    let me = std::env::current_exe().expect("the path of this executable");
    let mut command = own_network();
    command.arg(me).args(args).env(INSIDE, name).stdin(Stdio::null());
    let mut inside = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let inside = inside.as_mut().expect("unshare ran a moment ago");
    let (stdout, stderr) = (inside.stdout.take(), inside.stderr.take());
    let said = thread::spawn(|| io::read_to_string(stdout.expect("it is piped")).unwrap_or_default());
    let mut complaints = String::new();
    for line in BufReader::new(stderr.expect("it is piped")).lines().map_while(Result::ok) {
        hear(&line);
        complaints += &format!("{line}\n");
    }
    let status = inside.wait().expect("it is a child of this process");
    assert!(status.success(), "{complaints}");
    Ok(said.join().expect("the reading thread does not panic"))
}

/// The network, which ends with this process.
pub struct Bed {
    client: File,
    vanished: Vanished,
}

/// The addresses of vanished clients: the wire drops every packet from or to them.
#[derive(Clone, Default)]
struct Vanished(Arc<Mutex<HashSet<SocketAddrV4>>>);

impl Bed {
    pub fn new(wire: Wire) -> Bed {
        let server_end = device(SERVER);
        let (client, client_end) = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("we are root in our user namespace");
            let namespace = File::open("/proc/thread-self/ns/net").expect("Linux has it");
            (namespace, device(CLIENT))
        })
        .join()
        .expect("the client's end is made");
        let ((from_server, to_server), (from_client, to_client)) = (server_end.split(), client_end.split());
        let vanished = Vanished::default();
        let (there, back) = (vanished.clone(), vanished.clone());
        thread::spawn(move || carry(from_server, to_client, wire, wire.seed, &there));
        thread::spawn(move || carry(from_client, to_server, wire, !wire.seed, &back));
        Bed { client, vanished }
    }

    /// Runs `what` in a thread at the client's end. Threads that it starts are at the client's end too.
    pub fn at_the_client<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                setns(&self.client, CloneFlags::CLONE_NEWNET).expect("our user namespace owns it");
                what()
            });
            there.join().expect("the client does not panic")
        })
    }

    /// Builds a runtime with its threads at the client's end.
    pub fn client_runtime(&self, threads: usize) -> Runtime {
        self.at_the_client(|| {
            let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build();
            runtime.expect("a runtime")
        })
    }

    /// Makes the client at this end of a connection vanish: from now on the wire drops every packet from or to it.
    pub fn vanish(&self, client: &TcpStream) {
        if let Ok(SocketAddr::V4(client)) = client.local_addr() {
            self.vanished.0.lock().expect("its holders never panic").insert(client);
        }
    }
}

impl Vanished {
    fn concerns(&self, packet: &[u8]) -> bool {
        let vanished = self.0.lock().expect("its holders never panic");
        ends(packet).is_some_and(|ends| ends.iter().any(|end| vanished.contains(end)))
    }
}

/// The source and the destination of a packet of TCP over IPv4 (RFC 791, section 3.1). The ports come first after the IP header.
fn ends(packet: &[u8]) -> Option<[SocketAddrV4; 2]> {
    let (addresses, first) = (packet.get(12..20)?.as_chunks::<4>().0, packet[0]);
    if first >> 4 != 4 || packet[9] != 6 {
        return None;
    }
    let ports = packet.get(usize::from(first & 0xf) * 4..)?.first_chunk::<4>()?.as_chunks::<2>().0;
    let end = |n: usize| SocketAddrV4::new(addresses[n].into(), u16::from_be_bytes(ports[n]));
    Some([end(0), end(1)])
}

fn device(address: &str) -> tun::Device {
    let mut config = tun::configure();
    config.address(address).netmask("255.255.255.0").mtu(1500).up();
    tun::create(&config).expect("a TUN device in a namespace of our own")
}

fn carry(mut from: impl Read, to: impl Write + Send + 'static, wire: Wire, seed: u64, vanished: &Vanished) {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || deliver(&receiver, to));
    let mut random = fastrand::Rng::with_seed(seed);
    let mut last = Instant::now();
    let mut packet = [0; 2048];
    while let Ok(n) = from.read(&mut packet) {
        if random.f64() < wire.loss || vanished.concerns(&packet[..n]) {
            continue;
        }
        last = last.max(Instant::now() + wire.delay + wire.jitter.mul_f64(random.f64()));
        if sender.send((last, packet[..n].to_vec())).is_err() {
            return;
        }
    }
}

fn deliver(packets: &mpsc::Receiver<(Instant, Vec<u8>)>, mut to: impl Write) {
    for (at, packet) in packets {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        // The device refuses data that is not an IP packet, and every packet while it goes down.
        let _ = to.write_all(&packet);
    }
}
