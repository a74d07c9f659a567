//! Reads what another system has in a database.

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use rekindle::store::StoreError;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::config::PostgresConfig;
use crate::database::describe;
use crate::schema::OpenError;

/// A connection for reading tables of another system, from a replica, too. No value of a statement is logged.
pub struct Reader(Client);

impl Reader {
    /// Connects; of the URL's options, those about Rekindle's own tables mean nothing here.
    ///
    /// # Errors
    ///
    /// [`OpenError::Connect`].
    pub async fn connect(config: &PostgresConfig) -> Result<Self, OpenError> {
        config.reader().await.map(Self)
    }

    /// Carries out a query. A row is its columns as PostgreSQL writes them as texts, `None` for NULL; rows come as they are asked for.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`], with what the server said.
    pub async fn rows(
        &mut self,
        sql: &str,
    ) -> Result<impl Stream<Item = Result<Vec<Option<String>>, StoreError>> + use<>, StoreError> {
        let failed = |error: tokio_postgres::Error| StoreError::Unavailable(describe(&error));
        let messages = self.0.simple_query_raw(sql).await.map_err(failed)?;
        Ok(messages
            .map_err(failed)
            .try_filter_map(async |message| {
                Ok(match message {
                    SimpleQueryMessage::Row(row) => {
                        Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
                    }
                    _ => None,
                })
            })
            .boxed())
    }
}
