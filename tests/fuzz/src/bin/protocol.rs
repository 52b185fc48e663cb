#![cfg_attr(fuzzing, no_main)]
//! See `retinker_fuzz::protocol`.

retinker_fuzz::target!(retinker_fuzz::protocol);
