//! Batches: each record by the plan of its writer, all output into one arena.

use std::ops::Range;
use std::slice::from_ref;
use std::sync::Arc;

use crate::plan::{Argument, Call, Emit, Plan};
use crate::record::{Given, Record, Registers, Stop};

/// The magic byte and the id of the writer's schema.
pub const FRAME_BYTES: usize = 5;

pub type Frame = [u8; FRAME_BYTES];

/// Plans by the frame of their writer, each with the frame of its output. Never changes: another plan makes another
/// engine.
#[derive(Clone, Default)]
pub struct Engine {
    writers: Vec<(Frame, Arc<Plan>, Frame)>,
}

/// A record, framed, and what calls gave for it so far.
pub struct Input<'a> {
    pub value: Option<&'a [u8]>,
    pub given: &'a [Given<'a>],
}

/// What became of one record.
pub enum Outcome {
    /// Where its key and its framed value lie in the arena.
    Done {
        key: Range<usize>,
        value: Range<usize>,
    },
    LeftOut,
    Refused,
    /// Calls whose results it needs before it can go on.
    Wants(Vec<Wanted>),
}

pub struct Wanted {
    pub call: usize,
    /// Where each lies in the value; None for one that is not there.
    pub arguments: Vec<Option<Range<usize>>>,
}

/// What became of a batch, record by record.
pub struct Batch {
    pub arena: Vec<u8>,
    pub outcomes: Vec<Outcome>,
}

impl Engine {
    /// This engine with one plan more; a plan that this writer had is replaced.
    pub fn with_plan(&self, writer: Frame, plan: Plan, frame: Frame) -> Engine {
        let others = self.writers.iter().filter(|(other, ..)| *other != writer).cloned();
        let mut writers: Vec<_> = others.chain([(writer, Arc::new(plan), frame)]).collect();
        writers.sort_unstable_by_key(|(writer, ..)| *writer);
        Engine { writers }
    }

    pub fn transcode(&self, inputs: &[Input]) -> Batch {
        let size = inputs.iter().filter_map(|input| input.value).map(<[u8]>::len).sum();
        let mut batch = Batch { arena: Vec::with_capacity(size), outcomes: Vec::with_capacity(inputs.len()) };
        let mut memory: Vec<Option<Registers>> = self.writers.iter().map(|_| None).collect();
        let mut last = 0;
        for Input { value, given } in inputs {
            let outcome = value.and_then(|value| {
                let (frame, data) = value.split_first_chunk::<FRAME_BYTES>()?;
                if self.writers.get(last)?.0 != *frame {
                    last = self.writers.binary_search_by_key(frame, |(writer, ..)| *writer).ok()?;
                }
                let (_, plan, output) = self.writers.get(last)?;
                let registers = memory.get_mut(last)?.get_or_insert_with(|| Registers::of(plan));
                Some(one(plan, output, &mut Record::new(data, given, registers), &mut batch.arena))
            });
            batch.outcomes.push(outcome.unwrap_or(Outcome::Refused));
        }
        batch
    }
}

fn one(plan: &Plan, frame: &Frame, record: &mut Record, arena: &mut Vec<u8>) -> Outcome {
    let start = arena.len();
    let stop = match written(plan, frame, record, arena) {
        Ok(Some(value)) => return Outcome::Done { key: value..arena.len(), value: start..value },
        Ok(None) => return Outcome::LeftOut,
        Err(stop) => stop,
    };
    arena.truncate(start);
    match stop {
        Stop::Refused => Outcome::Refused,
        Stop::Wants(_) => match wanted(plan, record) {
            Some(calls) if !calls.is_empty() => Outcome::Wants(calls),
            _ => Outcome::Refused,
        },
    }
}

/// Frame and value, then the key, and where the value ends; None for a record that the plan leaves out.
fn written(plan: &Plan, frame: &Frame, record: &mut Record, arena: &mut Vec<u8>) -> Result<Option<usize>, Stop> {
    let size = record.data.len();
    if size + FRAME_BYTES > plan.max_input_bytes || record.walk(from_ref(&plan.walk), 0) != Some(size) {
        return Err(Stop::Refused);
    }
    if let Some(when) = &plan.when
        && !record.holds(when)?
    {
        return Ok(None);
    }
    let limit = arena.len().saturating_add(plan.max_output_bytes);
    arena.extend_from_slice(frame);
    record.write(&plan.emits, arena, limit)?;
    let end = arena.len();
    if end > limit {
        return Err(Stop::Refused);
    }
    record.key(&plan.key, arena)?;
    Ok(Some(end))
}

/// All calls that a record needs for sure, as far as can be told without their results.
fn wanted(plan: &Plan, record: &Record) -> Option<Vec<Wanted>> {
    let mut calls = Vec::new();
    match plan.when.as_ref().map(|when| record.holds(when)) {
        Some(Err(Stop::Wants(call))) => calls.push(call),
        _ => {
            needed(record, &plan.emits, &mut calls);
            if let Some(call) = plan.key.call.0 {
                need(record, call, &mut calls);
            }
        }
    }
    calls
        .into_iter()
        .map(|call| arguments(record, plan.calls.get(call)?).map(|arguments| Wanted { call, arguments }))
        .collect()
}

fn needed(record: &Record, emits: &[Emit], calls: &mut Vec<usize>) {
    for emit in emits {
        match emit {
            Emit::Spliced { call } => need(record, *call, calls),
            Emit::If { condition, then, otherwise } => match record.holds(condition) {
                Ok(true) => needed(record, then, calls),
                Ok(false) => needed(record, otherwise, calls),
                Err(Stop::Wants(call)) => need(record, call, calls),
                Err(Stop::Refused) => {}
            },
            _ => {}
        }
    }
}

fn need(record: &Record, call: usize, calls: &mut Vec<usize>) {
    if record.given(call).is_err() && !calls.contains(&call) {
        calls.push(call);
    }
}

fn arguments(record: &Record, call: &Call) -> Option<Vec<Option<Range<usize>>>> {
    let place = |argument: &Argument| match record.mark(argument.first) {
        None => Some(None),
        Some(first) => {
            record.span(argument.first, argument.last)?;
            Some(Some(first + FRAME_BYTES..record.mark(argument.last)? + FRAME_BYTES))
        }
    };
    call.arguments.iter().map(place).collect()
}
