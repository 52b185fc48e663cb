//! The base models, made when first needed and shared by all runs.

use std::sync::{Arc, OnceLock};

use retinker_nn::{BaseModel, ModelConfig, NnError};

/// The base models.
#[derive(Debug)]
pub(crate) struct Models {
    models: Vec<Model>,
}

#[derive(Debug)]
struct Model {
    config: ModelConfig,
    base: OnceLock<Result<Arc<BaseModel>, NnError>>,
}

impl Models {
    /// The models that ship with the service.
    pub(crate) fn builtin() -> Self {
        let models = ModelConfig::builtin().into_iter();
        Self { models: models.map(|config| Model { config, base: OnceLock::new() }).collect() }
    }

    /// The models' settings, the default first.
    pub(crate) fn configs(&self) -> impl Iterator<Item = &ModelConfig> {
        self.models.iter().map(|model| &model.config)
    }

    /// The settings of a model, or a sentence that says what is offered.
    pub(crate) fn config(&self, name: &str) -> Result<&ModelConfig, String> {
        self.model(name).map(|model| &model.config)
    }

    /// A model's weights. Takes a moment the first time.
    pub(crate) fn base(&self, name: &str) -> Result<Arc<BaseModel>, String> {
        let model = self.model(name)?;
        model
            .base
            .get_or_init(|| BaseModel::generate(&model.config).map(Arc::new))
            .clone()
            .map_err(|e| format!("base model '{name}' cannot be made: {e}"))
    }

    fn model(&self, name: &str) -> Result<&Model, String> {
        self.models.iter().find(|model| model.config.name == name).ok_or_else(|| {
            let offered: Vec<&str> = self.configs().map(|config| config.name.as_str()).collect();
            format!("base model '{name}' is not offered here; offered: {}", offered.join(", "))
        })
    }
}
