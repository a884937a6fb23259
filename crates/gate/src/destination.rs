//! Whom a connection is meant for, and whether its first bytes say the same.

use crate::head::{self, Head};
use crate::hello::{self, Hello};
use crate::requests;
use cofferdam_policy::egress::{Denial, HostName, Permit, Policy, Protocol};
use std::net::IpAddr;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Where a connection is meant to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A name.
    Name(HostName),
    /// An address that no name was asked for.
    Address(IpAddr),
}

impl Destination {
    /// What the policy says.
    pub fn decide(&self, policy: &Policy, port: u16) -> Result<Permit, Denial> {
        match self {
            Self::Name(name) => policy.decide_name(name, port),
            Self::Address(address) => policy.decide_address(*address, port),
        }
    }

    /// As it stands in records.
    pub fn text(&self) -> String {
        match self {
            Self::Name(name) => name.to_string(),
            Self::Address(address) => address.to_string(),
        }
    }
}

/// Reads as much as it takes to know that the client means the destination that was allowed.
pub async fn first_bytes(client: &mut TcpStream, to: &Destination, port: u16, protocol: Protocol) -> Result<Vec<u8>, String> {
    const CHUNK: usize = 4096;
    let mut bytes = Vec::new();
    loop {
        let finished = match protocol {
            Protocol::Tcp => true,
            Protocol::Https | Protocol::Tls => match hello::look(&bytes) {
                Hello::More => false,
                Hello::Bad(why) => return Err(why.to_owned()),
                Hello::To(name) => same(to, &name).map(|()| true)?,
            },
            Protocol::Http => match head::look(&bytes) {
                Head::More => false,
                Head::Bad(why) => return Err(why.to_owned()),
                Head::To(name, named, _) => {
                    let Destination::Name(allowed) = to else { return Ok(bytes) };
                    requests::check(&name, named, allowed, port).map(|()| true)?
                }
            },
            Protocol::Ssh => match b"SSH-2.0-".iter().zip(&bytes).all(|(wanted, sent)| wanted == sent) {
                true if bytes.len() >= 8 => true,
                true => false,
                false => return Err("no SSH".to_owned()),
            },
        };
        if finished {
            return Ok(bytes);
        }
        let mut chunk = [0; CHUNK];
        match client.read(&mut chunk).await {
            Ok(0) => return Err("the client closed before it said whom it wants".to_owned()),
            Ok(length) => bytes.extend(&chunk[..length]),
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn same(to: &Destination, named: &HostName) -> Result<(), String> {
    match to {
        Destination::Name(name) if name == named => Ok(()),
        Destination::Name(_) => Err(format!("it names {named}")),
        Destination::Address(_) => Ok(()),
    }
}
