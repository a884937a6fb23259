//! Classic BPF instructions, as `seccomp(2)` takes them.

/// One instruction: `struct sock_filter` of `linux/filter.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation code.
    pub code: u16,
    /// Jump distance if true.
    pub jump_true: u8,
    /// Jump distance if false.
    pub jump_false: u8,
    /// Operand.
    pub operand: u32,
}

impl Instruction {
    /// From the packed form that build scripts write: code, jt, jf, k in one 64-bit word.
    pub const fn unpack(word: u64) -> Self {
        Self { code: (word >> 48) as u16, jump_true: (word >> 40) as u8, jump_false: (word >> 32) as u8, operand: word as u32 }
    }

    /// As the kernel takes it, in two words.
    pub fn words(self) -> [u32; 2] {
        [u32::from(self.code) | u32::from(self.jump_true) << 16 | u32::from(self.jump_false) << 24, self.operand]
    }
}
