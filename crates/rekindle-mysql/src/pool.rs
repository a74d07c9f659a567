//! Connections: a bounded pool whose leases are closed unless they were given back, and what a server's error means.
//!
//! A connection is in a known state only after a whole exchange. Whoever drops a future in the middle of one, drops the
//! lease, and with it the connection: the server rolls back what was open on it.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts};
use rekindle::session::{Session, SessionId};
use rekindle::store::{StoreError, StoreResult};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};

use crate::config::MysqlConfig;
use crate::row::Answers;
use crate::sessions::{SESSIONS, session};
use crate::sql::{PACKET, Script, fitting, list};

/// After so long without use a connection is asked whether it still lives: firewalls and failovers end them silently.
const PING_AFTER: Duration = Duration::from_secs(20);
/// How long it may take to answer that.
const PING_TIMEOUT: Duration = Duration::from_secs(1);
/// After so long without use a connection is closed.
const CLOSE_AFTER: Duration = Duration::from_secs(600);
/// How long a polite goodbye may take.
const GOODBYE: Duration = Duration::from_secs(5);
/// How often an intent is tried that lost against another, or whose connection was lost before its commit was sent.
const TRIES: u32 = 16;
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What each connection is set to, whatever the server's defaults are. The server ends idle connections later than the
/// pool.
const SETTINGS: &str = "SET SESSION autocommit = 1, time_zone = '+00:00', foreign_key_checks = 1, unique_checks = 1, \
     completion_type = 'NO_CHAIN', wait_timeout = 3600, net_read_timeout = 30, net_write_timeout = 60, \
     sql_select_limit = 18446744073709551615, sql_safe_updates = 0, sql_big_selects = 1, sql_auto_is_null = 0, \
     max_sort_length = 1024, \
     sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ZERO_DATE,NO_ZERO_IN_DATE,NO_ENGINE_SUBSTITUTION'";

/// What a connection to a node of a cluster is set to as well: the node first applies what the others have committed,
/// so that it takes no session for unknown or old; and no statement commits by itself.
const CLUSTER_SETTINGS: &str = "SET SESSION wsrep_sync_wait = 7, autocommit = 0";

/// The codes of errors after which the same may succeed: record changed since it was read; node not ready; duplicate
/// key, which a concurrent writer has just taken; lock wait time-out; deadlock, also at the commit on a cluster; no
/// such savepoint, as the transaction was rolled back; rolled back at the commit by a group; locked, where MySQL was told not
/// to wait (MariaDB says 1205).
const CONFLICTS: [u16; 8] = [1020, 1047, 1062, 1205, 1213, 1305, 3101, 3572];

/// Why an intent was not carried out.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It lost against another and was rolled back: it may be tried again.
    Conflict(String),
    /// Its connection was lost before its commit was sent, so it had no effect: it may be tried again on another.
    Lost(String),
    /// That is the answer.
    Final(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Final(error)
    }
}

/// What came of each of some that were tried together. `None`: it had no effect, but may have by itself.
pub(crate) fn outcomes_of<T: Clone>(
    tried: Result<Vec<Option<T>>, Failure>,
    count: usize,
) -> Vec<Option<StoreResult<T>>> {
    match tried {
        Ok(outcomes) => outcomes.into_iter().map(|outcome| outcome.map(Ok)).collect(),
        Err(Failure::Final(error @ StoreError::Unavailable(_))) => vec![Some(Err(error)); count],
        // The reason may concern one of them only.
        Err(Failure::Conflict(_) | Failure::Lost(_) | Failure::Final(StoreError::Corrupt { .. })) => vec![None; count],
    }
}

fn unavailable(text: impl Into<String>) -> Failure {
    Failure::Final(StoreError::Unavailable(text.into()))
}

/// The connections to one server or cluster.
pub(crate) struct Pool {
    options: Opts,
    size: u32,
    timeout: Duration,
    permits: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection of ours.
struct Connection {
    driver: Conn,
    /// Of a Galera cluster's node. See [`Transaction`].
    in_cluster: bool,
}

impl Pool {
    pub(crate) fn of(config: &MysqlConfig) -> Self {
        let MysqlConfig { connections, timeout, .. } = *config;
        let permits = Semaphore::new(connections as usize);
        Self { options: config.options(), size: connections, timeout, permits, idle: Mutex::default() }
    }

