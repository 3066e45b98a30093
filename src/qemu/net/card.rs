//! Network cards: what every kind of network has in common.

use std::path::PathBuf;

use crate::argv::{QemuOpt, is_key};
use crate::net::{Mac, NetError};
use crate::plan::{PlanError, Planner};

/// A network card as the guest sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Card {
    /// Its model. Default: [`Nic::Virtio`].
    pub nic: Nic,
    /// Its address. Default: one that is unique in the machine, or on the link.
    pub mac: Option<Mac>,
    /// A file that gets every packet the card sees, in pcap format (QEMU's `filter-dump`).
    pub pcap: Option<PathBuf>,
    /// Further properties of QEMU's device: `("mq", "on")`.
    pub device_args: Vec<(String, String)>,
}

/// Model of a network card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Nic {
    /// virtio-net.
    #[default]
    Virtio,
    /// Intel's e1000.
    E1000,
}

impl Card {
    /// Adds the card to a plan, behind the netdev of this id. Returns its address.
    pub(crate) fn plan(
        &self,
        planner: &mut Planner,
        netdev: &str,
        default_mac: Mac,
    ) -> Result<Mac, PlanError> {
        let Card { nic, mac, pcap, device_args } = self;
        let mac = mac.unwrap_or(default_mac);
        planner
            .claim("network card address", &mac.to_string())
            .map_err(|_| NetError::MacTaken { mac })?;
        let driver = match nic {
            Nic::Virtio => "virtio-net-pci",
            Nic::E1000 => "e1000",
        };
        // No option ROM: the guest does not boot from the network, and loading one costs time.
        let device =
            QemuOpt::new(driver).kv("netdev", netdev).kv("romfile", "").kv("mac", mac.to_string());
        planner.pci_device(with_args(device, device_args)?)?;
        match nic {
            Nic::Virtio => {
                planner.module("virtio_pci");
                planner.module("virtio_net");
            }
            Nic::E1000 => planner.module("e1000"),
        }
        if let Some(pcap) = pcap {
            let dump = planner.id("dump");
            planner.qemu(
                "-object",
                QemuOpt::new("filter-dump").kv("id", dump).kv("netdev", netdev).kv("file", pcap),
            );
        }
        Ok(mac)
    }
}

/// Appends the user's own properties.
pub(super) fn with_args(mut opt: QemuOpt, args: &[(String, String)]) -> Result<QemuOpt, NetError> {
    for (key, value) in args {
        if !is_key(key) {
            return Err(NetError::NotAKey { given: key.clone() });
        }
        opt = opt.kv(key, value);
    }
    Ok(opt)
}
