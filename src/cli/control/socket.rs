//! The control socket of one generation: `DIR/PID.sock`, from before it takes over until its last answer is sent. Nothing
//! here may hold up the server: whoever asks waits, and is left when the generation leaves.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handover::Handle;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::fs::{AtFlags, Mode, chmodat, fchmod};
use rustix::process::{Pid, geteuid, test_kill_process};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::place::{ControlOptions, Place, Problem};
use super::{Api, Body, Via, error};
use crate::cli::metrics::siblings;

/// So many may ask at the same time.
const CONNECTIONS: u16 = 64;
/// The least that hyper works with.
const MAX_HEAD: usize = 8192;
const MAX_BODY: usize = 4096;
/// How long a request may take to arrive, and the directory to be made.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long answers that are not read may keep a generation that has left.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// So many may wait to be accepted.
const QUEUE: i32 = 128;
/// What sun_path holds, without the zero at its end (unix(7)).
const MAX_PATH: usize = 107;

#[derive(Debug, Clone)]
pub(crate) struct Control(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: ControlOptions,
    handle: Handle,
    api: Api,
    /// Where it listens, once it does.
    open: Mutex<Option<(Place, PathBuf)>>,
    closing: watch::Sender<bool>,
    slots: Arc<Semaphore>,
    spare: Arc<Semaphore>,
}

impl Control {
    pub(crate) fn new(options: ControlOptions, handle: Handle, api: Api) -> Control {
        Control(Arc::new(Inner {
            options,
            handle,
            api,
            open: Mutex::default(),
            closing: watch::Sender::new(false),
            slots: Arc::new(Semaphore::new(CONNECTIONS.into())),
            spare: Arc::new(Semaphore::new(CONNECTIONS.into())),
        }))
    }

    /// Listens. The addresses of the server are known by now, and it has not taken over yet.
    pub(crate) async fn open(self) -> Result<(), String> {
        let place = match (&self.0.options.control, self.0.handle.addresses().first()) {
            _ if self.0.options.no_control => return Ok(()),
            (Some(dir), _) => Place::named(dir),
            (None, Some(address)) => Place::of(*address),
            (None, None) => return Ok(()),
        };
        let at = place.clone();
        let listening = spawn_blocking(move || listen(&at));
        let listening = match timeout(PATIENCE, listening).await {
            Ok(Ok(listening)) => listening,
            Ok(Err(panic)) => return Err(panic.to_string()),
            Err(_) => Err(Problem::with(&place.dir, &format!("it takes more than {PATIENCE:?}"))),
        };
        let listening = listening.and_then(|(listener, path)| match UnixListener::from_std(listener) {
            Ok(listener) => Ok((listener, path)),
            Err(error) => Err(Problem::new("listen on", &path, &error)),
        });
        match listening {
            Ok((listener, path)) => {
                self.0.api.metrics.join(place.dir.clone());
                *self.0.open.lock().unwrap_or_else(PoisonError::into_inner) = Some((place, path));
                tokio::spawn(self.accept(listener));
                Ok(())
            }
            // Whoever did not ask for it should not have to do without the server.
            Err(problem) if place.is_default() || problem.is_full => {
                let problem = problem.text;
                tracing::warn!(pid = std::process::id(), "no control socket: {problem}");
                Ok(())
            }
            Err(problem) => Err(problem.text),
        }
    }

