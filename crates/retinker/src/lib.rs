//! retinker
