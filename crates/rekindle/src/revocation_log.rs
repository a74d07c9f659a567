//! Revocations outside the store, so that a restored backup or a lagging replica brings no ended session back.
//!
//! The store is the truth while it remembers; this log is asked what the store may have forgotten: at start, and before each
//! rotation. An ending is acknowledged only when both have it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use futures_channel::oneshot;
use serde::{Deserialize, Serialize};

use crate::clock::{Seconds, Timestamp};
use crate::session::SessionId;
use crate::store::EndedSession;

/// One line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A session was ended.
    Ended(EndedSession),
    /// A backup was restored, and the operator chose to end the sessions that were refreshed after it: tokens issued in this
    /// span are not believed over the store.
    Rollback {
        /// When the backup was made.
        from: Timestamp,
        /// When it was restored.
        to: Timestamp,
    },
}

/// For how long after its session's expiry an ending is kept: others that read it may have a clock that is behind.
pub const KEEPS_EXPIRED: Seconds = Seconds(3600);

/// Where revocations are kept beside the store.
#[async_trait]
pub trait RevocationLog: Send + Sync + 'static {
    /// Appends records; when it returns `Ok`, they are durable.
    async fn append(&self, records: Vec<Record>) -> io::Result<()>;

    /// Forgets the endings of sessions that expired longer than [`KEEPS_EXPIRED`] before `now`, and frees what they take.
    async fn compact(&self, now: Timestamp) -> io::Result<()>;

    /// The first ending recorded for this session.
    fn ended(&self, id: SessionId) -> Option<EndedSession>;

    /// Whether a token issued then was issued between a backup and its restore, and must not be believed over the store.
    fn rolled_back(&self, issued_at: Timestamp) -> bool;

    /// Every ending that is not forgotten, in the order of the sessions' ids.
    fn endings(&self) -> Vec<EndedSession>;
}

/// No log: for stores that lose nothing, and for tests. A restored backup brings revoked sessions back.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRevocationLog;

#[async_trait]
impl RevocationLog for NoRevocationLog {
    async fn append(&self, _: Vec<Record>) -> io::Result<()> {
        Ok(())
    }

    async fn compact(&self, _: Timestamp) -> io::Result<()> {
        Ok(())
    }

    fn ended(&self, _: SessionId) -> Option<EndedSession> {
        None
    }

    fn rolled_back(&self, _: Timestamp) -> bool {
        false
    }

    fn endings(&self) -> Vec<EndedSession> {
        Vec::new()
    }
}

/// The log in memory: survives a simulated crash, not a real one.
#[derive(Debug, Default)]
pub struct MemoryRevocationLog(RwLock<Index>);

impl MemoryRevocationLog {
    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what expired; how many endings are left.
    fn forget(&self, now: Timestamp) -> u64 {
        let mut index = self.write();
        index.endings.retain(|_, ended| is_live(ended, now));
        index.endings.len() as u64
    }
}

#[async_trait]
impl RevocationLog for MemoryRevocationLog {
    async fn append(&self, records: Vec<Record>) -> io::Result<()> {
        self.write().extend(&records);
        Ok(())
    }

    async fn compact(&self, now: Timestamp) -> io::Result<()> {
        self.forget(now);
        Ok(())
    }

    fn ended(&self, id: SessionId) -> Option<EndedSession> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).endings.get(&id).copied()
    }

    fn rolled_back(&self, issued_at: Timestamp) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).rolled_back(issued_at)
    }

    fn endings(&self) -> Vec<EndedSession> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).endings.values().copied().collect()
    }
}

/// The log in a file of JSON lines, synced before anything is acknowledged; writers that wait together share one sync.
///
/// Processes may share a file: each appends, reads what the others wrote when it opens it, and leaves out what expired when it
/// writes it anew. A torn line is what a crash leaves, and is dropped; other damage is refused.
#[derive(Debug)]
pub struct FileRevocationLog {
    index: Arc<MemoryRevocationLog>,
    queue: Mutex<mpsc::Sender<Job>>,
}

impl FileRevocationLog {
    /// Reads the file and drops what expired, in the file, too, if no other process is just writing it. The file,
    /// and a lock file beside it, are created if they are missing, for their owner alone.
    pub fn open(path: &Path, now: Timestamp) -> io::Result<Self> {
        let lock_path = beside(path, ".lock");
        let lock = private().create(true).truncate(false).write(true).open(&lock_path)?;
        let index = Arc::new(MemoryRevocationLog::default());
        let writer = Writer { path: path.to_owned(), lock, lock_path, index: Arc::clone(&index) };
        match writer.lock.try_lock() {
            Ok(()) => {
                let rewritten = writer.rewrite(now);
                writer.lock.unlock()?;
                rewritten?;
            }
            Err(TryLockError::WouldBlock) => {
                private().create(true).append(true).open(path)?;
                index.write().extend(&live(path, now)?);
            }
            Err(TryLockError::Error(e)) => return Err(e),
        }
        let (queue, jobs) = mpsc::channel();
        std::thread::Builder::new().name("revocation-log".into()).spawn(move || writer.run(&jobs))?;
        Ok(Self { index, queue: Mutex::new(queue) })
    }

