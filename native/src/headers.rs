//! Headers of derived events, as `heddle.delivery.derived` makes them, for parents that have our seven.

use std::array::from_fn;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use crate::blake2b::{DIGEST_BYTES, digest};

/// In the order in which we write them.
const NAMES: [&str; 7] =
    ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "heddle-lineage", "traceparent"];
const ID: &str = "ce_id";
const LINEAGE: &str = "heddle-lineage";
const LINEAGE_START: &[u8] = b"1;";
const TRACE_START: &[u8] = b"00-";
const LETTERS: [u8; 32] = *b"abcdefghijklmnopqrstuvwxyz234567";
const ID_CHARS: usize = 26;

/// The ordinal 0, with its length before it.
const FIRST: &[u8] = b"\0\0\0\x010";

type Header<'py> = Bound<'py, PyTuple>;
type Own = (Py<PyTuple>, Py<PyTuple>, Py<PyTuple>);

/// One flow's.
#[pyclass(frozen, module = "heddle_native")]
pub struct Headers {
    own: Own,
    before_root: Vec<u8>,
    middle: Vec<u8>,
    id: Py<PyString>,
    lineage: Py<PyString>,
}

#[pymethods]
impl Headers {
    /// `own`: what all outputs have: the headers of spec version, source and type. `before_root`: version and revision
    /// of their lineage. `middle`: what is hashed between a parent's identity and an output's key.
    #[new]
    fn new(py: Python<'_>, own: Own, before_root: Vec<u8>, middle: Vec<u8>) -> Headers {
        let [id, lineage] = [ID, LINEAGE].map(|name| PyString::intern(py, name).unbind());
        Headers { own, before_root, middle, id, lineage }
    }

    /// As `DerivedHeaders.of_each`. Whatever else is in the lists makes a None.
    fn of_each<'py>(
        &self,
        py: Python<'py>,
        parents: &Bound<'py, PyList>,
        keys: &Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, PyList>> {
        let mut hashed = Vec::new();
        let made = parents.iter().zip(keys).map(|(parent, key)| self.output(py, &parent, &key, &mut hashed));
        PyList::new(py, made.collect::<PyResult<Vec<_>>>()?)
    }
}

impl Headers {
    fn output<'py>(
        &self,
        py: Python<'py>,
        parent: &Bound<'py, PyAny>,
        key: &Bound<'py, PyAny>,
        hashed: &mut Vec<u8>,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let (Ok(key), Some(parent)) = (key.cast::<PyBytes>(), seven(parent)) else {
            return Ok(None);
        };
        let [_, id, source, _, time, lineage, trace] = &parent;
        let (Some(parent_id), Some(source), Some(lineage)) = (value(id), value(source), value(lineage)) else {
            return Ok(None);
        };
        let is_told = value(time).is_some() && value(trace).is_some_and(is_traceparent);
        let Some(root) = root(lineage).filter(|_| is_told) else {
            return Ok(None);
        };
        hashed.clear();
        for part in [source, parent_id] {
            prefixed(part, hashed);
        }
        hashed.extend_from_slice(&self.middle);
        prefixed(key.as_bytes(), hashed);
        hashed.extend_from_slice(FIRST);
        let id = PyBytes::new(py, &text(digest(hashed)));
        hashed.clear();
        hashed.extend_from_slice(&self.before_root);
        hashed.extend_from_slice(root);
        let lineage = PyBytes::new(py, hashed);
        let id = PyTuple::new(py, [self.id.bind(py).as_any(), &id])?;
        let lineage = PyTuple::new(py, [self.lineage.bind(py).as_any(), &lineage])?;
        let (specversion, source, kind) = &self.own;
        let (specversion, source, kind) = (specversion.bind(py), source.bind(py), kind.bind(py));
        PyList::new(py, [specversion, &id, source, kind, time, &lineage, trace]).map(Some)
    }
}

/// None for headers that are not ours, in the order in which we write them, and nothing else.
fn seven<'py>(headers: &Bound<'py, PyAny>) -> Option<[Header<'py>; NAMES.len()]> {
    let headers = headers.cast::<PyList>().ok()?;
    if headers.len() != NAMES.len() {
        return None;
    }
    let mut next = headers.iter().zip(NAMES).map(|(header, name)| named(header, name));
    let mut next = || next.next().flatten();
    Some([next()?, next()?, next()?, next()?, next()?, next()?, next()?])
}

fn named<'py>(header: Bound<'py, PyAny>, name: &str) -> Option<Header<'py>> {
    let header = header.cast_into::<PyTuple>().ok()?;
    let found = header.get_borrowed_item(0).ok()?.cast::<PyString>().ok()?;
    (found.to_str().ok()? == name && header.len() == 2).then_some(header)
}

/// None for what is no bytes, and for none of them.
fn value<'a>(header: &'a Header) -> Option<&'a [u8]> {
    header.get_borrowed_item(1).ok()?.extract().ok().filter(|bytes: &&[u8]| !bytes.is_empty())
}

/// What follows version and revision: source, semicolon, id.
fn root(lineage: &[u8]) -> Option<&[u8]> {
    let rest = lineage.strip_prefix(LINEAGE_START)?;
    let (_, root) = rest.split_at_checked(rest.iter().position(|byte| *byte == b';')? + 1)?;
    root.contains(&b';').then_some(root)
}

fn is_traceparent(value: &[u8]) -> bool {
    value.len() == 55
        && value.starts_with(TRACE_START)
        && value.iter().enumerate().all(|(place, byte)| match place {
            2 | 35 | 52 => *byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

fn prefixed(part: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(part.len() as u32).to_be_bytes());
    out.extend_from_slice(part);
}

/// Base32 without padding. The last character has three bits, and two zeros.
fn text(digest: [u8; DIGEST_BYTES]) -> [u8; ID_CHARS] {
    let number = u128::from_be_bytes(digest);
    from_fn(|place| {
        let bits = if place == ID_CHARS - 1 { number << 2 } else { number >> (123 - 5 * place) };
        LETTERS.get(bits as usize & 31).copied().unwrap_or_default()
    })
}
