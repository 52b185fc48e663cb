//! A checkpoint's files: how they are written so that they are whole or absent, and read so that damage is found.
//!
//! A directory holds `adapter_model.safetensors` and `adapter_config.json` as PEFT lays them out,
//! `optimizer.safetensors` with AdamW's moments (one that is not for training has `checkpoint_complete` instead), and
//! `manifest.json` with the checksums of the others. The manifest's own checksum is in the database.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::datadir::{make_private, private_builder};
use crate::lora::LoraShape;
use retinker_nn::{Adapter, ModelConfig, NamedTensor, NnError, OptimizerState};

const ADAPTER: &str = "adapter_model.safetensors";
const ADAPTER_CONFIG: &str = "adapter_config.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const MANIFEST: &str = "manifest.json";
/// An empty file by which readers of downloaded weights know that they are whole.
const COMPLETE: &str = "checkpoint_complete";
/// The format that this version writes.
const FORMAT: u32 = 1;

/// What a checkpoint was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) run_id: String,
    pub(crate) base_model: String,
    pub(crate) lora: LoraShape,
    pub(crate) optimizer_config: serde_json::Value,
    /// The number of the request that saved it.
    pub(crate) last_seq: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    #[serde(flatten)]
    origin: Origin,
    /// How many optimizer steps were taken.
    optimizer_step: u64,
    files: BTreeMap<String, FileEntry>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct FileEntry {
    sha256: String,
    bytes: u64,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Written {
    pub(crate) size_bytes: u64,
    pub(crate) manifest_sha256: String,
}

/// Why a checkpoint's files cannot be used. Names the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{file} does not match its checksum")]
    Checksum { file: String },
    #[error("{file} is missing")]
    Missing { file: String },
    #[error("{file} cannot be read: {source}")]
    Io { file: String, source: io::Error },
    #[error("{file} cannot be understood: {reason}")]
    Content { file: String, reason: String },
}

/// Writes a checkpoint so that the directory is either whole or not there, also after a power cut. Without an optimizer
/// it is one to sample from or to download.
pub(crate) fn write(
    directory: &Path,
    unfinished: &Path,
    origin: &Origin,
    adapter: &Adapter,
    optimizer: Option<&OptimizerState>,
) -> io::Result<Written> {
    whole_or_not(directory, unfinished, |temporary| write_files(temporary, origin, adapter, optimizer))
}

/// Fills a directory that becomes visible when it is whole and durable.
fn whole_or_not<T>(
    directory: &Path,
    unfinished: &Path,
    fill: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let Some(parent) = directory.parent() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a checkpoint needs a directory of its own"));
    };
    make_durable_directory(parent)?;
    let temporary = temporary(unfinished);
    make_private(&temporary)?;
    let filled = fill(&temporary).and_then(|filled| {
        sync_directory(&temporary)?;
        fs::rename(&temporary, directory)?;
        sync_directory(parent)?;
        Ok(filled)
    });
    if filled.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    filled
}

fn write_files(
    directory: &Path,
    origin: &Origin,
    adapter: &Adapter,
    optimizer: Option<&OptimizerState>,
) -> io::Result<Written> {
    let weights: Vec<NamedTensor> = adapter.tensors().map(|tensor| tensor.to_owned()).collect();
    let mut contents = vec![
        (ADAPTER, safetensors_bytes(&weights)?),
        (ADAPTER_CONFIG, serde_json::to_vec_pretty(&peft_config(origin, &weights))?),
    ];
    contents.push(match optimizer {
        Some(optimizer) => (OPTIMIZER, safetensors_bytes(&optimizer.to_tensors())?),
        None => (COMPLETE, Vec::new()),
    });
    let mut files = BTreeMap::new();
    let mut size_bytes = 0;
    for (name, bytes) in contents {
        let entry = FileEntry { sha256: sha256(&bytes), bytes: bytes.len() as u64 };
        write_durably(&directory.join(name), &bytes)?;
        size_bytes += entry.bytes;
        files.insert(name.to_owned(), entry);
    }
    let optimizer_step = optimizer.map_or(0, OptimizerState::step);
    let manifest = Manifest { format: FORMAT, origin: origin.clone(), optimizer_step, files };
    let bytes = serde_json::to_vec_pretty(&manifest)?;
    write_durably(&directory.join(MANIFEST), &bytes)?;
    Ok(Written { size_bytes: size_bytes + bytes.len() as u64, manifest_sha256: sha256(&bytes) })
}

