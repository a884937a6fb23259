//! The same table in the form that container runtimes take: a profile of libseccomp rules (runtime-spec, `linux.seccomp`).
//!
//! Such a profile knows comparisons of one argument with one value, all of a rule's at once, and takes the rules of a call as
//! alternatives. What equals none of some values is written as all patterns of leading bits that differ from theirs.

use super::parse::{Alternative, Call, Condition, Rule};
use std::fmt::Write;

/// One comparison: argument, mask, value under the mask.
type Test = (u32, u32, u32);

/// Most tests of a call's arguments in an outline.
const BRIEF: usize = 5;

/// The profile as JSON. Unknown calls are ENOSYS, as in the compiled filter.
pub fn profile(calls: &[Call]) -> String {
    let conditional = calls.iter().filter_map(|call| match &call.rule {
        Rule::If(alternatives) => Some((call, alternatives)),
        Rule::Allow | Rule::Refuse => None,
    });
    let rules = conditional.flat_map(|(call, alternatives)| {
        rules(alternatives).into_iter().map(move |(verdict, tests)| conditional_rule(&call.name, verdict, &tests))
    });
    of_rules(calls, &[], rules)
}

/// The profile for those who go on to install the compiled filter before anything else runs: a runtime takes 30 ms for the whole one. Nothing
/// that the table lets through is refused; what few tests of arguments can say stands, other arguments are left to the filter.
pub fn outline(calls: &[Call]) -> String {
    let (mut whole, mut rules) = (Vec::new(), Vec::new());
    for call in calls {
        let Rule::If(alternatives) = &call.rule else { continue };
        let allowed = alternatives.iter().filter(|alternative| alternative.errno.is_none());
        let tests: Vec<Vec<Test>> = allowed.flat_map(|alternative| conjunctions(&alternative.conditions)).collect();
        if tests.len() > BRIEF {
            whole.push(&*call.name);
        } else {
            rules.extend(tests.iter().map(|tests| conditional_rule(&call.name, None, tests)));
        }
    }
    of_rules(calls, &whole, rules.into_iter())
}

fn of_rules(calls: &[Call], also_allowed: &[&str], rules: impl Iterator<Item = String>) -> String {
    let named = |rule: Rule| calls.iter().filter(move |call| call.rule == rule).map(|call| &*call.name);
    let list = |names: &mut dyn Iterator<Item = &str>| names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(",");
    let allowed = list(&mut named(Rule::Allow).chain(also_allowed.iter().copied()));
    let entries = [
        format!("{{\"names\":[{allowed}],\"action\":\"SCMP_ACT_ALLOW\"}}"),
        errno(&list(&mut named(Rule::Refuse)), 1),
        // A C library falls back to `clone` only if the kernel seems not to know this one; some runtimes heed no default error.
        errno("\"clone3\"", 38),
    ];
    format!(
        "{{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"defaultErrnoRet\":38,\"architectures\":[\"SCMP_ARCH_{}\"],\"syscalls\":[{}]}}",
        std::env::consts::ARCH.to_uppercase(),
        entries.into_iter().chain(rules).collect::<Vec<_>>().join(",")
    )
}

fn errno(names: &str, number: u16) -> String {
    format!("{{\"names\":[{names}],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":{number}}}")
}

fn conditional_rule(name: &str, verdict: Option<u16>, tests: &[Test]) -> String {
    let mut text = match verdict {
        None => format!("{{\"names\":[\"{name}\"],\"action\":\"SCMP_ACT_ALLOW\",\"args\":["),
        Some(errno) => format!("{{\"names\":[\"{name}\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":{errno},\"args\":["),
    };
    for (at, (argument, mask, value)) in tests.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{{\"index\":{argument},\"value\":{mask},\"valueTwo\":{value},\"op\":\"SCMP_CMP_MASKED_EQ\"}}");
    }
    text + "]}"
}

/// Every rule of a call: disjoint, so that their order does not matter. What none of them says is EPERM.
fn rules(alternatives: &[Alternative]) -> Vec<(Option<u16>, Vec<Test>)> {
    let mut rules: Vec<(Option<u16>, Vec<Test>)> = vec![];
    let mut rest = vec![Vec::new()];
    for alternative in alternatives {
        let said = conjunctions(&alternative.conditions);
        for tests in &said {
            // Only what the alternatives before left over.
            rules.extend(rest.iter().filter_map(|left| and(left, tests)).map(|tests| (alternative.errno, tests)));
        }
        rest = rest.iter().flat_map(|left| without(left, &alternative.conditions)).collect();
    }
    rules.extend(rest.into_iter().map(|tests| (Some(1), tests)));
    rules
}

