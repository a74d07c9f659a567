//! What the parts cost by themselves: the same SQLite statements in a bare loop, and the cryptography.

use std::hint::black_box;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{digest, hmac};
use rekindle::rng::{Rng as _, SystemRng};
use rusqlite::types::Value;
use rusqlite::{Connection, params};

use crate::process::cpu_time;
use crate::users::Scenario;

/// The columns of `sessions`, as rekindle-sqlite writes and reads them.
macro_rules! session_columns {
    () => {
        "id, generation, commitment, issued_at, kid, confirmed, min_generation, idle_expires_at, expires_at, created_at,
         ended_at, ended_reason, version, scope, tag, definition_version, user_id, previous_session_id, auth, client, claims,
         data"
    };
}

const ADVANCE: &str = concat!(
    "UPDATE sessions SET generation = ?2, commitment = ?3, issued_at = ?4, kid = ?5, confirmed = 0,
     idle_expires_at = min(?6, expires_at), auth = coalesce(?7, auth), min_generation = coalesce(?8, min_generation)
     WHERE id = ?9 AND scope = ?10 AND tag = ?11 AND generation = ?12 AND commitment = ?13
       AND (ended_at IS NULL AND idle_expires_at > ?1 AND expires_at > ?1) RETURNING ",
    session_columns!()
);
const INSERT_SESSION: &str = concat!(
    "INSERT INTO sessions (",
    session_columns!(),
    ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)"
);
const INSERT_EVENT: &str = "INSERT OR REPLACE INTO events (session_id, id, at, kind, outcome, generation, rest)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const END_SESSION: &str = "UPDATE sessions SET ended_at = ?2, ended_reason = ?3 WHERE id = ?1";
const INSERT_REVOCATION: &str = "INSERT INTO revocations (scope, session_id, reason, session_expires_at, at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const SELECT_SESSION: &str = concat!("SELECT ", session_columns!(), " FROM sessions WHERE id = ?1");

/// At this length of the write-ahead log, in pages, it is moved into the file: as rekindle-sqlite does.
const CHECKPOINT_PAGES: i64 = 8 * 256;

/// How many sessions the loops visit in turn, as the load does.
const VISITED: usize = 100_000;

/// How many the reads visit: as many as known tokens are verified.
const READ: usize = 8_192;

/// CPU time for one of each, in a loop of nothing else.
pub struct StoreFloors {
    /// One refresh's row updated and its event inserted, with its part of the transaction, the flush and the checkpoint.
    pub refresh: Duration,
    /// One start's row and event inserted, likewise.
    pub start: Duration,
    /// One session's row marked as ended, its event and its entry in the feed inserted, likewise.
    pub end: Duration,
    /// One session's row read by its id.
    pub read: Duration,
}

/// How many writes of each kind one transaction has.
pub struct Groups {
    /// Refreshes.
    pub refresh: f64,
    /// Starts.
    pub start: f64,
    /// Ends.
    pub end: f64,
}

/// A row as the update has to know it.
struct Row {
    id: Vec<u8>,
    generation: u32,
    commitment: Vec<u8>,
    scope: i64,
    tag: String,
    kid: i64,
    idle_expires_at: i64,
}

