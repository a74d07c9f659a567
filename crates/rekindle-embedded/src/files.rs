//! Files and directories that nobody else may read.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    path::Path,
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::OpenError;

/// Makes a directory (and those above it) for its owner alone, unless it is there.
pub fn private_dir(path: &Path) -> Result<(), OpenError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(OpenError::file("the data directory", path))
}

/// Refuses to let root write into another user's directory: the files would be root's.
pub fn refuse_root(dir: &Path) -> Result<(), OpenError> {
    #[cfg(unix)]
    if let Ok(found) = fs::metadata(dir) {
        let owner = std::os::unix::fs::MetadataExt::uid(&found);
        if takes_over(rustix::process::geteuid().as_raw(), owner) {
            return Err(OpenError::Root { path: dir.into(), owner });
        }
    }
    #[cfg(not(unix))]
    let _ = dir;
    Ok(())
}

/// Whether files that `user` makes are of no use to `owner`, although the directory lets the user make them.
#[cfg(unix)]
fn takes_over(user: u32, owner: u32) -> bool {
    user == 0 && owner != 0
}

/// For a file that, if it is made, is for its owner alone.
pub fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes a durable file for its owner alone; `false` if there is one already, which then stays as it is. Of several that make it at once, one
/// does, and nobody ever sees a part of it.
pub fn new_private_file(path: &Path, text: &str) -> Result<bool, OpenError> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    if path.exists() {
        return Ok(false);
    }
    let aside = path.with_added_extension(format!("{}-{}", process::id(), LAST.fetch_add(1, Ordering::Relaxed)));
    let make = || {
        remove_if_there(&aside)?;
        write_new(&aside, text)?;
        // A new name for what is whole, and, unlike a rename, in nobody's place.
        let linked = fs::hard_link(&aside, path);
        fs::remove_file(&aside)?;
        linked?;
        sync_parent(path)
    };
    match make() {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true).map_err(OpenError::file("the file", path)),
    }
}

/// Puts a durable file for its owner alone in the place of what was there.
pub fn replace_private_file(path: &Path, text: &str) -> Result<(), OpenError> {
    let aside = path.with_added_extension("new");
    let replace = || {
        remove_if_there(&aside)?;
        write_new(&aside, text)?;
        fs::rename(&aside, path)?;
        sync_parent(path)
    };
    replace().map_err(OpenError::file("the file", path))
}

/// Makes the names in a file's directory durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent)?.sync_all()
}

/// Whether others than the owner may do anything with it. Without Unix permissions nobody can tell.
pub fn open_to_others(path: &Path) -> io::Result<bool> {
    let permissions = fs::metadata(path)?.permissions();
    #[cfg(unix)]
    let mode = std::os::unix::fs::PermissionsExt::mode(&permissions);
    #[cfg(not(unix))]
    let mode = u32::from(permissions.readonly()) & 0;
    Ok(mode & 0o077 != 0)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = private().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    sync_parent(path)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn root_is_refused_where_the_directory_is_anothers() {
        assert_eq!(
            [(0, 0), (0, 1000), (1000, 1000), (1000, 0)].map(|(u, o)| takes_over(u, o)),
            [false, true, false, false]
        );
        let dir = tempfile::tempdir().unwrap();
        refuse_root(dir.path()).unwrap();
        refuse_root(&dir.path().join("missing")).unwrap();
        let said = OpenError::Root { path: "/data".into(), owner: 7 }.to_string();
        assert!(said.ends_with("like `sudo -u '#7' rekindle …`"), "{said}");
    }

    #[test]
    fn what_is_made_is_for_its_owner_alone_and_never_overwritten_by_accident() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        private_dir(&data).unwrap();
        private_dir(&data).unwrap();
        let file = data.join("secrets");
        assert!(new_private_file(&file, "one").unwrap());
        assert!(!new_private_file(&file, "two").unwrap());
        assert_eq!(fs::read_to_string(&file).unwrap(), "one");
        replace_private_file(&file, "three").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "three");
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1, "nothing is left beside it");
        assert!(!open_to_others(&data).unwrap() && !open_to_others(&file).unwrap());
    }

    #[test]
    fn whoever_comes_at_the_same_time_finds_the_file_whole() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let file = dir.path().join(format!("secrets-{round}"));
            let texts: Vec<String> = (0..8).map(|maker| maker.to_string().repeat(100)).collect();
            let made = std::thread::scope(|scope| {
                let make = |text| {
                    let made = new_private_file(&file, text).unwrap();
                    assert_eq!(fs::read_to_string(&file).unwrap().len(), 100);
                    made
                };
                let makers: Vec<_> = texts.iter().map(|text| scope.spawn(move || make(text))).collect();
                makers.into_iter().map(|maker| maker.join().unwrap()).filter(|made| *made).count()
            });
            assert_eq!(made, 1);
        }
    }
}
