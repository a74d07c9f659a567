//! Opening: what is made, migrated and refused, and what the messages say.

mod common;

use rekindle::store::{Store, StoreError};
use rekindle_postgres::{OpenError, PostgresConfig, PostgresStore};
use rekindle_testkit::fixtures::*;
use rekindle_testkit::servers::postgres::{PASSWORD, Postgres};

fn config(url: &str) -> PostgresConfig {
    PostgresConfig::parse(url).unwrap()
}

async fn refusal(config: PostgresConfig) -> OpenError {
    match PostgresStore::open(config).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_store_is_opened_again_and_by_many_at_once() {
    let url = format!("{}?schema={}&pool_size=2", Postgres::shared().url(common::database()), common::new_schema());
    assert_eq!(PostgresStore::pending(&config(&url)).await.unwrap().len(), 1);
    let opening: Vec<_> = (0..8).map(|_| tokio::spawn(PostgresStore::open(config(&url)))).collect();
    let mut stores = Vec::new();
    for store in opening {
        stores.push(store.await.unwrap().unwrap());
    }
    assert!(PostgresStore::pending(&config(&url)).await.unwrap().is_empty());
    let session = start(&stores[0], session("ada")).await;
    for store in &stores {
        assert_eq!(row(store, session.id).await, session);
        assert_eq!(store.products().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn newer_and_changed_schemas_are_refused() {
    let (postgres, schema) = (Postgres::shared(), common::new_schema());
    let url = format!("{}?schema={schema}", postgres.url(common::database()));
    PostgresStore::open(config(&url)).await.unwrap();
    let sql = |sql: &str| postgres.sql(common::database(), &sql.replace("migrations", &format!("{schema}.migrations")));
    sql("INSERT INTO migrations (version, name, checksum) VALUES (2, 'future', '')");
    let newer = refusal(config(&url)).await;
    assert!(matches!(newer, OpenError::Newer { found: 2, known: 1, .. }), "{newer}");
    sql("DELETE FROM migrations WHERE version = 2; UPDATE migrations SET checksum = 'x' WHERE version = 1");
    let changed = refusal(config(&url)).await;
    assert!(matches!(changed, OpenError::ChangedMigration { version: 1, .. }), "{changed}");
}

#[tokio::test]
async fn a_role_without_rights_is_told_what_to_ask_for() {
    let (postgres, schema) = (Postgres::shared(), common::new_schema());
    let database = common::database();
    let role = format!("limited_{schema}");
    postgres.sql(database, &format!("CREATE ROLE {role} LOGIN PASSWORD 'x'"));
    let url = format!("postgres://{role}:x@127.0.0.1:{}/{database}?schema={schema}", postgres.port());
    let refused = refusal(config(&url)).await.to_string();
    assert!(refused.contains(&format!("refused to make the schema `{schema}`: permission denied")), "{refused}");
    assert!(refused.contains(&format!("let its administrator run `CREATE SCHEMA {schema} AUTHORIZATION")), "{refused}");
    // A schema of its own is all that it needs.
    postgres.sql(database, &format!("CREATE SCHEMA {schema} AUTHORIZATION {role}"));
    PostgresStore::open(config(&url)).await.unwrap().ping().await.unwrap();
    // Who may not make tables can serve what another one migrated.
    let server = format!("serving_{schema}");
    postgres.sql(
        database,
        &format!(
            "CREATE ROLE {server} LOGIN PASSWORD 'x'; GRANT USAGE ON SCHEMA {schema} TO {server};
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {server}"
        ),
    );
    let store = PostgresStore::open(config(&url.replace(&role, &server))).await.unwrap();
    start(&store, session("ada")).await;
    // A right that was taken away later is an outage.
    postgres.sql(database, &format!("REVOKE INSERT ON {schema}.sessions FROM {server}"));
    let refused = store.start(start_of(&session("ada"))).await;
    let expected = "permission denied for table sessions (SQLSTATE 42501)".to_owned();
    assert_eq!(refused, Err(StoreError::Unavailable(expected)));
}

#[tokio::test]
async fn unreachable_servers_are_named_without_the_password() {
    let postgres = Postgres::shared();
    let good = postgres.url(common::database());
    let port = postgres.port();
    let free = rekindle_testkit::servers::free_port();
    let server =
        |port: u16, database: &str| format!("cannot connect to `postgres://rekindle@127.0.0.1:{port}/{database}`: ");
    let cases = [
        (
            good.replace("wprd", "x").replace("p%40ss", "secret"),
            server(port, common::database()),
            "28P01",
            "check the user",
        ),
        (postgres.url("nowhere"), server(port, "nowhere"), "3D000", "make the database"),
        (postgres.url_through(free, "postgres"), server(free, "postgres"), "Connection refused", "check host and port"),
        (
            good.replace("127.0.0.1", "no.such.host.invalid") + "?sslmode=disable",
            format!("cannot connect to `postgres://rekindle@no.such.host.invalid:{port}/{}`: ", common::database()),
            "error connecting to server",
            "check host and port",
        ),
    ];
    for (url, server, problem, advice) in cases {
        let text = refusal(config(&url)).await.to_string();
        assert!(text.starts_with(&server) && text.contains(problem) && text.contains(advice), "{text}");
        assert!(!text.contains(PASSWORD) && !text.contains("secret"), "{text}");
    }
    assert_eq!(
        format!("{:?}", config(&good)),
        format!("PostgresConfig(postgres://rekindle@127.0.0.1:{port}/{})", common::database())
    );
}

#[tokio::test]
async fn a_replica_is_refused() {
    let postgres = Postgres::quick();
    postgres.sql("postgres", "ALTER ROLE rekindle SET default_transaction_read_only = on");
    let text = refusal(config(&postgres.url("postgres"))).await.to_string();
    assert!(text.contains("database does not allow writes; check host and port"), "{text}");
}

#[tokio::test]
async fn of_several_hosts_the_first_that_takes_writes_is_used() {
    let (replica, primary) = (Postgres::quick(), Postgres::quick());
    let database = replica.new_database();
    replica.sql("postgres", "ALTER ROLE rekindle SET default_transaction_read_only = on");
    primary.sql("postgres", &format!("CREATE DATABASE {database} OWNER rekindle"));
    let (nobody, host) = (rekindle_testkit::servers::free_port(), "127.0.0.1");
    let hosts = format!("{host}:{nobody},{host}:{},{host}:{}", replica.port(), primary.port());
    let url = primary.url(&database).replace(&format!("{host}:{}", primary.port()), &hosts);
    let store = PostgresStore::open(config(&url)).await.unwrap();
    let session = start(&store, session("ada")).await;
    let there = primary.sql(&database, "SELECT id FROM rekindle.sessions");
    assert_eq!(there, session.id.to_string());
}

#[tokio::test]
async fn a_database_that_cannot_hold_every_text_is_refused() {
    let postgres = Postgres::shared();
    postgres.sql("postgres", "CREATE DATABASE latin OWNER rekindle TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    let refused = refusal(config(&postgres.url("latin"))).await.to_string();
    assert!(
        refused.ends_with("/latin` is encoded in LATIN1; give one that was made with `ENCODING 'UTF8'`"),
        "{refused}"
    );
}

#[test]
fn wrong_urls_are_refused_with_their_wrong_part() {
    let base = "postgres://ada:secret@db.example/app";
    let cases = [
        ("mysql://ada:secret@db/app".to_owned(), "it does not begin with `postgres://`"),
        ("postgres://db.example/app".to_owned(), "it names no user"),
        ("postgres://ada:secret@db.example".to_owned(), "it names no database"),
        ("postgres://ada:secret@db.example:x/app".to_owned(), "port"),
        (format!("{base}?pool_size=0"), "`pool_size=0` is not a whole number of at least 1"),
        (format!("{base}?statement_timeout=soon"), "`statement_timeout=soon` is not a whole number of at least 1"),
        (format!("{base}?schema=a\"b"), "`schema=a\"b` is not 1 to 63 of a-z"),
        (format!("{base}?isolation=none"), "`isolation=none` is neither `read-committed` nor `serializable`"),
        (format!("{base}?sslmode=prefer"), "`sslmode=prefer` is neither `disable` nor `verify-full`"),
        (format!("{base}?colour=red"), "colour"),
    ];
    for (url, problem) in cases {
        let text = PostgresConfig::parse(&url).unwrap_err().to_string();
        assert!(text.starts_with("the database URL is wrong: ") && text.contains(problem), "{url}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
}
