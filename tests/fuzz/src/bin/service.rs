#![cfg_attr(fuzzing, no_main)]
//! See `retinker_fuzz::service`.

retinker_fuzz::target!(retinker_fuzz::service);
