use retinker_local::fuzzing;

use crate::script::parts;

/// The files of a checkpoint, in parts (see `script`): `manifest.json`, `adapter_model.safetensors`, `optimizer.safetensors`. They
/// are used, or called unreadable.
pub fn checkpoint(data: &[u8]) {
    let parts = parts(data);
    let part = |number: usize| parts.get(number).copied().unwrap_or_default();
    let _ = fuzzing::checkpoint(part(0), part(1), part(2));
}
