//! The control socket of one generation: `DIR/PID.sock`, from before the generation takes over until its last answer is sent.
//! Control requests must never delay the server: a client waits, and is cut off when the generation leaves.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::Errno;
use rustix::process::{geteuid, getppid};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::Instrument;

use super::descriptors::{Client, Spare};
use super::listening::{self, BoundSocket, SocketFile};
use super::runtime_dir::{Problem, RuntimeDir, key, network_namespace};
use super::{Api, Body, Via, client, error, siblings};
use crate::handle::Handle;

/// At most this many requests are answered at the same time.
const CONNECTIONS: u16 = 64;
/// The smallest buffer that hyper accepts.
const MAX_HEAD: usize = 8192;
const MAX_BODY: usize = 4096;
/// The timeout for a request to arrive, and for the control directory to be made.
const PATIENCE: Duration = Duration::from_secs(5);
/// The interval between checks that the socket file is still in its place.
const LOOK: Duration = Duration::from_secs(2);
/// How long a generation that has left waits for clients to read their answers.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub struct Control(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The directory given by `--control`.
    dir: Option<PathBuf>,
    handle: Handle,
    api: Api,
    /// The socket file, once it exists.
    open: Mutex<Option<SocketFile>>,
    closing: watch::Sender<bool>,
    slots: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    descriptors: Spare,
}

impl Control {
    /// A control socket in `dir`, or if it is `None` in a directory named after the server's first address.
    pub fn new(dir: Option<PathBuf>, handle: Handle, api: Api) -> Control {
        Control(Arc::new(Inner {
            dir,
            handle,
            api,
            open: Mutex::default(),
            closing: watch::Sender::new(false),
            slots: Arc::new(Semaphore::new(CONNECTIONS.into())),
            spare: Arc::new(Semaphore::new(CONNECTIONS.into())),
            descriptors: Spare::default(),
        }))
    }

    /// Starts to listen. The server knows its addresses by now and has not taken over yet.
    pub async fn open(self) -> Result<(), String> {
        let predecessor = self.predecessor();
        let dirs = match (&self.0.dir, self.0.handle.addresses().first()) {
            (Some(dir), _) => vec![RuntimeDir::named(dir)],
            (None, Some(address)) => self.usual(*address, predecessor).await,
            (None, None) => return Ok(()),
        };
        match listen_in(dirs).await {
            Ok((listener, at)) => {
                self.0.descriptors.fill();
                self.joined(at, predecessor).await;
                tokio::spawn(self.accept(listener).in_current_span());
                Ok(())
            }
            // A server whose user did not ask for a control directory starts without one.
            Err(problem) if self.0.dir.is_none() || problem.is_full => {
                let problem = problem.text;
                tracing::warn!("no control socket: {problem}");
                Ok(())
            }
            Err(problem) => Err(problem.text),
        }
    }

    fn predecessor(&self) -> Option<u32> {
        let is_first = self.0.handle.generation() <= 1;
        getppid().filter(|_| !is_first).map(|pid| pid.as_raw_pid().cast_unsigned())
    }

    /// The directories to try without `--control`. If another server is there already, it has the same address in another
    /// network namespace; then the directory's name gets the inode number of our namespace as a suffix.
    async fn usual(&self, address: SocketAddr, predecessor: Option<u32>) -> Vec<RuntimeDir> {
        let plain = OsString::from(key(address));
        let dirs = spawn_blocking(move || (RuntimeDir::candidates(&plain, predecessor), plain));
        let Ok(Ok((dirs, mut named))) = timeout(PATIENCE, dirs).await else { return vec![] };
        let (None, Some(namespace)) = (predecessor, network_namespace()) else { return dirs };
        for dir in &dirs {
            if !siblings::servers(&dir.path).await.is_empty() {
                named.push(format!(".{namespace}"));
                return RuntimeDir::candidates(&named, None);
            }
        }
        dirs
    }

    /// Records where the socket is, finds the other generations, and warns if another server uses the same directory.
    async fn joined(&self, at: SocketFile, predecessor: Option<u32>) {
        let dir = at.dir.path.clone();
        *lock(&self.0.open) = Some(at);
        self.0.api.join(dir.clone(), predecessor).await;
        if predecessor.is_none()
            && let Some(other) = siblings::servers(&dir).await.first()
        {
            tracing::warn!(
                other,
                "{} is the control directory of another server, too: give each server its own, because `handover reload` and \
                 `handover stop` refuse to choose between them",
                dir.display()
            );
        }
    }

