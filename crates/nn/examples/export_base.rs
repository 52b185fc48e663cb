//! Writes a built-in model as `transformers` reads a Llama: `export_base MODEL DIRECTORY` makes `config.json` and
//! `model.safetensors`.

use std::path::Path;

use retinker_nn::{BOS_TOKEN, BaseModel, EOS_TOKEN, ModelConfig, PAD_TOKEN};
use safetensors::tensor::{Dtype, TensorView};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, directory] = arguments.as_slice() else {
        return Err("usage: export_base MODEL DIRECTORY".into());
    };
    let config = ModelConfig::by_name(model).ok_or_else(|| {
        let known: Vec<String> = ModelConfig::builtin().into_iter().map(|config| config.name).collect();
        format!("there is no model {model}; there are: {}", known.join(", "))
    })?;
    let directory = Path::new(directory);
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("config.json"), serde_json::to_vec_pretty(&described(&config))?)?;
    let base = BaseModel::generate(&config)?;
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = base
        .tensors()
        .into_iter()
        .map(|tensor| (tensor.name, tensor.shape, retinker_wire::tensor::f32_bytes(tensor.data)))
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    // `transformers` reads no file that does not say what wrote it for.
    let metadata = std::collections::HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), &directory.join("model.safetensors"))?;
    Ok(())
}

/// The model as a `LlamaConfig`.
fn described(config: &ModelConfig) -> serde_json::Value {
    serde_json::json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float32",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "max_position_embeddings": config.max_context,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": f64::from(config.norm_eps),
        "hidden_act": "silu",
        "attention_bias": false,
        "mlp_bias": false,
        "tie_word_embeddings": false,
        "bos_token_id": BOS_TOKEN,
        "eos_token_id": EOS_TOKEN,
        "pad_token_id": PAD_TOKEN,
    })
}
