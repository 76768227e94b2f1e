//! What the README promises, proven with real processes, real signals and real sockets.
//!
//! A test waits for an event with a deadline and never sleeps a guess; a failure prints the log of all generations.

mod admin;
mod bad_input;
mod chaos;
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
mod goaway;
mod half_close;
mod hostile;
mod kinds;
mod lasting;
mod launch;
mod limits;
mod lossless;
mod manual;
mod normal_times;
mod notify;
mod own_loop;
mod relay;
mod sandbox;
mod signals;
mod structure;
mod supervise;
mod tls;
mod traces;
mod websocket;

/// The program under test.
const HANDOVER: &str = env!("CARGO_BIN_EXE_handover");
