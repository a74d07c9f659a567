//! The whole suite on a server whose every default is odd: the store sets what it depends on.

mod common;

use std::sync::{Arc, LazyLock};

use rekindle::store::Transfer;
use rekindle_testkit::servers::mysql::{Mysql, QUICK};

fn odd() -> &'static Mysql {
    static ODD: LazyLock<Mysql> = LazyLock::new(|| {
        let odd = [
            "character-set-server=latin1",
            "collation-server=latin1_swedish_ci",
            "character-set-client-handshake=0",
            "sql-mode=ANSI,NO_BACKSLASH_ESCAPES,SIMULTANEOUS_ASSIGNMENT,ORACLE",
            "transaction-isolation=SERIALIZABLE",
            "autocommit=0",
            "default-time-zone=+05:30",
            "completion-type=CHAIN",
            "lower-case-table-names=1",
            "default-storage-engine=Aria",
            "innodb-lock-wait-timeout=1000",
            "innodb-autoinc-lock-mode=0",
            "wait-timeout=1",
            "max-join-size=1",
            "max-sort-length=64",
            "lock-wait-timeout=1",
            "innodb-default-row-format=redundant",
            "innodb-strict-mode=0",
            "init-connect=SET tx_read_only = 1, sql_select_limit = 1, sql_safe_updates = 1, sql_auto_is_null = 1",
            "log-bin",
            "binlog-format=MIXED",
        ];
        Mysql::start(&[QUICK.as_slice(), &odd].concat())
    });
    &ODD
}

async fn new_store() -> (Arc<dyn Transfer>, ()) {
    (common::new_store(odd()).await.0, ())
}

rekindle_testkit::conformance!(new_store);
rekindle_testkit::transfer_suite!(new_store);
