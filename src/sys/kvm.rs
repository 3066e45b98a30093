//! A guest of two instructions in a loop, run through `/dev/kvm` to see how fast it goes.
//!
//! The loop runs in stretches of growing length, each of which ends in an exit to this program, so
//! no stretch is started that would not end in time and KVM_RUN never has to be interrupted: no
//! signal, no handler, nothing that a library should not do to the process it lives in. The machine
//! has no devices and no interrupts. Should KVM_RUN not come back at all, the thread that called it
//! is left behind; the answer is then what was measured so far.
//!
//! | host | mode of the guest | loop | exit |
//! |---|---|---|---|
//! | x86-64 | 64-bit, paging on | `dec rcx; jnz` | `hlt` |
//! | arm64 | EL1, MMU off | `subs x0, x0, #1; b.ne` | a store outside of memory |
//!
//! The arm64 half compiles and follows KVM's documentation; it has not run on hardware yet.

use crate::accel::Speed;

/// What KVM would not do.
#[derive(Debug)]
pub(crate) struct Refused {
    /// What was tried.
    pub(crate) step: &'static str,
    /// What came of it.
    pub(crate) problem: String,
}

/// Iterations of a whole measurement: about 2 ms of a slow processor.
pub(crate) const WANTED: u64 = 4_000_000;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use probe::measure;

