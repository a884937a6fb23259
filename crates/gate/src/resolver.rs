//! Name servers that are asked in place of the host's own resolver: over UDP and TCP, or over TLS (RFC 7858).
//!
//! They are the operator's choice, so their addresses are not checked; what they answer is, like every other address.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const PORT: u16 = 53;
const TLS_PORT: u16 = 853;
const MOST_SERVERS: usize = 8;
/// Bytes of trusted certificates: they travel in one message with the policy.
const MOST_ROOTS: usize = 32 << 10;
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
const LONGEST_KEPT: Duration = Duration::from_secs(30);
const MOST_KEPT: u64 = 1024;

/// Which, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    tls: Option<Tls>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tls {
    /// What their certificate names.
    name: String,
    /// Who may have signed it, as PEM; without it, who this host trusts.
    roots: Option<String>,
}

/// Settings that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolverError {
    /// Not an address.
    #[error("{0:?} is no address of a name server: IP or IP:PORT is wanted, [IP]:PORT for IPv6")]
    Server(String),
    /// None, or too many.
    #[error("{0} name servers: 1 to {MOST_SERVERS} are wanted")]
    Count(usize),
    /// Not a name.
    #[error("{0:?} is no name that a certificate could have")]
    Name(String),
    /// Nothing to trust.
    #[error("no certificate can be read from the file of trusted ones: PEM is wanted")]
    Roots,
    /// More than is handed over.
    #[error(
        "the file of trusted certificates has {0} bytes, {MOST_ROOTS} at most are read: name a file of those that sign for the name servers"
    )]
    TooManyRoots(usize),
    /// Something that needs TLS.
    #[error("trusted certificates are for name servers over TLS: say the name in their certificate, too")]
    RootsWithoutName,
}

impl Resolver {
    /// From words. `name` is that of the servers' certificate: then they are asked over TLS and not otherwise. `roots` are those
    /// who may have signed it.
    pub fn new(servers: &[String], name: Option<&str>, roots: Option<String>) -> Result<Self, ResolverError> {
        let port = if name.is_some() { TLS_PORT } else { PORT };
        let address = |text: &String| {
            let plain = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port));
            plain.or_else(|_| text.parse()).map_err(|_| ResolverError::Server(text.clone()))
        };
        let servers: Vec<SocketAddr> = servers.iter().map(address).collect::<Result<_, _>>()?;
        if servers.is_empty() || servers.len() > MOST_SERVERS {
            return Err(ResolverError::Count(servers.len()));
        }
        if let Some(bytes) = roots.as_ref().map(String::len).filter(|bytes| *bytes > MOST_ROOTS) {
            return Err(ResolverError::TooManyRoots(bytes));
        }
        if roots.as_ref().is_some_and(|roots| certificates(roots).is_none_or(|found| found.is_empty())) {
            return Err(ResolverError::Roots);
        }
        let Some(name) = name else {
            return if roots.is_some() { Err(ResolverError::RootsWithoutName) } else { Ok(Self { servers, tls: None }) };
        };
        ServerName::try_from(name).map_err(|_| ResolverError::Name(name.to_owned()))?;
        Ok(Self { servers, tls: Some(Tls { name: name.to_owned(), roots }) })
    }
}

fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().ok()
}

/// Asks them.
#[derive(Debug)]
pub struct Asker {
    settings: Resolver,
    resolver: TokioResolver,
}

