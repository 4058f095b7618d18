//! The hub as clients meet it: a server on the loopback interface that serves, breaks, refuses and redirects.

mod broken;
mod fetching;
mod refused;
mod server;
