//! The default of each setting of [`Server`](crate::Server) and [`DrainOptions`](crate::DrainOptions), here and nowhere else.

use std::time::Duration;

/// Of [`Server::ready_timeout`](crate::Server::ready_timeout).
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Of [`Server::standby`](crate::Server::standby).
pub const STANDBY: Duration = Duration::from_secs(5);
/// Of [`Server::idle_grace`](crate::Server::idle_grace).
pub const IDLE_GRACE: Duration = Duration::from_secs(30);
/// Of [`Server::drain_timeout`](crate::Server::drain_timeout).
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Of [`Server::stop_timeout`](crate::Server::stop_timeout).
pub const STOP_TIMEOUT: Duration = Duration::from_secs(25);
/// Of [`Server::stop_idle_grace`](crate::Server::stop_idle_grace).
pub const STOP_IDLE_GRACE: Duration = Duration::from_secs(5);
/// Of [`Server::stop_delay`](crate::Server::stop_delay).
pub const STOP_DELAY: Duration = Duration::ZERO;
/// Of [`Server::goaway_delay`](crate::Server::goaway_delay).
pub const GOAWAY_DELAY: Duration = Duration::from_secs(5);
/// Of [`Server::half_close_timeout`](crate::Server::half_close_timeout).
pub const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Of [`Server::header_timeout`](crate::Server::header_timeout).
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Of [`Server::keep_alive_timeout`](crate::Server::keep_alive_timeout).
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(75);
/// Of [`Server::body_timeout`](crate::Server::body_timeout).
pub const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Of [`Server::send_timeout`](crate::Server::send_timeout).
pub const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Of [`Server::http2_ping_interval`](crate::Server::http2_ping_interval).
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(60);
/// Of [`Server::http2_max_concurrent_streams`](crate::Server::http2_max_concurrent_streams).
pub const HTTP2_MAX_CONCURRENT_STREAMS: u32 = 100;
/// Of [`Server::backlog`](crate::Server::backlog).
pub const BACKLOG: u32 = 4096;
/// Of `Server::handshake_timeout`, with the feature `tls`.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