    /// A new connection with our settings.
    async fn connect(&self) -> mysql_async::Result<Connection> {
        let connected = timeout(self.timeout, async {
            let mut driver = Conn::new(self.options.clone()).await?;
            // A wait for a lock ends before the wait for the answer does.
            let lock_wait = (self.timeout.as_secs() / 2).max(1);
            let script = [
                SETTINGS.to_owned(),
                "SET NAMES utf8mb4 COLLATE utf8mb4_bin".into(),
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE".into(),
                format!("SET SESSION innodb_lock_wait_timeout = {lock_wait}, lock_wait_timeout = {lock_wait}"),
                "SHOW SESSION VARIABLES LIKE 'wsrep_on'".into(),
            ];
            let mut answers = Answers::default();
            run(&mut driver, &script, &mut answers).await?;
            let in_cluster = answers.sets.iter().flatten().any(|row| row.get(1) == Some("ON".to_owned()));
            if in_cluster {
                run(&mut driver, &[CLUSTER_SETTINGS.into()], &mut answers).await?;
            }
            Ok(Connection { driver, in_cluster })
        });
        connected.await.unwrap_or_else(|_| Err(no_answer(self.timeout)))
    }

    /// A connection to use; one is waited for if all are in use.
    async fn lease(&self) -> Result<Lease<'_>, Failure> {
        let Ok(permit) = timeout(self.timeout, self.permits.acquire()).await else {
            return Err(unavailable(format!(
                "all {} connections were in use for {:?}; raise `connections` in the URL, or find what holds them",
                self.size, self.timeout
            )));
        };
        let lease = self.lease_with(permit.expect("the semaphore is never closed")).await;
        lease.map_err(|error| unavailable(format!("no connection could be made: {error}")))
    }

    /// Carries out statements that may take long, outside a transaction; with the driver's error. For those who open
    /// the store: each may be repeated, as it is after a conflict.
    pub(crate) async fn prepare(&self, script: &[String], limit: Duration) -> mysql_async::Result<Answers> {
        for tried in 1.. {
            let permit = self.permits.acquire().await.expect("the semaphore is never closed");
            let mut lease = self.lease_with(permit).await?;
            match lease.ask(script, limit).await {
                Err(mysql_async::Error::Server(error)) if CONFLICTS.contains(&error.code) && tried < TRIES => {
                    sleep(pause(tried)).await;
                }
                Err(error) => return Err(error),
                Ok(answers) => {
                    lease.give_back();
                    return Ok(answers);
                }
            }
        }
        unreachable!("the loop ends by returning")
    }

    /// The server's version.
    pub(crate) async fn server_version(&self) -> mysql_async::Result<(u16, u16, u16)> {
        Ok(self.connect().await?.driver.server_version())
    }

    /// Carries out statements outside a transaction: reads, and writes of which each may be repeated.
    pub(crate) async fn ask(&self, script: Script) -> StoreResult<Answers> {
        self.retry(|| async {
            let mut lease = self.lease().await?;
            let answers = lease.ask(&script, self.timeout).await.map_err(|error| self.failure(error))?;
            lease.give_back();
            Ok(answers)
        })
        .await
    }

    /// Carries out reads that see the same moment.
    pub(crate) async fn snapshot(&self, mut script: Script) -> StoreResult<Answers> {
        script.insert(0, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ".into());
        script.insert(1, "START TRANSACTION WITH CONSISTENT SNAPSHOT".into());
        script.push("COMMIT".into());
        self.ask(script).await
    }

    /// Begins a transaction: nothing is sent before its first statements.
    pub(crate) async fn begin(&self) -> Result<Transaction<'_>, Failure> {
        Ok(Transaction { lease: Some(self.lease().await?), begun: false })
    }

