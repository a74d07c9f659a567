//! Reads what another system has in a database.

use futures_util::{Stream, StreamExt as _, stream};
use mysql_async::{Conn, prelude::Queryable as _};
use rekindle::store::StoreError;

use crate::config::MysqlConfig;
use crate::schema::OpenError;

/// A connection for reading tables of another system, from a replica, too.
pub struct Reader(Conn);

impl Reader {
    /// Connects.
    ///
    /// # Errors
    ///
    /// Any [`OpenError`] about the connection.
    pub async fn connect(config: &MysqlConfig) -> Result<Self, OpenError> {
        let connected = async {
            let mut connection = Conn::new(config.options()).await?;
            connection.query_drop("SET NAMES utf8mb4").await?;
            Ok(connection)
        };
        connected.await.map(Self).map_err(OpenError::of(config))
    }

    /// Carries out a query. A row is its columns as the server writes them as texts, `None` for NULL; rows come as they are asked for.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`], with what the server said, and for what is no text in UTF-8.
    pub async fn rows(
        &mut self,
        sql: &str,
    ) -> Result<impl Stream<Item = Result<Vec<Option<String>>, StoreError>> + use<'_>, StoreError> {
        let answer = self.0.query_iter(sql.to_owned()).await.map_err(failed)?;
        Ok(stream::try_unfold(answer, async |mut answer| {
            let Some(row) = answer.next().await.map_err(failed)? else { return Ok(None) };
            let texts =
                row.unwrap().into_iter().map(|value| mysql_async::from_value_opt(value).map_err(|_| not_text()));
            Ok(Some((texts.collect::<Result<_, _>>()?, answer)))
        })
        .boxed())
    }
}

fn failed(error: mysql_async::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

fn not_text() -> StoreError {
    StoreError::Unavailable("a column is not a text in UTF-8".into())
}
