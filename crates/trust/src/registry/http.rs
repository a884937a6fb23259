//! One connection pool a registry: TLS, proxies, redirects, time limits.

use super::{RegistryError, RegistryOptions};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Proxy, SendBody};

const CONNECT_WITHIN: Duration = Duration::from_secs(15);
const ANSWER_WITHIN: Duration = Duration::from_mins(1);
/// A transfer that stands still so long is broken off, and begun again where it was.
const STALL: Duration = Duration::from_secs(30);
const MOST_REDIRECTS: u32 = 5;
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// A client of one host.
#[derive(Debug)]
pub struct Http {
    host: String,
    agent: Agent,
    plain: AtomicBool,
    /// On the host itself, where a registry without a certificate is spoken to as Docker does.
    loopback: bool,
}

/// A request's method and body.
pub enum Method<'a> {
    /// Give.
    Get,
    /// Is it there?
    Head,
    /// Begin an upload.
    Post,
    /// Take these bytes.
    Put(&'a [u8], &'a str),
    /// Take what this reader gives, so many bytes.
    Stream(std::cell::RefCell<Option<Box<dyn Read + 'a>>>, u64),
}

impl Method<'_> {
    /// Whether it may be asked twice.
    pub const fn is_repeatable(&self) -> bool {
        !matches!(self, Self::Stream(..))
    }
}

/// An answer.
pub struct Response {
    /// Its status.
    pub status: u16,
    inner: ureq::http::Response<ureq::Body>,
}

impl Response {
    /// A header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// Its body.
    pub fn into_reader(self) -> impl Read + Send + use<> {
        self.inner.into_body().into_with_config().limit(u64::MAX).reader()
    }

    /// How long it asks to wait, as far as we do.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self.header("retry-after")?.parse().ok()?;
        Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
    }
}

