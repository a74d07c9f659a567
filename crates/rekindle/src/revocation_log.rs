//! Revocations outside the store, so that a restored backup or a lagging replica brings no ended session back.
//!
//! The store is the truth while it remembers; this log is asked what the store may have forgotten: at start, and before each
//! rotation. An ending is acknowledged only when both have it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
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

    /// Every ending, in the order of the sessions' ids.
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
/// Processes may share a file: each appends, and reads what the others wrote when it opens it; the one that has it for itself
/// leaves out what expired. A torn line is what a crash leaves, and is dropped; other damage is refused.
#[derive(Debug)]
pub struct FileRevocationLog {
    index: Arc<MemoryRevocationLog>,
    queue: Mutex<mpsc::Sender<Append>>,
    /// Held, shared, for as long as this process appends: nobody rewrites the file meanwhile.
    _in_use: File,
}

type Append = (Vec<Record>, oneshot::Sender<io::Result<()>>);

impl FileRevocationLog {
    /// Reads the file and opens it for appending; drops what expired before `now` if no other process uses it. The file, and a
    /// lock file beside it, are created if they are missing.
    pub fn open(path: &Path, now: Timestamp) -> io::Result<Self> {
        let in_use = File::create(beside(path, ".lock"))?;
        let alone = in_use.try_lock().is_ok();
        if !alone {
            in_use.lock_shared()?;
        }
        let records = read(path)?;
        let live: Vec<Record> = records
            .into_iter()
            .filter(|r| match r {
                Record::Ended(ended) => ended.expires_at > now,
                Record::Rollback { .. } => true,
            })
            .collect();
        if alone {
            rewrite(path, &live)?;
            in_use.lock_shared()?;
        }
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        let index = MemoryRevocationLog::default();
        index.0.write().unwrap_or_else(PoisonError::into_inner).extend(&live);
        let index = Arc::new(index);
        let (queue, jobs) = mpsc::channel::<Append>();
        let written = Arc::clone(&index);
        std::thread::Builder::new().name("revocation-log".into()).spawn(move || {
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
        Ok(Self { index, queue: Mutex::new(queue), _in_use: in_use })
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
    endings: BTreeMap<SessionId, EndedSession>,
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

fn append_group(file: &mut File, group: &[Append]) -> io::Result<()> {
    // A line of its own, whatever torn line a crashed process left in front of it.
    let mut lines = vec![b'\n'];
    for record in group.iter().flat_map(|(records, _)| records) {
        serde_json::to_writer(&mut lines, record)?;
        lines.push(b'\n');
    }
    file.write_all(&lines)?;
    file.sync_data()
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
    PathBuf::from(name)
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
        assert!(error.starts_with("line 1 is damaged"), "{error}");
    }
}
