//! The server under test: a real process, its successors, and their log.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// How long a test waits for an expected event before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A first generation and all of its successors, which share one stderr.
pub struct Server {
    first: Child,
    log: Log,
    mark: String,
    /// The directory with the control sockets, removed on drop.
    _runtime: tempfile::TempDir,
}

/// Every line written so far, by all generations.
#[derive(Clone, Default)]
pub struct Log(Arc<(Mutex<Vec<Line>>, Condvar)>);

/// A log line (JSON), or any other line on stderr.
#[derive(Debug, Clone)]
pub struct Line {
    /// When the line was read.
    pub at: Instant,
    pub text: String,
    pub json: Value,
}

impl Line {
    pub fn message(&self) -> &str {
        self.json["message"].as_str().unwrap_or(&self.text)
    }

    pub fn generation(&self) -> u64 {
        self.json["generation"].as_u64().unwrap_or(0)
    }

    pub fn pid(&self) -> u32 {
        self.json["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0)
    }
}

impl Server {
    /// Starts `command`, which must log JSON, and waits until the first generation serves.
    pub fn start(command: Command) -> Server {
        let server = Server::launch(command);
        server.wait_serving(1);
        server
    }

    /// Starts `command` without waiting for anything.
    pub fn launch(mut command: Command) -> Server {
        static SERVERS: AtomicU64 = AtomicU64::new(0);
        let mark = format!("{}.{}", std::process::id(), SERVERS.fetch_add(1, Ordering::Relaxed));
        command.env(MARK, &mark);
        let runtime = tempfile::tempdir().expect("a directory");
        if !command.get_envs().any(|(name, _)| name == RUNTIME) {
            command.env(RUNTIME, runtime.path());
        }
        let mut first = command.stderr(Stdio::piped()).spawn().expect("the server's binary starts");
        let log = Log::default();
        let (lines, stderr) = (log.clone(), first.stderr.take().expect("stderr is a pipe"));
        std::thread::spawn(move || {
            for text in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.push(text);
            }
        });
        Server { first, log, mark, _runtime: runtime }
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Waits until a generation serves, and returns its pid.
    pub fn wait_serving(&self, generation: u64) -> u32 {
        self.log.wait(&format!("generation {generation} serves"), |line| {
            (line.generation() == generation && line.message().starts_with("serving")).then(|| line.pid())
        })
    }

    /// Waits until a generation enters the state `to`.
    pub fn wait_state(&self, generation: u64, to: &str) {
        self.log.wait(&format!("generation {generation} is {to}"), |line| {
            (line.generation() == generation && line.json["to"] == to).then_some(())
        });
    }

    /// Waits until a generation has retired, which means that its successor took over.
    pub fn wait_retired(&self, generation: u64) {
        self.log.wait(&format!("generation {generation} retires"), |line| {
            (line.generation() == generation && line.message() == "retired").then_some(())
        });
    }

    /// The addresses that a generation listens on.
    pub fn addresses(&self, generation: u64) -> Vec<SocketAddr> {
        self.log.wait("its addresses", |line| {
            let listen = line.json["listen"].as_str().filter(|_| line.generation() == generation)?;
            Some(listen.split(' ').map(|a| a.parse().expect("an address")).collect())
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses(1)[0]
    }

    pub fn first_pid(&self) -> u32 {
        self.first.id()
    }

    /// The pids of all running generations.
    pub fn alive(&self) -> Vec<u32> {
        marked(&self.mark)
    }

    /// Waits until the first generation exits, and returns its status.
    pub fn first_exit(&mut self) -> std::process::ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.first.try_wait().expect("it is a child of this process") {
                return status;
            }
            assert!(Instant::now() < until, "the first generation does not exit:\n{}", self.log.history());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    /// Kills every generation, including one that starts meanwhile. The mark in the environment protects an unrelated process
    /// that has been given the pid of a dead generation.
    fn drop(&mut self) {
        loop {
            let alive = marked(&self.mark);
            if alive.is_empty() {
                break;
            }
            alive.into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
            let _ = self.first.try_wait();
        }
        // The mark of the first process may not be visible yet: /proc/PID/environ is empty until execve(2) is nearly done.
        let _ = self.first.kill();
        let _ = self.first.wait();
    }
}

/// The environment variable that marks the processes of a server; each server has a different value.
const MARK: &str = "HANDOVER_HARNESS";

/// The environment variable that names the directory for the control sockets.
pub const RUNTIME: &str = "RUNTIME_DIRECTORY";

/// The running processes that have the mark in their environment.
fn marked(mark: &str) -> Vec<u32> {
    let entry = format!("{MARK}={mark}\0");
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    // The environment of a zombie is empty.
    pids.filter(|pid| std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|e| find(&e, entry.as_bytes())))
        .collect()
}

/// A command for `program` with its default log level, stdin and stdout at /dev/null.
pub fn command(program: impl Into<PathBuf>) -> Command {
    let mut command = Command::new(program.into());
    command.env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("a pid");
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Copies the fields of a line's span into the line.
fn in_spans(line: &mut Value) {
    let Some(Value::Object(span)) = line.get("span").cloned() else { return };
    for (name, value) in span {
        if name != "name" && line.get(&name).is_none() {
            line[name] = value;
        }
    }
}

impl Log {
    fn push(&self, text: String) {
        let mut json = serde_json::from_str(&text).unwrap_or(Value::Null);
        in_spans(&mut json);
        self.0.0.lock().expect("its holders never panic").push(Line { at: Instant::now(), text, json });
        self.0.1.notify_all();
    }

    pub fn lines(&self) -> Vec<Line> {
        self.0.0.lock().expect("its holders never panic").clone()
    }

    pub fn history(&self) -> String {
        self.lines().iter().map(|line| format!("  {}\n", line.text)).collect()
    }

    /// The lines from index `number` on.
    pub fn since(&self, number: usize) -> Vec<Line> {
        self.0.0.lock().expect("its holders never panic")[number..].to_vec()
    }

    /// Waits until `pick` accepts a line, and returns the value that `pick` made of it.
    pub fn wait<T>(&self, what: &str, pick: impl Fn(&Line) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.0.0.lock().expect("its holders never panic");
        loop {
            if let Some(found) = lines.iter().find_map(&pick) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(lines);
                panic!("timed out after {PATIENCE:?} waiting until {what}:\n{}", self.history());
            }
            lines = self.0.1.wait_timeout(lines, left).expect("its holders never panic").0;
        }
    }

    /// Waits for a line whose message contains `text`.
    pub fn wait_for(&self, text: &str) -> Line {
        self.wait(&format!("a line says {text:?}"), |line| {
            line.message().contains(text).then(|| line.clone())
        })
    }
}