/// A checkpoint whose files are all as they were written.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) origin: Origin,
    optimizer_step: u64,
    adapter: Vec<u8>,
    /// `None` in one that only has weights.
    optimizer: Option<Vec<u8>>,
}

/// Reads all files and compares their checksums.
pub(crate) fn read(directory: &Path, manifest_sha256: &str) -> Result<Verified, ReadError> {
    let bytes = read_file(directory, MANIFEST)?;
    if sha256(&bytes) != manifest_sha256 {
        return Err(ReadError::Checksum { file: MANIFEST.to_owned() });
    }
    let manifest = manifest(&bytes)?;
    let mut contents: HashMap<&str, Vec<u8>> = HashMap::new();
    for (name, entry) in &manifest.files {
        let bytes = read_file(directory, name)?;
        if bytes.len() as u64 != entry.bytes || sha256(&bytes) != entry.sha256 {
            return Err(ReadError::Checksum { file: name.clone() });
        }
        contents.insert(name, bytes);
    }
    let adapter = contents.remove(ADAPTER).ok_or_else(|| ReadError::Missing { file: ADAPTER.to_owned() })?;
    let optimizer = contents.remove(OPTIMIZER);
    Ok(Verified { optimizer_step: manifest.optimizer_step, adapter, optimizer, origin: manifest.origin })
}

fn manifest(bytes: &[u8]) -> Result<Manifest, ReadError> {
    let content = |reason: String| ReadError::Content { file: MANIFEST.to_owned(), reason };
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|e| content(e.to_string()))?;
    if manifest.format != FORMAT {
        return Err(content(format!("its format is {}, this version knows {FORMAT}", manifest.format)));
    }
    Ok(manifest)
}

impl Verified {
    /// What such files say, whatever their checksums.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn unchecked(bytes: &[u8], adapter: &[u8], optimizer: &[u8]) -> Result<Self, ReadError> {
        let Manifest { origin, optimizer_step, .. } = manifest(bytes)?;
        let optimizer = (!optimizer.is_empty()).then(|| optimizer.to_vec());
        Ok(Self { origin, optimizer_step, adapter: adapter.to_vec(), optimizer })
    }

    /// The weights.
    pub(crate) fn adapter(&self, model: &ModelConfig) -> Result<Adapter, ReadError> {
        let tensors = tensors(ADAPTER, &self.adapter)?;
        Adapter::from_tensors(model, &self.origin.lora.to_nn(), tensors).map_err(|e| misfit(ADAPTER, &e))
    }

    /// The optimizer's state for these weights.
    pub(crate) fn optimizer(&self, adapter: &Adapter) -> Result<OptimizerState, ReadError> {
        let file = || ReadError::Missing { file: OPTIMIZER.to_owned() };
        let tensors = tensors(OPTIMIZER, self.optimizer.as_ref().ok_or_else(file)?)?;
        OptimizerState::from_tensors(adapter.layout(), self.optimizer_step, tensors)
            .map_err(|e| misfit(OPTIMIZER, &e))
    }
}

fn misfit(file: &str, error: &NnError) -> ReadError {
    ReadError::Content { file: file.to_owned(), reason: error.to_string() }
}

