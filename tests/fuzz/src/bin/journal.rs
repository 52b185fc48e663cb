#![cfg_attr(fuzzing, no_main)]
//! See `retinker_fuzz::journal`.

retinker_fuzz::target!(retinker_fuzz::journal);
