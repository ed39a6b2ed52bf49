//! The parts of Avro's binary encoding, read. Each gives what it read and the position after it, or None: refused.

/// A variable-length number as it is written, zig-zag: at most 64 bits, in as few bytes as they need. The codec would
/// write a longer one shorter, so it could not be copied.
#[inline(always)]
pub fn raw(data: &[u8], at: usize) -> Option<(u64, usize)> {
    let first = *data.get(at)?;
    if first < 0x80 {
        return Some((u64::from(first), at + 1));
    }
    let mut number = u64::from(first & 0x7f);
    for (index, byte) in data.get(at + 1..)?.iter().take(9).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * (index + 1));
        if *byte < 0x80 {
            let fits = *byte > 0 && (index < 8 || *byte == 1);
            return fits.then_some((number, at + index + 2));
        }
    }
    None
}

#[inline(always)]
pub fn zigzag(raw: u64) -> i64 {
    (raw >> 1).cast_signed() ^ -(raw & 1).cast_signed()
}

/// A number that is not negative: a length, an index.
#[inline(always)]
pub fn natural(data: &[u8], at: usize) -> Option<(u64, usize)> {
    let (raw, at) = raw(data, at)?;
    (raw & 1 == 0).then_some((raw >> 1, at))
}

#[inline(always)]
pub fn take(data: &[u8], at: usize, size: usize) -> Option<(&[u8], usize)> {
    let end = at.checked_add(size)?;
    Some((data.get(at..end)?, end))
}

/// Bytes with their length before them.
#[inline(always)]
pub fn sized(data: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (length, at) = natural(data, at)?;
    take(data, at, usize::try_from(length).ok()?)
}

/// Two's complement, big-endian. None for no bytes and for more than 128 bits.
#[inline(always)]
pub fn whole(bytes: &[u8]) -> Option<i128> {
    let first = *bytes.first()?;
    let negative = first >= 0x80;
    if bytes.len() <= 8 {
        let start = if negative { -1i64 } else { 0 };
        return Some(bytes.iter().fold(start, |number, byte| number << 8 | i64::from(*byte)).into());
    }
    let (sign, start) = if negative { (0xff, -1i128) } else { (0, 0) };
    let spare = bytes.len().saturating_sub(16);
    let (padding, rest) = bytes.split_at_checked(spare)?;
    let number = rest.iter().fold(start, |number, byte| number << 8 | i128::from(*byte));
    (padding.iter().all(|byte| *byte == sign) && (number < 0) == negative).then_some(number)
}

pub fn is_text(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

/// 36 characters, lower case, hyphens where they belong.
pub fn is_uuid(text: &[u8]) -> bool {
    let well_placed = |(index, byte): (usize, &u8)| match index {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    text.len() == 36 && text.iter().enumerate().all(well_placed)
}
