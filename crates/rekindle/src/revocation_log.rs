//! Revocations outside the store, so that a restored backup or a lagging replica brings no ended session back.
//!
//! The store is the truth while it remembers; this log is asked what the store may have forgotten: at start, and before each
//! rotation. An ending is acknowledged only when both have it.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, mpsc};

use async_trait::async_trait;
use futures_channel::oneshot;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
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

/// Where revocations are kept beside the store.
#[async_trait]
pub trait RevocationLog: Send + Sync + 'static {
    /// Appends records; when it returns `Ok`, they are durable.
    async fn append(&self, records: Vec<Record>) -> io::Result<()>;

    /// The first ending recorded for this session.
    fn ended(&self, id: SessionId) -> Option<EndedSession>;

    /// Whether a token issued then was issued between a backup and its restore, and must not be believed over the store.
    fn rolled_back(&self, issued_at: Timestamp) -> bool;

    /// Every ending, in no particular order.
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

#[async_trait]
impl RevocationLog for MemoryRevocationLog {
    async fn append(&self, records: Vec<Record>) -> io::Result<()> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).extend(&records);
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
/// Processes on one machine may share the file: each knows what was in it when it was opened and what it appended itself. A torn
/// last line is what a crash leaves, and is dropped; damage elsewhere is refused.
#[derive(Debug)]
pub struct FileRevocationLog {
    index: Arc<MemoryRevocationLog>,
    queue: Mutex<mpsc::Sender<Append>>,
}

type Append = (Vec<Record>, oneshot::Sender<io::Result<()>>);

impl FileRevocationLog {
    /// Reads the file, drops what expired before `now` unless another process has it open, and opens it for appending. The
    /// file is created if it is missing, with a `.lock` beside it.
    pub fn open(path: &Path, now: Timestamp) -> io::Result<Self> {
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(beside(path, ".lock"))?;
        match lock.try_lock() {
            Ok(()) => {
                rewrite(path, &live(read(path)?, now))?;
                lock.unlock()?;
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(e),
        }
        lock.lock_shared()?;
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let live = live(read(path)?, now);
        let index = MemoryRevocationLog::default();
        index.0.write().unwrap_or_else(PoisonError::into_inner).extend(&live);
        let index = Arc::new(index);
        let (queue, jobs) = mpsc::channel::<Append>();
        let written = Arc::clone(&index);
        std::thread::Builder::new().name("revocation-log".into()).spawn(move || {
            // Held for as long as somebody may append, so that nobody replaces the file meanwhile.
            let _open = lock;
            while let Ok(first) = jobs.recv() {
                let mut group = vec![first];
                group.extend(jobs.try_iter().take(511));
                let result = append_group(&mut file, &group);
                for (records, answer) in group {
                    if result.is_ok() {
                        written.0.write().unwrap_or_else(PoisonError::into_inner).extend(&records);
                    }
                    // A caller that went away does not need the answer; the record is written all the same.
                    let _ = answer.send(result.as_ref().copied().map_err(|e| io::Error::new(e.kind(), e.to_string())));
                }
            }
        })?;
        Ok(Self { index, queue: Mutex::new(queue) })
    }
}

#[async_trait]
impl RevocationLog for FileRevocationLog {
    async fn append(&self, records: Vec<Record>) -> io::Result<()> {
        let (answer, written) = oneshot::channel();
        let gone = || io::Error::other("the revocation log's writer has stopped");
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).send((records, answer)).map_err(|_| gone())?;
        written.await.map_err(|_| gone())?
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
    endings: HashMap<SessionId, EndedSession>,
    rollbacks: Vec<(Timestamp, Timestamp)>,
}

impl Index {
    fn extend(&mut self, records: &[Record]) {
        for record in records {
            match *record {
                Record::Ended(ended) => drop(self.endings.entry(ended.id).or_insert(ended)),
                Record::Rollback { from, to } => self.rollbacks.push((from, to)),
            }
        }
    }

