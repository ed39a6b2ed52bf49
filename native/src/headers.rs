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
        let (Ok(key), Some(ours)) = (key.cast::<PyBytes>(), Ours::read(parent)) else {
            return Ok(None);
        };
        let Some(root) = root(ours.lineage.as_bytes()) else {
            return Ok(None);
        };
        hashed.clear();
        for part in [ours.source.as_bytes(), ours.id.as_bytes()] {
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
        PyList::new(py, [specversion, &id, source, kind, &ours.time, &lineage, &ours.trace]).map(Some)
    }
}

/// What is taken of a parent's headers, none of it empty: of time and trace the headers themselves.
struct Ours<'py> {
    id: Bound<'py, PyBytes>,
    source: Bound<'py, PyBytes>,
    time: Header<'py>,
    lineage: Bound<'py, PyBytes>,
    trace: Header<'py>,
}

impl<'py> Ours<'py> {
    /// None for headers that are not our seven, or not as we write them.
    fn read(headers: &Bound<'py, PyAny>) -> Option<Ours<'py>> {
        let headers = headers.cast::<PyList>().ok()?;
        if headers.len() != NAMES.len() {
            return None;
        }
        let mut named = headers.iter().zip(NAMES).map(|(header, name)| named(header, name));
        let (_, id, source) = (named.next()??, named.next()??, named.next()??);
        let (_, time, lineage, trace) = (named.next()??, named.next()??, named.next()??, named.next()??);
        value(&time)?;
        value(&trace).filter(|trace| is_traceparent(trace.as_bytes()))?;
        Some(Ours { id: value(&id)?, source: value(&source)?, time, lineage: value(&lineage)?, trace })
    }
}

fn named<'py>(header: Bound<'py, PyAny>, name: &str) -> Option<Header<'py>> {
    let header = header.cast_into::<PyTuple>().ok()?;
    let found = header.get_item(0).ok()?.cast_into::<PyString>().ok()?;
    (found.to_str().ok()? == name && header.len() == 2).then_some(header)
}

fn value<'py>(header: &Header<'py>) -> Option<Bound<'py, PyBytes>> {
    let value = header.get_item(1).ok()?.cast_into::<PyBytes>().ok()?;
    (!value.as_bytes().is_empty()).then_some(value)
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
