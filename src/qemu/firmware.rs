//! Firmware: UEFI in flash memory.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::argv::QemuOpt;
use crate::fields::{self, BadValue};
use crate::plan::{Device, FileSource, PlanError, Planner};

/// UEFI firmware: EDK II's OVMF on x86, AAVMF on Arm.
///
/// The code is read-only for the guest. The variables are a private copy of `vars` that is gone with
/// the machine: two machines may start from one store, and neither changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// The program, `OVMF_CODE.fd` for instance.
    pub code: PathBuf,
    /// The variable store to start from, `OVMF_VARS.fd` for instance.
    pub vars: PathBuf,
}

/// Which firmware starts the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FirmwareChoice {
    /// `VMTEST_OVMF_CODE` and `VMTEST_OVMF_VARS`, else the pinned one of the asset manifest (amd64,
    /// arm64).
    Default,
    /// These files.
    Files(Firmware),
}

impl FirmwareChoice {
    /// Parses the command line's form, `CODE:VARS` or `default`. [`crate::fields`] has the rule for colons
    /// in names.
    ///
    /// # Errors
    /// [`BadValue`] when it names one file or none.
    pub fn parse(text: &OsStr) -> Result<FirmwareChoice, BadValue> {
        if text == "default" {
            return Ok(FirmwareChoice::Default);
        }
        let (code, vars) = fields::two(text, "CODE:VARS`, or `default")?;
        Ok(FirmwareChoice::Files(Firmware { code: code.into(), vars: vars.into() }))
    }
}

impl Device for Firmware {
    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        let flash = |unit| QemuOpt::new("if=pflash").num("unit", unit).kv("format", "raw");
        planner.needs_file("firmware", &self.code);
        planner.needs_file("firmware", &self.vars);
        planner.qemu("-drive", flash(0).switch("readonly", true).kv("file", &self.code));
        let vars = planner.file("vars.fd", FileSource::PrivateCopy(self.vars.clone()));
        planner.qemu("-drive", flash(1).kv_file("file", vars));
        Ok(())
    }
}
