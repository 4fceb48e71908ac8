//! [`Quotes`]: how quotes are written in JSON that may itself be a string within JSON.

/// Of one string: how many backslashes its quotes have in front of them. A string within another has one in front of each, one
/// within that has three, and so on: each level doubles all of them and adds one for the quote.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quotes {
    own: u32,
    /// Backslashes that were read last, one behind the other.
    run: u32,
}

impl Quotes {
    /// Of a string within no other.
    pub(super) const fn new() -> Self {
        Self { own: 0, run: 0 }
    }

    pub(super) fn backslash(&mut self) {
        self.run = self.run.saturating_add(1);
    }

    /// Anything else but a quote.
    pub(super) fn letter(&mut self) {
        self.run = 0;
    }

    pub(super) const fn is_behind_backslash(self) -> bool {
        self.run > 0
    }

    /// Whether the string is within another.
    pub(super) const fn are_within(self) -> bool {
        self.own > 0
    }

    /// A quote was read that is one of the string's own.
    pub(super) fn are_as_this_one(&mut self) {
        (self.own, self.run) = (self.run, 0);
    }

    /// A quote was read: whether it ends the string, or one around it.
    pub(super) fn ends(&mut self) -> bool {
        let run = std::mem::take(&mut self.run);
        match run.checked_sub(self.own) {
            // What is left are backslashes of the string itself; an odd one is that of a quote within it.
            Some(rest) => (rest / self.own.saturating_add(1)).is_multiple_of(2),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_ends_at_a_quote_as_the_one_at_its_beginning() {
        // Backslashes in front of the first quote, those in front of another one, and whether that ends the string.
        let cases = [
            (0, 0, true),
            (0, 1, false),
            (0, 2, true),
            (0, 3, false),
            (1, 1, true),
            (1, 3, false),
            (1, 5, true),
            (1, 7, false),
            (1, 0, true),
            (3, 3, true),
            (3, 7, false),
            (3, 11, true),
            (3, 1, true),
        ];
        for (own, run, expected) in cases {
            let mut quotes = Quotes::new();
            (0..own).for_each(|_| quotes.backslash());
            quotes.are_as_this_one();
            (0..run).for_each(|_| quotes.backslash());
            assert_eq!(quotes.ends(), expected, "{own} and then {run}");
        }
    }
}
