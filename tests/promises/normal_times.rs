//! No client can lock out the others, at any time and not only during a handover: useless connections are closed, active
//! clients are not affected by that, and a server that is full makes room.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use support::harness::QUICK;
use support::process::{Server, command};
use support::siege::attacks::Attack;
use support::siege::site;
use support::siege::sockets::Sockets;
use support::siege::wage::wage;

use crate::HANDOVER;

mod ends;
mod full;
mod harmless;
mod work;

/// The longest that an honest client may have to wait.
const SOON: Duration = Duration::from_secs(2);

/// A running `handover ROOT` with the site that the attacks request.
struct Site {
    server: Server,
    _dir: tempfile::TempDir,
}

impl Site {
    fn start(args: &[&str]) -> Site {
        Site::of(command(HANDOVER), args)
    }

    /// Starts the server with at most this number of descriptors.
    fn narrow(descriptors: u32, args: &[&str]) -> Site {
        let mut limited = command("sh");
        limited.arg("-c").arg(format!("ulimit -n {descriptors}; exec \"$@\"")).arg("sh").arg(HANDOVER);
        Site::of(limited, args)
    }

    fn of(mut started: Command, args: &[&str]) -> Site {
        let dir = tempfile::tempdir().expect("a directory");
        site::make(dir.path());
        started.args(QUICK).args(["--admin=127.0.0.1:0", "--probes", "--compression", "--directory-listing"]);
        started.args(args).arg(dir.path());
        Site { server: Server::start(started), _dir: dir }
    }

    fn address(&self) -> SocketAddr {
        self.server.addresses(1)[0]
    }

    fn admin(&self) -> SocketAddr {
        self.server.addresses(1)[1]
    }
}

/// Sends one request on a new connection and returns how long the response took; an error if it took too long.
fn ask(addr: SocketAddr, target: &str) -> Result<Duration, String> {
    let began = Instant::now();
    let exchange = || {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(SOON))?;
        let request = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    let answer = exchange().map_err(|error| format!("{target}: {error} after {:?}", began.elapsed()))?;
    let took = began.elapsed();
    if answer.starts_with("HTTP/1.1 200") && took < SOON {
        Ok(took)
    } else {
        Err(format!("{target}: {answer:?} after {took:?}"))
    }
}

/// An attack, and the time span in which the server has to end it.
#[derive(Debug, Clone, Copy)]
struct Row {
    attack: Attack,
    /// The earliest permitted end, counted from the connect.
    from: Duration,
    /// The latest permitted end.
    until: Duration,
}

/// Runs all attacks at the same time, and returns a line for each that does not end as it should.
#[tokio::main(flavor = "current_thread")]
async fn attack(addr: SocketAddr, rows: &[Row]) -> Vec<String> {
    let sockets = std::sync::Arc::new(Sockets::watch(addr));
    let mut attacks = tokio::task::JoinSet::new();
    for row in rows.iter().copied() {
        let sockets = std::sync::Arc::clone(&sockets);
        attacks.spawn(async move {
            let name = row.attack.name;
            match tokio::time::timeout(row.until, wage(&row.attack, addr, &sockets)).await {
                Err(_) => Some(format!("{name}: still there after {:?}", row.until)),
                Ok(Err(error)) => Some(format!("{name}: {error}")),
                Ok(Ok((deed, after))) => {
                    println!("{name}: {deed:?} after {after:.1?}");
                    (after < row.from).then(|| format!("{name}: {deed:?} after only {after:.1?}"))
                }
            }
        });
    }
    attacks.join_all().await.into_iter().flatten().collect()
}
