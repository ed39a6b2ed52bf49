//! The walk: over the writer's bytes from first to last, each value checked, registers set on the way.

use std::slice::from_ref;

use crate::plan::Walk;
use crate::read::{is_text, is_uuid, natural, raw, sized, take, whole, zigzag};
use crate::record::Record;
use crate::scalars::Bits;

impl Record<'_> {
    /// From `at` over `steps`, to the position behind them. None: refused.
    pub fn walk(&mut self, steps: &[Walk], mut at: usize) -> Option<usize> {
        for step in steps {
            let start = at;
            let (begin, end) = match step {
                Walk::Null { begin, end } => (begin, end),
                Walk::Boolean { begin, end, number } => {
                    let byte = *self.data.get(at)?;
                    if byte > 1 {
                        return None;
                    }
                    self.set_number(*number, i128::from(byte));
                    at += 1;
                    (begin, end)
                }
                Walk::Integer { bits, low, high, begin, end, number } => {
                    let (written, next) = raw(self.data, at)?;
                    if *bits == Bits::Int && written > u64::from(u32::MAX) {
                        return None;
                    }
                    let value = zigzag(written);
                    if low.is_some_and(|low| value < low) || high.is_some_and(|high| value > high) {
                        return None;
                    }
                    self.set_number(*number, i128::from(value));
                    at = next;
                    (begin, end)
                }
                Walk::Real { size, begin, end } | Walk::Fixed { size, begin, end } => {
                    at = take(self.data, at, *size)?.1;
                    (begin, end)
                }
                Walk::Text { uuid, begin, end, content } => {
                    let (text, next) = sized(self.data, at)?;
                    if !is_text(text) || *uuid && !is_uuid(text) {
                        return None;
                    }
                    self.set(*content, next - text.len());
                    at = next;
                    (begin, end)
                }
                Walk::Bytes { begin, end } => {
                    at = sized(self.data, at)?.1;
                    (begin, end)
                }
                Walk::Decimal { digits, size, begin, end, number } => {
                    let (bytes, next) = if *size == 0 { sized(self.data, at)? } else { take(self.data, at, *size)? };
                    let value = whole(bytes).filter(|value| digits.hold(*value))?;
                    self.set_number(*number, value);
                    at = next;
                    (begin, end)
                }
                Walk::Enum { symbols, begin, end, number } => {
                    let (index, next) = natural(self.data, at)?;
                    if index >= *symbols {
                        return None;
                    }
                    self.set_number(*number, i128::from(index));
                    at = next;
                    (begin, end)
                }
                Walk::Array { items, begin, end, count, folds, .. } => {
                    folds.iter().for_each(|fold| self.set_number(fold.number, 0));
                    let found;
                    (found, at) = self.blocks(at, |record, at| {
                        let next = record.walk(from_ref(items), at)?;
                        for fold in folds {
                            let sum = record.number(fold.number)?.checked_add(record.value(&fold.value)?)?;
                            record.set_number(fold.number, sum);
                        }
                        Some(next)
                    })?;
                    self.set_number(*count, i128::from(found));
                    (begin, end)
                }
                Walk::Map { values, begin, end } => {
                    let outer = self.registers.keys.len();
                    (_, at) = self.blocks(at, |record, at| {
                        let (key, next) = sized(record.data, at)?;
                        if !is_text(key) {
                            return None;
                        }
                        record.registers.keys.push((next - key.len(), next));
                        record.walk(from_ref(values), next)
                    })?;
                    if self.key_twice(outer)? {
                        return None;
                    }
                    (begin, end)
                }
                Walk::Union { branches, begin, end, number, inner } => {
                    self.unset(inner);
                    let (index, next) = natural(self.data, at)?;
                    let branch = branches.get(usize::try_from(index).ok()?)?;
                    self.set_number(*number, i128::from(index));
                    at = self.walk(from_ref(branch), next)?;
                    (begin, end)
                }
                Walk::Record { fields, begin, end } => {
                    at = self.walk(fields, at)?;
                    (begin, end)
                }
            };
            self.set(*begin, start);
            self.set(*end, at);
        }
        Some(at)
    }

    /// The blocks of an array or map, `item` by item: their number, and the position behind them. An item without
    /// bytes is refused: so a block that claims more than the record has left comes to an end with the record.
    pub fn blocks(
        &mut self,
        mut at: usize,
        mut item: impl FnMut(&mut Self, usize) -> Option<usize>,
    ) -> Option<(u64, usize)> {
        let mut items = 0;
        loop {
            let (written, next) = raw(self.data, at)?;
            let count = zigzag(written);
            at = next;
            if count == 0 {
                return Some((items, at));
            }
            if count < 0 {
                (_, at) = natural(self.data, at)?;
            }
            for _ in 0..count.unsigned_abs() {
                let next = item(self, at)?;
                if next == at {
                    return None;
                }
                at = next;
            }
            items += count.unsigned_abs();
        }
    }

    /// Whether two of the map's keys, those from `outer` on, are one. Forgets them.
    fn key_twice(&mut self, outer: usize) -> Option<bool> {
        let (data, keys) = (self.data, &mut self.registers.keys);
        let inner = keys.get_mut(outer..)?;
        inner.sort_unstable_by_key(|(begin, end)| data.get(*begin..*end));
        let twice = inner
            .windows(2)
            .any(|pair| matches!(pair, [one, next] if data.get(one.0..one.1) == data.get(next.0..next.1)));
        keys.truncate(outer);
        Some(twice)
    }
}
