//! Checkpoints in a directory of this machine: downloaded, checked, and put there whole or not at all.

use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::client::{Download, Error, RestClient, Secret};

/// How far a download is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The file.
    pub file: String,
    /// Its bytes so far, those of an earlier, broken-off download included.
    pub received: u64,
    /// Its bytes in all, where the server says so.
    pub total: Option<u64>,
}

/// Downloads the files of an external checkpoint (`tinker://.../external_weights/...`) into a directory. Each is checked
/// for its length, and, if it holds tensors, that its header fits. One that broke off is gone on with by the next call.
///
/// # Errors
/// Those of [`RestClient::get_external_weights_urls`] and of [`Download`];
/// [`ErrorKind::Config`](crate::client::ErrorKind::Config) if a file is not what it should be, has a name that leads out
/// of the directory, or cannot be written. The files before it are there.
pub async fn download_external_weights(
    rest: &RestClient,
    path: &str,
    directory: &Path,
    mut progress: impl FnMut(Progress) + Send,
) -> Result<Vec<PathBuf>, Error> {
    let mut files = rest.get_external_weights_urls(path).await?;
    make(directory)?;
    let names: Vec<String> = files.urls.keys().cloned().collect();
    let mut written = Vec::new();
    for name in names {
        let target = directory.join(inside(&name)?);
        let of = format!("{name} of {path}");
        let left = files.expires.as_millis().saturating_sub(rest.api().runtime().now().as_millis());
        if left < SIGNED_ANEW {
            files = rest.get_external_weights_urls(path).await?;
        }
        let address = files.urls.get(&name).ok_or_else(|| {
            Error::config(format!("download of {of}"), "the checkpoint has lost this file meanwhile")
        })?;
        let file = External { of, name, target };
        file.download(rest, &Secret::new(address), &mut progress).await?;
        written.push(file.target);
    }
    Ok(written)
}

/// Addresses that are valid for less than this, in milliseconds, are asked for anew; as in the official SDK.
const SIGNED_ANEW: i64 = 5 * 60 * 1000;

/// A file of an external checkpoint.
struct External {
    /// For errors.
    of: String,
    name: String,
    target: PathBuf,
}

impl External {
    async fn download(
        &self,
        rest: &RestClient,
        address: &Secret,
        progress: &mut (impl FnMut(Progress) + Send),
    ) -> Result<(), Error> {
        if let Some(parent) = self.target.parent() {
            make(parent)?;
        }
        let (part, version) = (self.beside("part"), self.beside("version"));
        let failed = |e: io::Error| Error::file(&part, &e);
        let there = fs::metadata(&part).map_or(0, |part| part.len());
        // An old version's beginning must not be put before a new one's rest.
        let named = fs::read_to_string(&version).ok();
        let mut download = Download::resume(rest.api(), &self.of, address, there, named).await?;
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&part).map_err(failed)?;
        file.set_len(download.received()).map_err(failed)?;
        fs::write(&version, download.version().unwrap_or_default()).map_err(failed)?;
        while let Some(piece) = download.next().await? {
            file.write_all(&piece).map_err(failed)?;
            let (received, total) = (download.received(), download.total());
            progress(Progress { file: self.name.clone(), received, total });
        }
        file.sync_all().map_err(failed)?;
        if self.name.ends_with(".safetensors")
            && let Err(reason) = check_tensors(&part)
        {
            // Gone on with, it would be no better.
            let _ = fs::remove_file(&part);
            return Err(Error::config(format!("download of {}", self.of), reason));
        }
        fs::rename(&part, &self.target).map_err(|e| Error::file(&self.target, &e))?;
        let _ = fs::remove_file(&version);
        Ok(())
    }

    /// A hidden file beside the target.
    fn beside(&self, what: &str) -> PathBuf {
        let name = self.target.file_name().unwrap_or_default().to_string_lossy();
        self.target.with_file_name(format!(".{name}.{what}"))
    }
}

