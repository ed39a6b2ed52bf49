//! One record on its way through a plan: its bytes, the registers, what calls gave.

use crate::plan::{Condition, Plan, Relation, Value};
use crate::scalars::{Mark, Number};

/// Why a record gives no output yet, or none at all.
#[derive(Clone, Copy)]
pub enum Stop {
    Refused,
    /// The result of this call is needed first.
    Wants(usize),
}

/// A call's number and what it gave.
pub type Given<'a> = (usize, &'a [u8]);

/// The memory of a plan, used again for each of its records.
pub struct Registers {
    marks: Vec<usize>,
    numbers: Vec<i128>,
    /// Where the keys of the maps lie that are being walked.
    pub keys: Vec<(usize, usize)>,
    pub text: Vec<u8>,
}

const NOWHERE: usize = usize::MAX;

impl Registers {
    pub fn of(plan: &Plan) -> Registers {
        Registers {
            marks: vec![NOWHERE; plan.marks],
            numbers: vec![0; plan.numbers],
            keys: Vec::new(),
            text: Vec::new(),
        }
    }

    fn clear(&mut self) {
        self.marks.fill(NOWHERE);
        self.numbers.fill(0);
        self.keys.clear();
    }
}

pub struct Record<'a> {
    /// Without its frame.
    pub data: &'a [u8],
    pub given: &'a [Given<'a>],
    pub registers: &'a mut Registers,
}

impl<'a> Record<'a> {
    pub fn new(data: &'a [u8], given: &'a [Given<'a>], registers: &'a mut Registers) -> Record<'a> {
        registers.clear();
        Record { data, given, registers }
    }

    #[inline(always)]
    pub fn set(&mut self, mark: Mark, at: usize) {
        if let Some(register) = self.registers.marks.get_mut(mark.0) {
            *register = at;
        }
    }

    pub fn unset(&mut self, marks: &[Mark]) {
        marks.iter().for_each(|mark| self.set(*mark, NOWHERE));
    }

    #[inline(always)]
    pub fn set_number(&mut self, number: Number, value: i128) {
        if let Some(register) = self.registers.numbers.get_mut(number.0) {
            *register = value;
        }
    }

    #[inline(always)]
    pub fn mark(&self, mark: Mark) -> Option<usize> {
        self.registers.marks.get(mark.0).copied().filter(|at| *at != NOWHERE)
    }

    /// The bytes between two marks that are set.
    #[inline(always)]
    pub fn span(&self, first: Mark, last: Mark) -> Option<&'a [u8]> {
        self.data.get(self.mark(first)?..self.mark(last)?)
    }

    #[inline(always)]
    pub fn number(&self, number: Number) -> Option<i128> {
        self.registers.numbers.get(number.0).copied()
    }

    /// What stands in the row that a number register names.
    pub fn row<'p, T>(&self, number: Number, rows: &'p [Option<T>]) -> Option<&'p T> {
        rows.get(usize::try_from(self.number(number)?).ok()?)?.as_ref()
    }

    /// None where it does not fit 128 bits.
    pub fn value(&self, value: &Value) -> Option<i128> {
        match value {
            Value::Number { number } => self.number(*number),
            Value::Exact { value } => value.0,
            Value::Add { parts } => parts.iter().try_fold(0i128, |sum, part| sum.checked_add(self.value(part)?)),
            Value::Subtract { left, right } => self.value(left)?.checked_sub(self.value(right)?),
            Value::Multiply { parts } => {
                parts.iter().try_fold(1, |product, part| multiplied(product, self.value(part)?))
            }
        }
    }

    pub fn given(&self, call: usize) -> Result<&'a [u8], Stop> {
        let found = self.given.iter().find(|(number, _)| *number == call);
        found.map(|(_, bytes)| *bytes).ok_or(Stop::Wants(call))
    }

    pub fn holds(&self, condition: &Condition) -> Result<bool, Stop> {
        let holds = match condition {
            Condition::Present { mark } => self.mark(*mark).is_some(),
            Condition::Compare { left, relation, right } => {
                let (left, right) = (self.value(left).ok_or(Stop::Refused)?, self.value(right).ok_or(Stop::Refused)?);
                match relation {
                    Relation::Equal => left == right,
                    Relation::Less => left < right,
                    Relation::Greater => left > right,
                }
            }
            Condition::AmongTexts { content, end, values } => {
                let text = self.span(*content, *end).ok_or(Stop::Refused)?;
                values.iter().any(|value| value.0 == text)
            }
            Condition::AmongNumbers { number, values } => {
                let number = self.number(*number).ok_or(Stop::Refused)?;
                values.iter().any(|value| i128::from(*value) == number)
            }
            Condition::Holds { call } => self.given(*call)? == b"\x01",
            Condition::Not { of } => !self.holds(of)?,
            Condition::All { of } => {
                for one in of {
                    if !self.holds(one)? {
                        return Ok(false);
                    }
                }
                true
            }
            Condition::AnyOf { of } => {
                for one in of {
                    if self.holds(one)? {
                        return Ok(true);
                    }
                }
                false
            }
        };
        Ok(holds)
    }
}

/// Most factors fit 64 bits, and then their product fits 128 without a check, which costs more than the product.
#[inline(always)]
fn multiplied(left: i128, right: i128) -> Option<i128> {
    match (i64::try_from(left), i64::try_from(right)) {
        (Ok(left), Ok(right)) => Some(i128::from(left) * i128::from(right)),
        _ => left.checked_mul(right),
    }
}