    /// Tries until it is carried out, or for as long as somebody waits for the answer.
    pub(crate) async fn retry<T, F>(&self, attempt: impl Fn() -> F) -> StoreResult<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let deadline = Instant::now() + self.timeout;
        for tried in 1.. {
            let why = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Conflict(why) | Failure::Lost(why)) => why,
            };
            if tried == TRIES || Instant::now() >= deadline {
                return Err(StoreError::Unavailable(format!("not carried out in {tried} tries; the last: {why}")));
            }
            sleep(pause(tried)).await;
        }
        unreachable!("the loop ends by returning")
    }

    async fn lease_with<'p>(&'p self, permit: SemaphorePermit<'p>) -> mysql_async::Result<Lease<'p>> {
        let connection = match self.pop_living().await {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(Lease { pool: self, connection: Some(connection), _permit: permit })
    }

    async fn pop_living(&self) -> Option<Connection> {
        loop {
            // The one that was used last: those that are not needed grow old together.
            let Idle { mut connection, since } = self.idle().pop()?;
            if since.elapsed() < PING_AFTER {
                return Some(connection);
            }
            if matches!(timeout(PING_TIMEOUT, connection.driver.ping()).await, Ok(Ok(()))) {
                return Some(connection);
            }
            close(connection);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // Nothing panics while it is locked.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes what is idle: after a failover, connections to the old server are of no use.
    fn forget_idle(&self) {
        self.idle().drain(..).for_each(|idle| close(idle.connection));
    }
}

/// A connection in use. It is closed when dropped, unless it is given back.
struct Lease<'p> {
    pool: &'p Pool,
    connection: Option<Connection>,
    _permit: SemaphorePermit<'p>,
}

impl Lease<'_> {
    /// Carries out statements outside a transaction. After an error, the lease is to be dropped.
    async fn ask(&mut self, script: &[String], limit: Duration) -> mysql_async::Result<Answers> {
        if !self.in_cluster() {
            return self.exchange(script, limit).await;
        }
        let committed: Script = script.iter().cloned().chain(["COMMIT".to_owned()]).collect();
        self.exchange(&committed, limit).await
    }

    fn in_cluster(&self) -> bool {
        self.connection().in_cluster
    }

    fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("a lease has its connection until it is given back")
    }

    /// Sends a script and reads all that it answers, to each packet within `limit`. After an error other than a conflict, the lease is to be dropped.
    async fn exchange(&mut self, script: &[String], limit: Duration) -> mysql_async::Result<Answers> {
        let connection = self.connection.as_mut().expect("a lease has its connection until it is given back");
        let mut answers = Answers::default();
        let mut rest = script;
        while !rest.is_empty() {
            let (packet, later) = rest.split_at(fitting(rest, 1, PACKET));
            let answered = timeout(limit, run(&mut connection.driver, packet, &mut answers)).await;
            answered.unwrap_or_else(|_| Err(no_answer(limit)))?;
            rest = later;
        }
        Ok(answers)
    }

    /// Returns a connection in which nothing is open to the pool.
    fn give_back(mut self) {
        let connection = self.connection.take().expect("a lease has its connection until it is given back");
        let mut idle = self.pool.idle();
        idle.push(Idle { connection, since: Instant::now() });
        let old = idle.iter().take_while(|i| i.since.elapsed() > CLOSE_AFTER).count();
        idle.drain(..old).for_each(|idle| close(idle.connection));
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            close(connection);
        }
    }
}

/// A transaction. If it is neither committed nor rolled back, its connection is closed, which rolls it back.
///
/// A node of a cluster rolls a transaction back when another node's commit gets in its way. If that happens between two
/// statements of one packet, MariaDB does not say so: the next statement begins another transaction. A savepoint that
/// does not exist any more tells, as long as nothing is sent in the packet after it; so `COMMIT` has a packet of its
/// own there.
pub(crate) struct Transaction<'p> {
    lease: Option<Lease<'p>>,
    begun: bool,
}

