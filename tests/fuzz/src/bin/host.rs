#![cfg_attr(fuzzing, no_main)]
//! See `retinker_fuzz::host`.

retinker_fuzz::target!(retinker_fuzz::host);