/// Measures on a store that a server has filled and no longer has open. It may be measured several times.
pub fn store(database: &Path, groups: &Groups, each: Duration) -> Result<StoreFloors> {
    let connection = open(database, 8 * 1024)?;
    let mut rows = rows(&connection)?;
    let now = now(&rows);
    let mut ids = Ids::from(now as u64);
    let rest = |kind: &str| -> Result<String> {
        let sql = "SELECT rest FROM events WHERE kind = ?1 ORDER BY length(rest) DESC LIMIT 1";
        Ok(connection.query_row(sql, [kind], |row| row.get(0))?)
    };
    let mut insert_event = connection.prepare(INSERT_EVENT)?;
    let none: Option<&str> = None;

    let reader = open(database, 2 * 1024)?;
    let mut select = reader.prepare(SELECT_SESSION)?;
    let mut known = (0..READ).map(|i| i * (rows.len() / READ).max(1) % rows.len()).cycle();
    let read = per_operation(each, || {
        let mut found = select.query([&rows[known.next().expect("a cycle")].id])?;
        while let Some(row) = found.next()? {
            visit(row)?;
        }
        Ok(())
    })?;

    let refreshed = rest("session.refresh")?;
    let mut at = (0..rows.len()).map(|i| i * 7_919 % rows.len()).collect::<Vec<_>>().into_iter().cycle();
    let mut update = connection.prepare(ADVANCE)?;
    let refresh = per_row(&connection, groups.refresh, each, || {
        let row = &mut rows[at.next().expect("a cycle")];
        let commitment = ids.next();
        let mut returned = update.query(params![
            now,
            row.generation + 1,
            commitment,
            now / 1000,
            row.kid,
            row.idle_expires_at,
            none,
            none,
            row.id,
            row.scope,
            row.tag,
            row.generation,
            row.commitment
        ])?;
        let mut changed = 0;
        while let Some(row) = returned.next()? {
            changed += visit(row)?;
        }
        anyhow::ensure!(changed > 0, "the update found no row");
        (row.generation, row.commitment) = (row.generation + 1, commitment.to_vec());
        let event = params![row.id, ids.next(), now, "session.refresh", "advanced", row.generation, refreshed];
        insert_event.execute(event)?;
        Ok(())
    })?;

    let session = connection.query_row(SELECT_SESSION, [&rows[0].id], |row| {
        (0..row.as_ref().column_count()).map(|i| row.get::<_, Value>(i)).collect::<Result<Vec<_>, _>>()
    })?;
    let started = rest("session.start")?;
    let mut insert = connection.prepare(INSERT_SESSION)?;
    let mut new: Vec<[u8; 16]> = Vec::new();
    let start = per_row(&connection, groups.start, each, || {
        if new.len().is_multiple_of(16) {
            ids.millis += 1;
        }
        let id = ids.next();
        let user = Value::Blob(format!("floor-{:08}", new.len()).into_bytes());
        for (i, value) in session.iter().enumerate() {
            match i {
                0 => insert.raw_bind_parameter(1, id)?,
                16 => insert.raw_bind_parameter(17, &user)?,
                _ => insert.raw_bind_parameter(i + 1, value)?,
            }
        }
        insert.raw_execute()?;
        insert_event.execute(params![id, ids.next(), now, "session.start", none, 0, started])?;
        new.push(id);
        Ok(())
    })?;

    // Of those that were just started. No index holds what an end changes, so it costs the same when there are not enough.
    // Where the server has ended none, the event is as long as a start's.
    let sql = "SELECT rest FROM events WHERE kind IN ('session.end', 'session.start') ORDER BY kind LIMIT 1";
    let ended: String = connection.query_row(sql, [], |row| row.get(0))?;
    let mut turn = new.iter().cycle();
    let mut mark = connection.prepare(END_SESSION)?;
    let mut publish = connection.prepare(INSERT_REVOCATION)?;
    let scope = rows[0].scope;
    let end = per_row(&connection, groups.end, each, || {
        let id = turn.next().expect("a cycle");
        mark.execute(params![id, now, "signed_out"])?;
        publish.execute(params![scope, id, "signed_out", now, now, now + 7_200_000])?;
        insert_event.execute(params![id, ids.next(), now, "session.end", none, 0, ended])?;
        Ok(())
    })?;
    Ok(StoreFloors { refresh, start, end, read })
}

/// A moment at which all these sessions are active.
fn now(rows: &[Row]) -> i64 {
    rows.iter().map(|row| row.idle_expires_at).min().unwrap_or(0) - 1
}

fn open(database: &Path, cache_kib: i64) -> Result<Connection> {
    let connection = Connection::open(database)?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    Ok(connection)
}

