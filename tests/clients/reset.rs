//! reqwest over TLS, HTTP/2, in several processes with many workers each, over twenty handovers: nothing is lost, and no
//! connection sees a reset from the server. A reset destroys what the client has not read yet, also a GOAWAY.
//!
//! It happens in a network of its own, whose packets tcpdump sees alone.
