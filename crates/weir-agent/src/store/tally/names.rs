//! [`Names`]: numbers for texts and values, given out as they are first met.

use std::sync::Arc;

use arrow_array::{Array as _, StringArray};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weir_flow::field::Value;

use super::super::batch::Texts;

/// Columns whose texts are kept.
const MOST_MET: usize = 24;

/// Texts and values by number. Zero is none of them.
#[derive(Default)]
pub(in super::super) struct Names {
    numbers: HashMap<Box<str>, u32, FixedState>,
    texts: Vec<Box<str>>,
    /// Different texts of columns that were met lately, with their numbers: all batches of a row group have the same. They
    /// are kept so that nothing else takes their place in memory.
    met: Vec<(StringArray, Arc<[u32]>)>,
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
        let numbers = self.of_texts(texts.different);
        texts.map(&numbers, 0)
    }

    fn of_texts(&mut self, texts: &StringArray) -> Arc<[u32]> {
        let is_same = |met: &StringArray| {
            met.len() == texts.len()
                && met.values().ptr_eq(texts.values())
                && met.offsets().ptr_eq(texts.offsets())
        };
        if let Some((_, numbers)) = self.met.iter().find(|(met, _)| is_same(met)) {
            return Arc::clone(numbers);
        }
        let numbers: Arc<[u32]> = texts.iter().map(|text| text.map_or(0, |text| self.number(text))).collect();
        if self.met.len() >= MOST_MET {
            self.met.clear();
        }
        self.met.push((texts.clone(), Arc::clone(&numbers)));
        numbers
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
