//! Encrypted connections: to servers whose certificate is good, and to no others.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use rekindle::store::Store;
use rekindle_postgres::{OpenError, PostgresConfig, PostgresStore};
use rekindle_testkit::servers::postgres::Postgres;
use rekindle_testkit::servers::{run_as, temporary_folder};

async fn open(url: String) -> Result<PostgresStore, OpenError> {
    PostgresStore::open(PostgresConfig::parse(&url).unwrap()).await
}

/// Writes a file that the server may read, and nobody else.
fn write_private(path: &Path, text: &str) {
    let command = ["sh", "-c", "umask 077; cat >\"$0\""].map(Into::into);
    let mut cat = run_as("postgres", &command).arg(path).stdin(Stdio::piped()).spawn().unwrap();
    cat.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(cat.wait().unwrap().success());
}

#[tokio::test]
async fn the_server_s_certificate_is_verified() {
    let folder = temporary_folder("postgres");
    let (certificate, key) = (folder.join("server.crt"), folder.join("server.key"));
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".into(), "db.example".into()]).unwrap();
    write_private(&certificate, &made.cert.pem());
    write_private(&key, &made.signing_key.serialize_pem());
    let settings = [
        "fsync=off".to_owned(),
        "ssl=on".into(),
        format!("ssl_cert_file={}", certificate.display()),
        format!("ssl_key_file={}", key.display()),
    ];
    let postgres = Postgres::start(&settings.each_ref().map(String::as_str));
    let url = format!("{}?sslmode=verify-full", postgres.url(&postgres.new_database()));
    let trusting = format!("{url}&sslrootcert={}", certificate.display());

    let store = open(trusting.clone()).await.unwrap();
    store.ping().await.unwrap();
    let encrypted =
        "SELECT bool_and(ssl) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE usename = 'rekindle'";
    assert_eq!(postgres.sql("postgres", encrypted), "t");

    let unknown = open(url).await.err().expect("nobody vouches for it").to_string();
    assert!(unknown.contains("certificate") && unknown.contains("`sslmode`"), "{unknown}");
    let renamed = open(trusting.replace("127.0.0.1", "localhost")).await.err().expect("another name").to_string();
    assert!(renamed.contains("certificate"), "{renamed}");
    let missing = PostgresConfig::parse(&trusting.replace("server.crt", "none.crt")).unwrap();
    let missing = PostgresStore::open(missing).await.err().expect("no such file").to_string();
    assert!(missing.contains("none.crt"), "{missing}");

    let plain = Postgres::quick();
    let refused = open(format!("{}?sslmode=require", plain.url("postgres"))).await.err().expect("no TLS").to_string();
    assert!(refused.contains("TLS"), "{refused}");
    std::fs::remove_dir_all(folder).unwrap();
}
