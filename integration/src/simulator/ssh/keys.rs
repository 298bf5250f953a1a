//! Host keys and the keys of those who may log in.

use std::path::{Path, PathBuf};

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKey};

/// Why a key could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that should hold a key does not.
    #[error("cannot read the key {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: russh::keys::ssh_key::Error,
    },
    /// The new key could not be kept.
    #[error("cannot write the key {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: russh::keys::ssh_key::Error,
    },
    /// A line that is no public key in OpenSSH's format.
    #[error("line {line} of the authorized keys is no public key in OpenSSH's format")]
    Authorized {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        #[source]
        source: russh::keys::ssh_key::Error,
    },
}

/// A new Ed25519 key.
pub fn generate() -> PrivateKey {
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519);
    key.expect("an Ed25519 key needs nothing but randomness")
}

/// The key in a file; a new one is put there if there is none.
pub fn load_or_create(path: &Path) -> Result<PrivateKey, Error> {
    if path.exists() {
        let read = PrivateKey::read_openssh_file(path);
        return read.map_err(|source| Error::Read { path: path.to_owned(), source });
    }
    let key = generate();
    let written = key.write_openssh_file(path, LineEnding::LF);
    written.map_err(|source| Error::Write { path: path.to_owned(), source })?;
    Ok(key)
}

/// The public keys in the text of an `authorized_keys` or `.pub` file.
pub fn authorized(text: &str) -> Result<Vec<PublicKey>, Error> {
    let lines = text.lines().enumerate().filter(|(_, line)| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    let parse = |(number, line): (usize, &str)| {
        PublicKey::from_openssh(line.trim()).map_err(|source| Error::Authorized { line: number + 1, source })
    };
    lines.map(parse).collect()
}