impl Http {
    /// A client of `host`, which may have a port.
    pub fn new(host: &str, options: &RegistryOptions) -> Result<Self, RegistryError> {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
        let loopback = name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let certificates = certificates(options).map_err(|why| RegistryError::Certificate { registry: host.to_owned(), why })?;
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .root_certs(RootCerts::Specific(Arc::new(certificates)))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(if loopback { None } else { Proxy::try_from_env() })
            .timeout_connect(Some(CONNECT_WITHIN))
            .timeout_recv_response(Some(ANSWER_WITHIN))
            .timeout_per_read(Some(STALL))
            .timeout_per_write(Some(STALL))
            .max_idle_connections_per_host(8)
            .input_buffer_size(256 << 10)
            .user_agent(concat!("cofferdam/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { host: host.to_owned(), agent, plain: AtomicBool::new(options.plain_http), loopback })
    }

    /// Asks for a path of the host.
    pub fn request(
        &self,
        method: &Method<'_>,
        path: &str,
        headers: &[(&str, &str)],
        authorization: Option<&str>,
    ) -> Result<Response, RegistryError> {
        let scheme = if self.plain.load(Ordering::Relaxed) { "http" } else { "https" };
        match self.follow(method, &format!("{scheme}://{}{path}", self.host), headers, authorization) {
            // A loopback registry without TLS: asked again in the clear, as Docker does.
            Err(Refusal::NoTls(_)) if self.loopback => {
                self.plain.store(true, Ordering::Relaxed);
                self.follow(method, &format!("http://{}{path}", self.host), headers, authorization)
            }
            other => other,
        }
        .map_err(|refusal| self.error(refusal))
    }

    /// Asks for a URL and follows redirects: never from HTTPS to anything else, and with credentials to the same host only.
    fn follow(&self, method: &Method<'_>, url: &str, headers: &[(&str, &str)], authorization: Option<&str>) -> Result<Response, Refusal> {
        let mut url = absolute(url)?;
        let first = authority(&url).to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let authorization = authorization.filter(|_| authority(&url) == first);
            let response = self.once(method, &url, headers, authorization)?;
            let redirects = matches!(response.status, 301 | 302 | 303 | 307 | 308);
            let Some(location) = response.header("location").filter(|_| redirects) else { return Ok(response) };
            let target = resolve(&url, location);
            if url.starts_with("https:") && !target.starts_with("https:") {
                return Err(Refusal::Redirect(target, "it leaves HTTPS"));
            }
            if !target.starts_with("https:") && !target.starts_with("http:") {
                return Err(Refusal::Redirect(target, "it is no HTTP"));
            }
            url = target;
        }
        Err(Refusal::Redirect(url, "there are too many redirects"))
    }

    fn once(&self, method: &Method<'_>, url: &str, headers: &[(&str, &str)], authorization: Option<&str>) -> Result<Response, Refusal> {
        let mut request = ureq::http::Request::builder().uri(url);
        for (name, value) in headers.iter().copied().chain(authorization.map(|value| ("authorization", value))) {
            request = request.header(name, value);
        }
        let failed = |error: ureq::http::Error| Refusal::Other(ureq::Error::Http(error));
        let inner = match method {
            Method::Get => self.agent.run(request.method("GET").body(()).map_err(failed)?),
            Method::Head => self.agent.run(request.method("HEAD").body(()).map_err(failed)?),
            Method::Post => self.agent.run(request.method("POST").body(SendBody::none()).map_err(failed)?),
            Method::Put(bytes, media_type) => {
                let request = request.method("PUT").header("content-type", *media_type);
                self.agent.run(request.body(*bytes).map_err(failed)?)
            }
            Method::Stream(reader, length) => {
                let Some(mut reader) = reader.borrow_mut().take() else {
                    return Err(Refusal::Redirect(url.to_owned(), "an upload cannot be redirected"));
                };
                let request = request.method("PUT").header("content-length", *length).header("content-type", "application/octet-stream");
                self.agent.run(request.body(SendBody::from_reader(&mut reader)).map_err(failed)?)
            }
        };
        let inner = inner.map_err(Refusal::of)?;
        Ok(Response { status: inner.status().as_u16(), inner })
    }

    /// Asks for a URL of somebody else's, such as a token service.
    pub fn foreign(&self, url: &str, authorization: Option<&str>) -> Result<Response, RegistryError> {
        let plain = url.starts_with("http:") && !(self.loopback || self.plain.load(Ordering::Relaxed));
        if plain {
            let why = "credentials are not asked for in the clear";
            return Err(RegistryError::Redirect { registry: self.host.clone(), target: url.to_owned(), why });
        }
        self.follow(&Method::Get, url, &[], authorization).map_err(|refusal| self.error(refusal))
    }

    /// The same for an upload that the registry said where to put.
    pub fn upload(&self, method: &Method<'_>, location: &str, authorization: Option<&str>) -> Result<Response, RegistryError> {
        let scheme = if self.plain.load(Ordering::Relaxed) { "http" } else { "https" };
        let url = resolve(&format!("{scheme}://{}/", self.host), location);
        self.follow(method, &url, &[], authorization).map_err(|refusal| self.error(refusal))
    }

    fn error(&self, refusal: Refusal) -> RegistryError {
        let registry = self.host.clone();
        match refusal {
            Refusal::Redirect(target, why) => RegistryError::Redirect { registry, target, why },
            Refusal::Certificate(why) => RegistryError::Certificate { registry, why },
            Refusal::NoTls(error) | Refusal::Other(error) => {
                let why = error.to_string();
                use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
                let passing = match &error {
                    ureq::Error::Io(io) => matches!(io.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof),
                    ureq::Error::Timeout(_) => true,
                    _ => false,
                };
                if passing { RegistryError::Broken { registry, why } } else { RegistryError::Unreachable { registry, why } }
            }
        }
    }
}

enum Refusal {
    Redirect(String, &'static str),
    Certificate(String),
    NoTls(ureq::Error),
    Other(ureq::Error),
}

impl Refusal {
    fn of(error: ureq::Error) -> Self {
        let tls = match &error {
            ureq::Error::Rustls(tls) => Some(tls.clone()),
            ureq::Error::Io(io) => io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).cloned(),
            _ => None,
        };
        match tls {
            Some(rustls::Error::InvalidCertificate(why)) => Self::Certificate(why.to_string()),
            Some(rustls::Error::InvalidMessage(_)) => Self::NoTls(error),
            _ => Self::Other(error),
        }
    }
}

/// The host's own certificates (and `SSL_CERT_FILE`), and those of the registry's options.
fn certificates(options: &RegistryOptions) -> Result<Vec<Certificate<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut all: Vec<Certificate<'static>> = found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    if let Some(path) = &options.ca {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let own = read.map_err(|error| format!("{}: {error}", path.display()))?;
        all.extend(own.iter().map(|der| Certificate::from_der(der).to_owned()));
    }
    Ok(all)
}

/// Only what is asked for over HTTP.
fn absolute(url: &str) -> Result<String, Refusal> {
    if url.starts_with("https:") || url.starts_with("http:") {
        return Ok(url.to_owned());
    }
    Err(Refusal::Redirect(url.to_owned(), "it is no HTTP"))
}

fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

/// A location relative to a URL, as far as registries use them: whole, from the root, or a query.
fn resolve(base: &str, location: &str) -> String {
    if location.contains("://") {
        return location.to_owned();
    }
    let scheme = base.split_once("://").map_or("https", |(scheme, _)| scheme);
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{scheme}://{rest}");
    }
    let root = format!("{scheme}://{}", authority(base));
    if location.starts_with('/') { format!("{root}{location}") } else { format!("{root}/{location}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved() {
        let base = "https://a.example:5000/v2/x/blobs/uploads/";
        assert_eq!(resolve(base, "/v2/y?z=1"), "https://a.example:5000/v2/y?z=1");
        assert_eq!(resolve(base, "https://b.example/y"), "https://b.example/y");
        assert_eq!(resolve(base, "//b.example/y"), "https://b.example/y");
        assert_eq!(resolve(base, "http://b.example/y"), "http://b.example/y");
        assert_eq!(authority("https://a.example:5000?x"), "a.example:5000");
    }
}
