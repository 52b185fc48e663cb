#![cfg_attr(fuzzing, no_main)]
//! See `retinker_fuzz::download`.

retinker_fuzz::target!(retinker_fuzz::download);
