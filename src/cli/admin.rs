//! The admin address: the control interface over TCP, protected by a token. It is one more address of the server and is handed
//! over like the others; only its requests are answered by the control interface instead of the site.

use std::convert::Infallible;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use clap::Args;
use handover::control::{self, Api, Via};
use handover::metrics::Metrics;
use handover::{ConnectInfo, Handle, Server};
use http_body_util::Either;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::http::uri::Authority;
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use subtle::ConstantTimeEq;

use super::options::cause;

#[derive(Debug, Args)]
pub(crate) struct AdminOptions {
    /// Answer GET /version, /status and /metrics and POST /reload and /upgrade on this address
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    admin: Option<SocketAddr>,
    /// Require `Authorization: Bearer` with the token in this file on the admin address; needed unless it is loopback
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

/// Shortest token in bytes; a shorter one can be guessed.
const TOKEN_BYTES: usize = 16;

/// A checked admin address and its token.
#[derive(Debug)]
pub(crate) struct Admin {
    address: SocketAddr,
    token: Option<String>,
}

impl AdminOptions {
    /// Checks the admin address and reads the token; `None` without an admin address. An address that the site listens on is
    /// refused, because only the local address of a connection tells admin requests from requests to the site.
    pub(crate) fn check(&self, listen: &[SocketAddr]) -> Result<Option<Admin>, String> {
        // clap's `requires` does not see values from the config file.
        let Some(address) = self.admin else {
            return match &self.admin_token_file {
                Some(path) => {
                    let path = path.display();
                    Err(format!("the admin token file {path} needs an admin address: name one with --admin"))
                }
                None => Ok(None),
            };
        };
        if let Some(same) = listen.iter().find(|listen| overlap(**listen, address)) {
            return Err(format!(
                "cannot open the admin address {address}: the server listens on {same} for its site; choose \
                 another port for --admin"
            ));
        }
        let token = self.admin_token_file.as_deref().map(read_token).transpose()?;
        if token.is_none() && !address.ip().is_loopback() {
            return Err(format!(
                "cannot open the admin address {address} without a token: name a token with --admin-token-file, or use 127.0.0.1"
            ));
        }
        Ok(Some(Admin { address, token }))
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected IP:PORT, such as 127.0.0.1:8080, 0.0.0.0:80 or [::1]:8080".to_owned())
}

/// Returns whether a connection to one address could also be one to the other.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let (one, other) = (a.ip().to_canonical(), b.ip().to_canonical());
    let is_any = |ip: IpAddr, other: IpAddr| ip.is_unspecified() && (ip.is_ipv6() || other.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (one == other || is_any(one, other) || is_any(other, one))
}

fn read_token(path: &Path) -> Result<String, String> {
    let refuse = |why: String| format!("cannot use the admin token file {}: {why}", path.display());
    let metadata = fs::metadata(path).map_err(|e| refuse(cause(&e)))?;
    if !metadata.is_file() {
        return Err(refuse("it is no regular file".into()));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(refuse(format!("others may read or write it (mode {mode:o}); chmod 600 it")));
    }
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != me && metadata.uid() != 0 {
        return Err(refuse(format!("it belongs to uid {}; it must be yours or root's", metadata.uid())));
    }
    let token = fs::read_to_string(path).map_err(|e| refuse(cause(&e)))?.trim().to_owned();
    if token.len() < TOKEN_BYTES {
        return Err(refuse(format!("its token has {} bytes; take at least {TOKEN_BYTES}", token.len())));
    }
    Ok(token)
}

impl Admin {
    pub(crate) fn bind(&self, server: Server) -> Server {
        server.also_bind_reserved(self.address)
    }

    /// Returns whether a connection came in on the admin address, whose port is known once the server listens.
    fn is_meant(&self, local: SocketAddr, handle: &Handle) -> bool {
        // The admin address is bound last.
        let port = handle.addresses().last().map_or(self.address.port(), SocketAddr::port);
        let scope = |address: SocketAddr| match address {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        let is_it = || local.ip() == self.address.ip() && scope(local) == scope(self.address);
        local.port() == port && (self.address.ip().is_unspecified() || is_it())
    }

    /// Returns the status and the reason if the request must be refused.
    fn refusal(&self, request: &Request<Incoming>) -> Option<(StatusCode, &'static str)> {
        let header = |name| request.headers().get(name);
        let Some(token) = &self.token else {
            // Any user of this machine may ask over loopback, but no web page in a browser that runs here.
            let host = header(HOST).and_then(|host| host.to_str().ok()).or(request.uri().host());
            let from_a_page = header(ORIGIN).is_some() || !host.is_none_or(is_local);
            return from_a_page
                .then_some((StatusCode::FORBIDDEN, "requests from a page in a browser are refused"));
        };
        let given = header(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
        let given = match given.split_at_checked(7) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"bearer ") => rest.trim_ascii(),
            _ => return Some((StatusCode::UNAUTHORIZED, "send the token: Authorization: Bearer TOKEN")),
        };
        let right = bool::from(given.ct_eq(token.as_bytes()));
        (!right).then_some((StatusCode::UNAUTHORIZED, "wrong token"))
    }
}

/// Returns whether the host is a loopback name or address, which DNS rebinding cannot use.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Decides for each connection whether it is for the control interface or for the site.
#[derive(Debug)]
pub(crate) struct Router {
    metrics: Metrics,
    admin: Option<Arc<(Admin, Api)>>,
    handle: Handle,
}

impl Router {
    pub(crate) fn new(metrics: Metrics, admin: Option<Admin>, api: &Api, handle: Handle) -> Router {
        let admin = admin.map(|admin| Arc::new((admin, api.clone())));
        Router { metrics, admin, handle }
    }

    pub(crate) fn route<S>(&self, info: &ConnectInfo, site: S) -> RoutedService<S> {
        let admin = self.admin.as_ref().filter(|admin| admin.0.is_meant(info.local(), &self.handle));
        let admin = admin.map(|admin| (Arc::clone(admin), info.clone()));
        RoutedService { site, metrics: self.metrics.clone(), admin }
    }
}

/// The service of one connection.
#[derive(Debug)]
pub(crate) struct RoutedService<S> {
    site: S,
    metrics: Metrics,
    /// The control interface, if the connection came in on the admin address.
    admin: Option<(Arc<(Admin, Api)>, ConnectInfo)>,
}

impl<S, B> Service<Request<Incoming>> for RoutedService<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body,
{
    type Response = Response<Either<B, control::Body>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if let Some((admin, info)) = &self.admin {
            let (admin, info) = (Arc::clone(admin), info.clone());
            return Box::pin(async move { Ok(answer(&admin, &info, request).await.map(Either::Right)) });
        }
        let (answered, metrics) = (self.site.call(request), self.metrics.clone());
        Box::pin(async move {
            let response = answered.await?;
            metrics.answered(response.status());
            Ok(response.map(Either::Left))
        })
    }
}

async fn answer(
    admin: &(Admin, Api),
    info: &ConnectInfo,
    request: Request<Incoming>,
) -> Response<control::Body> {
    let (admin, api) = admin;
    match admin.refusal(&request) {
        None => {
            let gave_up = || info.client_has_ended();
            api.answer(request.map(|_| Bytes::new()), Via::Admin, gave_up).await
        }
        Some((status, why)) => {
            let mut response = control::error(status, why);
            if status == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}
