//! A real array: subvolumes and image files on a mounted btrfs, exported by the kernel's NVMe/TCP target.
//! Needs root. It touches only what lies on its pool, and exports whose file lies there.

mod btrfs;
mod connections;
mod nvmet;
mod run;

#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{
    Access, Activity, Backend, Capacity, Connection, Entry, EntryKind, Error, Export, Hosts, Origin,
    PoolPath, Subvolume,
};
use nvmet::Target;

/// Where the kernel's target is set up; configfs has to be mounted and the module `nvmet-tcp` loaded.
const TARGET: &str = "/sys/kernel/config/nvmet";
/// What a restart needs to know lies in the pool, and is no file of it.
const SETTINGS: &str = ".rds-csi-simulator.json";
/// The magic number of btrfs, from the kernel's `magic.h`.
const BTRFS: u64 = 0x9123_683e;

/// An array of the machine it runs on.
#[derive(Debug)]
pub struct Linux {
    pool: PathBuf,
    target: Target,
}

impl Linux {
    /// Uses the btrfs mounted at `pool` and lets the target listen on `address`. Exports that an earlier
    /// run left behind are taken away.
    pub fn open(pool: &Path, address: IpAddr) -> Result<Self, Error> {
        Self::with_target(pool, Target::new(PathBuf::from(TARGET), address))
    }

    fn with_target(pool: &Path, target: Target) -> Result<Self, Error> {
        let statistics = rustix::fs::statfs(pool)
            .map_err(|errno| system(format!("use {} as a pool", pool.display()), errno.into()))?;
        if u64::try_from(statistics.f_type) != Ok(BTRFS) {
            let wrong = io::Error::other("no btrfs is mounted there");
            return Err(system(format!("use {} as a pool", pool.display()), wrong));
        }
        target.check()?;
        // Exports are told from foreign ones by their files' paths, as the kernel was given them.
        let pool = fs::canonicalize(pool).map_err(|error| system("find the pool", error))?;
        let linux = Self { pool, target };
        for export in linux.exports()? {
            linux.target.unexport(&export.nqn)?;
        }
        Ok(linux)
    }

    fn absolute(&self, path: &PoolPath) -> PathBuf {
        self.pool.join(path.as_str())
    }

    /// A restart finds what a command answered for: btrfs keeps new subvolumes in memory for a while.
    fn settle(&self) -> Result<(), Error> {
        let pool = File::open(&self.pool).and_then(|pool| Ok(rustix::fs::syncfs(&pool)?));
        pool.map_err(|error| system("commit the pool", error))
    }

    fn walk(&self, directory: &Path, found: &mut Vec<Entry>) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let relative = entry.path();
            let relative = relative.strip_prefix(&self.pool).ok().and_then(Path::to_str);
            let Some(path) = relative.filter(|path| *path != SETTINGS).and_then(PoolPath::new) else {
                continue;
            };
            let Some(known) = told(path, &metadata)? else { continue };
            let kind = known.kind;
            found.push(known);
            if kind == EntryKind::Directory {
                self.walk(&entry.path(), found)?;
            }
        }
        Ok(())
    }
}

impl Backend for Linux {
    fn capacity(&self) -> Result<Capacity, Error> {
        let told = rustix::fs::statvfs(&self.pool)
            .map_err(|errno| system("ask for the size of the pool", errno.into()))?;
        Ok(Capacity { size: told.f_blocks * told.f_frsize, free: told.f_bavail * told.f_frsize })
    }

    fn subvolumes(&self) -> Result<Vec<Subvolume>, Error> {
        btrfs::list(&self.pool)
    }

    fn create_subvolume(&mut self, name: &str, origin: Origin<'_>, access: Access) -> Result<(), Error> {
        let path = self.pool.join(name);
        // The tool would make the subvolume *inside* a directory of that name.
        if path.exists() {
            return Err(Error::Exists(name.to_owned()));
        }
        match origin {
            Origin::Empty => btrfs::create(&path, access)?,
            Origin::SnapshotOf(source) => btrfs::snapshot(&self.pool.join(source), &path, access)?,
        }
        self.settle()
    }

    fn set_access(&mut self, name: &str, access: Access) -> Result<(), Error> {
        btrfs::set_access(&self.pool.join(name), access)?;
        self.settle()
    }

    fn remove_subvolume(&mut self, name: &str) -> Result<(), Error> {
        btrfs::delete(&self.pool.join(name))
    }

