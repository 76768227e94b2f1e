//! A background job beside the server: it works through the files of a directory, and only one generation does so at a
//! time. A generation that retires or stops finishes its current file; if its successor crashes, it resumes work.
//!
//! Run `cargo run --example graceful_worker -- 127.0.0.1:8080 /tmp/jobs`, in a second terminal
//! `touch /tmp/jobs/{1..100}; curl localhost:8080; tail -f /tmp/jobs/.done`, then `kill -HUP` the pid that the server logs.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use handover::{Handle, Phase, Server};
use hyper::Response;
use hyper::service::service_fn;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().json().flatten_event(true).with_writer(io::stderr).init();
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let dir = PathBuf::from(args.next().unwrap_or_else(|| "/tmp/jobs".to_owned()));
    fs::create_dir_all(&dir)?;

    let server = Server::bind(&*address);
    let handle = server.handle();
    let worker = tokio::spawn({
        let (handle, dir) = (handle.clone(), dir.clone());
        async move {
            let worked = work(handle.clone(), dir).await;
            // If the worker failed, this makes the server stop, so that the process exits with the error. Otherwise the server
            // has left already.
            handle.stop();
            worked
        }
    });
    server.serve(service_fn(move |_| answer(handle.generation(), dir.clone()))).await?;
    // The server has left; the current job may take longer than the last request.
    worker.await??;
    Ok(())
}

async fn work(mut handle: Handle, dir: PathBuf) -> io::Result<()> {
    // A successor is not told when its predecessor has finished the current job, so a file lock decides: the working generation
    // holds it, and the kernel releases it when that process ends for any reason.
    let lock = File::create(dir.join(".lock"))?;
    loop {
        while !matches!(handle.phase(), Phase::Serving | Phase::Spawning) {
            flock(&lock, FlockOperation::Unlock)?;
            if handle.changed().await.is_none() {
                return Ok(());
            }
        }
        let job = match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => jobs(&dir)?.into_iter().min(),
            Err(Errno::WOULDBLOCK) => None,
            Err(error) => return Err(error.into()),
        };
        match job {
            Some(job) => run(&job, &dir.join(".done"), handle.generation()).await?,
            None => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Pretends to work. If the process is killed meanwhile, the job file remains, and the next generation begins the job anew.
async fn run(job: &Path, done: &Path, generation: u64) -> io::Result<()> {
    let mut done = File::options().create(true).append(true).open(done)?;
    // A single write for each line, so that a line is written completely or not at all.
    let mut note = |verb| done.write_all(format!("{} {verb} by {generation}\n", job.display()).as_bytes());
    note("begun")?;
    sleep(Duration::from_millis(100)).await;
    fs::remove_file(job)?;
    note("done")
}

/// Returns the files whose names do not begin with a dot.
fn jobs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let is_job =
        |path: &PathBuf| path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."));
    Ok(paths.into_iter().filter(is_job).collect())
}

async fn answer(generation: u64, dir: PathBuf) -> Result<Response<String>, Infallible> {
    let left = jobs(&dir).map_or(0, |jobs| jobs.len());
    Ok(Response::new(format!("generation={generation} {left} jobs left\n")))
}
