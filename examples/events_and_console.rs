//! A guest with an init of its own: events come in while the test talks on the console.
//!
//! `cargo run --example events_and_console`

use std::error::Error;
use std::sync::mpsc::channel;
use std::time::Duration;

use vmtest::arch::Arch;
use vmtest::assets::Assets;
use vmtest::blocking;
use vmtest::configure::{event_callback, log_serial_by_line, with_initramfs};
use vmtest::initramfs::ImageSpec;
use vmtest::initramfs::modules::{Modules, Request, SelectOptions};
use vmtest::options::Environment;
use vmtest::session;
use vmtest::vm::End;
use vmtest::vm::lines::default_print;

/// The guest's process 1. `event` is a command of the guest program.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin
busybox mkdir -p /proc /sys /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev 2>/dev/null
for module in $(busybox cat /modules); do
    busybox insmod $module
done
echo "what is your name?"
read name
guest event names "\"$name\"" '"done"' && guest event names --done
echo "bye, $name"
busybox poweroff -f
"#;

const LIMIT: Duration = Duration::from_secs(180);

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let environment = Environment::read()?;
    let arch = session::guest_arch(None, &environment).unwrap_or(Arch::Amd64);
    let assets = Assets::find(&environment)?.guest(arch);
    let (Some(shell), Some(guest)) = (assets.shell, assets.guest) else {
        return Err("the assets have no shell or no guest program: run `make assets`".into());
    };

    let mut image = ImageSpec::new(arch);
    image.file_followed(&shell.path, Some("/bin/busybox"));
    image.file_followed(&guest.path, Some("/bin/guest"));
    image.bytes("/init", 0o755, INIT.as_bytes().to_vec());
    let mut list = String::new();
    if let Some(dir) = assets.kernel.and_then(|kernel| kernel.modules) {
        let modules = Modules::open(&dir)?;
        let wanted = ["virtio_pci", "virtio_console"].map(Request::optional);
        // With all they depend on, in the order to load them.
        for module in modules.select(&wanted, &SelectOptions::default())?.modules {
            let path = format!("/{}.ko", module.name);
            image.bytes(&path, 0o644, modules.load(&module, arch)?.bytes);
            list.push_str(&format!("{path}\n"));
        }
    }
    image.bytes("/modules", 0o644, list.into_bytes());
    let mut initramfs = tempfile::NamedTempFile::new()?;
    image.finish()?.write_to(initramfs.as_file_mut())?;

    let (sender, names) = channel();
    let configuration = (
        with_initramfs(initramfs.path()),
        event_callback("names", move |name: String| sender.send(name)),
        log_serial_by_line(default_print("guest", |line: &str| println!("{line}"))),
    );
    let vm = blocking::start(arch, configuration)?;
    let mut console = vm.console();
    console.expect("what is your name?", LIMIT)?;
    console.send_line("vmtest");
    console.expect("bye, vmtest", LIMIT)?;
    console.expect_eof(LIMIT)?;

    assert_eq!(vm.wait()?, End::PoweredOff);
    assert_eq!(names.into_iter().collect::<Vec<String>>(), ["vmtest", "done"]);
    Ok(())
}