/// Downloads the archive of any checkpoint and unpacks it into a directory that is not there yet, which then has all of it.
/// Nothing is written outside of it, whatever the archive says.
///
/// # Errors
/// Those of [`RestClient::checkpoint_archive_address`] and of [`Download::open`];
/// [`ErrorKind::Config`](crate::client::ErrorKind::Config) if the directory is there already or cannot be written, if the
/// archive is cut off, or holds anything but plain files. The directory is not there then.
pub async fn download_archive(
    rest: &RestClient,
    path: &str,
    directory: &Path,
    mut progress: impl FnMut(Progress) + Send,
) -> Result<Vec<PathBuf>, Error> {
    if directory.exists() {
        return Err(Error::config(
            directory.display().to_string(),
            "it is there already: name a new directory",
        ));
    }
    let address = rest.checkpoint_archive_address(path).await?;
    let of = format!("the archive of {path}");
    let mut download = Download::open(rest.api(), &of, &address, 0).await?;
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    make(parent)?;
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let unpacked = Temporary(parent.join(format!(".{name}.part")));
    let _ = fs::remove_dir_all(&unpacked.0);
    make(&unpacked.0)?;
    let (pieces, receiver) = std::sync::mpsc::sync_channel(4);
    let into = unpacked.0.clone();
    let unpacking =
        tokio::task::spawn_blocking(move || unpack(Pieces { receiver, piece: bytes::Bytes::new() }, &into));
    loop {
        match download.next().await {
            Ok(Some(piece)) => {
                progress(Progress {
                    file: "archive.tar".to_owned(),
                    received: download.received(),
                    total: download.total(),
                });
                // A full queue waits for the disk, not for the network: moved aside, it would only take memory.
                let (pieces, sent) = (pieces.clone(), piece);
                let sent = tokio::task::spawn_blocking(move || pieces.send(Ok(sent))).await;
                if !matches!(sent, Ok(Ok(()))) {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                let _ = pieces.send(Err(io::Error::other(error.to_string())));
                break;
            }
        }
    }
    drop(pieces);
    let bad = |reason: String| Error::config(format!("download of {of}"), reason);
    let names = unpacking.await.map_err(|e| bad(e.to_string()))?.map_err(bad)?;
    fs::rename(&unpacked.0, directory).map_err(|e| Error::file(directory, &e))?;
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

/// Removes what was not finished.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What comes from the network, for those who read.
struct Pieces {
    receiver: std::sync::mpsc::Receiver<io::Result<bytes::Bytes>>,
    piece: bytes::Bytes,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.recv() {
                Ok(piece) => self.piece = piece?,
                Err(_) => return Ok(0),
            }
        }
        let length = into.len().min(self.piece.len());
        let taken = self.piece.split_to(length);
        if let Some(into) = into.get_mut(..length) {
            into.copy_from_slice(&taken);
        }
        Ok(length)
    }
}

/// How every gzip stream begins (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Unpacks an archive of plain files, compressed by gzip or not. An error says what is wrong with it.
fn unpack(archive: impl Read, into: &Path) -> Result<Vec<PathBuf>, String> {
    let mut archive = io::BufReader::new(archive);
    match archive.fill_buf() {
        Ok(start) if start.starts_with(&GZIP) => unpack_plain(MultiGzDecoder::new(archive), into),
        _ => unpack_plain(archive, into),
    }
}

fn unpack_plain(archive: impl Read, into: &Path) -> Result<Vec<PathBuf>, String> {
    let mut archive = tar::Archive::new(archive);
    let mut names = Vec::new();
    for entry in archive.entries().map_err(|e| format!("it is no archive: {e}"))? {
        let mut entry = entry.map_err(|e| format!("the archive is damaged: {e}"))?;
        let name =
            entry.path().map_err(|e| format!("the archive names a file that cannot be: {e}"))?.into_owned();
        let kind = entry.header().entry_type();
        let inside = name.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside || name.as_os_str().is_empty() {
            return Err(format!("the archive has '{}', which leads out of it", name.display()));
        }
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() {
            return Err(format!("the archive has '{}', which is neither file nor directory", name.display()));
        }
        let target = into.join(&name);
        let mut write = || -> io::Result<()> {
            fs::create_dir_all(target.parent().unwrap_or(into))?;
            let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&target)?;
            let copied = io::copy(&mut entry, &mut file)?;
            if copied != entry.size() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends within it"));
            }
            file.sync_all()
        };
        write().map_err(|e| format!("'{}' cannot be unpacked: {e}", name.display()))?;
        if name.extension().is_some_and(|extension| extension == "safetensors") {
            check_tensors(&target).map_err(|reason| format!("'{}': {reason}", name.display()))?;
        }
        names.push(name);
    }
    if names.is_empty() {
        return Err("the archive is empty".to_owned());
    }
    Ok(names)
}

/// The longest header of tensors that is read: the format's own bound.
const MAX_HEADER: u64 = 100_000_000;

