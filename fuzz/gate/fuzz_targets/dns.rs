//! DNS messages: what is read is answered with the same question and nothing else of the query.
#![no_main]

use cofferdam_gate::dns::{Answer, read_query, write_answer};
use libfuzzer_sys::fuzz_target;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fuzz_target!(|data: &[u8]| {
    let Some(question) = read_query(data) else { return };
    assert!(question.name.len() <= 4 * 255 && question.name.bytes().all(|byte| (0x21..0x7f).contains(&byte)), "{question:?}");
    for answer in [
        Answer::NoName,
        Answer::NoData,
        Answer::Address(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1))),
        Answer::Address(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ] {
        let message = write_answer(data, &question, answer);
        assert!(message.len() <= 12 + 255 + 4 + 28, "{} bytes", message.len());
        assert!(read_query(&message).is_none(), "an answer is no query");
        // The same bytes as a question again.
        let mut again = message.clone();
        again[2] &= 0x01;
        assert_eq!(read_query(&again).as_ref(), Some(&question));
    }
});
