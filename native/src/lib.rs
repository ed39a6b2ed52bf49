//! Runs the wire plans of `heddle.wire.plan` over batches of records. `python` is its face to Python.

mod engine;
mod key;
mod plan;
mod prepare;
mod python;
mod read;
mod record;
mod scalars;
mod walk;
mod write;
