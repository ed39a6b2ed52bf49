//! Runs the wire plans of `heddle.wire.plan` over batches of records. `python` is its face to Python.

mod blake2b;
mod engine;
mod headers;
mod key;
mod plan;
mod prepare;
mod python;
mod read;
mod record;
mod scalars;
mod walk;
mod write;
