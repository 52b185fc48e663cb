//! A PostgreSQL server and database, as a URL says it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use retinker::client::Secret;
use retinker::recovery::journal::StoreError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::failure::chain;

/// What a URL must look like.
const FORM: &str = "postgres://user:password@host:port/database";
/// How long one server of the URL may take to be reached, where the URL does not say.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// After how long of silence the system asks whether the server is still there, and gives it up, where the URL does not say.
const SILENCE: Duration = Duration::from_secs(15);

/// Where to connect to, and how. `Display` names servers and database, without user and password.
pub(crate) struct Address {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
}

impl Address {
    /// Reads a URL as libpq does, with two differences. `sslmode` is `disable` or `require`, which checks the server's
    /// certificate by the system's roots or the file `sslrootcert`; by default it is `disable` on this machine and
    /// `require` elsewhere. And of several hosts, the one that can be written to is used.
    pub(crate) fn parse(url: &Secret) -> Result<Self, StoreError> {
        let url = url.expose();
        let scheme = url.split("://").next().unwrap_or(url);
        if !matches!(scheme, "postgres" | "postgresql") {
            return refused(format!("'{scheme}' is no kind of database that it can be kept in: give {FORM}"));
        }
        check_escapes(url)?;
        let (url, tls) = TlsOptions::take_from(url)?;
        let mut config: Config = url.parse().or_else(|error| {
            refused(format!("its address is not one of PostgreSQL ({}): give {FORM}", chain(&error)))
        })?;
        if config.get_dbname().is_none() || config.get_hosts().is_empty() && config.get_hostaddrs().is_empty()
        {
            return refused(format!("its address names no server or no database: give {FORM}"));
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_PATIENCE);
        }
        if config.get_application_name().is_none() {
            config.application_name("retinker");
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENCE);
        }
        if config.get_keepalives_idle() == Config::new().get_keepalives_idle() {
            config.keepalives_idle(SILENCE);
        }
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        config.ssl_mode(tls.mode(&config)?);
        Ok(Self { config, tls: tls.connector()? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]"),
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        });
        let hosts: Vec<_> = match self.config.get_hosts() {
            [] => self.config.get_hostaddrs().iter().map(IpAddr::to_string).collect(),
            _ => hosts.collect(),
        };
        let ports = self.config.get_ports();
        let port = |n: usize| ports.get(n).or_else(|| ports.first()).copied().unwrap_or(5432);
        let servers: Vec<_> =
            hosts.iter().enumerate().map(|(n, host)| format!("{host}:{}", port(n))).collect();
        let database = self.config.get_dbname().unwrap_or_default();
        write!(f, "the database {database} of PostgreSQL at {}", servers.join(", "))
    }
}

fn refused<T>(reason: String) -> Result<T, StoreError> {
    Err(StoreError::Unavailable(reason))
}

/// A password in which such a character stands as it is would be taken for a host, and be told in errors.
fn check_escapes(url: &str) -> Result<(), StoreError> {
    let credentials = url.rsplit_once('@').map_or("", |(before, _)| before);
    let credentials = credentials.split_once("://").map_or(credentials, |(_, after)| after);
    if credentials.contains(['/', '?', '#', '@', ' ']) {
        return refused(
            "in its address, the characters / ? # @ of a user's name, a password or a setting are written %2F %3F %23 %40"
                .to_owned(),
        );
    }
    Ok(())
}

/// What the URL says about TLS, which `tokio_postgres` leaves to others.
#[derive(Default)]
struct TlsOptions {
    mode: Option<String>,
    roots: Option<String>,
}

