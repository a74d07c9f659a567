//! The connection: one for all, made when it is needed and made again when it breaks.
//!
//! Whoever asks at the same time shares it, and what they ask travels together: the client pipelines by itself. A command is
//! repeated when the server did not carry it out (a master that moved, a script that it does not know, loading), and when the
//! connection broke before its answer: every script recognises its own repetition. It is not repeated after a time-out.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ErrorKind, FromRedisValue, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind, TlsCertificates, TlsMode, Value,
};
use rekindle::store::{StoreError, StoreResult};
use tokio::sync::Mutex;

use crate::config::{RedisConfig, Topology};
use crate::scripts::Call;

/// How often one command is sent at most, with a pause that doubles before each repetition.
const ATTEMPTS: u32 = 7;
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// One connection to what stands behind the URL.
pub(crate) struct Link {
    config: RedisConfig,
    certificates: Option<TlsCertificates>,
    current: RwLock<Current>,
    connecting: Mutex<Source>,
}

#[derive(Default)]
struct Current {
    connection: Option<Connection>,
    /// Counts attempts to connect.
    attempt: u64,
    /// What came of the last one.
    failure: Option<RedisError>,
}

/// Where connections come from.
enum Source {
    Standalone(Box<Client>),
    Sentinel(Box<SentinelClient>),
    Cluster(Box<ClusterClient>),
}

#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    async fn ask<T: FromRedisValue>(self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Single(mut connection) => command.query_async(&mut connection).await,
            Self::Cluster(mut connection) => command.query_async(&mut connection).await,
        }
    }
}

impl Link {
    /// Prepares a link; nothing is connected yet.
    pub(crate) fn new(config: RedisConfig, certificates: Option<TlsCertificates>) -> RedisResult<Self> {
        let source = source(&config, certificates.clone())?;
        Ok(Self { config, certificates, current: RwLock::default(), connecting: Mutex::new(source) })
    }

    pub(crate) fn config(&self) -> &RedisConfig {
        &self.config
    }

    /// Asks and reads the answer.
    pub(crate) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> StoreResult<T> {
        self.repeated(command).await.map_err(|error| self.unavailable(&error))
    }

    /// As [`Link::query`], of a command that writes under `key`: replicas are waited for where that was asked.
    pub(crate) async fn write<T: FromRedisValue>(&self, command: &Cmd, key: &str) -> StoreResult<T> {
        let answer = self.query(command).await?;
        self.replicated(key).await?;
        Ok(answer)
    }

    /// Runs a script that only reads.
    pub(crate) async fn look<T: FromRedisValue>(&self, call: &Call) -> StoreResult<T> {
        self.call(call).await.map_err(|error| self.unavailable(&error))
    }

    /// Runs a script.
    pub(crate) async fn run<T: FromRedisValue>(&self, call: &Call) -> StoreResult<T> {
        let answer = self.look(call).await?;
        self.replicated(call.first_key()).await?;
        Ok(answer)
    }

    /// Runs a script, which the server may have to be told first.
    pub(crate) async fn call<T: FromRedisValue>(&self, call: &Call) -> RedisResult<T> {
        match self.repeated(&call.by_hash()).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.repeated(&call.by_text()).await
            }
            answer => answer,
        }
    }

    /// Asks every master the same.
    pub(crate) async fn query_masters(&self, command: &Cmd) -> RedisResult<Vec<Value>> {
        match self.connection().await? {
            (_, Connection::Single(mut connection)) => Ok(vec![command.query_async(&mut connection).await?]),
            (_, Connection::Cluster(mut connection)) => {
                let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                match connection.route_command(command.clone(), all).await?.extract_error()? {
                    Value::Map(by_node) => Ok(by_node.into_iter().map(|(_, value)| value).collect()),
                    other => Ok(vec![other]),
                }
            }
        }
    }

    /// Sends a command until it is answered, or until it is of no use.
    pub(crate) async fn repeated<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        loop {
            let error = match self.connection().await {
                Err(error) => error,
                Ok((number, connection)) => match connection.ask(command).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => {
                        if broken(&error) {
                            self.forget(number);
                        }
                        error
                    }
                },
            };
            if attempt == ATTEMPTS || !worth_repeating(&error) {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            attempt += 1;
        }
    }

    /// Waits until enough replicas have what was written under `key`.
    async fn replicated(&self, key: &str) -> StoreResult<()> {
        let Some(wait) = self.config.wait else { return Ok(()) };
        // The first command leads the second to the node that has the key.
        let mut both = redis::pipe();
        both.cmd("EXISTS").arg(key).ignore();
        both.cmd("WAIT").arg(wait.replicas).arg(wait.timeout.as_millis() as u64);
        let reached: RedisResult<(u32,)> = match self.connection().await.map_err(|e| self.unavailable(&e))?.1 {
            Connection::Single(mut connection) => both.query_async(&mut connection).await,
            Connection::Cluster(mut connection) => both.query_async(&mut connection).await,
        };
        match reached.map_err(|error| self.unavailable(&error))? {
            (enough,) if enough >= wait.replicas => Ok(()),
            (reached,) => Err(StoreError::Unavailable(format!(
                "only {reached} of {} replicas of Redis ({}) confirmed a write in {:?}",
                wait.replicas,
                self.config.place(),
                wait.timeout
            ))),
        }
    }

    /// The present connection with its number; a new one if there is none.
    async fn connection(&self) -> RedisResult<(u64, Connection)> {
        let seen = {
            let current = self.current();
            match &current.connection {
                Some(connection) => return Ok((current.attempt, connection.clone())),
                None => current.attempt,
            }
        };
        let mut source = self.connecting.lock().await;
        {
            // Somebody else tried while this one waited: its outcome counts for all.
            let current = self.current();
            match (&current.connection, &current.failure) {
                (Some(connection), _) => return Ok((current.attempt, connection.clone())),
                (None, Some(failure)) if current.attempt > seen => {
                    return Err(failure.clone());
                }
                _ => {}
            }
        }
        let made = self.connect(&mut source).await;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.attempt += 1;
        current.failure = made.as_ref().err().cloned();
        current.connection = made.as_ref().ok().cloned();
        made.map(|connection| (current.attempt, connection))
    }

    async fn connect(&self, source: &mut Source) -> RedisResult<Connection> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.config.connect_timeout))
            .set_response_timeout(Some(self.config.timeout));
        let connecting = async {
            match source {
                Source::Standalone(client) => {
                    client.get_multiplexed_async_connection_with_config(&settings).await.map(Connection::Single)
                }
                Source::Sentinel(client) => {
                    client.get_async_connection_with_config(&settings).await.map(Connection::Single)
                }
                Source::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
            }
        };
        // Several nodes may be asked in turn; a host that swallows packets must not hold everybody up for ever.
        let patience = self.config.connect_timeout * 3;
        match tokio::time::timeout(patience, connecting).await {
            Ok(made) => made,
            Err(_) => {
                // What the interrupted client had learnt is not to be trusted.
                *source = self::source(&self.config, self.certificates.clone())?;
                Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer while connecting").into())
            }
        }
    }

    /// Drops a connection that broke, unless there is a newer one.
    fn forget(&self, number: u64) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.attempt == number {
            current.connection = None;
            current.failure = None;
        }
    }

    fn current(&self) -> std::sync::RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn unavailable(&self, error: &RedisError) -> StoreError {
        StoreError::Unavailable(format!("Redis ({}): {error}", self.config.place()))
    }
}

