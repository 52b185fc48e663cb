//! The model and its training arithmetic: no I/O.
