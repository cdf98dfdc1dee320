//! The certificate of `hearsay dev --tls`: made once, kept in the cache folder, so that browsers ask about it once.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use hearsay_gateway::TlsFiles;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// The longest life that browsers accept of a certificate, less a day for clocks that differ.
const LIFE: Duration = Duration::from_secs(397 * DAY.as_secs());
/// An older one is made anew.
const RENEWED: Duration = Duration::from_secs(300 * DAY.as_secs());

/// What `--tls` asks for: files of one's own, or a self-signed certificate.
pub(crate) fn files(given: &[PathBuf], cache: &Path) -> anyhow::Result<TlsFiles> {
    match given {
        [] => self_signed(cache),
        [certificate, key] => Ok(TlsFiles { certificate: certificate.clone(), key: key.clone() }),
        _ => {
            bail!("--tls takes a certificate and its key, both as PEM files, or nothing for a self-signed certificate")
        }
    }
}

/// The same, in the form of a configuration's layer.
pub(crate) fn as_configured(given: &[PathBuf]) -> anyhow::Result<toml::Table> {
    let files = files(given, &hearsay_models::cache_folder()?)?;
    Ok(toml::Table::try_from(files)?)
}

/// The one in the cache folder, made when there is none that works.
fn self_signed(cache: &Path) -> anyhow::Result<TlsFiles> {
    let path = cache.join("dev").join("tls.pem");
    // Both in one file, so that they are always those of each other.
    let files = TlsFiles { certificate: path.clone(), key: path.clone() };
    let fresh = fs::metadata(&path)
        .and_then(|found| found.modified())
        .is_ok_and(|made| made.elapsed().is_ok_and(|age| age < RENEWED));
    if fresh && files.check().is_ok() {
        return Ok(files);
    }
    write(&path, &made()?).with_context(|| format!("the certificate could not be kept in {}", path.display()))?;
    files.check()?;
    Ok(files)
}

/// A new key and a certificate for this machine's names, as PEM.
fn made() -> anyhow::Result<String> {
    let mut params = CertificateParams::new(names())?;
    params.subject_alt_names.extend(addresses().map(SanType::IpAddress));
    params.distinguished_name.push(DnType::CommonName, "hearsay dev");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(DAY);
    params.not_after = epoch + now + LIFE - DAY;
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}{}", certificate.pem(), key.serialize_pem()))
}

fn names() -> Vec<String> {
    let mut names = vec!["localhost".to_owned()];
    // What others on the same network call this machine.
    if let Ok(host) = fs::read_to_string("/proc/sys/kernel/hostname") {
        let host = host.trim();
        let usable =
            host.len() <= 253 && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
        if usable && !host.is_empty() && host != "localhost" {
            names.push(host.to_owned());
        }
    }
    names
}

fn addresses() -> impl Iterator<Item = IpAddr> {
    [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].into_iter()
}

/// In one step, and for this user only.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_certificate_is_made_once_and_again_when_it_is_old_or_broken() {
        let cache = tempfile::tempdir().unwrap();
        let read = || fs::read_to_string(files(&[], cache.path()).unwrap().key).unwrap();
        let first = read();
        let path = cache.path().join("dev/tls.pem");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(), first);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - RENEWED).unwrap();
        let second = read();
        assert_ne!(second, first);
        assert_eq!(read(), second);
        fs::write(&path, "half a certific").unwrap();
        let third = read();
        assert!(third.contains("CERTIFICATE") && third.contains("PRIVATE KEY") && third != second);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(cache.path().join("dev")).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn files_of_ones_own_come_in_pairs() {
        let path = |name: &str| PathBuf::from(name);
        let given = files(&[path("a"), path("b")], Path::new("/")).unwrap();
        assert_eq!((given.certificate, given.key), (path("a"), path("b")));
        assert!(files(&[path("a")], Path::new("/")).unwrap_err().to_string().starts_with("--tls takes"));
    }
}
