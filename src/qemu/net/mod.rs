//! Networks: the user mode network, links between machines, and the cards of both.

mod card;
mod link;
mod user;

pub use card::{Card, Nic};
pub use link::LinkNic;
pub use user::UserNet;
