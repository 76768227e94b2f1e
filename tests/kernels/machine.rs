//! An emulated machine with two processors and a kernel of another series. It has no disk and no outside network, and reports
//! over its second serial line, one JSON value per line. Dropping it kills it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::initramfs;

/// The longest that a machine may run, from power on to power off.
const PATIENCE: Duration = Duration::from_secs(300);

const QEMU: &str = "qemu-system-x86_64";

/// The variable that names the test for which a machine has been booted.
pub(crate) const GUEST: &str = "HANDOVER_GUEST";

/// A kernel that `tests/kernels/fetch` has unpacked, and the busybox for its initramfs.
pub(crate) struct Kernel {
    folder: PathBuf,
    busybox: PathBuf,
}

impl Kernel {
    /// Returns the kernel of a series, or why it cannot be booted here.
    pub(crate) fn find(series: &str) -> Result<Kernel, String> {
        if !cfg!(target_arch = "x86_64") {
            return Err("kernels are booted on amd64 only".into());
        }
        let asked = Command::new(QEMU).arg("--version").stdout(Stdio::null()).status();
        asked.map_err(|_| format!("{QEMU} is not installed"))?;
        let me = std::env::current_exe().expect("the path of this executable");
        let target = me.ancestors().nth(3).expect("a folder of the target directory");
        let (folder, busybox) = (target.join("kernels").join(series), target.join("kernels/busybox"));
        for file in [&folder.join("vmlinuz"), &busybox] {
            if !file.exists() {
                return Err(format!("{} is not here: run tests/kernels/fetch {series}", file.display()));
            }
        }
        Ok(Kernel { folder, busybox })
    }

    /// Boots a machine that runs the tests with `test` in their names, and returns its reports when it is off.
    pub(crate) fn boot(&self, test: &str) -> Heard {
        let folder = tempfile::tempdir().expect("a folder");
        let initramfs = initramfs::make(folder.path(), &self.busybox, &self.folder);
        let mut machine = Machine::start(&self.folder.join("vmlinuz"), &initramfs, folder.path(), test);
        let heard = machine.hear();
        let read = |name: &str| fs::read(folder.path().join(name)).unwrap_or_default();
        let console = [read("qemu"), read("console")].concat();
        Heard { console: String::from_utf8_lossy(&console).into_owned(), ..heard }
    }
}

/// The output of a machine.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) reports: Vec<Value>,
    /// The time from power on to power off.
    pub(crate) took: Duration,
    /// The output of qemu, the kernel and the programs.
    pub(crate) console: String,
    /// The machine was not done in time and is killed.
    pub(crate) is_overdue: bool,
}

struct Machine {
    qemu: Child,
    since: Instant,
    reports: Receiver<String>,
}

impl Machine {
    fn start(kernel: &Path, initramfs: &Path, folder: &Path, test: &str) -> Machine {
        // PDEATHSIG: if this process is killed, qemu dies too.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", QEMU]);
        // Without KVM, which most virtual machines do not have. Page tables have four levels, as on most processors.
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-smp", "2", "-m", "1G"]);
        qemu.args(["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"]);
        qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
        qemu.args(["-append", &format!("console=ttyS0 quiet panic=-1 mitigations=off {GUEST}={test}")]);
        let console = format!("file:{}", folder.join("console").display());
        qemu.args(["-serial", &console, "-serial", "stdio", "-monitor", "none"]);
        let errors = fs::File::create(folder.join("qemu")).expect("writable");
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut qemu = qemu.spawn().expect("setpriv is part of every Debian");
        let lines = BufReader::new(qemu.stdout.take().expect("it is piped")).lines();
        let (sender, reports) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Machine { qemu, since: Instant::now(), reports }
    }

    /// Collects the reports until the machine is off.
    fn hear(&mut self) -> Heard {
        let mut heard = Heard::default();
        loop {
            let left = PATIENCE.saturating_sub(self.since.elapsed());
            match self.reports.recv_timeout(left) {
                Ok(line) => heard.reports.extend(serde_json::from_str::<Value>(line.trim())),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    heard.is_overdue = true;
                    break;
                }
            }
        }
        heard.took = self.since.elapsed();
        heard
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