impl TlsOptions {
    /// Takes them out of the URL; gives what is left of it.
    fn take_from(url: &str) -> Result<(String, Self), StoreError> {
        let Some((rest, query)) = url.split_once('?') else { return Ok((url.to_owned(), Self::default())) };
        let mut options = Self::default();
        let mut others = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let place = match pair.split_once('=') {
                Some(("sslmode", value)) => (&mut options.mode, value),
                Some(("sslrootcert", value)) => (&mut options.roots, value),
                _ => {
                    others.push(pair);
                    continue;
                }
            };
            let value = percent_decode_str(place.1).decode_utf8();
            let value = value.or_else(|_| refused("a setting in its address is not UTF-8".to_owned()))?;
            *place.0 = Some(value.into_owned());
        }
        let url = if others.is_empty() { rest.to_owned() } else { format!("{rest}?{}", others.join("&")) };
        Ok((url, options))
    }

    fn mode(&self, config: &Config) -> Result<SslMode, StoreError> {
        match self.mode.as_deref() {
            None if is_local(config) => Ok(SslMode::Disable),
            None | Some("require" | "verify-full") => Ok(SslMode::Require),
            Some("disable") => Ok(SslMode::Disable),
            Some(_) => refused(
                "its address asks for an sslmode that is not supported, since others can read along or take the server's \
                 place: use require (encrypted, and the certificate is checked) or disable (a network that you trust)"
                    .to_owned(),
            ),
        }
    }

    fn connector(&self) -> Result<MakeRustlsConnect, StoreError> {
        let failed = |reason: String| StoreError::Unavailable(format!("TLS cannot be set up: {reason}"));
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()))?;
        let builder = match &self.roots {
            None => builder.with_platform_verifier().map_err(|error| failed(error.to_string()))?,
            Some(file) => {
                let named =
                    |reason: String| failed(format!("the certificates in sslrootcert, {file}: {reason}"));
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(file).map_err(|e| named(e.to_string()))? {
                    let certificate = certificate.map_err(|error| named(error.to_string()))?;
                    roots.add(certificate).map_err(|error| named(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(named("there are none".to_owned()));
                }
                builder.with_root_certificates(roots)
            }
        };
        let mut config = builder.with_no_client_auth();
        // As libpq does; `sslnegotiation=direct` needs it.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(MakeRustlsConnect::new(config))
    }
}

/// Whether what is sent stays on this machine.
fn is_local(config: &Config) -> bool {
    let mut addresses = config.get_hostaddrs().iter();
    if config.get_hostaddrs().is_empty() {
        config.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
            #[cfg(unix)]
            Host::Unix(_) => true,
        })
    } else {
        addresses.all(IpAddr::is_loopback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Address, StoreError> {
        Address::parse(&Secret::new(url))
    }

    #[test]
    fn tells_servers_and_database_only() {
        for (url, told) in [
            (
                "postgres://me:hunter2@db.example/journal",
                "the database journal of PostgreSQL at db.example:5432",
            ),
            ("postgres://me:hunter2@a:1,[::1]:2/j", "the database j of PostgreSQL at a:1, [::1]:2"),
            ("postgres://me@%2Frun%2Fpg/j?password=hunter2", "the database j of PostgreSQL at /run/pg:5432"),
        ] {
            assert_eq!(parse(url).unwrap().to_string(), told);
        }
    }

    #[test]
    fn what_leaves_the_machine_is_encrypted_unless_asked_otherwise() {
        for (url, mode) in [
            ("postgres://127.0.0.1/j", SslMode::Disable),
            ("postgres://localhost,[::1]/j", SslMode::Disable),
            ("postgres://%2Frun%2Fpg/j", SslMode::Disable),
            ("postgres://db.example/j", SslMode::Require),
            ("postgres://localhost,db.example/j", SslMode::Require),
            ("postgres://localhost/j?hostaddr=192.0.2.1", SslMode::Require),
            ("postgres://db.example/j?sslmode=disable", SslMode::Disable),
            ("postgres://localhost/j?connect_timeout=3&sslmode=verify-full", SslMode::Require),
        ] {
            assert_eq!(parse(url).unwrap().config.get_ssl_mode(), mode, "{url}");
        }
    }

    #[test]
    fn settings_of_the_url_are_kept() {
        let url = "postgres://h/j?connect_timeout=3&keepalives_idle=4&sslmode=disable&application_name=x";
        let config = parse(url).unwrap().config;
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(config.get_keepalives_idle(), Duration::from_secs(4));
        assert_eq!(config.get_tcp_user_timeout(), Some(&SILENCE));
        assert_eq!(config.get_application_name(), Some("x"));
        assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (url, said) in [
            ("mysql://me:hunter2@h/j", "'mysql'"),
            ("postgres://me:hunter2@h", "no database"),
            ("postgres://me:hunter2@/j", "no server"),
            ("postgres://me:hunter2@h:x/j", "port"),
            ("postgres://me:hunter2@h/j?ssl=on", "unknown option `ssl`"),
            ("postgres://me:hunter2@h/j?sslmode=prefer", "use require"),
            ("postgres://me:hunter2@h/j?sslrootcert=%2Fno%2Fsuch", "/no/such"),
            ("postgres://me:x@hunter2@h/j", "%40"),
            ("postgres://me:1/hunter2@h/j", "%2F"),
            ("postgres://me:x?hunter2=@h/j", "%3F"),
        ] {
            let error = parse(url).map(|_| ()).unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(told.contains(said) && !told.contains("hunter2"), "{url}: {told}");
        }
    }
}
