//! The module `heddle_native`: bytes in, bytes out, and nothing of Python touched while a batch runs.

use std::ops::Range;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::engine::{Batch, Engine, FRAME_BYTES, Frame, Input, Outcome, Wanted};
use crate::headers::Headers;
use crate::plan::{FORMATS, Plan};
use crate::record::Given;

type Values<'py> = Vec<Option<Bound<'py, PyBytes>>>;
type Output<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>);
type Answer<'py> = (Vec<Option<Output<'py>>>, Vec<usize>, Vec<(usize, usize, Values<'py>)>);

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
    fn with_plan(&self, writer: &[u8], plan: &str, frame: &[u8]) -> PyResult<PyEngine> {
        let plan = Plan::read(plan).map_err(PyValueError::new_err)?;
        Ok(PyEngine(self.0.with_plan(framed(writer)?, plan, framed(frame)?)))
    }

    /// `(outputs, refused, wanted)`. Outputs: `(key, value)` or None for each value. Refused: indexes, ascending.
    /// Wanted: `(index, call, arguments)`, ascending by index: records that need these calls' results first.
    ///
    /// `results`: `(index, call, bytes)`, ascending by index: what calls gave for these values.
    fn transcode<'py>(&self, py: Python<'py>, values: Values<'py>, results: Vec<Row<'py>>) -> Answer<'py> {
        let owners: Vec<usize> = results.iter().map(|(index, ..)| *index).collect();
        let given: Vec<Given> = results.iter().map(|(_, call, bytes)| (*call, bytes.as_bytes())).collect();
        let inputs: Vec<Input> = values
            .iter()
            .enumerate()
            .map(|(index, value)| Input {
                value: value.as_ref().map(|bytes| bytes.as_bytes()),
                given: owned(&owners, &given, index),
            })
            .collect();
        let batch = py.detach(|| self.0.transcode(&inputs));
        told(py, &batch, &inputs)
    }
}

/// What was given for one index; `owners` ascend.
fn owned<'g, 'a>(owners: &[usize], given: &'g [Given<'a>], index: usize) -> &'g [Given<'a>] {
    let place = owners.partition_point(|owner| *owner < index)..owners.partition_point(|owner| *owner <= index);
    given.get(place).unwrap_or_default()
}

fn told<'py>(py: Python<'py>, batch: &Batch, inputs: &[Input]) -> Answer<'py> {
    let bytes = |data: &[u8], place: &Range<usize>| PyBytes::new(py, data.get(place.clone()).unwrap_or_default());
    let (mut outputs, mut refused, mut wanted) = (Vec::with_capacity(inputs.len()), Vec::new(), Vec::new());
    for (index, (outcome, input)) in batch.outcomes.iter().zip(inputs).enumerate() {
        outputs.push(match outcome {
            Outcome::Done { key, value } => Some((bytes(&batch.arena, key), bytes(&batch.arena, value))),
            _ => None,
        });
        match outcome {
            Outcome::Done { .. } | Outcome::LeftOut => {}
            Outcome::Refused => refused.push(index),
            Outcome::Wants(calls) => wanted.extend(calls.iter().map(|Wanted { call, arguments }| {
                let argument =
                    |place: &Option<_>| place.as_ref().map(|place| bytes(input.value.unwrap_or_default(), place));
                (index, *call, arguments.iter().map(argument).collect())
            })),
        }
    }
    (outputs, refused, wanted)
}

fn framed(bytes: &[u8]) -> PyResult<Frame> {
    bytes.try_into().map_err(|_| PyValueError::new_err(format!("a frame of {} bytes, not {FRAME_BYTES}", bytes.len())))
}

#[pymodule(gil_used = false)]
fn heddle_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyEngine>()?;
    module.add_class::<Headers>()?;
    module.add("FORMATS", FORMATS)
}
