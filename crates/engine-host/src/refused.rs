//! The network of a sandbox without a gate: names are answered NXDOMAIN, refused packets are read from the kernel, and
//! both are counted for each destination.

use cofferdam_engine::{EngineEvent, RefusedDestination};
use cofferdam_gate::dns::{Answer, read_query, write_answer};
use cofferdam_gate::wire::{Refusal, read_refusals};
use std::collections::HashMap;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// Destinations that are counted one by one in a sandbox; what goes beyond is counted together.
const MOST_DESTINATIONS: usize = 256;
const LARGEST_QUERY: usize = 1500;

/// What has been refused.
#[derive(Debug)]
pub struct Refused {
    counts: Mutex<Counts>,
    events: UnboundedSender<EngineEvent>,
}

#[derive(Debug, Default)]
struct Counts {
    by_destination: HashMap<(String, u16, String), u64>,
    order: Vec<(String, u16, String)>,
    unnamed: u64,
}

impl Refused {
    /// Nothing yet.
    pub fn new(events: UnboundedSender<EngineEvent>) -> Self {
        Self { counts: Mutex::default(), events }
    }

    fn add(&self, host: String, port: u16, protocol: String) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (host, port, protocol);
        if let Some(count) = counts.by_destination.get_mut(&key) {
            *count += 1;
        } else if counts.order.len() < MOST_DESTINATIONS {
            counts.order.push(key.clone());
            counts.by_destination.insert(key.clone(), 1);
            let (host, port, protocol) = key;
            // Nobody listening means that the supervisor is ending; the counts are still read.
            let _ = self.events.send(EngineEvent::Refused(RefusedDestination { host, port, protocol, count: 1 }));
        } else {
            counts.unnamed += 1;
        }
    }

    fn add_packet(&self, refusal: &Refusal) {
        self.add(refusal.destination.to_string(), refusal.port, refusal.protocol_name().into_owned());
    }

    /// Destinations in the order of their first refusal, and refusals beyond them.
    pub fn snapshot(&self) -> (Vec<RefusedDestination>, u64) {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let destination = |key: &(String, u16, String)| {
            let count = counts.by_destination.get(key).copied().unwrap_or(0);
            RefusedDestination { host: key.0.clone(), port: key.1, protocol: key.2.clone(), count }
        };
        (counts.order.iter().map(destination).collect(), counts.unnamed)
    }
}

/// Serves a sandbox's refusal log, and its resolver where no gate does, until the runtime ends or the returned tasks are aborted.
pub fn serve(resolver: Option<UdpSocket>, log: OwnedFd, refused: &Arc<Refused>) -> std::io::Result<Vec<tokio::task::AbortHandle>> {
    rustix::io::ioctl_fionbio(&log, true)?;
    let log = cofferdam_sys::readiness::register(log)?;
    let packets = Arc::clone(refused);
    let mut tasks = vec![tokio::spawn(async move { read_refusals(&log, |refusal| packets.add_packet(refusal)).await }).abort_handle()];
    if let Some(resolver) = resolver {
        let resolver = tokio::net::UdpSocket::from_std(resolver)?;
        let names = Arc::clone(refused);
        tasks.push(tokio::spawn(async move { answer(&resolver, &names).await }).abort_handle());
    }
    Ok(tasks)
}

async fn answer(resolver: &tokio::net::UdpSocket, refused: &Refused) {
    let mut query = [0u8; LARGEST_QUERY];
    loop {
        let Ok((length, from)) = resolver.recv_from(&mut query).await else { continue };
        let query = &query[..length];
        if let Some(question) = read_query(query) {
            let _ = resolver.send_to(&write_answer(query, &question, Answer::NoName), from).await;
            refused.add(question.name, 0, "dns".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let (events, mut received) = tokio::sync::mpsc::unbounded_channel();
        let refused = Refused::new(events);
        for round in 0..3 {
            for host in 0..1000 {
                refused.add(format!("h{host}"), 443, "tcp".into());
            }
            let (named, unnamed) = refused.snapshot();
            assert_eq!(named.len(), MOST_DESTINATIONS);
            assert!(named.iter().all(|destination| destination.count == round + 1));
            assert_eq!(unnamed, (round + 1) * (1000 - MOST_DESTINATIONS as u64));
        }
        let mut sent = 0;
        while received.try_recv().is_ok() {
            sent += 1;
        }
        assert_eq!(sent, MOST_DESTINATIONS, "one event for each destination");
    }
}
