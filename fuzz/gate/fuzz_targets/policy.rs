//! Policy files, names and addresses: what is read prints as what it is.
#![no_main]

use cofferdam_policy::egress::{HostName, PolicyFile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = PolicyFile::parse("policy.yaml", text);
    if let Ok(name) = text.parse::<HostName>() {
        let printed = name.to_string();
        assert_eq!(printed.parse::<HostName>().as_ref(), Ok(&name), "{printed}");
    }
});
