#![cfg_attr(fuzzing, no_main)]
//! See `retinker_fuzz::host_client`.

retinker_fuzz::target!(retinker_fuzz::host_client);
