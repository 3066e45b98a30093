//! What brings coverage out of a guest: a share for programs, a port for the kernel.

use std::path::PathBuf;

use vmtest_guest::proto::{self, Mount};

use super::p9::{MSIZE_BYTES, Ownership, P9Share, attach};
use crate::plan::{ChannelKind, Device, PlanError, Planner};

/// The mount tag of the share.
const TAG: &str = "vmtest.coverage";

/// A host directory for what programs in the guest count, mounted at
/// [`proto::COVERAGE_DIR`], and a port for the kernel's counters.
///
/// Programs write to the share as they end, so what they have written is on the host whatever happens
/// to the guest afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoverageShare {
    /// The directory on the host, with a directory for each of [`proto::COVERAGE_KINDS`].
    pub dir: PathBuf,
    /// Whether the kernel's counters are wanted too.
    pub kernel: bool,
}

impl Device for CoverageShare {
    fn resumable(&self) -> Result<(), &'static str> {
        if self.kernel { Err("its kernel counts from its start") } else { Ok(()) }
    }

    fn plan(&self, planner: &mut Planner) -> Result<(), PlanError> {
        let share = P9Share {
            dir: self.dir.clone(),
            tag: TAG.into(),
            read_only: false,
            ownership: Ownership::Host,
        };
        attach(planner, "coverage directory", &share)?;
        planner.mount(Mount {
            source: TAG.into(),
            target: proto::COVERAGE_DIR.into(),
            fstype: "9p".into(),
            // mmap: LLVM's continuous mode maps its file.
            data: format!("trans=virtio,version=9p2000.L,msize={MSIZE_BYTES},cache=mmap"),
            read_only: false,
        });
        if self.kernel {
            planner.serial_port(proto::COVERAGE_PORT, ChannelKind::Agent)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::arch::Arch;
    use crate::options::Options;
    use crate::plan::Spelling;
    use crate::qemu::AgentPort;

    use super::*;

    #[test]
    fn a_share_for_programs_and_a_port_for_the_kernel() {
        for kernel in [false, true] {
            let mut options = Options::new(Arch::Riscv64);
            options.device(AgentPort);
            options.device(CoverageShare { dir: "/cov/a, b".into(), kernel });
            let plan = options.plan().unwrap();
            let argv = plan.args(Spelling::Executed);
            let argv: Vec<_> = argv.iter().map(|arg| arg.to_string_lossy()).collect();
            assert!(argv.iter().any(|arg| arg.contains("path=/cov/a,, b,")), "{argv:?}");
            let port = argv.iter().any(|arg| arg.ends_with("name=vmtest.coverage"));
            assert_eq!(port, kernel, "{argv:?}");
            assert_eq!(plan.mounts()[0].target, proto::COVERAGE_DIR);
        }
    }
}