fn rows(connection: &Connection) -> Result<Vec<Row>> {
    let last: i64 = connection.query_row("SELECT max(rowid) FROM sessions", [], |row| row.get(0))?;
    let sql = "SELECT id, generation, commitment, scope, tag, kid, idle_expires_at FROM sessions
               WHERE rowid % ?1 = 0 AND ended_at IS NULL LIMIT ?2";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map(params![(last / VISITED as i64).max(1), VISITED as i64], |row| {
        Ok(Row {
            id: row.get(0)?,
            generation: row.get(1)?,
            commitment: row.get(2)?,
            scope: row.get(3)?,
            tag: row.get(4)?,
            kid: row.get(5)?,
            idle_expires_at: row.get(6)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Touches every column.
fn visit(row: &rusqlite::Row<'_>) -> Result<usize> {
    let mut columns = 0;
    while let Ok(value) = row.get_ref(columns) {
        black_box(value);
        columns += 1;
    }
    Ok(columns)
}

/// Ids that sort by time, as UUIDv7 do.
struct Ids {
    millis: u64,
    count: u64,
}

impl Ids {
    /// Those of this moment, none of which was ever there.
    fn from(millis: u64) -> Self {
        let mut count = [0; 8];
        SystemRng::default().fill(&mut count);
        Self { millis, count: u64::from_ne_bytes(count) }
    }

    fn next(&mut self) -> [u8; 16] {
        self.count = self.count.wrapping_add(1);
        let mut id = [0; 16];
        id[..6].copy_from_slice(&self.millis.to_be_bytes()[2..]);
        // Spread, as random bits are.
        id[6..14].copy_from_slice(&self.count.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
        id
    }
}

/// CPU time for one row of transactions of `group` rows, checkpoints included.
fn per_row(
    connection: &Connection,
    group: f64,
    at_least: Duration,
    mut row: impl FnMut() -> Result<()>,
) -> Result<Duration> {
    let group = group.round().max(1.0) as usize;
    let mut begin = connection.prepare("BEGIN IMMEDIATE")?;
    let mut commit = connection.prepare("COMMIT")?;
    let (mut log_pages, mut unmoved) = (0, 0);
    let transaction = || -> Result<()> {
        begin.execute([])?;
        for _ in 0..group {
            row()?;
        }
        commit.execute([])?;
        unmoved += 1;
        // Asking costs something; a transaction writes a few pages for each row.
        if unmoved * group as i64 * 4 >= CHECKPOINT_PAGES {
            unmoved = 0;
            log_pages = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(1))?;
        }
        Ok(())
    };
    let each = per_operation(at_least, transaction)?;
    eprintln!("  (the log had {log_pages} pages at the last checkpoint)");
    Ok(each.div_f64(group as f64))
}

/// One signature, one check, one MAC.
pub struct CryptoFloors {
    /// An Ed25519 signature of an access token's length.
    pub sign: Duration,
    /// Its check.
    pub check: Duration,
    /// HMAC-SHA256 of a refresh token's 42 bytes.
    pub mac: Duration,
    /// An RS256 signature with a key of 2048 bits.
    pub rsa_sign: Duration,
    /// Its check.
    pub rsa_check: Duration,
}

impl CryptoFloors {
    /// What an operation needs of them. A refresh checks the MAC of one token and makes another; a start makes one, an end
    /// checks one. A known access token needs none.
    pub fn of(&self, scenario: Scenario) -> Duration {
        match scenario {
            Scenario::RefreshCommitted | Scenario::RefreshBearer => self.sign + 2 * self.mac,
            Scenario::Start => self.sign + self.mac,
            Scenario::Revoke => self.mac,
            _ => Duration::ZERO,
        }
    }
}

/// Measures aws-lc. What is part of a server's work is measured with all cores at it: so a server under load has them, and cores may share their units with each other.
pub fn crypto(each: Duration) -> Result<CryptoFloors> {
    let pair = Ed25519KeyPair::generate()?;
    let message = [b'm'; 600];
    let signature = pair.sign(&message);
    let public = ParsedPublicKey::new(&ED25519, pair.public_key().as_ref())?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048)?;
    let sha256 = |message: &[u8]| digest::digest(&digest::SHA256, message);
    let rsa_sign = || {
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign_digest(&RSA_PKCS1_SHA256, &sha256(&message), &mut signature)?;
        Ok(signature)
    };
    let rsa_signature = rsa_sign()?;
    let rsa_public = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, rsa.public_key().as_ref())?;
    Ok(CryptoFloors {
        sign: on_all_cores(each, || Ok(pair.sign(&message)))?,
        // On one core, as the verifications are that it is compared with.
        check: per_operation(each, || Ok(public.verify_sig(&message, signature.as_ref())?))?,
        mac: on_all_cores(each, || Ok(hmac::sign(&key, &message[..42])))?,
        rsa_sign: on_all_cores(each, rsa_sign)?,
        rsa_check: on_all_cores(each, || Ok(rsa_public.verify_sig(&message, &rsa_signature)?))?,
    })
}

/// This process's CPU time for one operation, while each core does nothing else for so long.
fn on_all_cores<T>(each: Duration, operation: impl Fn() -> Result<T> + Sync) -> Result<Duration> {
    let (started, is_over) = (cpu_time(process::id())?, AtomicBool::new(false));
    let on_one = || -> Result<u32> {
        let mut done = 0;
        while !is_over.load(Ordering::Relaxed) {
            black_box(operation()?);
            done += 1;
        }
        Ok(done)
    };
    let done = thread::scope(|scope| {
        let cores = thread::available_parallelism()?.get();
        let cores: Vec<_> = (0..cores).map(|_| scope.spawn(on_one)).collect();
        thread::sleep(each);
        is_over.store(true, Ordering::Relaxed);
        cores.into_iter().map(|core| core.join().expect("an operation does not panic")).sum::<Result<u32>>()
    })?;
    Ok((cpu_time(process::id())? - started) / done)
}

/// This process's CPU time for one operation, over at least so much CPU time.
pub fn per_operation<T>(at_least: Duration, mut operation: impl FnMut() -> Result<T>) -> Result<Duration> {
    let pid = process::id();
    let started = cpu_time(pid)?;
    let (mut done, mut batch) = (0u32, 16);
    loop {
        for _ in 0..batch {
            black_box(operation()?);
        }
        done += batch;
        let used = cpu_time(pid)? - started;
        if used >= at_least {
            return Ok(used / done);
        }
        // Looking at the clock must not count.
        if used < at_least / 16 {
            batch *= 2;
        }
    }
}
