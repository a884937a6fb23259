//! Addresses by what they lead to, in every disguise.

use cofferdam_policy::egress::{AddressClass, Network};

const CLASSES: &[(&str, AddressClass)] = &[
    ("1.1.1.1", AddressClass::Public),
    ("8.8.8.8", AddressClass::Public),
    ("93.184.216.34", AddressClass::Public),
    ("172.15.255.255", AddressClass::Public),
    ("172.32.0.0", AddressClass::Public),
    ("100.63.255.255", AddressClass::Public),
    ("100.128.0.0", AddressClass::Public),
    ("223.255.255.255", AddressClass::Public),
    ("0.0.0.0", AddressClass::Reserved),
    ("0.1.2.3", AddressClass::Reserved),
    ("10.0.0.1", AddressClass::Private),
    ("172.16.0.1", AddressClass::Private),
    ("172.31.255.255", AddressClass::Private),
    ("192.168.0.1", AddressClass::Private),
    ("100.64.0.1", AddressClass::Private),
    ("100.127.255.255", AddressClass::Private),
    ("127.0.0.1", AddressClass::Loopback),
    ("127.255.255.254", AddressClass::Loopback),
    ("169.254.0.1", AddressClass::LinkLocal),
    ("169.254.169.254", AddressClass::Metadata),
    ("169.254.170.2", AddressClass::Metadata),
    ("169.254.170.23", AddressClass::Metadata),
    ("100.100.100.200", AddressClass::Metadata),
    ("168.63.129.16", AddressClass::Metadata),
    ("192.0.0.192", AddressClass::Metadata),
    ("192.0.2.1", AddressClass::Reserved),
    ("198.18.0.1", AddressClass::Reserved),
    ("198.19.255.255", AddressClass::Reserved),
    ("198.51.100.1", AddressClass::Reserved),
    ("203.0.113.1", AddressClass::Reserved),
    ("224.0.0.1", AddressClass::Reserved),
    ("239.255.255.255", AddressClass::Reserved),
    ("240.0.0.1", AddressClass::Reserved),
    ("255.255.255.255", AddressClass::Reserved),
    ("2606:4700::1111", AddressClass::Public),
    ("2a00:1450::8a", AddressClass::Public),
    ("::1", AddressClass::Loopback),
    ("::", AddressClass::Reserved),
    ("fd00::1", AddressClass::Private),
    ("fc00::1", AddressClass::Private),
    ("fec0::1", AddressClass::Private),
    ("fe80::1", AddressClass::LinkLocal),
    ("fd00:ec2::254", AddressClass::Metadata),
    ("fd20:ce::254", AddressClass::Metadata),
    ("ff02::1", AddressClass::Reserved),
    ("2001:db8::1", AddressClass::Reserved),
    ("3fff::1", AddressClass::Reserved),
    ("100::1", AddressClass::Reserved),
    ("::ffff:127.0.0.1", AddressClass::Loopback),
    ("::ffff:10.0.0.1", AddressClass::Private),
    ("::ffff:169.254.169.254", AddressClass::Metadata),
    ("::ffff:8.8.8.8", AddressClass::Public),
    ("::ffff:0:10.0.0.1", AddressClass::Private),
    ("::127.0.0.1", AddressClass::Loopback),
    ("::169.254.169.254", AddressClass::Metadata),
    ("64:ff9b::10.0.0.1", AddressClass::Private),
    ("64:ff9b::169.254.169.254", AddressClass::Metadata),
    ("64:ff9b:1::10.0.0.1", AddressClass::Private),
    ("64:ff9b:1:abcd::7f00:1", AddressClass::Loopback),
    ("2002:a9fe:a9fe::", AddressClass::Metadata),
    ("2002:7f00:1::1", AddressClass::Loopback),
    ("2002:a00:1::", AddressClass::Private),
    ("2002:808:808::", AddressClass::Public),
    ("2001:0:4136:e378:8000:63bf:f5ff:fffe", AddressClass::Private),
    ("2001:0:4136:e378:8000:63bf:5601:5601", AddressClass::Metadata),
    ("2606:4700::5efe:10.0.0.1", AddressClass::Private),
    ("2606:4700::200:5efe:a9fe:a9fe", AddressClass::Metadata),
    ("fe80::5efe:127.0.0.1", AddressClass::Loopback),
];

#[test]
fn classes() {
    for (text, class) in CLASSES {
        let address = text.parse().expect(text);
        assert_eq!(AddressClass::of(address), *class, "{text}");
    }
}

#[test]
fn blocks() {
    let block: Network = "10.1.0.0/16".parse().expect("a block");
    for (address, inside) in [("10.1.0.0", true), ("10.1.255.255", true), ("10.2.0.0", false), ("::ffff:10.1.0.1", false)] {
        assert_eq!(block.contains(address.parse().expect(address)), inside, "{address}");
    }
    for (text, address) in [("0.0.0.0/0", "203.0.113.9"), ("::/0", "2001:db8::1"), ("2001:db8::1/128", "2001:db8::1")] {
        assert!(text.parse::<Network>().expect(text).contains(address.parse().expect(address)), "{text}");
    }
    for text in
        ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "0x0a.0.0.0/8", "010.0.0.0/8", "2001:db8::1/32", "::/129", "10.0.0.0/8/8"]
    {
        assert!(text.parse::<Network>().is_err(), "{text}");
    }
}
