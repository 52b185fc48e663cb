#![cfg_attr(fuzzing, no_main)]
//! See `retinker_fuzz::credentials`.

retinker_fuzz::target!(retinker_fuzz::credentials);