fn read_file(directory: &Path, name: &str) -> Result<Vec<u8>, ReadError> {
    fs::read(directory.join(name)).map_err(|source| {
        let file = name.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            ReadError::Missing { file }
        } else {
            ReadError::Io { file, source }
        }
    })
}

/// What `peft` reads.
fn peft_config(origin: &Origin, weights: &[NamedTensor]) -> serde_json::Value {
    let mut targets: Vec<&str> = Vec::new();
    for tensor in weights {
        // base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight
        if let Some(module) = tensor.name.rsplit('.').nth(2)
            && !targets.contains(&module)
        {
            targets.push(module);
        }
    }
    serde_json::json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": origin.base_model,
        "r": origin.lora.rank,
        "lora_alpha": origin.lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "use_rslora": false,
        "inference_mode": true,
        "target_modules": targets,
    })
}

/// A tensor as the safetensors crate wants to see it.
struct Floats<'a>(&'a NamedTensor);

impl View for Floats<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.0.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(retinker_wire::tensor::f32_bytes(&self.0.data))
    }
    fn data_len(&self) -> usize {
        self.0.data.len() * 4
    }
}

fn safetensors_bytes(tensors: &[NamedTensor]) -> io::Result<Vec<u8>> {
    let views = tensors.iter().map(|tensor| (tensor.name.as_str(), Floats(tensor)));
    safetensors::serialize(views, None).map_err(io::Error::other)
}

fn tensors(file: &str, bytes: &[u8]) -> Result<Vec<NamedTensor>, ReadError> {
    let content = |reason: String| ReadError::Content { file: file.to_owned(), reason };
    let parsed = SafeTensors::deserialize(bytes).map_err(|e| content(e.to_string()))?;
    let mut tensors = Vec::with_capacity(parsed.len());
    for (name, view) in parsed.iter() {
        let &[rows, cols] = view.shape() else {
            return Err(content(format!("tensor {name} is not a matrix")));
        };
        if view.dtype() != Dtype::F32 {
            return Err(content(format!("tensor {name} is not float32")));
        }
        let data = retinker_wire::tensor::f32_values(view.data()).map_err(|e| content(e.to_string()))?;
        tensors.push(NamedTensor { name: name.to_owned(), shape: [rows, cols], data });
    }
    Ok(tensors)
}

/// SHA-256 in lower-case hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        hex.push_str(&format!("{byte:02x}"));
    }
    hex
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a directory and its missing parents, each made durable in the one above.
fn make_durable_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_durable_directory(parent)?;
        match private_builder().create(path) {
            // Another trainer may be saving the same run's neighbour.
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => sync_directory(parent)?,
        }
    }
    Ok(())
}