/// Whether a file of tensors is whole: its header can be read, and says that it is as long as it is. (Format:
/// github.com/huggingface/safetensors.)
fn check_tensors(path: &Path) -> Result<(), String> {
    let cannot = |e: io::Error| format!("it cannot be read: {e}");
    let mut file = fs::File::open(path).map_err(cannot)?;
    let length = file.metadata().map_err(cannot)?.len();
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(|_| "it is too short for a file of tensors".to_owned())?;
    let header = u64::from_le_bytes(size);
    if header > MAX_HEADER || header.saturating_add(8) > length {
        return Err(format!("its header claims {header} bytes; the file has {length}"));
    }
    let mut text = Vec::new();
    file.take(header).read_to_end(&mut text).map_err(cannot)?;
    let tensors: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&text).map_err(|_| "its header cannot be read".to_owned())?;
    let ends = tensors.iter().filter(|(name, _)| *name != "__metadata__").map(|(name, tensor)| {
        let end = tensor.pointer("/data_offsets/1").and_then(serde_json::Value::as_u64);
        end.ok_or_else(|| format!("its header does not say where tensor '{name}' ends"))
    });
    let end = ends.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0);
    if end.saturating_add(8 + header) != length {
        return Err(format!(
            "by its header it has {} bytes, and there are {length}",
            end.saturating_add(8 + header)
        ));
    }
    Ok(())
}

/// A name that leads to a file inside of a directory and nowhere else.
fn inside(name: &str) -> Result<&Path, Error> {
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && path.file_name().is_some() && !name.contains('\\') && !name.ends_with('/') {
        return Ok(path);
    }
    Err(Error::config(
        format!("the file '{}'", name.escape_debug()),
        "the server names a file that would lie elsewhere: it is not downloaded",
    ))
}

fn make(directory: &Path) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(|e| Error::file(directory, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = tar::Header::new_gnu();
            // Written by hand: the builder itself refuses such names.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            if !kind.is_file() {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn scratch(name: &str) -> Temporary {
        let path = std::env::temp_dir().join(format!("retinker-unpack-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Temporary(path)
    }

    #[test]
    fn only_plain_files_inside_are_unpacked() {
        use tar::EntryType;
        let dir = scratch("inside");
        let into = dir.0.join("a");
        let good = archive(&[("x.json", EntryType::Regular, b"{}"), ("d/y.json", EntryType::Regular, b"[]")]);
        assert_eq!(unpack(&*good, &into).unwrap(), [PathBuf::from("x.json"), PathBuf::from("d/y.json")]);
        assert_eq!(fs::read(into.join("d/y.json")).unwrap(), b"[]");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&good).unwrap();
        let packed = packed.finish().unwrap();
        assert_eq!(unpack(&*packed, &dir.0.join("gz")).unwrap().len(), 2);
        for (bad, said) in [
            (packed[..packed.len() / 2].to_vec(), ""),
            (archive(&[("../x", EntryType::Regular, b"")]), "leads out"),
            (archive(&[("/x", EntryType::Regular, b"")]), "leads out"),
            (archive(&[("a/../../x", EntryType::Regular, b"")]), "leads out"),
            (archive(&[("x", EntryType::Symlink, b"")]), "neither file nor directory"),
            (archive(&[("x", EntryType::Link, b"")]), "neither file nor directory"),
            (archive(&[("x", EntryType::Char, b"")]), "neither file nor directory"),
            (
                archive(&[("x", EntryType::Regular, b"1"), ("x", EntryType::Regular, b"2")]),
                "cannot be unpacked",
            ),
            (archive(&[]), "empty"),
            (archive(&[("x", EntryType::Regular, &[7; 2000])])[..1000].to_vec(), "cannot be unpacked"),
            (archive(&[("x.safetensors", EntryType::Regular, b"short")]), "too short"),
        ] {
            let into = dir.0.join("b");
            let error = unpack(&*bad, &into).unwrap_err();
            assert!(error.contains(said), "{said}: {error}");
            assert!(!dir.0.join("x").exists());
            let _ = fs::remove_dir_all(into);
        }
    }

    #[test]
    fn a_file_of_tensors_is_as_long_as_its_header_says() {
        let dir = scratch("tensors");
        let path = dir.0.join("t.safetensors");
        let check = |header: &str, claimed: u64, data: usize| {
            let bytes = [&claimed.to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat();
            fs::write(&path, bytes).unwrap();
            check_tensors(&path)
        };
        let header = r#"{"__metadata__":{"a":"b"},"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let length = header.len() as u64;
        check(header, length, 8).unwrap();
        for (header, claimed, data, said) in [
            (header, length, 7, "by its header"),
            (header, length, 9, "by its header"),
            (header, length + 100, 8, "claims"),
            (header, u64::MAX, 8, "claims"),
            (header, length - 1, 8, "cannot be read"),
            (r#"{"t":{}}"#, 8, 0, "does not say"),
        ] {
            let error = check(header, claimed, data).unwrap_err();
            assert!(error.contains(said), "{said}: {error}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in ["", ".", "..", "../x", "/x", "a/../../b", "a\\b", "x/"] {
            assert!(inside(bad).is_err(), "{bad}");
        }
        assert_eq!(inside("a/adapter_model.safetensors").unwrap(), Path::new("a/adapter_model.safetensors"));
    }
}
