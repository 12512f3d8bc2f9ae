//! The link to a board: a line to it ([`address`], [`wire`]), its raw REPL ([`repl`]), what it is
//! ([`facts`]), frames of bytes to it ([`frames`]) and its files ([`files`]).
//!
//! Nothing here sleeps for a fixed time: every wait is a wait for bytes, with a limit. Ctrl-C works on
//! the board while it waits for bytes and not while it writes them, so a tool that is killed leaves a
//! board that the next tool can enter, with a whole file system.

pub mod address;
mod busy;
pub mod facts;
pub mod files;
pub mod frames;
mod net;
pub mod ports;
pub mod repl;
mod serial;
mod telnet;
mod trouble;
pub mod wire;

pub use address::Address;
pub use busy::{Holder, holders};
pub use facts::Facts;
pub use repl::Board;
pub use trouble::LinkError;
pub use wire::{Stop, Wire};
