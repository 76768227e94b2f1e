//! A hyper server without this crate, as the baseline: the usual custom accept loop, with the playground's answers.

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use support::answer::answer;
use support::process::{Server, command};
use tokio::net::TcpListener;

/// The argument with which the bench runs itself as the bare server.
pub(crate) const ARGUMENT: &str = "--serve-bare-hyper";

pub(crate) fn start() -> Server {
    let mut command = command(std::env::current_exe().expect("the path of this executable"));
    command.arg(ARGUMENT);
    Server::start(command)
}

pub(crate) fn serve() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let listen = listener.local_addr().expect("an address").to_string();
        let pid = std::process::id();
        eprintln!(
            "{}",
            serde_json::json!({ "message": "serving", "generation": 1, "pid": pid, "listen": listen })
        );
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let service = service_fn(|request| answer(request, 1, None));
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
            });
        }
    });
}
