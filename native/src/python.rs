//! The module `heddle_native`: bytes in, bytes out, and nothing of Python touched while a batch runs.

use std::ops::Range;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::engine::{Batch, Engine, FRAME_BYTES, Frame, Outcome, Wanted};
use crate::plan::{FORMATS, Plan};
use crate::record::Given;

type Values<'py> = Vec<Option<Bound<'py, PyBytes>>>;

/// Which of the values, which call, what it gave.
type Row<'py> = (usize, usize, Bound<'py, PyBytes>);

/// Plans by writer. Threads may share one: it never changes.
#[pyclass(frozen, name = "Engine", module = "heddle_native")]
struct PyEngine(Engine);

#[pymethods]
impl PyEngine {
    #[new]
    fn new() -> PyEngine {
        PyEngine(Engine::default())
    }

    /// An engine that also knows this writer: its frame, the JSON of its plan, the frame of its output.
    #[pyo3(name = "with_plan")]
    fn with(&self, writer: &[u8], plan: &str, frame: &[u8]) -> PyResult<PyEngine> {
        let plan = Plan::read(plan).map_err(PyValueError::new_err)?;
        Ok(PyEngine(self.0.with(framed(writer)?, plan, framed(frame)?)))
    }

    /// `(outputs, refused, wanted)`. Outputs: `(key, value)` or None for each value. Refused: indexes, ascending.
    /// Wanted: `(index, call, arguments)`, ascending by index: records that need these calls' results first.
    ///
    /// `results`: `(index, call, bytes)`, ascending by index: what calls gave for these values.
    fn transcode<'py>(
        &self,
        py: Python<'py>,
        values: Values<'py>,
        results: Vec<Row<'py>>,
    ) -> PyResult<(Bound<'py, PyList>, Vec<usize>, Vec<Bound<'py, PyTuple>>)> {
        let records: Vec<Option<&[u8]>> =
            values.iter().map(|value| value.as_ref().map(|bytes| bytes.as_bytes())).collect();
        let given: Vec<Given> = results.iter().map(|(_, call, bytes)| (*call, bytes.as_bytes())).collect();
        let ends: Vec<usize> = results.iter().map(|(index, ..)| *index).collect();
        let batch = py.detach(|| {
            let mut rest = given.as_slice();
            let mut owners = ends.as_slice();
            self.0.transcode(records.iter().enumerate().map(|(index, value)| {
                let mine = owners.partition_point(|owner| *owner <= index);
                owners = owners.get(mine..).unwrap_or_default();
                let (given, others) = rest.split_at_checked(mine).unwrap_or_default();
                rest = others;
                (*value, given)
            }))
        });
        told(py, &batch, &records)
    }
}

fn told<'py>(
    py: Python<'py>,
    batch: &Batch,
    records: &[Option<&[u8]>],
) -> PyResult<(Bound<'py, PyList>, Vec<usize>, Vec<Bound<'py, PyTuple>>)> {
    let (mut refused, mut wanted) = (Vec::new(), Vec::new());
    let arena = |range: &Range<usize>| PyBytes::new(py, batch.arena.get(range.clone()).unwrap_or_default());
    let outputs = PyList::empty(py);
    for (index, (outcome, record)) in batch.outcomes.iter().zip(records).enumerate() {
        match outcome {
            Outcome::Done { key, value } => {
                outputs.append((arena(key), arena(value)))?;
                continue;
            }
            Outcome::LeftOut => {}
            Outcome::Refused => refused.push(index),
            Outcome::Wants(calls) => {
                for Wanted { call, arguments } in calls {
                    let bytes = |range: &Range<usize>| {
                        PyBytes::new(py, record.and_then(|record| record.get(range.clone())).unwrap_or_default())
                    };
                    let arguments = PyTuple::new(py, arguments.iter().map(|range| range.as_ref().map(bytes)))?;
                    wanted.push((index, *call, arguments).into_pyobject(py)?);
                }
            }
        }
        outputs.append(py.None())?;
    }
    Ok((outputs, refused, wanted))
}

fn framed(bytes: &[u8]) -> PyResult<Frame> {
    bytes.try_into().map_err(|_| PyValueError::new_err(format!("a frame of {} bytes, not {FRAME_BYTES}", bytes.len())))
}

#[pymodule(gil_used = false)]
fn heddle_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyEngine>()?;
    module.add("FORMATS", FORMATS)
}
