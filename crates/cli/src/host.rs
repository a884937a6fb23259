//! What this machine has: read here, passed on as values.

use cofferdam_model::limits::OPEN_FILES;
use cofferdam_model::{Bytes, Cpus, Limits};

const DEFAULT_PIDS: u32 = 4096;
const MEMORY_PERCENT: u64 = 80;

/// Memory and CPUs of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Memory.
    pub memory: Bytes,
    /// CPUs.
    pub cpus: Cpus,
}

impl Machine {
    /// Asks the kernel.
    pub fn read() -> Self {
        let system = rustix::system::sysinfo();
        let bytes = u64::from(system.mem_unit).saturating_mul(system.totalram);
        let memory = Bytes::new(bytes).unwrap_or(Bytes::mebibytes(1024));
        let count = cofferdam_sys::process::cpus();
        Self { memory, cpus: Cpus::from_millis(count * 1000).unwrap_or(Limits::one_cpu()) }
    }

    /// Bytes of memory that are available now.
    pub fn available(self) -> u64 {
        cofferdam_sys::process::memory_available().unwrap_or(self.memory.get() / 2)
    }

    /// Limits of a sandbox where nothing is said: 80 % of the memory, every CPU, no time limit.
    pub fn defaults(self) -> Limits {
        const MEBIBYTE: u64 = 1 << 20;
        let memory = self.memory.get() / 100 * MEMORY_PERCENT / MEBIBYTE;
        Limits {
            memory: Bytes::mebibytes(memory.max(64)),
            cpus: self.cpus,
            disk: None,
            pids: DEFAULT_PIDS,
            open_files: OPEN_FILES,
            timeout: None,
        }
    }
}

/// The caller's home directory.
pub fn home() -> Option<std::path::PathBuf> {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map(Into::into)
}
