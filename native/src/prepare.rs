//! What a plan does not say and its walk needs.

use std::slice::from_ref;

use crate::plan::{Emit, Walk};
use crate::scalars::Mark;

/// Gives each union that is walked more than once in a record the marks inside of it, which it must unset. The others'
/// are unset when the record begins.
pub fn prepare(walk: &mut Walk, repeated: bool) {
    match walk {
        Walk::Array { items, .. } => prepare(items, true),
        Walk::Map { values, .. } => prepare(values, true),
        Walk::Record { fields, .. } => fields.iter_mut().for_each(|field| prepare(field, repeated)),
        Walk::Union { branches, inner, .. } => {
            for branch in branches {
                if repeated {
                    marks_of(branch, inner);
                }
                prepare(branch, repeated);
            }
        }
        _ => {}
    }
}

pub fn prepare_items(emit: &mut Emit) {
    match emit {
        Emit::Each { items, emits, .. } => {
            prepare(items, true);
            emits.iter_mut().for_each(prepare_items);
        }
        Emit::If { then, otherwise, .. } => then.iter_mut().chain(otherwise).for_each(prepare_items),
        _ => {}
    }
}

fn marks_of(walk: &Walk, marks: &mut Vec<Mark>) {
    let mut inside: &[Walk] = &[];
    let (begin, end) = match walk {
        Walk::Null { begin, end }
        | Walk::Boolean { begin, end, .. }
        | Walk::Integer { begin, end, .. }
        | Walk::Real { begin, end, .. }
        | Walk::Bytes { begin, end }
        | Walk::Fixed { begin, end, .. }
        | Walk::Decimal { begin, end, .. }
        | Walk::Enum { begin, end, .. } => (begin, end),
        Walk::Text { begin, end, content, .. } => {
            marks.push(*content);
            (begin, end)
        }
        Walk::Array { items: only, begin, end, .. } | Walk::Map { values: only, begin, end } => {
            inside = from_ref(only);
            (begin, end)
        }
        Walk::Union { branches: all, begin, end, .. } | Walk::Record { fields: all, begin, end } => {
            inside = all;
            (begin, end)
        }
    };
    marks.extend([*begin, *end]);
    marks.retain(|mark| mark.is_named());
    inside.iter().for_each(|walk| marks_of(walk, marks));
}