impl Transaction<'_> {
    /// Carries out statements in it.
    pub(crate) async fn ask(&mut self, script: Script) -> Result<Answers, Failure> {
        if self.begun {
            return self.exchange(&script).await;
        }
        let mut begin = vec!["START TRANSACTION".to_owned()];
        if self.lease().in_cluster() {
            begin.push("SAVEPOINT begun".into());
        }
        let beginning = begin.len();
        begin.extend(script);
        self.begun = true;
        let mut answers = self.exchange(&begin).await?;
        answers.affected.drain(..beginning);
        Ok(answers)
    }

    /// Those of these sessions whose rows nobody has locked, locked in one order.
    pub(crate) async fn lock_free(
        &mut self,
        ids: impl Iterator<Item = SessionId>,
    ) -> Result<HashMap<SessionId, Session>, Failure> {
        let (select, ids) = (SESSIONS.select(), list(ids));
        let lock = format!("{select} WHERE id IN ({ids}) ORDER BY id FOR UPDATE SKIP LOCKED");
        let found = self.ask(vec![lock]).await?.all(&SESSIONS, session)?;
        Ok(found.into_iter().map(|row| (row.id, row)).collect())
    }

    /// Carries out its last statements and commits. If the answer to that is lost, the outcome is unknown, so that it
    /// must not be tried again in here.
    pub(crate) async fn commit(mut self, mut script: Script) -> Result<Answers, Failure> {
        const COMMIT: &str = "COMMIT";
        let in_cluster = self.lease().in_cluster();
        script.push(if in_cluster { "RELEASE SAVEPOINT begun" } else { COMMIT }.into());
        let mut outcome = self.ask(script).await;
        if in_cluster && let Ok(answers) = outcome {
            outcome = self.exchange(&[COMMIT.into()]).await.map(|_| answers);
        }
        match outcome {
            Ok(answers) => {
                self.give_back();
                Ok(answers)
            }
            Err(Failure::Lost(why)) => {
                Err(unavailable(format!("{why}; whether the write was carried out is not known")))
            }
            Err(failure) => Err(failure),
        }
    }

    /// Ends it without effect.
    pub(crate) async fn roll_back(mut self) -> Result<(), Failure> {
        if self.begun {
            self.exchange(&["ROLLBACK".into()]).await?;
        }
        self.give_back();
        Ok(())
    }

    fn lease(&self) -> &Lease<'_> {
        self.lease.as_ref().expect("a transaction has its lease until it ends")
    }

    fn give_back(&mut self) {
        self.lease.take().expect("a transaction has its lease until it ends").give_back();
    }

    async fn exchange(&mut self, script: &[String]) -> Result<Answers, Failure> {
        let lease = self.lease.as_mut().expect("a transaction has its lease until it ends");
        let (pool, limit) = (lease.pool, lease.pool.timeout);
        let outcome = lease.exchange(script, limit).await.map_err(|error| pool.failure(error));
        if let Err(Failure::Conflict(_)) = &outcome {
            // Some conflicts roll back the statement alone. Where this fails, the connection is closed, which does the same.
            if lease.exchange(&["ROLLBACK".into()], limit).await.is_ok() {
                self.give_back();
            }
        }
        outcome
    }
}

impl Pool {
    fn failure(&self, error: mysql_async::Error) -> Failure {
        match error {
            mysql_async::Error::Server(error) => match error.code {
                code if CONFLICTS.contains(&code) => Failure::Conflict(format!("error {code} ({})", error.state)),
                // Shutdown; connection killed; query killed.
                1053 | 1317 | 1927 => {
                    self.forget_idle();
                    Failure::Lost(error.to_string())
                }
                // Read-only server, transaction or table: the primary has moved, other connections lead to the same server.
                1036 | 1290 | 1792 | 1836 => {
                    self.forget_idle();
                    unavailable(format!("the server takes no writes: {error}"))
                }
                // A text that could not be parsed is repeated by the message, with the values in it.
                1064 => unavailable("error 1064: the server does not know the syntax of a statement"),
                _ => unavailable(error.to_string()),
            },
            // Not tried again: whoever waits has waited long enough.
            mysql_async::Error::Io(mysql_async::IoError::Io(error)) if error.kind() == io::ErrorKind::TimedOut => {
                unavailable(error.to_string())
            }
            error => {
                self.forget_idle();
                Failure::Lost(error.to_string())
            }
        }
    }
}

/// Sends statements in one packet, and reads the answer to each.
async fn run(connection: &mut Conn, statements: &[String], answers: &mut Answers) -> mysql_async::Result<()> {
    let mut result = connection.query_iter(statements.join(";")).await?;
    for _ in statements {
        if result.columns_ref().is_empty() {
            answers.affected.push(result.affected_rows());
            result.collect::<mysql_async::Row>().await?;
        } else {
            answers.sets.push_back(result.collect().await?);
        }
    }
    Ok(())
}

/// Says goodbye in the background. What is under way on the connection is no longer waited for.
fn close(connection: Connection) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(timeout(GOODBYE, connection.driver.disconnect()));
    }
}

fn no_answer(limit: Duration) -> mysql_async::Error {
    let text = format!("the server did not answer within {limit:?}");
    mysql_async::Error::Io(io::Error::new(io::ErrorKind::TimedOut, text).into())
}

/// Grows with the number of tries, and differs between those who lost against each other.
fn pause(tried: u32) -> Duration {
    use std::sync::atomic::{AtomicU64, Ordering};
    static PAUSES: AtomicU64 = AtomicU64::new(0);
    let spread = PAUSES.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54;
    let longest = Duration::from_millis(1 << tried.min(10)).min(LONGEST_PAUSE);
    longest * u32::try_from(spread).expect("ten bits") / 1024
}
