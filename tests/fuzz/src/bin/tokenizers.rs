#![cfg_attr(fuzzing, no_main)]
//! See `retinker_fuzz::tokenizers`.

retinker_fuzz::target!(retinker_fuzz::tokenizers);
