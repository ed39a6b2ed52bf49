//! A plan, as `heddle.wire.plan` writes it: the same parts under the same names, told there.
//!
//! A part of another name, a field too many or too few, a number that does not fit: an error, never a guess.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// The formats that this engine runs.
pub const FORMATS: [u32; 1] = [1];

/// A register of positions. What is written to `UNSET` is dropped, as it is past every register.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(try_from = "i64")]
pub struct Mark(pub usize);

/// A register of whole numbers.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(try_from = "i64")]
pub struct Number(pub usize);

const UNSET: usize = usize::MAX;

impl Mark {
    pub fn is_named(self) -> bool {
        self.0 != UNSET
    }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Value {
    Number { number: Number },
    Exact { value: Whole },
    Add { parts: Vec<Value> },
    Subtract { left: Box<Value>, right: Box<Value> },
    Multiply { parts: Vec<Value> },
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Walk {
    Null {
        begin: Mark,
        end: Mark,
    },
    Boolean {
        begin: Mark,
        end: Mark,
        number: Number,
    },
    Integer {
        bits: Bits,
        low: Option<i64>,
        high: Option<i64>,
        begin: Mark,
        end: Mark,
        number: Number,
    },
    Real {
        size: usize,
        begin: Mark,
        end: Mark,
    },
    Text {
        uuid: bool,
        begin: Mark,
        end: Mark,
        content: Mark,
    },
    Bytes {
        begin: Mark,
        end: Mark,
    },
    Fixed {
        size: usize,
        begin: Mark,
        end: Mark,
    },
    Decimal {
        digits: Digits,
        size: usize,
        begin: Mark,
        end: Mark,
        number: Number,
    },
    Enum {
        symbols: u64,
        begin: Mark,
        end: Mark,
        number: Number,
    },
    Array {
        items: Box<Walk>,
        item_bytes: usize,
        begin: Mark,
        end: Mark,
        count: Number,
        folds: Vec<Fold>,
    },
    Map {
        values: Box<Walk>,
        begin: Mark,
        end: Mark,
    },
    Union {
        branches: Vec<Walk>,
        begin: Mark,
        end: Mark,
        number: Number,
        #[serde(skip)]
        inner: Vec<Mark>,
    },
    Record {
        fields: Vec<Walk>,
        begin: Mark,
        end: Mark,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fold {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    pub number: Number,
    pub value: Value,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Condition {
    Present { mark: Mark },
    Compare { left: Value, relation: Relation, right: Value },
    AmongTexts { content: Mark, end: Mark, values: Vec<Hex> },
    AmongNumbers { number: Number, values: Vec<i64> },
    Holds { call: usize },
    Not { of: Box<Condition> },
    All { of: Vec<Condition> },
    AnyOf { of: Vec<Condition> },
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub enum Relation {
    #[serde(rename = "==")]
    Equal,
    #[serde(rename = "<")]
    Less,
    #[serde(rename = ">")]
    Greater,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Part {
    Said { data: Hex },
    Content { content: Mark, end: Mark },
    Digits { value: Value, scale: usize },
    Picked { number: Number, rows: Vec<Option<Hex>> },
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Emit {
    Raw { data: Hex },
    Copy { first: Mark, last: Mark },
    WriteText { parts: Vec<Part> },
    WriteJoin { parts: Vec<JoinPart>, by: Hex },
    WriteNumber { value: Value, bits: Bits },
    WriteDecimal { value: Value, digits: Digits, size: usize },
    Pick { number: Number, rows: Vec<Option<Hex>> },
    Lookup { content: Mark, end: Mark, rows: Rows, otherwise: Option<Hex> },
    If { condition: Condition, then: Vec<Emit>, otherwise: Vec<Emit> },
    Refuse {},
    Each { begin: Mark, items: Box<Walk>, r#where: Option<Condition>, emits: Vec<Emit> },
    Spliced { call: usize },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinPart {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    pub parts: Vec<Part>,
    pub present: Mark,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Argument {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    pub first: Mark,
    pub last: Mark,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "does")]
    _does: IgnoredAny,
    pub arguments: Vec<Argument>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    pub entities: Vec<Vec<Part>>,
    pub tenant: Option<Vec<Part>>,
    pub call: CallOrNone,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "format")]
    _format: IgnoredAny,
    #[serde(rename = "mapping")]
    _mapping: IgnoredAny,
    pub walk: Walk,
    pub when: Option<Condition>,
    pub emits: Vec<Emit>,
    pub key: Key,
    pub max_input_bytes: usize,
    pub max_output_bytes: usize,
    pub marks: usize,
    pub numbers: usize,
    pub calls: Vec<Call>,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Plan {
    /// The plan of this JSON, or why this engine cannot run it.
    pub fn read(json: &str) -> Result<Plan, String> {
        let told: Format = serde_json::from_str(json).map_err(|error| error.to_string())?;
        if !FORMATS.contains(&told.format) {
            return Err(format!("a plan of format {}; this engine runs {FORMATS:?}", told.format));
        }
        let mut plan: Plan = serde_json::from_str(json).map_err(|error| error.to_string())?;
        prepare(&mut plan.walk, false);
        plan.emits.iter_mut().for_each(prepare_items);
        Ok(plan)
    }
}

/// Gives each union that is walked more than once in a record the marks inside of it, which it must unset. The others'
/// are unset when the record begins.
fn prepare(walk: &mut Walk, repeated: bool) {
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

fn prepare_items(emit: &mut Emit) {
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
            inside = std::slice::from_ref(only);
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
#[derive(Debug, Deserialize)]
#[serde(try_from = "i64")]
pub struct CallOrNone(pub Option<usize>);

impl TryFrom<i64> for CallOrNone {
    type Error = String;

    fn try_from(told: i64) -> Result<Self, String> {
        register(told).map(|call| CallOrNone((call != UNSET).then_some(call)))
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
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
#[derive(Clone, Copy, Debug, Deserialize)]
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

/// A decimal string of at most 127 bits.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Whole(pub i128);

impl TryFrom<String> for Whole {
    type Error = String;

    fn try_from(told: String) -> Result<Self, String> {
        told.parse().map(Whole).map_err(|_| format!("no whole number of at most 127 bits: {told}"))
    }
}

#[derive(Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
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

/// Texts and what stands for them, in the order of the texts.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Vec<(Hex, Hex)>")]
pub struct Rows(Vec<(Hex, Hex)>);

impl TryFrom<Vec<(Hex, Hex)>> for Rows {
    type Error = String;

    fn try_from(mut rows: Vec<(Hex, Hex)>) -> Result<Self, String> {
        rows.sort();
        match rows.windows(2).any(|pair| matches!(pair, [(one, _), (next, _)] if one == next)) {
            true => Err("one text has two rows".to_owned()),
            false => Ok(Rows(rows)),
        }
    }
}

impl Rows {
    pub fn find(&self, text: &[u8]) -> Option<&Hex> {
        let at = self.0.binary_search_by(|(row, _)| row.0.as_slice().cmp(text)).ok()?;
        self.0.get(at).map(|(_, data)| data)
    }
}