    async fn done(&self, job: impl FnOnce(Answer) -> Job) -> io::Result<()> {
        let (answer, done) = oneshot::channel();
        let gone = || io::Error::other("the revocation log's writer has stopped");
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).send(job(answer)).map_err(|_| gone())?;
        done.await.map_err(|_| gone())?
    }
}

/// What the writer is asked for, and where it answers.
enum Job {
    Append(Vec<Record>, Answer),
    Compact(Timestamp, Answer),
}

type Answer = oneshot::Sender<io::Result<()>>;

/// Writes the file, on a thread of its own. Who appends holds the lock shared, who puts a new file in its place has it alone; both for
/// moments only.
#[derive(Debug)]
struct Writer {
    path: PathBuf,
    lock: File,
    lock_path: PathBuf,
    index: Arc<MemoryRevocationLog>,
}

/// How often, and how long each time, a lock is waited for: five seconds.
const WAITS: u32 = 100;
const WAIT: Duration = Duration::from_millis(50);

/// No line of the file has more bytes.
const LINE: u64 = 256;
/// A file of so many bytes is not worth writing anew.
const SMALL: u64 = 64 << 10;

impl Writer {
    fn run(&self, jobs: &mpsc::Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let (mut group, mut compactions) = (Vec::new(), Vec::new());
            for job in iter::once(first).chain(jobs.try_iter().take(511)) {
                match job {
                    Job::Append(records, answer) => group.push((records, answer)),
                    Job::Compact(now, answer) => compactions.push((now, answer)),
                }
            }
            let result = if group.is_empty() { Ok(()) } else { self.append(&group) };
            for (records, answer) in group {
                if result.is_ok() {
                    self.index.write().extend(&records);
                }
                // A caller that went away does not need the answer; the record is written all the same.
                let _ = answer.send(result.as_ref().copied().map_err(|e| io::Error::new(e.kind(), e.to_string())));
            }
            for (now, answer) in compactions {
                let _ = answer.send(self.compact(now));
            }
        }
    }

    fn append(&self, group: &[(Vec<Record>, Answer)]) -> io::Result<()> {
        // A line of its own, whatever torn line a crashed process left in front of it.
        let mut lines = vec![b'\n'];
        for record in group.iter().flat_map(|(records, _)| records) {
            write_line(&mut lines, record)?;
        }
        self.locked(File::try_lock_shared, || {
            // By its path each time: another process may have put a new file there.
            let mut file = OpenOptions::new().append(true).open(&self.path)?;
            file.write_all(&lines)?;
            file.sync_data()
        })
    }

    /// Forgets what expired. Writes the file anew when most of it is of no use any more.
    fn compact(&self, now: Timestamp) -> io::Result<()> {
        let live = self.index.forget(now);
        if fs::metadata(&self.path)?.len() <= SMALL + 2 * LINE * live {
            return Ok(());
        }
        self.locked(File::try_lock, || self.rewrite(now))
    }

    /// Puts a file in the place of the present one that has all of it but what expired or stands there twice, and learns what others
    /// wrote.
    fn rewrite(&self, now: Timestamp) -> io::Result<()> {
        let mut file = Index::default();
        file.extend(&live(&self.path, now)?);
        let records: Vec<Record> = file.records().collect();
        replace(&self.path, &records)?;
        self.index.write().extend(&records);
        Ok(())
    }

    fn locked(
        &self,
        take: fn(&File) -> Result<(), TryLockError>,
        work: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        for _ in 0..WAITS {
            match take(&self.lock) {
                Ok(()) => return work().and(self.lock.unlock()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(WAIT),
                Err(TryLockError::Error(e)) => return Err(e),
            }
        }
        let path = self.lock_path.display();
        let held = format!("another process has held {path} for five seconds; `fuser {path}` tells which one");
        Err(io::Error::new(io::ErrorKind::TimedOut, held))
    }
}

#[async_trait]
impl RevocationLog for FileRevocationLog {
    async fn append(&self, records: Vec<Record>) -> io::Result<()> {
        self.done(|answer| Job::Append(records, answer)).await
    }

    async fn compact(&self, now: Timestamp) -> io::Result<()> {
        self.done(|answer| Job::Compact(now, answer)).await
    }

