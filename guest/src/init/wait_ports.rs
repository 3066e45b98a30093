//! Waits for the agent's virtio-serial ports to appear, and opens them.
//!
//! They appear in steps that take a few milliseconds: driver, port, name. There is nobody to tell
//! us (udev would), so this looks again and again, every millisecond.

use super::mounts::make_char_device;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};
use vmtest_guest::ports::{self, Port};
use vmtest_guest::proto;

const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// With a virtio-serial device in the machine, a control port is most likely on its way.
const WITH_DEVICE: Duration = Duration::from_secs(5);
/// Without one, most likely the image was booted by somebody else; still, drivers may probe late.
const WITHOUT_DEVICE: Duration = Duration::from_secs(1);
/// When ports with other names are there, how long the control port may be behind them.
const BEHIND_OTHERS: Duration = Duration::from_millis(500);

/// The opened ports of the agent.
pub(crate) struct Ports {
    pub(crate) control: File,
    /// Only there when the host wants coverage.
    pub(crate) coverage: Option<File>,
    /// Names of all ports there are.
    pub(crate) names: Vec<String>,
}

/// Opens the control port, and that for coverage; the error is a sentence for the user that says
/// what was found instead.
pub(crate) fn wait_for_control() -> Result<Ports, String> {
    let start = Instant::now();
    let mut others_since = None;
    loop {
        let found = ports::list().unwrap_or_default();
        if find(&found, proto::CONTROL_PORT).is_some() {
            return open_all(settle());
        }
        if !found.is_empty() {
            others_since.get_or_insert_with(Instant::now);
        }
        let device = serial_device_exists();
        let patience = if device { WITH_DEVICE } else { WITHOUT_DEVICE };
        let waited = start.elapsed();
        if waited > patience || others_since.is_some_and(|since| since.elapsed() > BEHIND_OTHERS) {
            let what = match (device, found.is_empty()) {
                (false, _) => "no virtio-serial device in this machine, or no driver for its bus \
                    (CONFIG_VIRTIO_PCI or module virtio_pci)"
                    .to_owned(),
                (true, true) => "there is a virtio-serial device but no port \
                    (CONFIG_VIRTIO_CONSOLE or module virtio_console)"
                    .to_owned(),
                (true, false) => {
                    let names: Vec<_> = found.iter().map(|port| port.name.as_str()).collect();
                    format!("the ports are: {}", names.join(", "))
                }
            };
            return Err(format!(
                "no port `{}` after {} ms: {what}",
                proto::CONTROL_PORT,
                waited.as_millis()
            ));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Whether the machine has a device that can have ports (virtio device type 3).
fn serial_device_exists() -> bool {
    let Ok(devices) = fs::read_dir("/sys/bus/virtio/devices") else { return false };
    devices.flatten().any(|device| {
        fs::read_to_string(device.path().join("device")).is_ok_and(|id| id.trim() == "0x0003")
    })
}

/// The control port is there; others follow it at once. Gives them a moment to get their names.
fn settle() -> Vec<Port> {
    let deadline = Instant::now() + Duration::from_millis(100);
    loop {
        let found = ports::list().unwrap_or_default();
        let all = fs::read_dir("/sys/class/virtio-ports").map_or(0, Iterator::count);
        if found.len() == all || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn find<'a>(ports: &'a [Port], name: &str) -> Option<&'a Port> {
    ports.iter().find(|port| port.name == name)
}

fn open_all(found: Vec<Port>) -> Result<Ports, String> {
    let open_named = |name: &str| match find(&found, name) {
        None => Ok(None),
        Some(port) => open(&port.device).map(Some).map_err(|error| {
            format!("cannot open port `{name}` ({}): {error}", port.device.display())
        }),
    };
    let control = open_named(proto::CONTROL_PORT)?.ok_or("the control port went away")?;
    Ok(Ports {
        control,
        coverage: open_named(proto::COVERAGE_PORT)?,
        names: found.into_iter().map(|port| port.name).collect(),
    })
}

fn open(device: &Path) -> io::Result<File> {
    if !device.exists() {
        make_node(device);
    }
    OpenOptions::new().read(true).write(true).open(device)
}

/// Without devtmpfs nobody has made the device. When this fails, so will opening it.
fn make_node(device: &Path) {
    let Some(name) = device.file_name() else { return };
    let numbers = Path::new("/sys/class/virtio-ports").join(name).join("dev");
    let Ok(numbers) = fs::read_to_string(numbers) else { return };
    if let Some((major, minor)) = numbers.trim().split_once(':')
        && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
    {
        let _ = make_char_device(device, 0o600, major, minor);
    }
}
