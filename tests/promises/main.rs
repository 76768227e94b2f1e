//! What the README promises, proven with real processes, real signals and real sockets.
//!
//! A test waits for an event with a deadline and never sleeps a guess; a failure prints the log of all generations.

mod admin;
mod bad_input;
mod chaos;
#[path = "../../bench/chaos/run.rs"]
mod chaos_run;
mod clients;
mod config;
mod connections;
mod control;
mod endings;
mod events;
mod examples;
mod failures;
mod faults;
mod files;
mod frames;
mod goaway;
mod half_close;
mod harness;
mod hostile;
mod kinds;
mod lasting;
mod launch;
mod limits;
#[path = "../../bench/load.rs"]
mod load;
mod lossless;
mod manual;
mod normal_times;
mod notify;
mod own_loop;
#[path = "../../bench/process.rs"]
mod process;
mod relay;
#[path = "../../bench/resources.rs"]
mod resources;
mod sandbox;
#[allow(dead_code, reason = "its attacks are made one by one here")]
#[path = "../../bench/siege/run.rs"]
mod siege_run;
mod signals;
mod supervise;
mod tls;
mod traces;
mod websocket;
