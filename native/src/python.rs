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
type Answer<'py> = (Values<'py>, Values<'py>, Vec<usize>, Vec<(usize, usize, Values<'py>)>);

/// So many records at a time: input, output and their objects fit into a core's cache.
const PART: usize = 128;

/// Which of the values, which call, what it gave.
type Row<'py> = (usize, usize, Bound<'py, PyBytes>);

/// Plans by writer. Threads may share one: it never changes.
#[pyclass(frozen, module = "heddle_native")]
struct Plans(Engine);

#[pymethods]
impl Plans {
    #[new]
    fn new() -> Plans {
        Plans(Engine::default())
    }

    /// An engine that also knows this writer: its frame, the JSON of its plan, the frame of its output.
    fn with_plan(&self, writer: &[u8], plan: &str, frame: &[u8]) -> PyResult<Plans> {
        let plan = Plan::read(plan).map_err(PyValueError::new_err)?;
        Ok(Plans(self.0.with_plan(framed(writer)?, plan, framed(frame)?)))
    }

    /// `(keys, values, refused, wanted)`. Keys and values: None for what has no output. Refused: indexes, ascending.
    /// Wanted: `(index, call, arguments)`, ascending by index: records that need these calls' results first.
    ///
    /// `results`: `(index, call, bytes)`, ascending by index: what calls gave for these values.
    fn transcode<'py>(&self, py: Python<'py>, values: Values<'py>, results: Vec<Row<'py>>) -> Answer<'py> {
        let owners: Vec<usize> = results.iter().map(|(index, ..)| *index).collect();
        let given: Vec<Given> = results.iter().map(|(_, call, bytes)| (*call, bytes.as_bytes())).collect();
        let mut answer = Answer::default();
        for (number, part) in values.chunks(PART).enumerate() {
            let first = number * PART;
            let inputs: Vec<Input> = (first..)
                .zip(part)
                .map(|(index, value)| Input {
                    value: value.as_ref().map(|bytes| bytes.as_bytes()),
                    given: owned(&owners, &given, index),
                })
                .collect();
            let batch = py.detach(|| self.0.transcode(&inputs));
            tell(py, &batch, &inputs, first, &mut answer);
        }
        answer
    }
}

/// What was given for one index; `owners` ascend.
fn owned<'g, 'a>(owners: &[usize], given: &'g [Given<'a>], index: usize) -> &'g [Given<'a>] {
    let place = owners.partition_point(|owner| *owner < index)..owners.partition_point(|owner| *owner <= index);
    given.get(place).unwrap_or_default()
}

/// Adds what became of these inputs, of which the first has that index.
fn tell<'py>(py: Python<'py>, batch: &Batch, inputs: &[Input], first: usize, answer: &mut Answer<'py>) {
    let bytes = |data: &[u8], place: &Range<usize>| PyBytes::new(py, data.get(place.clone()).unwrap_or_default());
    let (keys, values, refused, wanted) = answer;
    for (index, (outcome, input)) in (first..).zip(batch.outcomes.iter().zip(inputs)) {
        let output = match outcome {
            Outcome::Done { key, value } => Some((bytes(&batch.arena, key), bytes(&batch.arena, value))),
            _ => None,
        };
        let (key, value) = output.unzip();
        keys.push(key);
        values.push(value);
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
}

fn framed(bytes: &[u8]) -> PyResult<Frame> {
    bytes.try_into().map_err(|_| PyValueError::new_err(format!("a frame of {} bytes, not {FRAME_BYTES}", bytes.len())))
}

#[pymodule(gil_used = false)]
fn heddle_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Plans>()?;
    module.add_class::<Headers>()?;
    module.add("FORMATS", FORMATS)
}