/// All conditions at once, as alternatives of tests.
fn conjunctions(conditions: &[Condition]) -> Vec<Vec<Test>> {
    let mut all = vec![Vec::new()];
    for condition in conditions {
        let one = tests(condition);
        all = all.iter().flat_map(|left| one.iter().filter_map(|test| and(left, &[*test]))).collect();
    }
    all
}

/// What is left of `tests` where not all conditions hold: the first fails; or it holds and the second fails; and so on.
fn without(left: &[Test], conditions: &[Condition]) -> Vec<Vec<Test>> {
    let mut parts = Vec::new();
    let mut so_far = vec![left.to_vec()];
    for condition in conditions {
        let opposite = opposite(condition);
        parts.extend(so_far.iter().flat_map(|left| opposite.iter().filter_map(|test| and(left, &[*test]))).collect::<Vec<_>>());
        let holds = tests(condition);
        so_far = so_far.iter().flat_map(|left| holds.iter().filter_map(|test| and(left, &[*test]))).collect();
    }
    parts
}

/// Both; None if they contradict each other. Tests of one argument become one.
fn and(left: &[Test], right: &[Test]) -> Option<Vec<Test>> {
    let mut all = left.to_vec();
    for (argument, mask, value) in right {
        match all.iter_mut().find(|(other, ..)| other == argument) {
            Some((_, known, is)) => {
                if *is & mask != value & *known {
                    return None;
                }
                *known |= mask;
                *is |= value;
            }
            None => all.push((*argument, *mask, *value)),
        }
    }
    all.sort_unstable();
    Some(all)
}

/// A condition as alternatives of one test each.
fn tests(condition: &Condition) -> Vec<Test> {
    match condition {
        Condition::Clear { argument, mask } => vec![(*argument, *mask, 0)],
        Condition::OneOf { argument, values } => values.iter().map(|value| (*argument, u32::MAX, *value)).collect(),
        Condition::NoneOf { argument, mask, values } => {
            patterns(*mask, values).into_iter().map(|(mask, value)| (*argument, mask, value)).collect()
        }
    }
}

fn opposite(condition: &Condition) -> Vec<Test> {
    match condition {
        Condition::Clear { argument, mask } => patterns(*mask, &[0]).into_iter().map(|(mask, value)| (*argument, mask, value)).collect(),
        Condition::OneOf { argument, values } => {
            patterns(u32::MAX, values).into_iter().map(|(mask, value)| (*argument, mask, value)).collect()
        }
        Condition::NoneOf { argument, mask, values } => values.iter().map(|value| (*argument, *mask, *value)).collect(),
    }
}

/// Masks and values that together match whatever equals, under `mask`, none of `values`. Disjoint: going down from the highest bit, each
/// place where the ways to all values are left for good is one.
fn patterns(mask: u32, values: &[u32]) -> Vec<(u32, u32)> {
    fn descend(bits: &[u32], known: u32, value: u32, values: &[u32], found: &mut Vec<(u32, u32)>) {
        let near: Vec<u32> = values.iter().copied().filter(|other| other & known == value).collect();
        if near.is_empty() {
            return found.push((known, value));
        }
        let Some((bit, rest)) = bits.split_first() else { return };
        descend(rest, known | bit, value, &near, found);
        descend(rest, known | bit, value | bit, &near, found);
    }
    let bits: Vec<u32> = (0..32).rev().map(|bit| 1 << bit).filter(|bit| mask & bit != 0).collect();
    let values: Vec<u32> = values.iter().map(|value| value & mask).collect();
    let mut found = Vec::new();
    descend(&bits, 0, 0, &values, &mut found);
    found
}

#[cfg(test)]
mod tests_of_profile {
    use super::*;
    use crate::seccomp::{TABLE, parse};
    use proptest::prelude::*;
    use serde_json::Value;

    /// What the profile says about a call; in an outline several rules may let it through.
    fn decide(profile: &Value, name: &str, arguments: [u32; 6]) -> u64 {
        let number = |value: &Value| value.as_u64().expect("a number");
        let mut found: Vec<u64> = Vec::new();
        for entry in profile["syscalls"].as_array().expect("a list") {
            let named = entry["names"].as_array().expect("names").iter().any(|one| one == name);
            let holds = |test: &Value| {
                let argument = u64::from(arguments[number(&test["index"]) as usize]);
                argument & number(&test["value"]) == number(&test["valueTwo"])
            };
            if named && entry["args"].as_array().is_none_or(|tests| tests.iter().all(holds)) {
                found.push(if entry["action"] == "SCMP_ACT_ALLOW" { 0 } else { number(&entry["errnoRet"]) });
            }
        }
        assert!(found.iter().all(|one| *one == found[0]), "{name} {arguments:x?}: {found:?}");
        found.first().copied().unwrap_or_else(|| number(&profile["defaultErrnoRet"]))
    }

