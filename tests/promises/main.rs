//! The promises of the README, tested with real processes, real signals and real sockets.
//!
//! Tests wait for events with a deadline and do not sleep for a guessed time; a failure prints the log of all generations.

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
mod static_files;
mod structure;
mod supervise;
mod tls;
mod traces;
mod tunnels;
mod websocket;

/// The program under test.
const HANDOVER: &str = env!("CARGO_BIN_EXE_handover");
