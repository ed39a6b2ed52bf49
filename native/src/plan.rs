//! A plan, as `heddle.wire.plan` writes it: the same parts under the same names, told there.
//!
//! A part of another name, a field too many or too few, a number that does not fit: an error, never a guess.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::prepare::{prepare, prepare_items};
use crate::scalars::{Bits, CallOrNone, Digits, Hex, Mark, Number, Rows, Whole};

/// The formats that this engine runs.
pub const FORMATS: [u32; 1] = [1];

const MAX_REGISTERS: usize = 1 << 16;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Value {
    Number { number: Number },
    Exact { value: Whole },
    Add { parts: Vec<Value> },
    Subtract { left: Box<Value>, right: Box<Value> },
    Multiply { parts: Vec<Value> },
}

#[derive(Deserialize)]
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
        #[serde(deserialize_with = "told")]
        low: Option<i64>,
        #[serde(deserialize_with = "told")]
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
        #[serde(rename = "item_bytes")]
        _item_bytes: IgnoredAny,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fold {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    pub number: Number,
    pub value: Value,
}

#[derive(Deserialize)]
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

#[derive(Clone, Copy, Deserialize)]
pub enum Relation {
    #[serde(rename = "==")]
    Equal,
    #[serde(rename = "<")]
    Less,
    #[serde(rename = ">")]
    Greater,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Part {
    Said { data: Hex },
    Content { content: Mark, end: Mark },
    Digits { value: Value, scale: usize },
    Picked { number: Number, rows: Vec<Option<Hex>> },
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Emit {
    Raw {
        data: Hex,
    },
    Copy {
        first: Mark,
        last: Mark,
    },
    WriteText {
        parts: Vec<Part>,
    },
    WriteJoin {
        parts: Vec<JoinPart>,
        by: Hex,
    },
    WriteNumber {
        value: Value,
        bits: Bits,
    },
    WriteDecimal {
        value: Value,
        digits: Digits,
        size: usize,
    },
    Pick {
        number: Number,
        rows: Vec<Option<Hex>>,
    },
    Lookup {
        content: Mark,
        end: Mark,
        rows: Rows,
        #[serde(deserialize_with = "told")]
        otherwise: Option<Hex>,
    },
    If {
        condition: Condition,
        then: Vec<Emit>,
        otherwise: Vec<Emit>,
    },
    Refuse {},
    Each {
        begin: Mark,
        items: Box<Walk>,
        #[serde(deserialize_with = "told")]
        r#where: Option<Condition>,
        emits: Vec<Emit>,
    },
    Spliced {
        call: usize,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinPart {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    pub parts: Vec<Part>,
    pub present: Mark,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Argument {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    pub first: Mark,
    pub last: Mark,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "does")]
    _does: IgnoredAny,
    pub arguments: Vec<Argument>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    pub entities: Vec<Vec<Part>>,
    #[serde(deserialize_with = "told")]
    pub tenant: Option<Vec<Part>>,
    pub call: CallOrNone,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    #[serde(rename = "format")]
    _format: IgnoredAny,
    #[serde(rename = "mapping")]
    _mapping: IgnoredAny,
    pub walk: Walk,
    #[serde(deserialize_with = "told")]
    pub when: Option<Condition>,
    pub emits: Vec<Emit>,
    pub key: Key,
    pub max_input_bytes: usize,
    pub max_output_bytes: usize,
    pub marks: usize,
    pub numbers: usize,
    pub calls: Vec<Call>,
}

/// What may be null, but not missing.
fn told<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(deserializer)
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
        if plan.marks.max(plan.numbers) > MAX_REGISTERS {
            return Err(format!("a plan of more than {MAX_REGISTERS} registers"));
        }
        prepare(&mut plan.walk, false);
        plan.emits.iter_mut().for_each(prepare_items);
        Ok(plan)
    }
}