    async fn accept(self, listener: UnixListener) {
        let mut closing = self.0.closing.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = told(&mut closing) => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let slot = Arc::clone(&self.0.slots).try_acquire_owned();
                    drop(tokio::spawn(self.clone().connection(stream, slot.ok())));
                }
                // No descriptors, most likely. One will be free.
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn connection(self, stream: UnixStream, slot: Option<OwnedSemaphorePermit>) {
        let (mine, peer) = (geteuid().as_raw(), stream.peer_cred().map(|peer| peer.uid()));
        let refused = match (&slot, peer) {
            (None, _) => Some((StatusCode::SERVICE_UNAVAILABLE, "too many are asking: try again later")),
            (_, Ok(uid)) if uid == mine || uid == 0 => None,
            _ => Some((StatusCode::FORBIDDEN, "only the user of this server and root may ask")),
        };
        // Whoever has got no slot is told so; of these, too, there are only so many.
        let spare = || Arc::clone(&self.0.spare).try_acquire_owned().ok();
        let Some(_slot) = slot.or_else(spare) else { return };
        let patience = if refused.is_some() { LAST_WORDS } else { PATIENCE };
        let api = self.0.api.clone();
        let answer = service_fn(move |request| {
            let api = api.clone();
            async move {
                Ok::<_, Infallible>(match refused {
                    Some((status, reason)) => error(status, reason),
                    None => answer(&api, request).await,
                })
            }
        });
        let mut http = http1::Builder::new();
        http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(MAX_HEAD);
        let mut served = pin!(http.serve_connection(TokioIo::new(stream), answer));
        let mut closing = self.0.closing.subscribe();
        let served = tokio::select! {
            served = &mut served => served,
            () = told(&mut closing) => {
                // Closes at once unless a request is being answered.
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a control connection ended early");
        }
    }

    /// The generation has left: waits a moment for the answers that say so, and takes its socket away.
    pub(crate) async fn close(self) {
        let _ = self.0.closing.send(true);
        let answered = async {
            self.0.api.idle().await;
            let _ = self.0.slots.acquire_many(CONNECTIONS.into()).await;
        };
        let _ = timeout(LAST_WORDS, answered).await;
        let open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((place, path)) = open {
            let removed = spawn_blocking(move || {
                let _ = fs::remove_file(path);
                place.tidy();
            });
            let _ = timeout(LAST_WORDS, removed).await;
        }
    }
}

async fn told(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Only counters need a body; another one that is small does no harm.
async fn answer(api: &Api, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let too_large = || error(StatusCode::PAYLOAD_TOO_LARGE, "a control request needs no body");
    let most = if head.uri.path() == "/counters" { siblings::MOST_BYTES } else { MAX_BODY };
    if body.size_hint().lower() > most as u64 {
        return too_large();
    }
    match timeout(PATIENCE, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => api.answer(Request::from_parts(head, body.to_bytes()), Via::Socket).await,
        Ok(Err(_)) => too_large(),
        Err(_) => error(StatusCode::REQUEST_TIMEOUT, "the body of the request does not come"),
    }
}

fn listen(place: &Place) -> Result<(net::UnixListener, PathBuf), Problem> {
    let path = place.dir.join(format!("{}.sock", std::process::id()));
    let length = path.as_os_str().len();
    if length > MAX_PATH {
        let cause = format!("the path of its sockets has {length} bytes, and the kernel takes {MAX_PATH}");
        return Err(Problem::with(&place.dir, &cause));
    }
    let bound = || {
        // Again if another server that leaves has taken the empty directory away meanwhile.
        for _ in 0..3 {
            place.prepare()?;
            remove_stale(&place.dir);
            match bind(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                bound => return bound.map_err(|error| Problem::new("listen on", &path, &error)),
            }
        }
        Err(Problem::with(&place.dir, "it vanishes again and again"))
    };
    Ok((bound()?, path))
}

/// A socket of this user only, also should another directory have taken the place of the one that was looked at: its mode
/// is that of the socket before it gets its name (bind(2) takes the umask from it), so no path is looked up again.
fn bind(path: &Path) -> io::Result<net::UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // A umask may have taken too much. Through a directory that nobody else can write to no link is followed.
    if let (Some(dir), Some(name)) = (path.parent(), path.file_name()) {
        let dir = File::open(dir)?;
        let about = dir.metadata()?;
        if about.uid() == geteuid().as_raw() && about.mode() & 0o077 == 0 {
            chmodat(&dir, name, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        }
    }
    socket.listen(QUEUE)?;
    socket.set_nonblocking(true)?;
    Ok(OwnedFd::from(socket).into())
}

/// Takes away sockets of processes that died without doing so, and one that has the name of ours.
pub(crate) fn remove_stale(dir: &Path) {
    let is_zombie = |pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "));
    for (pid, path) in sockets(dir) {
        let alive = Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok()) && !is_zombie(pid);
        let mine = pid.cast_unsigned() == std::process::id();
        // With another pid namespace a process may be alive that is not seen. To connect cannot wait: a listener that is
        // dead refuses.
        let refused =
            || net::UnixStream::connect(&path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if (mine || !alive) && refused() {
            let _ = fs::remove_file(path);
        }
    }
}

/// The sockets in a control directory, and whose they are.
pub(crate) fn sockets(dir: &Path) -> Vec<(i32, PathBuf)> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let of = |path: PathBuf| Some((path.file_name()?.to_str()?.strip_suffix(".sock")?.parse().ok()?, path));
    files.filter_map(of).collect()
}