    fn rolled_back(&self, issued_at: Timestamp) -> bool {
        // Tokens carry whole seconds: one of the backup's own second that is newer than its row was issued after it.
        self.rollbacks.iter().any(|(from, to)| from.secs() <= issued_at.secs() && issued_at <= *to)
    }
}

/// Drops the endings that nothing could bring back any more.
fn live(records: Vec<Record>, now: Timestamp) -> Vec<Record> {
    let counts = |record: &Record| match record {
        Record::Ended(ended) => ended.expires_at > now,
        Record::Rollback { .. } => true,
    };
    records.into_iter().filter(counts).collect()
}

fn append_group(file: &mut File, group: &[Append]) -> io::Result<()> {
    let mut lines = Vec::new();
    for record in group.iter().flat_map(|(records, _)| records) {
        serde_json::to_writer(&mut lines, record)?;
        lines.push(b'\n');
    }
    file.lock()?;
    let result = append(file, &lines);
    file.unlock()?;
    result
}

/// Appends whole lines and syncs them. The file is locked: other processes append to it, too.
fn append(file: &mut File, lines: &[u8]) -> io::Result<()> {
    let end = whole_lines(file)?;
    // Half a line must not stay in front of later ones, be it of a process that crashed or of this one.
    if file.metadata()?.len() > end {
        file.set_len(end)?;
    }
    let result = file.write_all(lines).and_then(|()| file.sync_data());
    if result.is_err() {
        let _ = file.set_len(end);
    }
    result
}

/// Where the last whole line ends.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    const STEP: u64 = 4096;
    let mut end = file.metadata()?.len();
    let mut last = [0];
    if end == 0 || (file.seek(SeekFrom::Start(end - 1)).is_ok() && file.read(&mut last)? == 1 && last[0] == b'\n') {
        return Ok(end);
    }
    while end > 0 {
        let start = end.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        let mut step = Vec::new();
        Read::by_ref(file).take(end - start).read_to_end(&mut step)?;
        if let Some(newline) = step.iter().rposition(|b| *b == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn read(path: &Path) -> io::Result<Vec<Record>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    bytes[..whole]
        .split(|b| *b == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(at, line)| {
            serde_json::from_slice(line).map_err(|e| {
                let what =
                    format!("{}: line {} is damaged ({e}); restore the file from a copy", path.display(), at + 1);
                io::Error::new(io::ErrorKind::InvalidData, what)
            })
        })
        .collect()
}

/// Writes aside, syncs, renames over the old file, syncs the directory: a crash leaves the old or the new file.
fn rewrite(path: &Path, records: &[Record]) -> io::Result<()> {
    let aside = beside(path, ".new");
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, record)?;
        lines.push(b'\n');
    }
    let mut file = File::create(&aside)?;
    file.write_all(&lines)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Seconds;
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
        let log = FileRevocationLog::open(&path, NOW + Seconds(50)).unwrap();
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

    #[test]
    fn a_torn_tail_is_dropped_and_damage_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations.jsonl");
        rewrite(&path, &[Record::Ended(ended(1, 10)), Record::Ended(ended(2, 10))]).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        assert_eq!(FileRevocationLog::open(&path, NOW).unwrap().endings(), [ended(1, 10)]);
        let mut damaged = whole.clone();
        damaged[5] = b'#';
        fs::write(&path, damaged).unwrap();
        let error = FileRevocationLog::open(&path, NOW).unwrap_err().to_string();
        assert!(error.contains("line 1 is damaged"), "{error}");
    }

    #[tokio::test]
    async fn processes_that_share_a_file_lose_nothing_and_mend_each_others_torn_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revocations.jsonl");
        let one = FileRevocationLog::open(&path, NOW).unwrap();
        one.append(vec![Record::Ended(ended(1, 10))]).await.unwrap();
        let two = FileRevocationLog::open(&path, NOW + Seconds(50)).unwrap();
        assert_eq!(two.endings(), [], "expired for it, but another process has the file open: it must stay");
        one.append(vec![Record::Ended(ended(2, 100))]).await.unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"ended\":{\"id").unwrap();
        two.append(vec![Record::Ended(ended(3, 100))]).await.unwrap();
        let mut endings = FileRevocationLog::open(&path, NOW).unwrap().endings();
        endings.sort_by_key(|e| e.id);
        assert_eq!(endings, [ended(1, 10), ended(2, 100), ended(3, 100)]);
    }
}
