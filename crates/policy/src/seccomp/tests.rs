//! The filter is run by a small BPF machine here, and by the kernel in the escape tests.

use super::compile::{AND, JUMP, JUMP_AT_LEAST, JUMP_EQUAL, LOAD, RETURN, RETURN_ALLOW, RETURN_ENOSYS, RETURN_EPERM, RETURN_KILL};
use super::*;

fn run(program: &[Instruction], audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let load = |offset: u32| match offset {
        0 => number,
        4 => audit,
        _ => (arguments[(offset as usize - 16) / 8] >> (8 * (offset % 8))) as u32,
    };
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let Instruction { code, jump_true, jump_false, operand } = program[at];
        at += 1;
        match code {
            LOAD => accumulator = load(operand),
            AND => accumulator &= operand,
            JUMP => at += operand as usize,
            JUMP_EQUAL => at += usize::from(if accumulator == operand { jump_true } else { jump_false }),
            JUMP_AT_LEAST => at += usize::from(if accumulator >= operand { jump_true } else { jump_false }),
            RETURN => return operand,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

fn decide(name: &str, arguments: [u64; 6]) -> u32 {
    let calls = parse(TABLE).expect("the table parses");
    let call = calls.iter().find(|call| call.name == name).unwrap_or_else(|| panic!("{name} is not in the table"));
    let number = call.x86_64.expect("a call of x86-64");
    run(&compile(&calls, Arch::X86_64), Arch::X86_64.audit(), number, arguments)
}

fn with(argument: usize, value: u64) -> [u64; 6] {
    let mut arguments = [0; 6];
    arguments[argument] = value;
    arguments
}

#[test]
fn the_table_is_within_its_bound_and_names_each_call_once() {
    let calls = parse(TABLE).expect("the table parses");
    let allowed = calls.iter().filter(|call| call.rule != Rule::Refuse).count();
    assert!(allowed <= MOST_ALLOWED, "{allowed} calls are allowed");
    let mut names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "a call is named twice");
    let filter = compile(&calls, Arch::X86_64);
    assert!(filter.len() < 4096, "{} instructions", filter.len());
}

/// The filter must say what the table says, for every number there is.
#[test]
fn the_search_finds_every_call() {
    let calls = parse(TABLE).expect("the table parses");
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let filter = compile(&calls, arch);
        for number in (0..1100).chain([0x4000_0000, 0x4000_0000 + 41, u32::MAX]) {
            let of_arch = |call: &&Call| match arch {
                Arch::X86_64 => call.x86_64 == Some(number),
                Arch::Aarch64 => call.aarch64 == Some(number),
            };
            let expected = match calls.iter().find(of_arch).map(|call| &call.rule) {
                None => RETURN_ENOSYS,
                Some(Rule::Allow) => RETURN_ALLOW,
                Some(Rule::Refuse) => RETURN_EPERM,
                Some(Rule::If(_)) => continue,
            };
            assert_eq!(run(&filter, arch.audit(), number, [0; 6]), expected, "{arch:?} {number}");
        }
    }
}

#[test]
fn a_foreign_architecture_is_killed() {
    let calls = parse(TABLE).expect("the table parses");
    let filter = compile(&calls, Arch::X86_64);
    const I386: u32 = 0x4000_0003;
    assert_eq!(run(&filter, I386, 20, [0; 6]), RETURN_KILL);
    assert_eq!(run(&filter, Arch::Aarch64.audit(), 0, [0; 6]), RETURN_KILL);
}

#[test]
fn no_new_namespaces() {
    const SIGCHLD: u64 = 17;
    const THREAD: u64 = 0x003D_0F00;
    assert_eq!(decide("clone", with(0, SIGCHLD)), RETURN_ALLOW);
    assert_eq!(decide("clone", with(0, THREAD)), RETURN_ALLOW);
    for namespace in [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        assert_eq!(decide("clone", with(0, namespace | SIGCHLD)), RETURN_EPERM, "{namespace:#x}");
        assert_eq!(decide("unshare", with(0, namespace)), RETURN_EPERM, "{namespace:#x}");
    }
    assert_eq!(decide("unshare", with(0, 0x80)), RETURN_EPERM, "time namespace");
    assert_eq!(decide("unshare", with(0, 0x600)), RETURN_ALLOW, "files and fs");
    assert_eq!(decide("setns", [0; 6]), RETURN_EPERM);
}

