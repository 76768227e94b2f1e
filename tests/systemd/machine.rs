//! A machine with a separate systemd as process 1, in namespaces: see `boot.sh`. Dropping it kills it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::HANDOVER;

/// The longest that the tests wait for an event.
const PATIENCE: Duration = Duration::from_secs(30);

/// A version of systemd: the installed one, or one that is unpacked in a folder of the colon-separated list
/// `SYSTEMD_UNDER_TEST`.
#[derive(Debug, Clone)]
pub(crate) struct Systemd {
    pub(crate) version: u32,
    tree: Option<PathBuf>,
}

impl Systemd {
    /// Returns the versions that can be tested here, or why there is none.
    pub(crate) fn all() -> Result<Vec<Systemd>, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("a separate systemd needs root".into());
        }
        cgroup2().ok_or("a separate systemd needs a writable cgroup2 mount")?;
        let namespaces = ["--pid", "--mount", "--uts", "--ipc", "--cgroup", "--fork", "true"];
        if !Command::new("unshare").args(namespaces).status().is_ok_and(|status| status.success()) {
            return Err("a separate systemd needs namespaces".into());
        }
        let unpacked = std::env::var("SYSTEMD_UNDER_TEST").unwrap_or_default();
        let trees = unpacked.split(':').filter(|tree| !tree.is_empty()).map(|tree| Some(tree.into()));
        let all: Vec<_> = [None].into_iter().chain(trees).filter_map(Systemd::at).collect();
        if all.is_empty() { Err("no systemd is installed".into()) } else { Ok(all) }
    }

    fn at(tree: Option<PathBuf>) -> Option<Systemd> {
        // The name of systemd's private library has the version.
        let root = tree.as_deref().unwrap_or(Path::new("/"));
        let libraries = fs::read_dir(root.join("usr/lib")).ok()?.flatten();
        let libraries = libraries.filter_map(|dir| fs::read_dir(dir.path().join("systemd")).ok());
        let mut names = libraries.flatten().flatten().filter_map(|file| file.file_name().into_string().ok());
        let name = names.find(|name| name.starts_with("libsystemd-shared-"))?;
        let version = name.trim_start_matches("libsystemd-shared-").split(['.', '-']).next()?.parse().ok()?;
        Some(Systemd { version, tree })
    }
}

/// Returns the cgroup2 mount if groups can be made there.
fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let mount = mounts.lines().map(fields).find(|fields| fields[2] == "cgroup2")?;
    let probe = Path::new(&mount[1]).join(format!("handover-probe-{}", std::process::id()));
    // Another test of this process may probe at the same moment.
    let may = fs::create_dir(&probe).or_else(|_| fs::metadata(&probe).map(drop)).is_ok();
    let _ = fs::remove_dir(&probe);
    may.then(|| mount[1].clone().into())
}

pub(crate) struct Machine {
    unshare: Child,
    init: u32,
    cgroup: PathBuf,
    share: tempfile::TempDir,
    /// The address of the server: a privileged port, on an IP address that no other machine uses.
    pub(crate) addr: SocketAddr,
}

impl Machine {
    /// Boots a machine with a unit of the examples as `handover.service`, `more` settings in its `[Service]` section, and a
    /// config file with the address and `config`. The server logs to a file.
    pub(crate) fn boot(systemd: &Systemd, unit: &str, more: &str, config: &str) -> Machine {
        static MACHINES: AtomicU8 = AtomicU8::new(1);
        let number = MACHINES.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let cgroup = cgroup2().expect("found by `all`").join(format!("handover-test-{pid}-{number}"));
        fs::create_dir(&cgroup).expect("a group of processes");
        let share = tempfile::tempdir().expect("a folder");
        // The service runs as another user, and must be able to read this folder.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(share.path(), mode).expect("writable");
        let units = share.path().join("units");
        fs::create_dir_all(units.join("handover.service.d")).expect("writable");
        for target in ["default", "sysinit", "basic", "shutdown", "multi-user", "network-online"] {
            let text = "[Unit]\nDefaultDependencies=no\n";
            fs::write(units.join(format!("{target}.target")), text).expect("writable");
        }
        let examples = support::root().join("examples/systemd");
        fs::copy(examples.join(unit), units.join("handover.service")).expect("an example");
        let more = format!("[Service]\nStandardError=append:/mnt/log\n{more}\n");
        fs::write(units.join("handover.service.d/test.conf"), more).expect("writable");
        let script = share.path().join("boot.sh");
        fs::write(&script, include_str!("boot.sh")).expect("writable");
        // PDEATHSIG: if this process is killed, the machine dies too.
        let mut unshare = Command::new("setpriv");
        unshare.args(["--pdeathsig", "KILL", "unshare"]);
        unshare
            .args(["--pid", "--mount", "--uts", "--ipc", "--fork", "--kill-child", "--"])
            .arg("sh")
            .arg(script);
        unshare.env("CGROUP", &cgroup).env("SHARE", share.path()).env("HANDOVER", HANDOVER);
        unshare.env("SYSTEMD", systemd.tree.as_deref().unwrap_or(Path::new("")));
        let errors = fs::File::create(share.path().join("boot.log")).expect("writable");
        unshare.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let unshare = unshare.spawn().expect("unshare is part of every Debian");
        let [.., low, high] = pid.to_le_bytes();
        let [first, second, ..] = pid.to_le_bytes();
        let addr =
            SocketAddr::from(([127, 64 + (low ^ high ^ number) % 64, first.max(1), second.max(1)], 80));
        let mut machine = Machine { unshare, init: 0, cgroup, share, addr };
        machine.wait("systemd runs", |machine| {
            machine.init = machine.find_init().unwrap_or_default();
            let said = machine.init != 0 && machine.share.path().join("etc/handover").exists();
            said && ["running", "degraded"].contains(&machine.said("systemctl is-system-running").trim())
        });
        machine.configure(config);
        machine
    }

