//! Nobody can lock the others out, all the time and not only during a handover: no connection stays for nothing, nobody
//! who does something is hurt by that, and a server that is full makes room.

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

/// What nobody honest waits longer than.
const SOON: Duration = Duration::from_secs(2);

/// `handover ROOT`, and the site that attacks ask for.
struct Site {
    server: Server,
    _dir: tempfile::TempDir,
}

impl Site {
    fn start(args: &[&str]) -> Site {
        Site::of(command(HANDOVER), args)
    }

    /// With so few descriptors.
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

/// One request on a connection of its own, which is not left waiting; gives how long it took.
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

/// An attack, and when the server has to do something about it.
#[derive(Debug, Clone, Copy)]
struct Row {
    attack: Attack,
    /// Not before this time from its connect.
    from: Duration,
    until: Duration,
}

/// Attacks with all of them at the same time, and gives a line for each that does not end as it should.
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
