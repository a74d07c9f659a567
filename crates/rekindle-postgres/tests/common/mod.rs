//! Places for stores on the server that the tests of a program share.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rekindle_testkit::servers::postgres::{Postgres, ROLE};

/// The database that the tests of a program share. It orders texts as people do, which no row may depend on.
pub fn database() -> &'static str {
    static DATABASE: LazyLock<&str> = LazyLock::new(|| {
        let icu = "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'en-US-u-kn-true'";
        Postgres::shared().sql("postgres", &format!("CREATE DATABASE collated OWNER {ROLE} {icu}"));
        "collated"
    });
    &DATABASE
}

/// The name of a schema that nobody has used.
pub fn new_schema() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    format!("test_{}", LAST.fetch_add(1, Ordering::Relaxed))
}
