//! The machine's end of a network between machines.

use std::sync::Arc;

use super::card::{Card, Nic};
use crate::argv::QemuOpt;
use crate::net::Mac;
use crate::plan::{Device, FileSource, MakeFile, PlanError, Planner};

/// A card on a network between machines; made by [`crate::vm::InterVm::join`].
///
/// Frames go through a stream that is made when the machine is started: no port, no path, no root.
#[derive(Clone, Debug)]
pub struct LinkNic {
    link: String,
    member: u16,
    card: Card,
    plug: Arc<dyn MakeFile>,
}

impl LinkNic {
    /// The card of the nth member of a link. `plug` makes QEMU's end of a stream of frames, each
    /// behind its length in 4 bytes, the highest first (QEMU's `-netdev stream`).
    pub fn new(link: impl Into<String>, member: u16, plug: Arc<dyn MakeFile>) -> LinkNic {
        LinkNic { link: link.into(), member, card: Card::default(), plug }
    }

    /// Sets the card's model.
    #[must_use]
    pub fn with_nic(mut self, nic: Nic) -> LinkNic {
        self.card.nic = nic;
        self
    }

    /// Sets the card's address. Default: derived from the link's name and the member's number.
    #[must_use]
    pub fn with_mac(mut self, mac: Mac) -> LinkNic {
        self.card.mac = Some(mac);
        self
    }

    /// Has QEMU write every packet to a file, in pcap format.
    #[must_use]
    pub fn with_pcap(mut self, file: impl Into<std::path::PathBuf>) -> LinkNic {
        self.card.pcap = Some(file.into());
        self
    }

    /// Sets a property of QEMU's device.
    #[must_use]
    pub fn with_device_arg(mut self, key: &str, value: &str) -> LinkNic {
        self.card.device_args.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The card's address.
    pub fn mac(&self) -> Mac {
        self.card.mac.unwrap_or_else(|| Mac::on_link(&self.link, self.member))
    }
}

impl Device for LinkNic {
    fn resumable(&self) -> Result<(), &'static str> {
        Err("it is on a network with other machines")
    }

    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        let id = planner.id("net");
        let file =
            planner.file(format!("link-{}", self.link), FileSource::Made(Arc::clone(&self.plug)));
        let netdev = QemuOpt::new("stream")
            .kv("id", &id)
            .kv("addr.type", "fd")
            .kv_fd("addr.str", file)
            .switch("server", false);
        planner.qemu("-netdev", netdev);
        self.card.plan(planner, &id, self.mac())?;
        Ok(())
    }
}