#[test]
fn socket_families() {
    const RAW: u64 = 3;
    const RETURN_EPROTONOSUPPORT: u32 = 0x0005_005D;
    let socket = |family: u64, kind: u64, protocol: u64| decide("socket", [family, kind, protocol, 0, 0, 0]);
    for family in [1, 2, 10] {
        assert_eq!(socket(family, 1 | 0o2_000_000, 0), RETURN_ALLOW);
        assert_eq!(socket(family, 2, 17), RETURN_ALLOW);
        assert_eq!(socket(family, RAW, 1), RETURN_EPERM);
        assert_eq!(socket(family, RAW | 0o4000, 1), RETURN_EPERM);
        assert_eq!(socket(family | (7 << 32), 1, 0), RETURN_ALLOW, "the kernel takes the low half");
    }
    assert_eq!(socket(16, 3, 0), RETURN_ALLOW, "NETLINK_ROUTE");
    for protocol in [4, 6, 9, 12, 15, 16] {
        assert_eq!(socket(16, 3, protocol), RETURN_EPROTONOSUPPORT, "netlink {protocol}");
    }
    for family in [0, 3, 4, 5, 9, 15, 17, 21, 29, 30, 31, 38, 39, 40, 41, 44, u64::MAX] {
        assert_eq!(socket(family, 1, 0), RETURN_EPERM, "family {family}");
        assert_eq!(decide("socketpair", [family, 1, 0, 0, 0, 0]), RETURN_EPERM, "family {family}");
    }
}

#[test]
fn terminal_and_tracing_tricks() {
    for request in [0x5412, 0x541C, 0x5423, 0x4B45] {
        assert_eq!(decide("ioctl", with(1, request)), RETURN_EPERM);
        assert_eq!(decide("ioctl", with(1, request | (1 << 32))), RETURN_EPERM, "the kernel takes the low half");
    }
    for request in [0x5401, 0x5413, 0x540E] {
        assert_eq!(decide("ioctl", with(1, request)), RETURN_ALLOW);
    }
    assert_eq!(decide("ptrace", with(0, 0)), RETURN_ALLOW, "TRACEME");
    assert_eq!(decide("ptrace", with(0, 16)), RETURN_EPERM, "ATTACH");
    assert_eq!(decide("ptrace", with(0, 0x4206)), RETURN_EPERM, "SEIZE");
    assert_eq!(decide("personality", with(0, 0x0004_0000)), RETURN_EPERM);
    assert_eq!(decide("personality", with(0, 0xFFFF_FFFF)), RETURN_ALLOW);
    assert_eq!(decide("prctl", with(0, 35)), RETURN_EPERM, "PR_SET_MM");
    assert_eq!(decide("seccomp", with(1, 8)), RETURN_EPERM, "a listener");
    assert_eq!(decide("seccomp", with(1, 1)), RETURN_ALLOW);
}

#[test]
fn no_device_nodes() {
    for (name, argument) in [("mknod", 1), ("mknodat", 2)] {
        assert_eq!(decide(name, with(argument, 0o010_644)), RETURN_ALLOW, "a pipe");
        assert_eq!(decide(name, with(argument, 0o100_644)), RETURN_ALLOW, "a file");
        assert_eq!(decide(name, with(argument, 0o020_666)), RETURN_EPERM, "a character device");
        assert_eq!(decide(name, with(argument, 0o060_666)), RETURN_EPERM, "a block device");
    }
}

#[test]
fn refuses_what_it_cannot_read() {
    for line in ["read", "read 0 63", "read x 63 allow", "read 0 63 maybe", "ioctl 16 29 oneof 6 1", "ioctl 16 29 clear 0"] {
        assert_eq!(parse(line), Err(ParseError { line: 1, text: line.into() }));
    }
}
