#![cfg_attr(fuzzing, no_main)]
//! See `retinker_fuzz::client`.

retinker_fuzz::target!(retinker_fuzz::client);