    /// What the table says, read as it is written.
    fn expected(call: &Call, arguments: [u32; 6]) -> u64 {
        let holds = |condition: &Condition| match condition {
            Condition::Clear { argument, mask } => arguments[*argument as usize] & mask == 0,
            Condition::OneOf { argument, values } => values.contains(&arguments[*argument as usize]),
            Condition::NoneOf { argument, mask, values } => !values.contains(&(arguments[*argument as usize] & mask)),
        };
        match &call.rule {
            Rule::Allow => 0,
            Rule::Refuse => 1,
            Rule::If(alternatives) => alternatives
                .iter()
                .find(|alternative| alternative.conditions.iter().all(holds))
                .map_or(1, |alternative| alternative.errno.map_or(0, u64::from)),
        }
    }

    proptest! {
        #[test]
        fn the_profile_says_what_the_table_says(
            at in 0usize..1000,
            base in prop::array::uniform6(prop_oneof![Just(0u32), Just(1), Just(2), Just(3), Just(10), Just(16), Just(0x5412), Just(0x4206), 0u32..40, any::<u32>()]),
            flip in 0u32..64,
        ) {
            let calls = parse(TABLE).expect("the table");
            let profile: Value = serde_json::from_str(&profile(&calls)).expect("JSON");
            let conditional: Vec<&Call> = calls.iter().filter(|call| matches!(call.rule, Rule::If(_))).collect();
            let call = conditional[at % conditional.len()];
            let mut arguments = base;
            if flip < 32 { arguments[1] ^= 1 << flip; }
            prop_assert_eq!(decide(&profile, &call.name, arguments), expected(call, arguments), "{} {:x?}", call.name, arguments);
            let outline: Value = serde_json::from_str(&outline(&calls)).expect("JSON");
            prop_assert!(expected(call, arguments) != 0 || decide(&outline, &call.name, arguments) == 0, "{} {:x?}", call.name, arguments);
        }
    }

    #[test]
    fn every_value_of_the_table_is_where_it_belongs() {
        let calls = parse(TABLE).expect("the table");
        let profile: Value = serde_json::from_str(&profile(&calls)).expect("JSON");
        for call in &calls {
            let Rule::If(alternatives) = &call.rule else {
                assert_eq!(decide(&profile, &call.name, [7; 6]), expected(call, [7; 6]), "{}", call.name);
                continue;
            };
            for condition in alternatives.iter().flat_map(|alternative| &alternative.conditions) {
                let (argument, values) = match condition {
                    Condition::Clear { argument, mask } => (*argument, (0..32).map(|bit| 1 << bit).chain([*mask, !*mask, 0]).collect()),
                    Condition::OneOf { argument, values } | Condition::NoneOf { argument, values, .. } => (*argument, values.clone()),
                };
                for value in values {
                    for other in [0u32, 1, 2, 16] {
                        let mut arguments = [other; 6];
                        arguments[argument as usize] = value;
                        assert_eq!(decide(&profile, &call.name, arguments), expected(call, arguments), "{} {arguments:x?}", call.name);
                    }
                }
            }
        }
        assert_eq!(decide(&profile, "no_such_call", [0; 6]), 38);
    }

    /// New namespaces and other calls that are refused whatever their arguments are refused by the outline alone.
    #[test]
    fn an_outline_refuses_what_it_can() {
        let calls = parse(TABLE).expect("the table");
        let text = outline(&calls);
        assert!(text.len() < 8000, "{} bytes", text.len());
        let outline: Value = serde_json::from_str(&text).expect("JSON");
        for call in &calls {
            let of_arguments = matches!(call.rule, Rule::If(_));
            assert!(of_arguments || decide(&outline, &call.name, [0; 6]) == expected(call, [0; 6]), "{}", call.name);
        }
        for (name, arguments) in
            [("clone", [0x1000_0000; 6]), ("unshare", [0x1000_0000; 6]), ("personality", [0x0004_0000; 6]), ("no_such_call", [0; 6])]
        {
            assert_ne!(decide(&outline, name, arguments), 0, "{name}");
        }
    }
}
