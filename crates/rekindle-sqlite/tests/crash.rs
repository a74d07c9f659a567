//! Whatever was acknowledged survives: a process that is killed, and a machine that loses its power.
//!
//! A child process (this test program again) writes under load and prints each answer once it has it. The parent ends it and
//! compares what is in the file with what was printed.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rekindle::session::{EndReason, Session, SessionId};
use rekindle::store::Store;
use rekindle_sqlite::SqliteStore;
use rekindle_testkit::fixtures::*;

/// What tells a child that it is one: the database's path and a number of its own.
const CHILD_PATH: &str = "REKINDLE_CRASH_PATH";
const CHILD_NUMBER: &str = "REKINDLE_CRASH_NUMBER";

/// Not a test by itself: what the children of the others run, until they are killed.
#[test]
fn child() {
    let Ok(path) = std::env::var(CHILD_PATH) else { return };
    let number: u8 = std::env::var(CHILD_NUMBER).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(SqliteStore::open(path, T0).unwrap());
        let tasks: Vec<_> = (0..24).map(|_| tokio::spawn(write_for_ever(Arc::clone(&store), number))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// Sessions one after the other: some steps, then an end. Each answer is printed in one write.
async fn write_for_ever(store: Arc<SqliteStore>, number: u8) {
    loop {
        let mut bytes = fresh_bytes();
        bytes[15] = number;
        let mut session = start(&*store, Session { id: SessionId::from_bytes(bytes), ..session("ada") }).await;
        acknowledge(&format!("ack {} 0\n", session.id));
        for secs in 1..20 {
            session = applied(store.advance(advance_of(&session, at(secs))).await.unwrap());
            acknowledge(&format!("ack {} {}\n", session.id, session.position.generation));
        }
        applied(store.end(end_of(&session, at(30), EndReason::SignedOut)).await.unwrap());
        acknowledge(&format!("end {} 0\n", session.id));
    }
}

fn acknowledge(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.flush()).expect("the parent reads");
}

/// What was acknowledged: of each session its generation, and whether it was ended.
#[derive(Default)]
struct Acknowledged(HashMap<SessionId, (u32, bool)>);

impl Acknowledged {
    /// Reads a line of the child's; others (the test harness's) are passed over.
    fn read(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        // The harness begins the first line with the test's name.
        let Some([kind, id, generation]) = words.last_chunk::<3>() else { return };
        let (Ok(id), Ok(generation)) = (id.parse(), generation.parse::<u32>()) else { return };
        let entry = self.0.entry(id).or_default();
        match *kind {
            "ack" => entry.0 = entry.0.max(generation),
            "end" => entry.1 = true,
            _ => {}
        }
    }

    async fn is_all_in(&self, path: &Path, when: &str) {
        SqliteStore::verify_file(path).unwrap_or_else(|e| panic!("{when}: {e}"));
        let store = SqliteStore::open(path, T0).unwrap_or_else(|e| panic!("{when}: {e}"));
        for (id, (generation, ended)) in &self.0 {
            let row = store.session(*id).await.unwrap();
            let row = row.unwrap_or_else(|| panic!("{when}: session {id} is lost"));
            assert!(row.position.generation >= *generation, "{when}: {id} lost generation {generation}: {row:?}");
            assert!(row.ended.is_some() || !ended, "{when}: {id} lost its end");
            let events = store.events(events_of(*id)).await.unwrap();
            let written = row.position.generation as usize + 1 + usize::from(row.ended.is_some());
            assert_eq!(events.len(), written, "{when}: the events of {id}");
        }
    }
}

fn spawn_child(path: &Path, number: u8, shim: Option<(&Path, &Path)>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(CHILD_PATH, path).env(CHILD_NUMBER, number.to_string());
    if let Some((library, trace)) = shim {
        command.env("LD_PRELOAD", library).env("POWERCUT_TRACE", trace);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rekindle.db");
    let mut acknowledged = Acknowledged::default();
    for round in 0..20u8 {
        let mut child = spawn_child(&path, round, None);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let reader = thread::spawn(move || {
            let mut text = Vec::new();
            out.read_to_end(&mut text).unwrap();
            text
        });
        // From before the file is made to well into the load.
        thread::sleep(Duration::from_millis(u64::from(round) * 67 % 401));
        child.kill().unwrap();
        child.wait().unwrap();
        let text = reader.join().unwrap();
        let whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
        for line in text[..whole].lines() {
            acknowledged.read(&line.unwrap());
        }
        drop(SqliteStore::open(&path, T0).unwrap());
        acknowledged.is_all_in(&path, &format!("after kill {round}")).await;
    }
    assert!(acknowledged.0.len() > 100, "too little was written to tell: {} sessions", acknowledged.0.len());
}

#[tokio::test]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let library = directory.path().join("powercut.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../rekindle-testkit/powercut/powercut.c");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
    assert!(compiled.expect("a C compiler is there as `cc`").success());

    let (path, trace) = (directory.path().join("rekindle.db"), directory.path().join("trace"));
    drop(SqliteStore::open(&path, T0).unwrap());
    let mut disk = Disk { files: [(b'd', File::of(fs::read(&path).unwrap())), (b'l', File::default())].into() };
    let mut child = spawn_child(&path, 0, Some((&library, &trace)));
    let mut out = child.stdout.take().unwrap();
    let reader = thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    // Long enough for several checkpoints.
    while fs::metadata(&trace).map_or(0, |m| m.len()) < 48 << 20 {
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap().unwrap();

    let trace = fs::read(&trace).unwrap();
    let records = Record::all(&trace);
    let syncs = records.iter().filter(|r| (r.kind, r.file) == (b's', b'd')).count();
    assert!(syncs >= 2, "the log was never moved into the database");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let cuts = 60;
    let mut acknowledged = Acknowledged::default();
    let mut out = Vec::new();
    let crashed = directory.path().join("crashed.db");
    for (i, record) in records.iter().enumerate() {
        if record.file == b'o' {
            out.extend_from_slice(record.bytes);
        } else {
            disk.apply(record);
        }
        // Evenly spread, and everywhere around the moves into the database.
        let near_checkpoint = record.file == b'd' && random.below(400) == 0;
        if near_checkpoint || (i + 1) % (records.len() / cuts) == 0 {
            let whole = out.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
            for line in out.drain(..whole).as_slice().lines() {
                acknowledged.read(&line.unwrap());
            }
            for kept in [0, 1, 2] {
                let _ = fs::remove_file(crashed.with_extension("db-shm"));
                fs::write(&crashed, disk.files[&b'd'].after_a_cut(kept, &mut random)).unwrap();
                fs::write(crashed.with_extension("db-wal"), disk.files[&b'l'].after_a_cut(kept, &mut random)).unwrap();
                acknowledged.is_all_in(&crashed, &format!("cut after record {i}, {kept} of 2 parts kept")).await;
            }
        }
    }
    assert!(acknowledged.0.len() > 100, "too little was written to tell: {} sessions", acknowledged.0.len());
}

/// One entry of the trace; see `powercut.c`.
struct Record<'t> {
    kind: u8,
    file: u8,
    offset: usize,
    bytes: &'t [u8],
}

impl<'t> Record<'t> {
    /// All whole records.
    fn all(mut trace: &'t [u8]) -> Vec<Self> {
        let mut records = Vec::new();
        while let Some((head, rest)) = trace.split_first_chunk::<14>() {
            let offset = u64::from_le_bytes(head[2..10].try_into().unwrap()) as usize;
            let length = u32::from_le_bytes(head[10..].try_into().unwrap()) as usize;
            let Some((bytes, rest)) = rest.split_at_checked(length) else { break };
            records.push(Self { kind: head[0], file: head[1], offset, bytes });
            trace = rest;
        }
        records
    }
}

/// The files as a disk with a volatile cache holds them.
struct Disk {
    files: HashMap<u8, File>,
}

#[derive(Default)]
struct File {
    /// What was synced.
    durable: Vec<u8>,
    /// What was done since.
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    fn apply(&self, contents: &mut Vec<u8>) {
        match self {
            Self::Truncate(length) => contents.resize(*length, 0),
            Self::Write(offset, bytes) => {
                let end = offset + bytes.len();
                if contents.len() < end {
                    contents.resize(end, 0);
                }
                contents[*offset..end].copy_from_slice(bytes);
            }
        }
    }
}

impl Disk {
    fn apply(&mut self, record: &Record<'_>) {
        let file = self.files.get_mut(&record.file).expect("a traced file");
        match record.kind {
            b'w' => file.pending.push(Change::Write(record.offset, record.bytes.to_vec())),
            b't' => file.pending.push(Change::Truncate(record.offset)),
            _ => {
                for change in file.pending.drain(..) {
                    change.apply(&mut file.durable);
                }
            }
        }
    }
}

impl File {
    fn of(durable: Vec<u8>) -> Self {
        Self { durable, pending: Vec::new() }
    }

    /// What is left of it: the synced part, with nothing (0), a random half of the sectors (1) or all (2) of the rest.
    fn after_a_cut(&self, kept: u8, random: &mut Random) -> Vec<u8> {
        const SECTOR: usize = 512;
        let mut contents = self.durable.clone();
        for change in &self.pending {
            match change {
                _ if kept == 0 => {}
                Change::Write(offset, bytes) if kept == 1 => {
                    for (sector, i) in bytes.chunks(SECTOR).zip(0..) {
                        if random.below(2) == 0 {
                            Change::Write(offset + i * SECTOR, sector.to_vec()).apply(&mut contents);
                        }
                    }
                }
                Change::Truncate(_) if kept == 1 && random.below(2) == 0 => {}
                change => change.apply(&mut contents),
            }
        }
        contents
    }
}

/// xorshift64: the same cuts each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}
