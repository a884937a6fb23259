//! Writes nftables transactions as the kernel reads them (`linux/netfilter/nf_tables.h`): no program is started.

use cofferdam_sys::netlink::put_attribute;

/// Address family of a table that sees both IPv4 and IPv6 (`NFPROTO_INET`).
const FAMILY_INET: u8 = 1;
const SUBSYSTEM_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const REQUEST: u16 = 1;
const REQUEST_ACK_CREATE: u16 = 0x405;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
const REGISTER_1: u32 = 1;
const REGISTER_2: u32 = 2;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

/// Attribute writer: a growing buffer of `nlattr`s.
#[derive(Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        put_attribute(&mut self.0, kind, value);
        self
    }

    fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    fn nest(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// Part of a packet that a rule looks at.
#[derive(Clone, Copy)]
pub enum Header {
    /// From the start of the IP header.
    Network = 1,
    /// From the start of the TCP or UDP header.
    Transport = 2,
}

/// One rule under construction: matches first, then what to do.
#[derive(Default)]
pub struct Rule(Attributes);

impl Rule {
    fn expression(self, name: &str, data: &Attributes) -> Self {
        let element = Attributes::default().string(1, name).nest(2, data);
        Self(self.0.nest(1, &element))
    }

    fn compare(self, value: &[u8]) -> Self {
        self.compare_as(EQUAL, value)
    }

    fn compare_as(self, operation: u32, value: &[u8]) -> Self {
        let data = Attributes::default().bytes(1, value);
        self.expression("cmp", &Attributes::default().be32(1, REGISTER_1).be32(2, operation).nest(3, &data))
    }

    fn meta(self, key: u32, value: u8) -> Self {
        self.expression("meta", &Attributes::default().be32(1, REGISTER_1).be32(2, key)).compare(&[value])
    }

    /// Matches IPv4 (2) or IPv6 (10).
    pub fn protocol_family(self, family: u8) -> Self {
        self.meta(15, family)
    }

    /// Matches the transport protocol (6 TCP, 17 UDP).
    pub fn transport(self, protocol: u8) -> Self {
        self.meta(16, protocol)
    }

    /// Matches bytes at an offset.
    pub fn field(self, header: Header, offset: u32, value: &[u8]) -> Self {
        self.load(header, offset, value.len() as u32).compare(value)
    }

    /// Matches anything but these bytes at an offset.
    pub fn field_not(self, header: Header, offset: u32, value: &[u8]) -> Self {
        self.load(header, offset, value.len() as u32).compare_as(NOT_EQUAL, value)
    }

    /// Hands the packet to a transparent listener at this address (IPv4 or IPv6) and port.
    pub fn tproxy(self, family: u8, address: &[u8], port: u16) -> Self {
        let put = |rule: Self, register: u32, value: &[u8]| {
            let data = Attributes::default().bytes(1, value);
            rule.expression("immediate", &Attributes::default().be32(1, register).nest(2, &data))
        };
        let rule = put(put(self, REGISTER_1, address), REGISTER_2, &port.to_be_bytes());
        let family = u32::from(family);
        rule.expression("tproxy", &Attributes::default().be32(1, family).be32(2, REGISTER_1).be32(3, REGISTER_2))
    }

    /// Matches bytes at an offset under a mask.
    pub fn masked(self, header: Header, offset: u32, mask: &[u8], value: &[u8]) -> Self {
        let length = value.len() as u32;
        let (mask, zero) = (Attributes::default().bytes(1, mask), Attributes::default().bytes(1, &vec![0; value.len()]));
        let data = Attributes::default().be32(1, REGISTER_1).be32(2, REGISTER_1).be32(3, length).nest(4, &mask).nest(5, &zero);
        self.load(header, offset, length).expression("bitwise", &data).compare(value)
    }

    fn load(self, header: Header, offset: u32, length: u32) -> Self {
        let data = Attributes::default().be32(1, REGISTER_1).be32(2, header as u32).be32(3, offset).be32(4, length);
        self.expression("payload", &data)
    }

    /// Lets the packet through.
    pub fn accept(self) -> Self {
        self.verdict(NF_ACCEPT)
    }

    /// Says nothing and lets nothing through.
    pub fn drop(self) -> Self {
        self.verdict(NF_DROP)
    }

    fn verdict(self, verdict: u32) -> Self {
        let data = Attributes::default().nest(2, &Attributes::default().be32(1, verdict));
        self.expression("immediate", &Attributes::default().be32(1, VERDICT_REGISTER).nest(2, &data))
    }

    /// At most so many packets a second (with a burst) go on in this rule.
    pub fn limit(self, per_second: u64, burst: u32) -> Self {
        let data = Attributes::default().bytes(1, &per_second.to_be_bytes()).bytes(2, &1u64.to_be_bytes()).be32(3, burst);
        self.expression("limit", &data.be32(4, 0))
    }

    /// Sends the packet's first bytes to a log group.
    pub fn log(self, group: u16, bytes: u32) -> Self {
        let data = Attributes::default().bytes(1, &group.to_be_bytes()).be32(3, bytes).bytes(4, &1u16.to_be_bytes());
        self.expression("log", &data)
    }

    /// Answers with a TCP reset.
    pub fn reset(self) -> Self {
        self.expression("reject", &Attributes::default().be32(1, 1).bytes(2, &[0]))
    }

    /// Answers "administratively prohibited", in the packet's own family.
    pub fn prohibit(self) -> Self {
        self.expression("reject", &Attributes::default().be32(1, 2).bytes(2, &[3]))
    }
}

/// A hook for a chain: number and priority of `linux/netfilter.h`.
#[derive(Clone, Copy)]
pub struct Hook {
    /// 0: prerouting; 1: input; 3: output.
    pub number: u32,
    /// Order among chains of one hook.
    pub priority: i32,
}

/// What becomes of packets that no rule of a chain decides.
#[derive(Clone, Copy)]
pub enum Rest {
    /// Dropped.
    Drop = 0,
    /// Let through.
    Accept = 1,
}

/// A transaction: all of it takes effect, or nothing.
pub struct Batch {
    bytes: Vec<u8>,
    messages: usize,
    table: &'static str,
}

impl Batch {
    /// Starts a transaction that makes one table.
    pub fn new(table: &'static str) -> Self {
        let mut batch = Self { bytes: Vec::with_capacity(4096), messages: 0, table };
        batch.push(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM_NFTABLES, &[]);
        let attributes = Attributes::default().string(1, table).be32(2, 0);
        batch.change(NEW_TABLE, 0, &attributes);
        batch
    }

    /// Adds a filter chain; what no rule decides is dropped, or let through if it only redirects.
    pub fn chain(&mut self, name: &str, hook: Hook, rest: Rest) {
        let hook = Attributes::default().be32(1, hook.number).be32(2, hook.priority as u32);
        let attributes = Attributes::default().string(1, self.table).string(3, name).nest(4, &hook);
        let attributes = attributes.be32(5, rest as u32).string(7, "filter");
        self.change(NEW_CHAIN, 0, &attributes);
    }

    /// Appends a rule to a chain.
    pub fn rule(&mut self, chain: &str, rule: &Rule) {
        let attributes = Attributes::default().string(1, self.table).string(2, chain).nest(4, &rule.0);
        self.change(NEW_RULE, APPEND, &attributes);
    }

    /// Ends the transaction: its bytes and the number of acknowledgements to wait for.
    pub fn finish(mut self) -> (Vec<u8>, usize) {
        self.push(BATCH_END, REQUEST, 0, SUBSYSTEM_NFTABLES, &[]);
        (self.bytes, self.messages)
    }

    fn change(&mut self, kind: u16, flags: u16, attributes: &Attributes) {
        self.messages += 1;
        self.push((SUBSYSTEM_NFTABLES << 8) | kind, REQUEST_ACK_CREATE | flags, FAMILY_INET, 0, &attributes.0);
    }

    fn push(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) {
        self.bytes.extend((20 + body.len() as u32).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend([0; 8]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(body);
    }
}
