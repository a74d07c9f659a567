//! Where the database is and how it is used: a URL with options.

use std::path::{Path, PathBuf};
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::database::Database;
use crate::ends::ends;
use crate::refreshes::refreshes;
use crate::schema::OpenError;
use crate::starts::starts;

const DEFAULT_SCHEMA: &str = "rekindle";
const DEFAULT_POOL_SIZE: usize = 16;
const DEFAULT_POOL_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much longer than the server's own time-out an answer may be on its way.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// Statements are planned once, whatever the tables hold at that moment: by their indexes. Where there is none, as in tables of a
/// few rows, the plan's cost is beyond all measure, and nothing is to be compiled for it.
const PLANNER_SETTINGS: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off";

/// Where the database is and how it is used.
#[derive(Clone)]
pub struct PostgresConfig {
    server: tokio_postgres::Config,
    /// Where the tables are.
    schema: String,
    /// How many connections there are at most.
    pool_size: usize,
    /// How long a request waits for one of them.
    pool_timeout: Duration,
    /// How long a statement may take.
    statement_timeout: Duration,
    /// How transactions see each other.
    isolation: Isolation,
    /// Whom to trust instead of the system's certificate authorities.
    sslrootcert: Option<PathBuf>,
}

/// How transactions see each other. The statements are right under either.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Isolation {
    /// Each statement sees what was committed before it, and waits for the locks that it needs.
    ReadCommitted,
    /// What was not as if one after the other is aborted by the database, and repeated.
    Serializable,
}

impl PostgresConfig {
    /// Parses `postgres://user:password@host:port/database?option=value&…`.
    ///
    /// Several hosts, parted by commas, are tried in their order until one takes writes. The options:
    ///
    /// - `schema`: where the tables are, by default `rekindle`; made if it is not there;
    /// - `pool_size`: how many connections there are at most (16), `pool_timeout`: for how many seconds a request waits for one
    ///   (5);
    /// - `statement_timeout`: how many seconds a statement may take (5), `connect_timeout`: how many a connection may (5);
    /// - `isolation`: `read-committed`, or `serializable` for a database that knows no other;
    /// - `sslmode`: `disable`, or `verify-full` (and `require`, which is the same here): encrypted, to a server whose certificate
    ///   is valid for its name. By default, connections to the same machine are not encrypted and all others are verified;
    /// - `sslrootcert`: the PEM file of the certificate authorities to trust instead of the system's;
    /// - `application_name`, `keepalives_idle` and others of libpq's that tokio-postgres knows.
    ///
    /// # Errors
    ///
    /// [`OpenError::Url`] names the part that is wrong, never the password.
    pub fn parse(url: &str) -> Result<Self, OpenError> {
        let wrong = |problem: String| OpenError::Url { problem };
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(wrong("it does not begin with `postgres://`".into()));
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let mut config = Self {
            server: tokio_postgres::Config::new(),
            schema: DEFAULT_SCHEMA.into(),
            pool_size: DEFAULT_POOL_SIZE,
            pool_timeout: DEFAULT_POOL_TIMEOUT,
            statement_timeout: DEFAULT_STATEMENT_TIMEOUT,
            isolation: Isolation::ReadCommitted,
            sslrootcert: None,
        };
        let (mut sslmode, mut others) = (None, form_urlencoded::Serializer::new(String::new()));
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "schema" => config.schema = schema_name(&value)?,
                "pool_size" => config.pool_size = number(&key, &value)?,
                "pool_timeout" => config.pool_timeout = Duration::from_secs(number(&key, &value)?),
                "statement_timeout" => config.statement_timeout = Duration::from_secs(number(&key, &value)?),
                "isolation" => config.isolation = isolation(&value)?,
                "sslrootcert" => config.sslrootcert = Some(value.into_owned().into()),
                "sslmode" => sslmode = Some(ssl_mode(&value)?),
                _ => drop(others.append_pair(&key, &value)),
            }
        }
        // tokio-postgres does not read `+` as a space.
        let others = others.finish().replace('+', "%20");
        config.server = format!("{base}?{others}").parse().map_err(|error: tokio_postgres::Error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            wrong(cause)
        })?;
        let server = &mut config.server;
        if server.get_user().is_none() {
            return Err(wrong("it names no user".into()));
        }
        if server.get_dbname().is_none() {
            return Err(wrong("it names no database".into()));
        }
        if server.get_connect_timeout().is_none() {
            server.connect_timeout(DEFAULT_CONNECT_TIMEOUT);
        }
        if server.get_application_name().is_none() {
            server.application_name("rekindle");
        }
        let default = if is_local(server) { SslMode::Disable } else { SslMode::Require };
        server.ssl_mode(sslmode.unwrap_or(default));
        server.target_session_attrs(TargetSessionAttrs::ReadWrite);
        server.tcp_user_timeout(config.statement_timeout + ANSWER_GRACE);
        Ok(config)
    }

    /// Where the tables are.
    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    pub(crate) fn pool_size(&self) -> usize {
        self.pool_size
    }

    /// A connection for reading what is not Rekindle's.
    pub(crate) async fn reader(&self) -> Result<tokio_postgres::Client, OpenError> {
        let tls = MakeRustlsConnect::new(client_config(self.sslrootcert.as_deref())?);
        let mut server = self.server.clone();
        server.target_session_attrs(TargetSessionAttrs::Any);
        let (client, connection) =
            server.connect(tls).await.map_err(|error| OpenError::connect(self, &PoolError::Backend(error)))?;
        // It ends with the client, which is told of its failures.
        tokio::spawn(connection);
        Ok(client)
    }

    /// The connections, none of which is made yet.
    pub(crate) fn database(&self) -> Result<Database, OpenError> {
        let tls = MakeRustlsConnect::new(client_config(self.sslrootcert.as_deref())?);
        let manager =
            Manager::from_config(self.server.clone(), tls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        // A process that stops in the middle of a transaction must not keep its locks.
        let settings = format!(
            "SET search_path = \"{}\"; SET default_transaction_isolation = '{}'; SET statement_timeout = {timeout}; \
             SET idle_in_transaction_session_timeout = {timeout}",
            self.schema,
            match self.isolation {
                Isolation::ReadCommitted => "read committed",
                Isolation::Serializable => "serializable",
            },
            timeout = self.statement_timeout.as_millis()
        );
        let set_up = Hook::async_fn(move |client: &mut deadpool_postgres::ClientWrapper, _| {
            let settings = settings.clone();
            Box::pin(async move {
                client.batch_execute(&settings).await.map_err(HookError::Backend)?;
                // A server that does not know these settings plans in its own way.
                let _ = client.batch_execute(PLANNER_SETTINGS).await;
                Ok(())
            })
        });
        let pool = Pool::builder(manager)
            .max_size(self.pool_size)
            .wait_timeout(Some(self.pool_timeout))
            .create_timeout(Some(self.pool_timeout))
            .runtime(Runtime::Tokio1)
            .post_create(set_up)
            .build()
            .expect("a runtime is given");
        let try_within = self.statement_timeout + ANSWER_GRACE;
        Ok(Database { pool, try_within, refreshes: refreshes(), starts: starts(), ends: ends() })
    }
}