fn sync_directory(path: &Path) -> io::Result<()> {
    // Only Unix can open a directory; elsewhere renames are made durable by the file system itself.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Removes a checkpoint's directory so that a crash in the middle leaves nothing that looks like a checkpoint.
pub(crate) fn remove(directory: &Path, unfinished: &Path) -> io::Result<()> {
    let Some(parent) = directory.parent() else { return Ok(()) };
    make_private(unfinished)?;
    let temporary = temporary(unfinished);
    match fs::rename(directory, &temporary) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    fs::remove_dir_all(&temporary)?;
    sync_directory(parent)
}

/// A directory that nobody else has.
fn temporary(unfinished: &Path) -> PathBuf {
    unfinished.join(uuid::Uuid::new_v4().to_string())
}

/// The files that are handed out of a checkpoint: all but what the service keeps for itself.
pub(crate) fn downloadable(directory: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != MANIFEST {
            files.push((name, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

/// Copies a checkpoint's files to a directory of its own, whole or not at all. What lies on the same disk is shared.
pub(crate) fn copy(from: &Path, to: &Path, unfinished: &Path) -> io::Result<()> {
    whole_or_not(to, unfinished, |temporary| copy_files(from, temporary))
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        // The files of a checkpoint never change, so two directories can share them.
        if fs::hard_link(entry.path(), &target).is_err() {
            fs::copy(entry.path(), &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    Ok(())
}

/// Whether users may give a checkpoint this name.
pub(crate) fn valid_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Origin, Adapter, OptimizerState, ModelConfig) {
        let model = ModelConfig::by_name("retinker/nano-llama").unwrap();
        let lora = LoraShape {
            rank: 4,
            alpha: 32.0,
            seed: 9,
            train_attn: true,
            train_mlp: false,
            train_unembed: true,
        };
        let adapter = Adapter::new(&model, &lora.to_nn()).unwrap();
        let optimizer = OptimizerState::new(adapter.layout());
        let origin = Origin {
            run_id: "s:train:0".into(),
            base_model: model.name.clone(),
            lora,
            optimizer_config: retinker_wire::model::adamw(),
            last_seq: 7,
        };
        (origin, adapter, optimizer, model)
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run").join("weights").join("a");
        let (origin, adapter, optimizer, model) = example();
        let written =
            write(&path, &dir.path().join("unfinished"), &origin, &adapter, Some(&optimizer)).unwrap();
        let verified = read(&path, &written.manifest_sha256).unwrap();
        assert_eq!(verified.origin, origin);
        let back = verified.adapter(&model).unwrap();
        assert_eq!(back, adapter);
        assert_eq!(verified.optimizer(&back).unwrap(), optimizer);
        let on_disk: u64 = fs::read_dir(&path).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert_eq!(on_disk, written.size_bytes);
        let config: serde_json::Value =
            serde_json::from_slice(&fs::read(path.join(ADAPTER_CONFIG)).unwrap()).unwrap();
        assert_eq!(config["r"], 4);
        assert_eq!(
            config["target_modules"],
            serde_json::json!(["q_proj", "k_proj", "v_proj", "o_proj", "lm_head"])
        );
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run").join("weights").join("a");
        let (origin, adapter, optimizer, _) = example();
        write(&path, &dir.path().join("unfinished"), &origin, &adapter, Some(&optimizer)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(&path), mode(path.parent().unwrap()), mode(&dir.path().join("run"))], [0o700; 3]);
        assert_eq!(mode(&path.join(ADAPTER)), 0o600);
    }

    #[test]
    fn damage_is_named() {
        let (origin, adapter, optimizer, _) = example();
        for file in [ADAPTER, ADAPTER_CONFIG, OPTIMIZER, MANIFEST] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a");
            let written =
                write(&path, &dir.path().join("unfinished"), &origin, &adapter, Some(&optimizer)).unwrap();
            let mut bytes = fs::read(path.join(file)).unwrap();
            let last = bytes.len() - 3;
            bytes[last] ^= 1;
            fs::write(path.join(file), &bytes).unwrap();
            let error = read(&path, &written.manifest_sha256).unwrap_err().to_string();
            assert_eq!(error, format!("{file} does not match its checksum"));
            fs::remove_file(path.join(file)).unwrap();
            let error = read(&path, &written.manifest_sha256).unwrap_err().to_string();
            assert_eq!(error, format!("{file} is missing"));
        }
    }

    #[test]
    fn names() {
        for good in ["a", "step-10", "A.b_c", &"x".repeat(255)] {
            assert!(valid_name(good), "{good}");
        }
        for bad in ["", ".", "..", ".a", "a/b", "a b", "ä", "a~1", &"x".repeat(256)] {
            assert!(!valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn removing_twice_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let (origin, adapter, optimizer, _) = example();
        write(&path, &dir.path().join("unfinished"), &origin, &adapter, Some(&optimizer)).unwrap();
        let unfinished = dir.path().join("unfinished");
        remove(&path, &unfinished).unwrap();
        remove(&path, &unfinished).unwrap();
        assert!(!path.exists());
        assert_eq!(fs::read_dir(unfinished).unwrap().count(), 0);
    }
}