    async fn accept(self, mut listener: UnixListener) {
        let mut closing = self.0.closing.subscribe();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut warned = false;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = told(&mut closing) => return,
                _ = look.tick() => {
                    self.0.descriptors.fill();
                    match self.again().await {
                        Some(Ok(again)) => (listener, warned) = (again, false),
                        Some(Err(problem)) if !std::mem::replace(&mut warned, true) => {
                            let problem = problem.text;
                            tracing::warn!("the control socket is gone: {problem}");
                        }
                        _ => {}
                    }
                    continue;
                }
            };
            match accepted {
                Ok((stream, _)) => {
                    let slot = Arc::clone(&self.0.slots).try_acquire_owned();
                    drop(tokio::spawn(self.clone().connection(stream, slot.ok()).in_current_span()));
                }
                Err(error) if is_full(&error) && self.0.descriptors.give_up_one() => {}
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Listens again, in another directory if necessary, if the socket file has been removed.
    async fn again(&self) -> Option<Result<UnixListener, Problem>> {
        let at = lock(&self.0.open).clone()?;
        let (dir, predecessor) = (self.0.dir.clone(), self.predecessor());
        let dirs = spawn_blocking(move || match dir {
            _ if at.is_there() => vec![],
            Some(dir) => vec![RuntimeDir::named(&dir)],
            // The directory keeps its name, by which clients find the service.
            None => RuntimeDir::candidates(at.dir.path.file_name().unwrap_or_default(), predecessor),
        });
        let dirs = timeout(PATIENCE, dirs).await.ok()?.ok().filter(|dirs| !dirs.is_empty())?;
        Some(listen_in(dirs).await.map(|(listener, at)| {
            let dir = at.dir.path.clone();
            tracing::info!("the control socket was gone and has been made again in {}", dir.display());
            self.0.api.moved(dir);
            *lock(&self.0.open) = Some(at);
            listener
        }))
    }

    async fn connection(self, stream: UnixStream, slot: Option<OwnedSemaphorePermit>) {
        let (mine, peer) = (geteuid().as_raw(), stream.peer_cred().map(|peer| peer.uid()));
        let refused = match (&slot, peer) {
            (None, _) => Some((StatusCode::SERVICE_UNAVAILABLE, "too many requests: try again later")),
            (_, Ok(uid)) if uid == mine || uid == 0 => None,
            _ => Some((StatusCode::FORBIDDEN, "only the user of this server and root may ask")),
        };
        // A client without a slot gets a 503. The number of these clients is limited, too.
        let spare = || Arc::clone(&self.0.spare).try_acquire_owned().ok();
        let Some(_slot) = slot.or_else(spare) else { return self.0.descriptors.take(stream) };
        let patience = if refused.is_some() { LAST_WORDS } else { PATIENCE };
        let client = Arc::new(Client::of(&stream));
        let api = self.0.api.clone();
        let answer = service_fn(move |request| {
            let (api, client) = (api.clone(), Arc::clone(&client));
            async move {
                Ok::<_, Infallible>(match refused {
                    Some((status, reason)) => error(status, reason),
                    None => answer(&api, request, &client).await,
                })
            }
        });
        let mut http = http1::Builder::new();
        http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(MAX_HEAD);
        let mut connection = http.serve_connection(TokioIo::new(stream), answer);
        let mut closing = self.0.closing.subscribe();
        let mut served = Pin::new(&mut connection);
        let served = tokio::select! {
            served = &mut served => served,
            () = told(&mut closing) => {
                // Closes at once unless a request is in flight.
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a control connection ended early");
        }
        self.0.descriptors.take(connection.into_parts().io.into_inner());
    }

    /// Waits a moment for answers in flight, after the generation has left, and removes the socket.
    pub async fn close(self) {
        let _ = self.0.closing.send(true);
        let answered = async {
            self.0.api.idle().await;
            let _ = self.0.slots.acquire_many(CONNECTIONS.into()).await;
        };
        let _ = timeout(LAST_WORDS, answered).await;
        let open = lock(&self.0.open).take();
        if let Some(at) = open {
            let _ = timeout(LAST_WORDS, spawn_blocking(move || at.remove())).await;
        }
    }
}

fn lock(open: &Mutex<Option<SocketFile>>) -> MutexGuard<'_, Option<SocketFile>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether the error means that no descriptor is free.
fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

async fn listen_in(dirs: Vec<RuntimeDir>) -> Result<(UnixListener, SocketFile), Problem> {
    let best = dirs.first().map(|dir| dir.path.clone()).unwrap_or_default();
    let listening = spawn_blocking(move || listening::listen_in(&dirs));
    let BoundSocket { listener, at } = match timeout(PATIENCE, listening).await {
        Ok(Ok(listening)) => listening?,
        Ok(Err(panic)) => return Err(Problem::with(&best, &panic.to_string())),
        Err(_) => return Err(Problem::with(&best, &format!("it did not respond within {PATIENCE:?}"))),
    };
    match UnixListener::from_std(listener) {
        Ok(listener) => Ok((listener, at)),
        Err(error) => Err(Problem::new("listen on", &at.path, &error)),
    }
}

async fn told(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Reads the body and answers the request. Only `/counters` needs a body; a small one on another path is ignored.
async fn answer(api: &Api, request: Request<Incoming>, client: &Client) -> Response<Body> {
    let (head, body) = request.into_parts();
    let too_large = || error(StatusCode::PAYLOAD_TOO_LARGE, "a control request needs no body");
    let most = if head.uri.path() == "/counters" { client::MOST_BYTES } else { MAX_BODY };
    if body.size_hint().lower() > most as u64 {
        return too_large();
    }
    match timeout(PATIENCE, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => {
            let request = Request::from_parts(head, body.to_bytes());
            api.answer(request, Via::Socket, || client.gave_up()).await
        }
        Ok(Err(_)) => too_large(),
        Err(_) => error(StatusCode::REQUEST_TIMEOUT, "the body of the request did not arrive in time"),
    }
}
