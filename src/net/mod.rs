//! Values of networks: cards' addresses, networks, port forwards.

mod cidr;
mod error;
mod forward;
mod mac;
mod parse;

pub use cidr::Cidr;
pub use error::NetError;
pub use forward::{HostForward, Protocol};
pub use mac::Mac;
pub use parse::ParseNetError;
