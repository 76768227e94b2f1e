//! A server on pingora, restarted as its user guide (graceful.md) describes: start a new process with `--upgrade`, then send QUIT
//! to the old one, which passes its listener on.

use async_trait::async_trait;
use http::Response;
use http::header::CONTENT_LENGTH;
use pingora_core::apps::HttpServerOptions;
use pingora_core::apps::http_app::{HttpServer, ServeHttp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::Server;
use pingora_core::server::configuration::{Opt, ServerConf};
use pingora_core::services::listening::Service;

struct Answer(Vec<u8>);

#[async_trait]
impl ServeHttp for Answer {
    async fn response(&self, _: &mut ServerSession) -> Response<Vec<u8>> {
        let response = Response::builder().header(CONTENT_LENGTH, self.0.len()).body(self.0.clone());
        response.expect("cannot fail because the header is a number")
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let address = args.next().expect("the first argument is IP:PORT");
    let options = Opt { upgrade: args.next().is_some_and(|arg| arg == "--upgrade"), ..Opt::default() };
    let conf = ServerConf {
        upgrade_sock: "upgrade.sock".into(),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        // pingora always waits for the whole grace period, five minutes by default.
        grace_period_seconds: Some(2),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(options, conf);
    server.bootstrap();
    let pid = std::process::id();
    let mut answer = HttpServer::new_app(Answer(format!("generation={pid} pid={pid}\n").into_bytes()));
    // Adds HTTP/2; clients that begin with HTTP/1 still get HTTP/1.
    let mut http = HttpServerOptions::default();
    http.h2c = true;
    answer.server_options = Some(http);
    let mut service = Service::new("answer".into(), answer);
    service.add_tcp(&address);
    server.add_service(service);
    server.run_forever();
}
