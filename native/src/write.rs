//! The emits: the output, written from the registers to the end of `out`.

use std::slice::from_ref;

use crate::plan::{Condition, Emit, JoinPart, Part, Value, Walk};
use crate::record::{Record, Stop};
use crate::scalars::{Bits, Digits};

type Written = Result<(), Stop>;

impl Record<'_> {
    /// `limit`: where `out` may end. Looked at only where output could grow faster than plan and record together.
    pub fn write(&mut self, emits: &[Emit], out: &mut Vec<u8>, limit: usize) -> Written {
        for emit in emits {
            match emit {
                Emit::Raw { data } => out.extend_from_slice(&data.0),
                Emit::Copy { first, last } => {
                    out.extend_from_slice(self.span(*first, *last).ok_or(Stop::Refused)?);
                }
                Emit::WriteText { parts } => sized(out, |out| self.parts(parts, out))?,
                Emit::WriteJoin { parts, by } => sized(out, |out| self.join(parts, &by.0, out))?,
                Emit::WriteNumber { value, bits } => {
                    let number = self.value(value).and_then(|value| in_bits(value, *bits)).ok_or(Stop::Refused)?;
                    write_long(number, out);
                }
                Emit::WriteDecimal { value, digits, size } => {
                    self.decimal(value, *digits, *size, out).ok_or(Stop::Refused)?;
                }
                Emit::Pick { number, rows } => {
                    out.extend_from_slice(&self.row(*number, rows).ok_or(Stop::Refused)?.0);
                }
                Emit::Lookup { content, end, rows, otherwise } => {
                    let text = self.span(*content, *end).ok_or(Stop::Refused)?;
                    let row = rows.find(text).or(otherwise.as_ref()).ok_or(Stop::Refused)?;
                    out.extend_from_slice(&row.0);
                }
                Emit::If { condition, then, otherwise } => {
                    let branch = if self.holds(condition)? { then } else { otherwise };
                    self.write(branch, out, limit)?;
                }
                Emit::Refuse {} => return Err(Stop::Refused),
                Emit::Each { begin, items, r#where, emits } => {
                    let at = self.mark(*begin).ok_or(Stop::Refused)?;
                    self.each(at, items, r#where.as_ref(), emits, out, limit)?;
                }
                Emit::Spliced { call } => out.extend_from_slice(self.given(*call)?),
            }
        }
        Ok(())
    }

    fn each(
        &mut self,
        at: usize,
        items: &Walk,
        condition: Option<&Condition>,
        emits: &[Emit],
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Written {
        let start = out.len();
        let mut kept = 0;
        let mut stop = Stop::Refused;
        let walked = self.blocks(at, |record, at| {
            let next = record.walk(from_ref(items), at)?;
            let wrote = match condition.map_or(Ok(true), |condition| record.holds(condition)) {
                Ok(true) => {
                    kept += 1;
                    record.write(emits, out, limit)
                }
                Ok(false) => Ok(()),
                Err(stop) => Err(stop),
            };
            match wrote {
                Ok(()) if out.len() <= limit => Some(next),
                Ok(()) => None,
                Err(reason) => {
                    stop = reason;
                    None
                }
            }
        });
        walked.ok_or(stop)?;
        if kept > 0 {
            write_before(kept, start, out);
        }
        out.push(0);
        Ok(())
    }

    pub fn parts(&self, parts: &[Part], out: &mut Vec<u8>) -> Written {
        for part in parts {
            match part {
                Part::Said { data } => out.extend_from_slice(&data.0),
                Part::Content { content, end } => {
                    out.extend_from_slice(self.span(*content, *end).ok_or(Stop::Refused)?);
                }
                Part::Digits { value, scale } => plain(self.value(value).ok_or(Stop::Refused)?, *scale, out),
                Part::Picked { number, rows } => {
                    out.extend_from_slice(&self.row(*number, rows).ok_or(Stop::Refused)?.0);
                }
            }
        }
        Ok(())
    }

    fn join(&self, parts: &[JoinPart], by: &[u8], out: &mut Vec<u8>) -> Written {
        let mut first = true;
        for part in parts {
            if part.present.is_named() && self.mark(part.present).is_none() {
                continue;
            }
            if !first {
                out.extend_from_slice(by);
            }
            first = false;
            self.parts(&part.parts, out)?;
        }
        Ok(())
    }

    fn decimal(&self, value: &Value, digits: Digits, size: usize, out: &mut Vec<u8>) -> Option<()> {
        let number = self.value(value).filter(|number| digits.hold(*number))?;
        let size = if size == 0 {
            // As the codec: a byte more than the magnitude's whole bytes.
            let bits = u128::BITS - number.unsigned_abs().leading_zeros();
            write_long(i64::from(bits / 8 + 1), out);
            usize::try_from(bits / 8 + 1).ok()?
        } else {
            size
        };
        let (sign, bytes) = (if number < 0 { 0xff } else { 0 }, number.to_be_bytes());
        let (spare, kept) = bytes.split_at(bytes.len().saturating_sub(size));
        if spare.iter().any(|byte| *byte != sign) || kept.first().is_none_or(|byte| (byte ^ sign) >= 0x80) {
            return None;
        }
        out.resize(out.len() + size.saturating_sub(kept.len()), sign);
        out.extend_from_slice(kept);
        Some(())
    }
}

fn in_bits(value: i128, bits: Bits) -> Option<i64> {
    match bits {
        Bits::Int => i32::try_from(value).ok().map(i64::from),
        Bits::Long => i64::try_from(value).ok(),
    }
}

fn write_long(number: i64, out: &mut Vec<u8>) {
    let mut rest = (number << 1 ^ number >> 63).cast_unsigned();
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Writes a number before what begins at `start`.
fn write_before(number: i64, start: usize, out: &mut Vec<u8>) {
    let end = out.len();
    write_long(number, out);
    let size = out.len() - end;
    if let Some(tail) = out.get_mut(start..) {
        tail.rotate_right(size);
    }
}

/// Writes with `write`, and the length of it before it.
#[inline(always)]
fn sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Written) -> Written {
    let start = out.len();
    write(out)?;
    let length = i64::try_from(out.len() - start).map_err(|_| Stop::Refused)?;
    write_before(length, start, out);
    Ok(())
}

/// A number in plain notation, with `scale` digits after the point.
fn plain(number: i128, scale: usize, out: &mut Vec<u8>) {
    if number < 0 {
        out.push(b'-');
    }
    let digits = number.unsigned_abs().to_string();
    if scale == 0 {
        return out.extend_from_slice(digits.as_bytes());
    }
    match digits.len().checked_sub(scale) {
        Some(point) if point > 0 => {
            let (whole, fraction) = digits.split_at(point);
            out.extend_from_slice(whole.as_bytes());
            out.push(b'.');
            out.extend_from_slice(fraction.as_bytes());
        }
        _ => {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + scale - digits.len(), b'0');
            out.extend_from_slice(digits.as_bytes());
        }
    }
}
