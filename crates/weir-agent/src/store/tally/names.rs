//! [`Names`]: numbers for texts and values, given out as they are first met.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weir_flow::field::Value;

use super::super::batch::Texts;

/// Texts and values by number. Zero is none of them.
#[derive(Default)]
pub(in super::super) struct Names {
    numbers: HashMap<Box<str>, u32, FixedState>,
    texts: Vec<Box<str>>,
    value_numbers: HashMap<Value<'static>, u32, FixedState>,
    values: Vec<Value<'static>>,
}

impl Names {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.texts.len() + self.values.len()
    }

    /// The number of a text.
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        self.texts.push(text.into());
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.numbers.insert(text.into(), number);
        number
    }

    /// The number of a value that is not a text.
    pub(super) fn number_of_value(&mut self, value: Value<'static>) -> u32 {
        if value.is_absent() {
            return 0;
        }
        if let Some(number) = self.value_numbers.get(&value) {
            return *number;
        }
        self.values.push(value.clone());
        let number = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        self.value_numbers.insert(value, number);
        number
    }

    /// The numbers of the texts of all rows; zero where there is none.
    pub(super) fn of_rows(&mut self, texts: Option<Texts<'_>>, rows: usize) -> Vec<u32> {
        let Some(texts) = texts else { return vec![0; rows] };
        let numbers: Vec<u32> =
            texts.different.iter().map(|text| text.map_or(0, |text| self.number(text))).collect();
        texts.map(&numbers, 0)
    }

    /// The text with a number.
    pub(in super::super) fn text(&self, number: u32) -> Option<&str> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.texts.get(index).map(|text| &**text)
    }

    /// The value with a number.
    pub(super) fn value(&self, number: u32) -> Option<&Value<'static>> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.values.get(index)
    }
}