impl Asker {
    /// Connects to nobody yet.
    pub fn new(settings: Resolver) -> io::Result<Self> {
        let connections = |port: u16| {
            let mut connections = match &settings.tls {
                Some(tls) => vec![ConnectionConfig::tls(Arc::from(tls.name.as_str()))],
                None => vec![ConnectionConfig::udp(), ConnectionConfig::tcp()],
            };
            for connection in &mut connections {
                connection.port = port;
            }
            connections
        };
        let server = |address: &SocketAddr| NameServerConfig::new(address.ip(), true, connections(address.port()));
        let servers = settings.servers.iter().map(server).collect();
        let config = ResolverConfig::from_name_servers(servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = ANSWER_WITHIN;
        options.attempts = 1;
        options.cache_size = MOST_KEPT;
        options.positive_max_ttl = Some(LONGEST_KEPT);
        options.negative_max_ttl = Some(LONGEST_KEPT);
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let resolver = builder.with_tls_config(client(settings.tls.as_ref())?).build().map_err(io::Error::other)?;
        Ok(Self { settings, resolver })
    }

    /// Whether it was made from these.
    pub fn is_of(&self, settings: &Resolver) -> bool {
        self.settings == *settings
    }

    /// Addresses of a name.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        // The dot at the end: it is the whole name.
        let found = self.resolver.lookup_ip(format!("{name}.")).await.map_err(|error| self.explain(&error))?;
        Ok(found.iter().collect())
    }

    fn explain(&self, error: &NetError) -> String {
        let servers: Vec<String> = self.settings.servers.iter().map(ToString::to_string).collect();
        let servers = servers.join(", ");
        match (error, &self.settings.tls) {
            (error, _) if error.is_nx_domain() => "there is no such name".into(),
            (error, _) if error.is_no_records_found() => "the name has no address".into(),
            (NetError::NoConnections, Some(tls)) => {
                format!("{servers} cannot be reached over TLS, or has no certificate of {} that is trusted", tls.name)
            }
            (NetError::NoConnections, None) => format!("{servers} cannot be reached"),
            (error, _) => format!("{servers}: {error}"),
        }
    }
}

/// Plain servers need none; then nobody is trusted.
fn client(tls: Option<&Tls>) -> io::Result<ClientConfig> {
    let mut store = RootCertStore::empty();
    if let Some(tls) = tls {
        match &tls.roots {
            Some(pem) => store.add_parsable_certificates(certificates(pem).unwrap_or_default()),
            None => store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
        };
        if store.is_empty() {
            return Err(io::Error::other("this host trusts no certificate: name those of the name server"));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(servers: &[&str], name: Option<&str>, roots: Option<&str>) -> Result<Resolver, ResolverError> {
        let servers: Vec<String> = servers.iter().map(|text| (*text).to_owned()).collect();
        Resolver::new(&servers, name, roots.map(str::to_owned))
    }

    #[test]
    fn settings() {
        for (text, name, expected) in [
            ("9.9.9.9", None, "9.9.9.9:53"),
            ("9.9.9.9", Some("dns.quad9.net"), "9.9.9.9:853"),
            ("9.9.9.9:5353", None, "9.9.9.9:5353"),
            ("2620:fe::fe", None, "[2620:fe::fe]:53"),
            ("[2620:fe::fe]", None, "[2620:fe::fe]:53"),
            ("[2620:fe::fe]:8853", Some("dns.quad9.net"), "[2620:fe::fe]:8853"),
        ] {
            assert_eq!(of(&[text], name, None).expect(text).servers, [expected.parse().expect("an address")]);
        }
        for text in ["", "dns.quad9.net", "9.9.9.9:", "9.9.9.9:x", "9.9.9.999", "tls://9.9.9.9"] {
            assert_eq!(of(&[text], None, None), Err(ResolverError::Server(text.to_owned())));
        }
        assert_eq!(of(&[], None, None), Err(ResolverError::Count(0)));
        assert_eq!(of(&["9.9.9.9"; 9], None, None), Err(ResolverError::Count(9)));
        assert_eq!(of(&["9.9.9.9"], Some("a b"), None), Err(ResolverError::Name("a b".into())));
        for roots in ["", "text", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"] {
            assert_eq!(of(&["9.9.9.9"], Some("dns.quad9.net"), Some(roots)), Err(ResolverError::Roots), "{roots:?}");
        }
        let long = "x".repeat(MOST_ROOTS + 1);
        assert_eq!(of(&["9.9.9.9"], Some("dns.quad9.net"), Some(&long)), Err(ResolverError::TooManyRoots(MOST_ROOTS + 1)));
    }
}
