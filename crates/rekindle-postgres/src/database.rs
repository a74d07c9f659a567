//! Connections, and what is carried out on them: each piece of work on a task of its own, repeated while others are in the way.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Object, Pool, PoolError};
use futures_util::future::join_all;
use rekindle::store::{StoreError, StoreResult};
use tokio::time::{sleep, timeout};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use crate::ends::Ends;
use crate::refreshes::Refreshes;
use crate::starts::Starts;

/// How often work is tried while others are in its way.
const TRIES: u32 = 12;
/// The pause before the second try; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// A statement with its parameters.
pub(crate) struct Statement {
    pub(crate) sql: &'static str,
    pub(crate) params: Vec<Param>,
}

/// A parameter of a [`Statement`].
pub(crate) type Param = Box<dyn ToSql + Sync + Send>;

/// Makes a [`Statement`] of its text and its parameters.
macro_rules! statement {
    ($sql:expr $(, $param:expr)* $(,)?) => {
        $crate::database::Statement { sql: $sql, params: vec![$(Box::new($param)),*] }
    };
}
pub(crate) use statement;

/// What is carried out on one connection. It may be tried several times.
#[async_trait]
pub(crate) trait Work: Send + Sync {
    type Outcome: Send + 'static;

    /// How long a try may take, where it usually may take so long.
    fn within(&self, usual: Duration) -> Duration {
        usual
    }

    async fn attempt(&self, connection: &Connection) -> Result<Self::Outcome, Failure>;
}

/// Why work was not done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Somebody else was in the way: the same again may succeed.
    Contended(String),
    /// The connection knows statements that the server does not, or not any more: another one may succeed.
    Outdated(String),
    /// The connection is of no more use. What was sent last may have happened.
    Lost(String),
    /// The server refused.
    Refused(String),
    /// A row holds what cannot be.
    Corrupt(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Corrupt(error)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let text = describe(&error);
        let Some(code) = error.code() else {
            // Without an answer of the server's; a parameter that cannot be sent would be a fault of this crate.
            return Self::Lost(text);
        };
        match code {
            // Two inserts of one key: the loser finds the winner's row when it looks again.
            &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED | &SqlState::UNIQUE_VIOLATION => {
                Self::Contended(text)
            }
            &SqlState::FEATURE_NOT_SUPPORTED | &SqlState::INVALID_SQL_STATEMENT_NAME => Self::Outdated(text),
            // Of a server that became a replica: the next connection finds its successor.
            &SqlState::READ_ONLY_SQL_TRANSACTION => Self::Lost(text),
            // 08: connection exceptions, 57: operator intervention (a cancelled statement, 57014, keeps its connection).
            code if code.code().starts_with("08") => Self::Lost(text),
            code if code.code().starts_with("57") && code != &SqlState::QUERY_CANCELED => Self::Lost(text),
            _ => Self::Refused(text),
        }
    }
}

impl Failure {
    fn into_error(self) -> StoreError {
        match self {
            Self::Contended(text) => {
                StoreError::Unavailable(format!("others were in the way {TRIES} times; the last time: {text}"))
            }
            Self::Outdated(text) | Self::Lost(text) | Self::Refused(text) => StoreError::Unavailable(text),
            Self::Corrupt(error) => error,
        }
    }
}

/// An error with its causes, and the server's code where it was the server. No values: the server puts those into its detail.
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", error.message(), error.code().code());
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A pool of connections.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) pool: Pool,
    /// How long one try usually may take; longer, and its connection is taken for dead.
    pub(crate) try_within: Duration,
    pub(crate) refreshes: Arc<Refreshes>,
    pub(crate) starts: Arc<Starts>,
    pub(crate) ends: Arc<Ends>,
}

