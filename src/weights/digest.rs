//! Sums by which a file is known, and the record of one beside it.

use super::save::replace_file;
use crate::error::{Error, Result};
use sha2::digest::Digest;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The MD5 of a file in hexadecimal: what Keras states. It finds accidents; it does not keep out forgers.
///
/// # Errors
/// A file that cannot be read.
pub fn md5(path: &Path) -> Result<String> {
    sum::<md5::Md5>(path)
}

/// The SHA-256 of a file in hexadecimal.
///
/// # Errors
/// A file that cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    sum::<sha2::Sha256>(path)
}

fn sum<D: Digest>(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|e| Error::io(path, &e))?;
    let (mut digest, mut buffer) = (D::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            Ok(n) => digest.update(&buffer[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::io(path, &e)),
        }
    }
}

/// `vgg16.safetensors.sha256`, a line that `sha256sum --check` reads.
fn record_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".sha256");
    path.with_file_name(name)
}

/// Writes a file's sum beside it.
///
/// # Errors
/// What the disk says.
pub fn record(path: &Path) -> Result<()> {
    let line = format!("{}  {}\n", sha256(path)?, path.file_name().unwrap_or_default().to_string_lossy());
    replace_file(&record_path(path), |file| file.write_all(line.as_bytes()))
}

/// The sum that was recorded; `None` if there is no record.
///
/// # Errors
/// A record that cannot be read or is none.
pub fn recorded(path: &Path) -> Result<Option<String>> {
    let record = record_path(path);
    let text = match fs::read_to_string(&record) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|e| Error::io(&record, &e))?,
    };
    let sum = text.split_whitespace().next().unwrap_or_default();
    match sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => Ok(Some(sum.to_lowercase())),
        false => Err(Error::input("is not a record of a SHA-256").at(record.display())),
    }
}

/// Removes a file's record: the file is going to be replaced.
pub fn forget(path: &Path) {
    // One that stays is found wrong by the next check.
    let _ = fs::remove_file(record_path(path));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_known_texts_and_their_record() {
        let path = std::env::temp_dir().join(format!("defrost-digest-{}", std::process::id()));
        fs::write(&path, "abc").unwrap();
        // RFC 1321, appendix A.5; FIPS 180-2, appendix B.1.
        assert_eq!(md5(&path).unwrap(), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(sha256(&path).unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(recorded(&path).unwrap(), None);
        record(&path).unwrap();
        assert_eq!(recorded(&path).unwrap(), Some(sha256(&path).unwrap()));
        fs::write(record_path(&path), "nonsense").unwrap();
        assert!(recorded(&path).is_err());
        forget(&path);
        assert_eq!(recorded(&path).unwrap(), None);
        fs::remove_file(&path).unwrap();
    }
}