    /// Writes the config file that the next generation reads.
    pub(crate) fn configure(&self, config: &str) {
        let text = format!("listen = [\"{}\"]\nlog-format = \"json\"\n{config}\n", self.addr);
        fs::write(self.share.path().join("etc/handover/handover.toml"), text).expect("writable");
    }

    fn find_init(&self) -> Option<u32> {
        let pid = self.unshare.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let init = children.trim().parse().ok()?;
        (fs::read_to_string(format!("/proc/{init}/comm")).ok()?.trim() == "systemd").then_some(init)
    }

    /// Runs a shell command as root.
    pub(crate) fn run(&self, command: &str) -> Output {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &self.init.to_string(), "--mount", "--pid", "--uts", "--ipc", "--"]);
        let output = nsenter.args(["sh", "-c", command]).stdin(Stdio::null()).output();
        output.expect("nsenter is part of every Debian")
    }

    pub(crate) fn said(&self, command: &str) -> String {
        String::from_utf8_lossy(&self.run(command).stdout).into_owned()
    }

    /// Runs a shell command; returns whether it succeeded, and its output.
    pub(crate) fn told(&self, command: &str) -> (bool, String) {
        let output = self.run(command);
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    #[track_caller]
    pub(crate) fn must(&self, command: &str) {
        let (succeeded, said) = self.told(command);
        assert!(succeeded, "{command}: {said}\n{}", self.history());
    }

    /// Returns the properties of the service.
    pub(crate) fn unit(&self) -> Unit {
        let said = self.said("systemctl show handover");
        let properties = said.lines().filter_map(|line| line.split_once('='));
        Unit(properties.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[track_caller]
    pub(crate) fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Machine) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < until, "waited {PATIENCE:?} in vain until {what}:\n{}", self.history());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    pub(crate) fn wait_main(&mut self, pid: u32) {
        self.wait(&format!("the main pid is {pid}"), |machine| machine.unit().main_pid() == pid);
    }

    /// Returns the pid of a generation that serves or has served.
    pub(crate) fn pid_of(&self, generation: u64) -> Option<u32> {
        let serves = |line: &&serde_json::Value| {
            line["generation"] == generation
                && line["message"].as_str().is_some_and(|m| m.starts_with("serving"))
        };
        let lines = self.log();
        lines.iter().rfind(serves).and_then(|line| line["pid"].as_u64()?.try_into().ok())
    }

    /// Returns the JSON lines of the server's log.
    pub(crate) fn log(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.share.path().join("log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Returns all logs, for the message of a failed assertion.
    pub(crate) fn history(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.share.path().join(name)).unwrap_or_default();
        format!("{}{}\n{}", read("boot.log"), read("log"), self.said("systemctl status handover"))
    }

    /// Returns the pids that are left in the cgroup of the service, one per line.
    pub(crate) fn processes(&self) -> String {
        self.said("cat /sys/fs/cgroup/system.slice/handover.service/cgroup.procs 2>/dev/null")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // unshare kills process 1 with itself (`--kill-child`), and the end of process 1 kills its whole namespace.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let until = Instant::now() + PATIENCE;
        while self.cgroup.exists() && Instant::now() < until {
            remove_groups(&self.cgroup);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Removes a cgroup and the groups inside it, as far as they have no processes.
fn remove_groups(group: &Path) {
    let inside = fs::read_dir(group).into_iter().flatten().flatten();
    inside.filter(|entry| entry.path().is_dir()).for_each(|entry| remove_groups(&entry.path()));
    let _ = fs::remove_dir(group);
}

/// The properties of a unit.
#[derive(Debug)]
pub(crate) struct Unit(BTreeMap<String, String>);

impl Unit {
    pub(crate) fn get(&self, property: &str) -> &str {
        self.0.get(property).map_or("", String::as_str)
    }

    pub(crate) fn main_pid(&self) -> u32 {
        self.get("MainPID").parse().unwrap_or(0)
    }

    /// `MainPID ActiveState NRestarts`.
    pub(crate) fn summary(&self) -> String {
        format!("{} {} {}", self.get("MainPID"), self.get("ActiveState"), self.get("NRestarts"))
    }
}
