//! Finding virtio-serial ports by name.
//!
//! The kernel shows each port as `/sys/class/virtio-ports/vportNpM` with its name in the file
//! `name`, and as the device `/dev/vportNpM`. The links `/dev/virtio-ports/NAME` are udev's work,
//! and there is no udev here.
//!
//! What a port does that a pipe does not (`drivers/char/virtio_console.c`):
//! * one process can have it open at a time; the next one gets `EBUSY`;
//! * one `write` takes 32 KiB at most and blocks until the host has connected its end;
//! * `read` returns 0 while the host has not connected its end, or has closed it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const CLASS: &str = "/sys/class/virtio-ports";

/// A named port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The name the host gave it.
    pub name: String,
    /// Its character device, `/dev/vportNpM`.
    pub device: PathBuf,
}

/// Why a port cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel has no virtio-serial driver, or sysfs is not mounted.
    #[error("cannot list virtio-serial ports in {CLASS}")]
    List {
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// There are ports, but none of this name.
    #[error("no virtio-serial port is named `{name}`; there are: {}", names(.known))]
    NoSuchPort {
        /// The name looked for.
        name: String,
        /// Names of the ports there are.
        known: Vec<String>,
    },
}

fn names(known: &[String]) -> String {
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

/// All ports that have a name, sorted by device.
///
/// A port that the host has only just announced may not have its name yet.
///
/// # Errors
/// When the directory cannot be read: no driver, or no sysfs.
pub fn list() -> io::Result<Vec<Port>> {
    list_in(Path::new(CLASS))
}

fn list_in(class: &Path) -> io::Result<Vec<Port>> {
    let mut ports = Vec::new();
    for entry in fs::read_dir(class)? {
        let entry = entry?;
        // A port without a name has no such file; one that just went away neither.
        let Ok(name) = fs::read_to_string(entry.path().join("name")) else { continue };
        let name = name.trim_end_matches('\n').to_owned();
        ports.push(Port { name, device: Path::new("/dev").join(entry.file_name()) });
    }
    ports.sort_by(|a, b| a.device.cmp(&b.device));
    Ok(ports)
}

/// The device of the virtio-serial port named `name`.
///
/// # Errors
/// [`Error::List`] without driver or sysfs, [`Error::NoSuchPort`] where no port has that name.
pub fn virtio_serial_device(name: &str) -> Result<PathBuf, Error> {
    let ports = list().map_err(|source| Error::List { source })?;
    match ports.iter().find(|port| port.name == name) {
        Some(port) => Ok(port.device.clone()),
        None => Err(Error::NoSuchPort {
            name: name.to_owned(),
            known: ports.into_iter().map(|port| port.name).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_by_name_and_unnamed_ones_skipped() {
        let dir = std::env::temp_dir().join(format!("vmtest-ports-{}", std::process::id()));
        for (port, name) in
            [("vport1p2", Some("b\n")), ("vport1p1", Some("a\n")), ("vport0p1", None)]
        {
            fs::create_dir_all(dir.join(port)).unwrap();
            if let Some(name) = name {
                fs::write(dir.join(port).join("name"), name).unwrap();
            }
        }
        let found: Vec<_> =
            list_in(&dir).unwrap().into_iter().map(|p| (p.name, p.device)).collect();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(
            found,
            [("a".to_owned(), "/dev/vport1p1".into()), ("b".to_owned(), "/dev/vport1p2".into())]
        );
    }

    #[test]
    fn a_missing_port_is_told_with_those_that_exist() {
        let error = Error::NoSuchPort { name: "x".into(), known: vec!["a".into(), "b".into()] };
        assert_eq!(error.to_string(), "no virtio-serial port is named `x`; there are: a, b");
    }
}