    fn entries(&self) -> Result<Vec<Entry>, Error> {
        let mut found = Vec::new();
        self.walk(&self.pool, &mut found).map_err(|error| system("list the pool's files", error))?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    fn entry(&self, path: &PoolPath) -> Result<Option<Entry>, Error> {
        let metadata = match fs::symlink_metadata(self.absolute(path)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            metadata => metadata,
        };
        let entry = metadata.and_then(|metadata| told(path.clone(), &metadata));
        entry.map_err(|error| file_error(path, "look at", error))
    }

    fn create_directory(&mut self, path: &PoolPath) -> Result<(), Error> {
        fs::create_dir(self.absolute(path)).map_err(|error| file_error(path, "make the directory", error))?;
        self.settle()
    }

    fn create_file(&mut self, path: &PoolPath, size: u64) -> Result<(), Error> {
        let absolute = self.absolute(path);
        let file = OpenOptions::new().write(true).create_new(true).open(&absolute);
        let file = file.map_err(|error| file_error(path, "make the file", error))?;
        if let Err(error) = reserve(&file, size) {
            // The file is this call's own: nobody can have written to it.
            fs::remove_file(&absolute).map_err(|error| file_error(path, "take back the file", error))?;
            return Err(file_error(path, "make the file", error));
        }
        self.settle()
    }

    fn grow_file(&mut self, path: &PoolPath, size: u64) -> Result<(), Error> {
        let file = OpenOptions::new().write(true).open(self.absolute(path));
        file.and_then(|file| reserve(&file, size))
            .map_err(|error| file_error(path, "grow the file", error))?;
        for export in self.exports()?.iter().filter(|export| export.file == *path) {
            self.target.revalidate(&export.nqn)?;
        }
        self.settle()
    }

    fn remove_file(&mut self, path: &PoolPath) -> Result<(), Error> {
        let absolute = self.absolute(path);
        let metadata = fs::symlink_metadata(&absolute);
        let remove = metadata.and_then(|metadata| {
            if metadata.is_dir() { fs::remove_dir(&absolute) } else { fs::remove_file(&absolute) }
        });
        remove.map_err(|error| file_error(path, "remove the file", error))?;
        self.settle()
    }

    fn write(&mut self, path: &PoolPath, content: u64) -> Result<(), Error> {
        let file = OpenOptions::new().write(true).open(self.absolute(path));
        let written = file.and_then(|file| {
            file.write_all_at(&content.to_le_bytes(), 0)?;
            file.sync_all()
        });
        written.map_err(|error| file_error(path, "write to the file", error))
    }

    /// The target writes to files past every counter of the kernel: nothing is told rather than a zero.
    fn activity(&self, _path: &PoolPath) -> Option<Activity> {
        None
    }

    fn connections(&self) -> Result<Vec<Connection>, Error> {
        let ports: Vec<u16> = self.exports()?.iter().map(|export| export.port).collect();
        connections::established(&ports).map_err(|error| system("list the connections", error))
    }

    fn exports(&self) -> Result<Vec<Export>, Error> {
        self.target.exports(&self.pool)
    }

    fn export(&mut self, export: &Export) -> Result<(), Error> {
        self.target.export(export, &self.absolute(&export.file))
    }

    fn unexport(&mut self, nqn: &str) -> Result<(), Error> {
        self.target.unexport(nqn)
    }

    fn set_hosts(&mut self, nqn: &str, hosts: &Hosts) -> Result<(), Error> {
        self.target.set_hosts(nqn, hosts)
    }

    fn saved_settings(&self) -> Result<Option<String>, Error> {
        match fs::read_to_string(self.pool.join(SETTINGS)) {
            Ok(settings) => Ok(Some(settings)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(system("read the settings", error)),
        }
    }

    fn save_settings(&mut self, settings: &dyn Fn() -> String) -> Result<(), Error> {
        let (path, new) = (self.pool.join(SETTINGS), self.pool.join(format!("{SETTINGS}.new")));
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(settings().as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        });
        written.map_err(|error| system("save the settings", error))?;
        self.settle()
    }
}

/// A file or directory; nothing else is told of.
fn told(path: PoolPath, metadata: &fs::Metadata) -> io::Result<Option<Entry>> {
    let kind = if metadata.is_dir() {
        EntryKind::Directory
    } else if metadata.is_file() {
        EntryKind::File { size: metadata.len(), content: None }
    } else {
        return Ok(None);
    };
    Ok(Some(Entry { path, kind, modified: metadata.modified()? }))
}

/// Makes a file so long, with room for all of it: a full pool is noticed here and not under a database.
fn reserve(file: &File, size: u64) -> io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size)?)
}

fn system(doing: impl Into<String>, source: io::Error) -> Error {
    Error::System { doing: doing.into(), source }
}

fn file_error(path: &PoolPath, doing: &str, error: io::Error) -> Error {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Error::Full,
        Some(Errno::NOENT | Errno::NOTDIR) => Error::Missing(path.to_string()),
        Some(Errno::EXIST) => Error::Exists(path.to_string()),
        Some(Errno::BUSY | Errno::NOTEMPTY | Errno::TXTBSY) => Error::Busy(path.to_string()),
        Some(Errno::ROFS) => Error::ReadOnly(path.to_string()),
        _ => system(format!("{doing} {path}"), error),
    }
}