    fn ended(&self, id: SessionId) -> Option<EndedSession> {
        self.index.ended(id)
    }

    fn rolled_back(&self, issued_at: Timestamp) -> bool {
        self.index.rolled_back(issued_at)
    }

    fn endings(&self) -> Vec<EndedSession> {
        self.index.endings()
    }
}

#[derive(Debug, Default)]
struct Index {
    endings: BTreeMap<SessionId, EndedSession>,
    rollbacks: BTreeSet<(Timestamp, Timestamp)>,
}

impl Index {
    fn extend(&mut self, records: &[Record]) {
        for record in records {
            match *record {
                Record::Ended(ended) => drop(self.endings.entry(ended.id).or_insert(ended)),
                Record::Rollback { from, to } => drop(self.rollbacks.insert((from, to))),
            }
        }
    }

    fn records(&self) -> impl Iterator<Item = Record> {
        let ended = self.endings.values().copied().map(Record::Ended);
        ended.chain(self.rollbacks.iter().map(|&(from, to)| Record::Rollback { from, to }))
    }

    fn rolled_back(&self, issued_at: Timestamp) -> bool {
        // Tokens carry whole seconds: one of the backup's own second that is newer than its row was issued after it.
        self.rollbacks.iter().any(|(from, to)| from.secs() <= issued_at.secs() && issued_at <= *to)
    }
}

fn write_line(lines: &mut Vec<u8>, record: &Record) -> io::Result<()> {
    serde_json::to_writer(&mut *lines, record)?;
    lines.push(b'\n');
    Ok(())
}

/// What is in the file and may still be asked for.
fn live(path: &Path, now: Timestamp) -> io::Result<Vec<Record>> {
    let mut records = read(path)?;
    records.retain(|record| match record {
        Record::Ended(ended) => is_live(ended, now),
        Record::Rollback { .. } => true,
    });
    Ok(records)
}

fn is_live(ended: &EndedSession, now: Timestamp) -> bool {
    ended.expires_at + KEEPS_EXPIRED > now
}

fn read(path: &Path) -> io::Result<Vec<Record>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut records = Vec::new();
    for (at, line) in bytes.split(|b| *b == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(record) => records.push(record),
            // Nobody was told that a torn line is durable.
            Err(e) if e.is_eof() => {}
            Err(e) => {
                let what = format!("line {} is damaged ({e}); restore the file from a copy", at + 1);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
    }
    Ok(records)
}