impl Database {
    /// Carries out work. Once it has a connection, dropping the future does not stop it: no connection is left half-way.
    pub(crate) async fn run<W: Work + 'static>(&self, work: W) -> StoreResult<W::Outcome> {
        let connection = self.connection().await?;
        let this = self.clone();
        tokio::spawn(async move { this.carry_out(&work, connection).await }).await.unwrap_or_else(|stopped| {
            match stopped.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StoreError::Unavailable("the process is ending".into())),
            }
        })
    }

    /// Carries out a single statement; the rows that it gives.
    pub(crate) async fn rows(&self, statement: Statement) -> StoreResult<Vec<Row>> {
        self.run(statement).await
    }

    /// Carries out work on the caller's task.
    pub(crate) async fn carry_out<W: Work>(&self, work: &W, mut connection: Connection) -> StoreResult<W::Outcome> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.attempt(work, &connection).await {
                Err(Failure::Contended(_)) => {}
                Err(Failure::Outdated(_)) => {
                    drop(connection);
                    connection = self.connection().await?;
                }
                done => return connection.keep_after(done),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let last = self.attempt(work, &connection).await;
        connection.keep_after(last)
    }

    /// Tries once, on the caller's task. `None`: it had no effect, but may have if it is tried in parts, or again.
    pub(crate) async fn once<W: Work>(&self, work: &W) -> StoreResult<Option<W::Outcome>> {
        let connection = self.connection().await?;
        let done = match self.attempt(work, &connection).await {
            Err(Failure::Contended(_) | Failure::Refused(_) | Failure::Corrupt(_)) => Ok(None),
            Err(Failure::Outdated(_)) => return Ok(None),
            done => done.map(Some),
        };
        connection.keep_after(done)
    }

    /// A connection from the pool, or a new one.
    pub(crate) async fn connection(&self) -> StoreResult<Connection> {
        self.pool.get().await.map(|object| Connection(Some(object))).map_err(|error| {
            StoreError::Unavailable(match error {
                PoolError::Timeout(_) => {
                    let status = self.pool.status();
                    format!("no connection became free in time: {} of {} are in use", status.size, status.max_size)
                }
                PoolError::Backend(error) => format!("no connection: {}", describe(&error)),
                other => format!("no connection: {other}"),
            })
        })
    }

    /// One try. A connection whose transaction broke off is made fit for the next one.
    async fn attempt<W: Work>(&self, work: &W, connection: &Connection) -> Result<W::Outcome, Failure> {
        let attempt = async {
            let outcome = work.attempt(connection).await;
            if let Err(Failure::Contended(_) | Failure::Refused(_) | Failure::Corrupt(_)) = outcome {
                connection.send(&[statement!("ROLLBACK")]).await?;
            }
            outcome
        };
        let limit = work.within(self.try_within);
        timeout(limit, attempt).await.unwrap_or_else(|_| Err(Failure::Lost(format!("no answer within {limit:?}"))))
    }
}

/// A connection that was lent by the pool. It goes back only when it is known to be idle: dropped in any other way, after a
/// time-out or a panic, it is closed.
pub(crate) struct Connection(Option<Object>);

impl Connection {
    /// Sends statements together and waits for their answers: one round trip, once the connection has prepared them.
    pub(crate) async fn send(&self, statements: &[Statement]) -> Result<Vec<Vec<Row>>, Failure> {
        let client = self.0.as_ref().expect("lent until it is dropped");
        // All are prepared before the first is sent, so that they go out in their order.
        let prepared = join_all(statements.iter().map(|s| client.prepare_cached(s.sql))).await;
        let prepared = prepared.into_iter().collect::<Result<Vec<_>, _>>()?;
        let answers = join_all(statements.iter().zip(&prepared).map(|(statement, prepared)| async move {
            let params: Vec<&(dyn ToSql + Sync)> = statement.params.iter().map(|p| &**p as _).collect();
            client.query(prepared, &params).await
        }));
        // The first error is the cause of those that follow.
        Ok(answers.await.into_iter().collect::<Result<_, _>>()?)
    }

    /// Gives it back after `done`, or closes it where it is the reason for the failure.
    fn keep_after<T>(mut self, done: Result<T, Failure>) -> StoreResult<T> {
        if !matches!(done, Err(Failure::Lost(_) | Failure::Outdated(_))) {
            self.0 = None;
        }
        done.map_err(Failure::into_error)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

#[async_trait]
impl Work for Statement {
    type Outcome = Vec<Row>;

    async fn attempt(&self, connection: &Connection) -> Result<Vec<Row>, Failure> {
        let mut answers = connection.send(std::slice::from_ref(self)).await?;
        Ok(answers.pop().expect("one answer for one statement"))
    }
}
