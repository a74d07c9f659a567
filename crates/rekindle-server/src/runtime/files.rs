//! Files and directories that nobody else may read.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    path::Path,
};

use super::StartError;

/// Makes a directory (and those above it) for its owner alone, unless it is there.
pub fn private_dir(path: &Path) -> Result<(), StartError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(StartError::file("the data directory", path))
}

/// Refuses to let root write into another user's directory: the files would be root's.
pub fn refuse_root(dir: &Path) -> Result<(), StartError> {
    #[cfg(unix)]
    if let Ok(found) = fs::metadata(dir) {
        let owner = std::os::unix::fs::MetadataExt::uid(&found);
        if takes_over(rustix::process::geteuid().as_raw(), owner) {
            return Err(StartError::Root { path: dir.into(), owner });
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

/// Makes a durable file for its owner alone; `false` if there is one already, which then stays as it is.
pub fn new_private_file(path: &Path, text: &str) -> Result<bool, StartError> {
    match write_new(path, text) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        written => written.map(|()| true).map_err(StartError::file("the file", path)),
    }
}

/// Puts a durable file for its owner alone in the place of what was there.
pub fn replace_private_file(path: &Path, text: &str) -> Result<(), StartError> {
    let aside = path.with_added_extension("new");
    let replace = || {
        match fs::remove_file(&aside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        write_new(&aside, text)?;
        fs::rename(&aside, path)?;
        sync_parent(path)
    };
    replace().map_err(StartError::file("the file", path))
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
        let said = StartError::Root { path: "/data".into(), owner: 7 }.to_string();
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
        assert!(!open_to_others(&data).unwrap() && !open_to_others(&file).unwrap());
    }
}