/// `postgres://user@host:port/database`, without the password.
impl std::fmt::Display for PostgresConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "postgres://{}@", self.server.get_user().unwrap_or_default())?;
        let ports = self.server.get_ports();
        for (i, host) in self.server.get_hosts().iter().enumerate() {
            let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
            let comma = if i > 0 { "," } else { "" };
            match host {
                Host::Tcp(host) => write!(f, "{comma}{host}:{port}")?,
                #[cfg(unix)]
                Host::Unix(folder) => write!(f, "{comma}{}:{port}", folder.display())?,
            }
        }
        write!(f, "/{}", self.server.get_dbname().unwrap_or_default())
    }
}

impl std::fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PostgresConfig({self})")
    }
}

fn number<T: std::str::FromStr + PartialOrd + From<u8>>(key: &str, value: &str) -> Result<T, OpenError> {
    let parsed: Option<T> = value.parse().ok();
    parsed
        .filter(|n| *n >= T::from(1))
        .ok_or_else(|| OpenError::Url { problem: format!("`{key}={value}` is not a whole number of at least 1") })
}

/// A plain name, so that it can stand in a statement.
fn schema_name(name: &str) -> Result<String, OpenError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if (1..=63).contains(&name.len()) && name.bytes().all(plain) && !name.as_bytes()[0].is_ascii_digit() {
        Ok(name.into())
    } else {
        let problem = format!("`schema={name}` is not 1 to 63 of a-z, 0-9 and `_`, starting with a letter or `_`");
        Err(OpenError::Url { problem })
    }
}

fn isolation(level: &str) -> Result<Isolation, OpenError> {
    match level {
        "read-committed" => Ok(Isolation::ReadCommitted),
        "serializable" => Ok(Isolation::Serializable),
        _ => {
            let problem = format!("`isolation={level}` is neither `read-committed` nor `serializable`");
            Err(OpenError::Url { problem })
        }
    }
}

fn ssl_mode(mode: &str) -> Result<SslMode, OpenError> {
    match mode {
        "disable" => Ok(SslMode::Disable),
        "require" | "verify-full" => Ok(SslMode::Require),
        _ => Err(OpenError::Url { problem: format!("`sslmode={mode}` is neither `disable` nor `verify-full`") }),
    }
}

/// Whether all hosts are this machine.
fn is_local(server: &tokio_postgres::Config) -> bool {
    server.get_hosts().iter().all(|host| match host {
        Host::Tcp(host) => {
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    })
}

fn client_config(sslrootcert: Option<&Path>) -> Result<ClientConfig, OpenError> {
    let mut roots = RootCertStore::empty();
    match sslrootcert {
        Some(path) => {
            let unusable =
                |problem: String| OpenError::Url { problem: format!("`sslrootcert={}`: {problem}", path.display()) };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unusable(e.to_string()))? {
                let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
                roots.add(certificate).map_err(|e| unusable(e.to_string()))?;
            }
            if roots.is_empty() {
                return Err(unusable("it holds no certificate".into()));
            }
        }
        // What the system cannot read, it does not trust.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Ok(ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth())
}
