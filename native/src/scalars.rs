//! What the parts of a plan are made of, checked as they are read: registers, digits, bytes, rows.

use std::num::IntErrorKind;

use serde::Deserialize;

/// A register of positions. What is written to `UNSET` is dropped, as it is past every register.
#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(try_from = "i64")]
pub struct Mark(pub usize);

/// A register of whole numbers.
#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(try_from = "i64")]
pub struct Number(pub usize);

const UNSET: usize = usize::MAX;

impl Mark {
    pub fn is_named(self) -> bool {
        self.0 != UNSET
    }
}

fn register(told: i64) -> Result<usize, String> {
    match told {
        -1 => Ok(UNSET),
        _ => usize::try_from(told).map_err(|_| format!("no register: {told}")),
    }
}

impl TryFrom<i64> for Mark {
    type Error = String;

    fn try_from(told: i64) -> Result<Self, String> {
        register(told).map(Mark)
    }
}

impl TryFrom<i64> for Number {
    type Error = String;

    fn try_from(told: i64) -> Result<Self, String> {
        register(told).map(Number)
    }
}

/// A call's index, where there is one.
#[derive(Deserialize)]
#[serde(try_from = "i64")]
pub struct CallOrNone(pub Option<usize>);

impl TryFrom<i64> for CallOrNone {
    type Error = String;

    fn try_from(told: i64) -> Result<Self, String> {
        register(told).map(|call| CallOrNone((call != UNSET).then_some(call)))
    }
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(try_from = "u32")]
pub enum Bits {
    Int,
    Long,
}

impl TryFrom<u32> for Bits {
    type Error = String;

    fn try_from(told: u32) -> Result<Self, String> {
        match told {
            32 => Ok(Bits::Int),
            64 => Ok(Bits::Long),
            _ => Err(format!("no integer has {told} bits")),
        }
    }
}

/// A number of digits, kept as the smallest number that has more. From 39 on nothing that fits this engine has more.
#[derive(Clone, Copy, Deserialize)]
#[serde(from = "u32")]
pub struct Digits(u128);

impl From<u32> for Digits {
    fn from(told: u32) -> Self {
        Digits(10u128.checked_pow(told).unwrap_or(u128::MAX))
    }
}

impl Digits {
    pub fn hold(self, number: i128) -> bool {
        number.unsigned_abs() < self.0
    }
}

/// A decimal string. None for what does not fit: a record that needs it is refused.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub struct Whole(pub Option<i128>);

impl TryFrom<String> for Whole {
    type Error = String;

    fn try_from(told: String) -> Result<Self, String> {
        match told.parse::<i128>().map_err(|error| *error.kind()) {
            Ok(number) => Ok(Whole(Some(number))),
            Err(IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => Ok(Whole(None)),
            Err(_) => Err(format!("no whole number: {told}")),
        }
    }
}

#[derive(Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct Hex(pub Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(told: String) -> Result<Self, String> {
        let nibble = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        told.as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
                _ => None,
            })
            .collect::<Option<_>>()
            .map(Hex)
            .ok_or_else(|| format!("not hex: {told}"))
    }
}

/// Texts and what stands for them, in the order of the texts. Of two rows for one text the first counts.
#[derive(Deserialize)]
#[serde(from = "Vec<(Hex, Hex)>")]
pub struct Rows(Vec<(Hex, Hex)>);

impl From<Vec<(Hex, Hex)>> for Rows {
    fn from(mut rows: Vec<(Hex, Hex)>) -> Self {
        rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        rows.dedup_by(|(next, _), (kept, _)| next == kept);
        Rows(rows)
    }
}

impl Rows {
    pub fn find(&self, text: &[u8]) -> Option<&Hex> {
        let at = self.0.binary_search_by(|(row, _)| row.0.as_slice().cmp(text)).ok()?;
        self.0.get(at).map(|(_, data)| data)
    }
}
