//! A device that vmtest does not know: text for the guest through QEMU's `fw_cfg`.
//!
//! `cargo run --example custom_device`

use std::error::Error;

use vmtest::arch::Arch;
use vmtest::blocking;
use vmtest::configure::device;
use vmtest::options::Environment;
use vmtest::plan::{PlanError, Planner};
use vmtest::qemu::{Device, QemuOpt};
use vmtest::session::{self, Command};

/// A text that the guest reads from `/sys/firmware/qemu_fw_cfg/by_name/opt/<name>/raw`
/// (QEMU documentation, "QEMU Firmware Configuration (fw_cfg) Device").
#[derive(Debug)]
struct FirmwareText {
    name: String,
    text: String,
}

impl Device for FirmwareText {
    // Pure: what it needs is said to the planner, nothing is done.
    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        if self.name.is_empty() || self.name.len() > 50 {
            return Err(PlanError::Other(format!("`{}` cannot name a text", self.name)));
        }
        // Two texts of one name are an error that names both.
        planner.claim("firmware text", &self.name)?;
        // Commas in the text are doubled by `kv`.
        let value = QemuOpt::new(format!("name=opt/{}", self.name)).kv("string", &self.text);
        planner.qemu("-fw_cfg", value);
        // Goes into the image with all it depends on, unless the kernel has it built in.
        planner.module("qemu_fw_cfg");
        Ok(())
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let arch = session::guest_arch(None, &Environment::read()?).unwrap_or(Arch::Amd64);
    let text = FirmwareText { name: "org.example.greeting".into(), text: "hello, guest".into() };
    let mut command = Command::new("cat");
    command.arg("/sys/firmware/qemu_fw_cfg/by_name/opt/org.example.greeting/raw");

    let run = blocking::run(arch, device(text), command)?.passed()?;
    println!("the guest read: {}", run.stdout_text());
    assert_eq!(run.stdout_text(), "hello, guest");
    Ok(())
}