/// Whether the connection is of no more use, or leads to a server that is no master any more.
fn broken(error: &RedisError) -> bool {
    let demoted = [ServerErrorKind::ReadOnly, ServerErrorKind::MasterDown].map(ErrorKind::Server);
    error.is_io_error() || error.is_unrecoverable_error() || demoted.contains(&error.kind())
}

/// Whether the server did not carry the command out, or may be asked again whether it did.
fn worth_repeating(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
        ),
        ErrorKind::ClusterConnectionNotFound => true,
        _ => error.is_io_error() && !error.is_timeout(),
    }
}

fn source(config: &RedisConfig, certificates: Option<TlsCertificates>) -> RedisResult<Source> {
    let mut login = RedisConnectionInfo::default().set_db(config.database);
    if let Some(user) = &config.user {
        login = login.set_username(user);
    }
    if let Some(password) = &config.password {
        login = login.set_password(password);
    }
    let addresses = config.hosts.iter().map(|(host, port)| match config.tls {
        true => ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(host.clone(), *port),
    });
    match &config.topology {
        Topology::Standalone => {
            let address = addresses.into_iter().next().expect("a URL has a host");
            let info = address.into_connection_info()?.set_redis_settings(login);
            let client = match certificates {
                Some(certificates) => Client::build_with_tls(info, certificates)?,
                None => Client::open(info)?,
            };
            Ok(Source::Standalone(Box::new(client)))
        }
        Topology::Sentinel(service) => sentinel(config, addresses, service, certificates),
        Topology::Cluster => {
            let nodes: Vec<_> = addresses
                .map(|address| Ok(address.into_connection_info()?.set_redis_settings(login.clone())))
                .collect::<RedisResult<_>>()?;
            let mut builder = ClusterClient::builder(nodes)
                .retries(6)
                .min_retry_wait(10)
                .max_retry_wait(500)
                .connection_timeout(config.connect_timeout)
                .response_timeout(config.timeout)
                .overall_response_timeout(Some(config.timeout * 2));
            if config.tls {
                builder = builder.tls(TlsMode::Secure);
            }
            if let Some(certificates) = certificates {
                builder = builder.certs(certificates);
            }
            Ok(Source::Cluster(Box::new(builder.build()?)))
        }
    }
}

fn sentinel(
    config: &RedisConfig,
    addresses: impl Iterator<Item = ConnectionAddr>,
    service: &str,
    certificates: Option<TlsCertificates>,
) -> RedisResult<Source> {
    let mut builder = SentinelClientBuilder::new(addresses, service, SentinelServerType::Master)?
        .set_client_to_redis_db(config.database);
    if let Some(user) = &config.user {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = &config.password {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(user) = &config.sentinel_user {
        builder = builder.set_client_to_sentinel_username(user);
    }
    if let Some(password) = &config.sentinel_password {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if config.tls {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        builder = builder.set_client_to_sentinel_tls_mode(TlsMode::Secure);
    }
    if let Some(certificates) = certificates {
        builder = builder.set_client_to_redis_certificates(certificates.clone());
        builder = builder.set_client_to_sentinel_certificates(certificates);
    }
    Ok(Source::Sentinel(Box::new(builder.build()?)))
}

/// The certificates that the URL names.
///
/// # Errors
///
/// Which file could not be read, and why.
pub(crate) fn certificates(config: &RedisConfig) -> Result<Option<TlsCertificates>, (String, std::io::Error)> {
    let read = |path: &std::path::Path| std::fs::read(path).map_err(|e| (path.display().to_string(), e));
    if config.ca.is_none() && config.certificate.is_none() {
        return Ok(None);
    }
    let client_tls = match &config.certificate {
        Some((certificate, key)) => Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? }),
        None => None,
    };
    Ok(Some(TlsCertificates { client_tls, root_cert: config.ca.as_deref().map(read).transpose()? }))
}