/// There is no probe for this host.
///
/// # Errors
/// Always.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn measure(_device: &std::path::Path) -> Result<Speed, Refused> {
    Err(Refused { step: "probe", problem: "not written for this architecture".into() })
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod probe {
    use std::cell::UnsafeCell;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    use kvm_bindings::kvm_userspace_memory_region;
    use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

    use super::{Refused, Speed, WANTED};

    /// No stretch is started that would end later than this after the first one began.
    const BUDGET: Duration = Duration::from_millis(25);
    /// How long to wait for the first stretch, which takes microseconds of hardware and little more
    /// than a millisecond of an interpreter. Only a host with much else to do needs longer.
    const PATIENCE: Duration = Duration::from_secs(1);
    /// How long to wait for another one; not reached unless a stretch takes twice as long as the
    /// one before promised.
    const GRACE: Duration = Duration::from_millis(45);
    /// Iterations of the first stretch; each later one is twice as long.
    const FIRST: u64 = 1_000;

    /// Runs the loop, and says how fast it went.
    ///
    /// Takes about 25 ms on a host that interprets, some 5 ms on hardware, most of it for creating
    /// the virtual machine. What was created is given back in the background, since that takes as
    /// long again.
    ///
    /// # Errors
    /// [`Refused`] when KVM does not do what is needed to run any guest.
    pub(crate) fn measure(device: &Path) -> Result<Speed, Refused> {
        let device = CString::new(device.as_os_str().as_bytes())
            .map_err(|_| Refused { step: "open", problem: "NUL in the path".into() })?;
        let (send, receive) = mpsc::channel();
        thread::Builder::new()
            .name("kvm-probe".into())
            .spawn(move || {
                // Whether anybody still listens is of no interest: there is little left to do then.
                let mut report = |progress| drop(send.send(progress));
                if let Err(refused) = Machine::new(&device).and_then(|m| m.run_loop(&mut report)) {
                    report(Err(refused));
                }
            })
            .map_err(|err| Refused { step: "start a thread", problem: err.to_string() })?;

        let mut speed = Speed { done: 0, wanted: WANTED, elapsed: PATIENCE, best_per_second: 0 };
        loop {
            let patience = if speed.done == 0 { PATIENCE } else { GRACE };
            match receive.recv_timeout(patience) {
                Ok(Ok(Progress::Stretch(now))) => speed = now,
                Ok(Ok(Progress::End)) => return Ok(speed),
                Ok(Err(refused)) => return Err(refused),
                // Stuck in KVM_RUN.
                Err(_) => return Ok(speed),
            }
        }
    }

    /// What the measuring thread says.
    enum Progress {
        /// Another stretch is done; the speed up to here.
        Stretch(Speed),
        /// There will be no other one.
        End,
    }

    type Report<'a> = &'a mut dyn FnMut(Result<Progress, Refused>);

    /// Guest memory. 64 KiB are enough for page tables and code, and the largest page a host uses.
    #[repr(C, align(65536))]
    struct Memory(UnsafeCell<[u8; MEMORY_SIZE]>);

    const MEMORY_SIZE: usize = 65536;

    /// A virtual machine with one processor. Fields are dropped in this order: the memory goes when
    /// nothing can write to it any more.
    struct Machine {
        vcpu: VcpuFd,
        _vm: VmFd,
        _memory: Box<Memory>,
    }

    fn refused(step: &'static str) -> impl Fn(kvm_ioctls::Error) -> Refused {
        move |errno| Refused { step, problem: std::io::Error::from(errno).to_string() }
    }

    impl Machine {
        fn new(device: &CString) -> Result<Machine, Refused> {
            let kvm = Kvm::new_with_path(device).map_err(refused("open"))?;
            let version = kvm.get_api_version();
            if version != 12 {
                // 12 since Linux 2.6.22, and "not expected that this number will change".
                let problem = format!("version {version} instead of 12");
                return Err(Refused { step: "KVM_GET_API_VERSION", problem });
            }
            let vm = kvm.create_vm().map_err(refused("KVM_CREATE_VM"))?;
            let mut memory = Box::new(Memory(UnsafeCell::new([0; MEMORY_SIZE])));
            for (address, bytes) in guest::CONTENT {
                memory.0.get_mut()[address..][..bytes.len()].copy_from_slice(bytes);
            }
            let region = kvm_userspace_memory_region {
                slot: 0,
                flags: 0,
                guest_phys_addr: guest::MEMORY_START,
                memory_size: MEMORY_SIZE as u64,
                userspace_addr: memory.0.get() as u64,
            };
            #[expect(unsafe_code, reason = "KVM takes the address of memory the guest may write")]
            // SAFETY: the region is exactly `memory`: writable, aligned to the host's pages, in an
            // `UnsafeCell`, not touched from here on, and freed by `Machine` after the virtual
            // machine's last descriptor is closed.
            unsafe { vm.set_user_memory_region(region) }
                .map_err(refused("KVM_SET_USER_MEMORY_REGION"))?;
            guest::prepare_vm(&vm)?;
            let vcpu = vm.create_vcpu(0).map_err(refused("KVM_CREATE_VCPU"))?;
            guest::prepare_vcpu(&vm, &vcpu)?;
            Ok(Machine { vcpu, _vm: vm, _memory: memory })
        }

        /// Runs stretches until all iterations are done or the budget would not hold another one.
        fn run_loop(mut self, report: Report<'_>) -> Result<(), Refused> {
            let mut speed =
                Speed { done: 0, wanted: WANTED, elapsed: Duration::ZERO, best_per_second: 0 };
            let start = Instant::now();
            let mut length = FIRST;
            while speed.done < WANTED {
                length = length.min(WANTED - speed.done);
                let took = self.run_stretch(length)?;
                speed.best_per_second = speed.best_per_second.max(per_second(length, took));
                speed.done += length;
                speed.elapsed = start.elapsed();
                report(Ok(Progress::Stretch(speed)));
                length *= 2;
                let next =
                    Duration::from_nanos(length * 1_000_000_000 / speed.best_per_second.max(1));
                if !speed.is_hardware() && speed.elapsed + next > BUDGET {
                    break;
                }
            }
            // Before the machine is given back, which takes time.
            report(Ok(Progress::End));
            Ok(())
        }

        fn run_stretch(&mut self, iterations: u64) -> Result<Duration, Refused> {
            guest::set_counter(&self.vcpu, iterations)?;
            let start = Instant::now();
            loop {
                match self.vcpu.run() {
                    Ok(exit) if guest::is_end_of_stretch(&exit) => return Ok(start.elapsed()),
                    Ok(exit) => {
                        let problem = format!("unexpected exit {exit:?}");
                        return Err(Refused { step: "KVM_RUN", problem });
                    }
                    // A signal for the thread (a debugger, a stopped process).
                    Err(errno) if std::io::Error::from(errno).kind() == INTERRUPTED => {}
                    Err(errno) => return Err(refused("KVM_RUN")(errno)),
                }
            }
        }
    }

    fn per_second(iterations: u64, took: Duration) -> u64 {
        let per_second = u128::from(iterations) * 1_000_000_000 / took.as_nanos().max(1);
        u64::try_from(per_second).unwrap_or(u64::MAX)
    }

    const INTERRUPTED: std::io::ErrorKind = std::io::ErrorKind::Interrupted;

    /// 64-bit mode, set up as the boot loader leaves it: the first 2 MiB mapped one to one.
    #[cfg(target_arch = "x86_64")]
    mod guest {
        use kvm_bindings::{kvm_regs, kvm_segment};

        use super::{Refused, VcpuExit, VcpuFd, VmFd, refused};

        pub(super) const MEMORY_START: u64 = 0;
        const PML4: usize = 0x1000;
        const CODE: usize = 0x4000;
        const PRESENT_WRITABLE: u8 = 0b11;
        const PRESENT_WRITABLE_2_MIB: u8 = 0b1000_0011;
        pub(super) const CONTENT: [(usize, &[u8]); 4] = [
            (PML4, &[PRESENT_WRITABLE, 0x20]),   // -> 0x2000
            (0x2000, &[PRESENT_WRITABLE, 0x30]), // -> 0x3000
            (0x3000, &[PRESENT_WRITABLE_2_MIB]), // -> 0
            (
                CODE,
                &[
                    0x48, 0xff, 0xc9, // 1: dec rcx
                    0x75, 0xfb, //         jnz 1b
                    0xf4, //               hlt
                ],
            ),
        ];

        /// Three pages that processors without "unrestricted guest" need to themselves, in the hole
        /// below 4 GiB where QEMU puts them too.
        const TSS: usize = 0xfffb_d000;

        pub(super) fn prepare_vm(vm: &VmFd) -> Result<(), Refused> {
            vm.set_tss_address(TSS).map_err(refused("KVM_SET_TSS_ADDR"))
        }

        pub(super) fn prepare_vcpu(_vm: &VmFd, vcpu: &VcpuFd) -> Result<(), Refused> {
            const CR0_PE_MP_ET_NE_WP_AM_PG: u64 = 0x8005_0033;
            const CR4_PAE: u64 = 0x20;
            const EFER_LME_LMA: u64 = 0x500;
            let code = kvm_segment {
                limit: u32::MAX,
                selector: 8,
                present: 1,
                type_: 11, // execute, read, accessed
                s: 1,
                l: 1,
                g: 1,
                ..kvm_segment::default()
            };
            let data = kvm_segment { type_: 3, selector: 16, l: 0, db: 1, ..code };
            let mut sregs = vcpu.get_sregs().map_err(refused("KVM_GET_SREGS"))?;
            sregs.cr0 = CR0_PE_MP_ET_NE_WP_AM_PG;
            sregs.cr3 = PML4 as u64;
            sregs.cr4 = CR4_PAE;
            sregs.efer = EFER_LME_LMA;
            sregs.cs = code;
            [sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss] = [data; 5];
            vcpu.set_sregs(&sregs).map_err(refused("KVM_SET_SREGS"))
        }

        pub(super) fn set_counter(vcpu: &VcpuFd, iterations: u64) -> Result<(), Refused> {
            let regs = kvm_regs {
                rip: CODE as u64,
                rcx: iterations,
                rflags: 2, // the bit that is always set; interrupts off
                ..kvm_regs::default()
            };
            vcpu.set_regs(&regs).map_err(refused("KVM_SET_REGS"))
        }

        pub(super) fn is_end_of_stretch(exit: &VcpuExit<'_>) -> bool {
            matches!(exit, VcpuExit::Hlt)
        }
    }

    /// EL1 with the MMU off, as at reset.
    #[cfg(target_arch = "aarch64")]
    mod guest {
        use kvm_bindings::{
            KVM_REG_ARM_CORE, KVM_REG_ARM64, KVM_REG_SIZE_U64, kvm_regs, kvm_vcpu_init,
            user_pt_regs,
        };
        use std::mem::offset_of;

        use super::{Refused, VcpuExit, VcpuFd, VmFd, refused};

        /// Above the first page, which stays without memory: a store there is an exit.
        pub(super) const MEMORY_START: u64 = 0x1_0000;
        const NOWHERE: u64 = 0;
        pub(super) const CONTENT: [(usize, &[u8]); 1] = [(
            0,
            &[
                0x00, 0x04, 0x00, 0xf1, // 1: subs x0, x0, #1
                0xe1, 0xff, 0xff, 0x54, //    b.ne 1b
                0x22, 0x00, 0x00, 0xf9, //    str  x2, [x1]
                0xfd, 0xff, 0xff, 0x17, //    b    1b
            ],
        )];

        pub(super) fn prepare_vm(_vm: &VmFd) -> Result<(), Refused> {
            Ok(())
        }

        pub(super) fn prepare_vcpu(vm: &VmFd, vcpu: &VcpuFd) -> Result<(), Refused> {
            let mut init = kvm_vcpu_init::default();
            vm.get_preferred_target(&mut init).map_err(refused("KVM_ARM_PREFERRED_TARGET"))?;
            vcpu.vcpu_init(&init).map_err(refused("KVM_ARM_VCPU_INIT"))?;
            set(vcpu, offset_of!(user_pt_regs, pc), MEMORY_START)?;
            set(vcpu, offset_of!(user_pt_regs, regs) + 8, NOWHERE)
        }

        /// The store is completed on re-entry, which moves the program counter on; so it is not
        /// set here, and the guest branches back by itself.
        pub(super) fn set_counter(vcpu: &VcpuFd, iterations: u64) -> Result<(), Refused> {
            set(vcpu, offset_of!(user_pt_regs, regs), iterations)
        }

        pub(super) fn is_end_of_stretch(exit: &VcpuExit<'_>) -> bool {
            matches!(exit, VcpuExit::MmioWrite(NOWHERE, _))
        }

        /// Sets a core register, named by its offset in `user_pt_regs` (Linux'
        /// Documentation/virt/kvm/api.rst, `KVM_SET_ONE_REG`: the id counts in 32-bit words).
        fn set(vcpu: &VcpuFd, offset: usize, value: u64) -> Result<(), Refused> {
            let word = (offset_of!(kvm_regs, regs) + offset) / size_of::<u32>();
            let id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | u64::from(KVM_REG_ARM_CORE) | word as u64;
            vcpu.set_one_reg(id, &value.to_le_bytes()).map_err(refused("KVM_SET_ONE_REG"))?;
            Ok(())
        }
    }
}