/// Writes aside, syncs, renames over the old file, syncs the directory: a crash leaves the old or the new file.
fn replace(path: &Path, records: &[Record]) -> io::Result<()> {
    let aside = beside(path, ".new");
    let mut lines = Vec::new();
    for record in records {
        write_line(&mut lines, record)?;
    }
    // One that a crash left may be anybody's to read.
    match fs::remove_file(&aside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = private().create_new(true).write(true).open(&aside)?;
    file.write_all(&lines)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// For files that nobody else may read, or lock.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::EndReason;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn ended(id: u8, expires_in: u64) -> EndedSession {
        EndedSession {
            id: SessionId::from_bytes([id; 16]),
            at: NOW,
            reason: EndReason::Revoked,
            expires_at: NOW + Seconds(expires_in),
        }
    }

    #[tokio::test]
    async fn what_was_appended_is_there_after_reopening_until_it_expires() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations.jsonl");
        let log = FileRevocationLog::open(&path, NOW).unwrap();
        log.append(vec![Record::Ended(ended(1, 10)), Record::Ended(ended(2, 100))]).await.unwrap();
        log.append(vec![Record::Rollback { from: NOW, to: NOW + Seconds(5) }]).await.unwrap();
        assert_eq!(log.ended(ended(1, 0).id), Some(ended(1, 10)));
        drop(log);
        let log = FileRevocationLog::open(&path, NOW + KEEPS_EXPIRED + Seconds(50)).unwrap();
        assert_eq!(log.endings(), [ended(2, 100)]);
        assert!(log.rolled_back(NOW + Seconds(5)) && !log.rolled_back(NOW + Seconds(6)));
    }

    #[tokio::test]
    async fn the_first_ending_stays() {
        let log = MemoryRevocationLog::default();
        let later = EndedSession { reason: EndReason::Theft, ..ended(1, 10) };
        log.append(vec![Record::Ended(ended(1, 10)), Record::Ended(later)]).await.unwrap();
        assert_eq!(log.ended(later.id), Some(ended(1, 10)));
    }

    #[tokio::test]
    async fn processes_that_share_a_file_lose_nothing_of_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations.jsonl");
        let first = FileRevocationLog::open(&path, NOW).unwrap();
        first.append(vec![Record::Ended(ended(1, 10))]).await.unwrap();
        let second = FileRevocationLog::open(&path, NOW + Seconds(20)).unwrap();
        // A third one died in the middle of a line.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"ended\":{\"id").unwrap();
        first.append(vec![Record::Ended(ended(2, 100))]).await.unwrap();
        second.append(vec![Record::Ended(ended(3, 100))]).await.unwrap();
        drop((first, second));
        let all = FileRevocationLog::open(&path, NOW).unwrap().endings();
        assert_eq!(all, [ended(1, 10), ended(2, 100), ended(3, 100)]);
    }

    /// As many sessions that ended, each with an id of its own.
    fn many(first: u32, count: u32, expires_in: u64) -> Vec<Record> {
        let id = |n: u32| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            SessionId::from_bytes(bytes)
        };
        (first..first + count).map(|n| Record::Ended(EndedSession { id: id(n), ..ended(0, expires_in) })).collect()
    }

    #[tokio::test]
    async fn what_expired_is_forgotten_and_leaves_the_file_while_others_append() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations.jsonl");
        let log = FileRevocationLog::open(&path, NOW).unwrap();
        let other = FileRevocationLog::open(&path, NOW).unwrap();
        let size = || fs::metadata(&path).unwrap().len();
        log.append(many(0, 2000, 10)).await.unwrap();
        log.append(many(2000, 100, 1000)).await.unwrap();
        other.append(many(3000, 100, 1000)).await.unwrap();
        log.append(vec![Record::Rollback { from: NOW, to: NOW + Seconds(5) }]).await.unwrap();
        let full = size();
        assert!(full <= 2201 * LINE);

        log.compact(NOW + KEEPS_EXPIRED + Seconds(9)).await.unwrap();
        assert_eq!((log.endings().len(), size()), (2100, full));
        log.compact(NOW + KEEPS_EXPIRED + Seconds(10)).await.unwrap();
        assert!(size() < full / 5, "{}", size());
        assert_eq!(log.endings().len(), 200, "what the other one appended is known now");
        // The other one appends to the new file.
        other.append(many(4000, 1, 1000)).await.unwrap();
        other.compact(NOW + KEEPS_EXPIRED + Seconds(10)).await.unwrap();
        assert_eq!(other.endings().len(), 101);
        let all = FileRevocationLog::open(&path, NOW).unwrap();
        assert_eq!(all.endings().len(), 201);
        assert!(all.rolled_back(NOW + Seconds(5)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nothing_that_is_appended_while_another_process_writes_the_file_anew_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations.jsonl");
        let logs: Vec<_> = (0..3).map(|_| FileRevocationLog::open(&path, NOW).unwrap()).collect();
        let work = logs.into_iter().zip([0, 100_000, 200_000]).map(|(log, first)| {
            tokio::spawn(async move {
                for n in 0..20 {
                    log.append(many(first + n, 1, 1000)).await.unwrap();
                    log.append(many(first + 1000 * (n + 1), 600, 10)).await.unwrap();
                    log.compact(NOW + KEEPS_EXPIRED + Seconds(10)).await.unwrap();
                }
            })
        });
        for done in work.collect::<Vec<_>>() {
            done.await.unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() < 3 * SMALL);
        assert_eq!(FileRevocationLog::open(&path, NOW + KEEPS_EXPIRED + Seconds(10)).unwrap().endings().len(), 60);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_files_are_their_owners_and_a_lock_that_stays_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations.jsonl");
        let log = FileRevocationLog::open(&path, NOW).unwrap();
        let lock = beside(&path, ".lock");
        for file in [&path, &lock] {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        }
        let held = File::open(&lock).unwrap();
        held.lock().unwrap();
        let error = log.append(vec![Record::Ended(ended(1, 10))]).await.unwrap_err();
        assert!(error.to_string().contains(&format!("`fuser {}`", lock.display())), "{error}");
        assert_eq!(log.endings(), []);
        // It is read all the same.
        FileRevocationLog::open(&path, NOW).unwrap();
        held.unlock().unwrap();
        log.append(vec![Record::Ended(ended(1, 10))]).await.unwrap();
    }

    #[test]
    fn a_torn_tail_is_dropped_and_damage_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations.jsonl");
        replace(&path, &[Record::Ended(ended(1, 10)), Record::Ended(ended(2, 10))]).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        assert_eq!(FileRevocationLog::open(&path, NOW).unwrap().endings(), [ended(1, 10)]);
        let mut damaged = whole.clone();
        damaged[5] = b'#';
        fs::write(&path, damaged).unwrap();
        let error = FileRevocationLog::open(&path, NOW).unwrap_err().to_string();
        assert!(error.starts_with("line 1 is damaged"), "{error}");
    }
}
