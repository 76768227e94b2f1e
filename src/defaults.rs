//! The default values of the settings of [`Server`](crate::Server) and [`DrainOptions`](crate::DrainOptions).

use std::time::Duration;

/// The default of [`Server::ready_timeout`](crate::Server::ready_timeout).
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// The default of [`Server::standby`](crate::Server::standby).
pub const STANDBY: Duration = Duration::from_secs(5);
/// The default of [`Server::idle_grace`](crate::Server::idle_grace).
pub const IDLE_GRACE: Duration = Duration::from_secs(30);
/// The default of [`Server::drain_timeout`](crate::Server::drain_timeout).
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// The default of [`Server::stop_timeout`](crate::Server::stop_timeout).
pub const STOP_TIMEOUT: Duration = Duration::from_secs(25);
/// The default of [`Server::stop_idle_grace`](crate::Server::stop_idle_grace).
pub const STOP_IDLE_GRACE: Duration = Duration::from_secs(5);
/// The default of [`Server::stop_delay`](crate::Server::stop_delay).
pub const STOP_DELAY: Duration = Duration::ZERO;
/// The default of [`Server::goaway_delay`](crate::Server::goaway_delay).
pub const GOAWAY_DELAY: Duration = Duration::from_secs(5);
/// The default of [`Server::half_close_timeout`](crate::Server::half_close_timeout).
pub const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The default of [`Server::header_timeout`](crate::Server::header_timeout).
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The default of [`Server::keep_alive_timeout`](crate::Server::keep_alive_timeout).
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);
/// The default of [`Server::body_timeout`](crate::Server::body_timeout).
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// The default of [`Server::send_timeout`](crate::Server::send_timeout).
pub const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// The default of [`Server::http2_ping_interval`](crate::Server::http2_ping_interval).
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(60);
/// The default of [`Server::http2_max_concurrent_streams`](crate::Server::http2_max_concurrent_streams).
pub const HTTP2_MAX_CONCURRENT_STREAMS: u32 = 100;
/// The default of [`Server::backlog`](crate::Server::backlog).
pub const BACKLOG: u32 = 4096;
/// The default of `Server::handshake_timeout`, with the feature `tls`.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
