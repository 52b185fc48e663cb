#![cfg_attr(fuzzing, no_main)]
//! See `retinker_fuzz::checkpoint`.

retinker_fuzz::target!(retinker_fuzz::checkpoint);
