//! Choosing interfaces by name or pattern.

use thiserror::Error;

use super::Interface;

/// A name or pattern that no interface has.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("no interface {pattern}: there are {}", existing.join(", "))]
pub struct UnknownInterface {
    /// What was asked for.
    pub pattern: String,
    /// Names that exist.
    pub existing: Vec<String>,
}

/// The interfaces whose name matches at least one of the patterns, each once, in their own order. In a pattern `*` stands
/// for any characters and `?` for one. A name that holds these characters itself is found by them too.
pub fn select<'a, P: AsRef<str>>(
    interfaces: &'a [Interface],
    patterns: &[P],
) -> Result<Vec<&'a Interface>, UnknownInterface> {
    for pattern in patterns.iter().map(AsRef::as_ref) {
        if !interfaces.iter().any(|interface| matches(pattern, &interface.name)) {
            return Err(UnknownInterface {
                pattern: pattern.to_owned(),
                existing: interfaces.iter().map(|interface| interface.name.to_string()).collect(),
            });
        }
    }
    Ok(interfaces
        .iter()
        .filter(|interface| patterns.iter().any(|pattern| matches(pattern.as_ref(), &interface.name)))
        .collect())
}

/// Whether `name` matches `pattern`, for those who watch for interfaces that come later. Takes time in proportion to the
/// product of both lengths at worst.
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at_pattern, mut at_name) = (0, 0);
    // Where the last star was, and how much of the name it stands for so far ends.
    let mut star: Option<(usize, usize)> = None;
    while at_name < name.len() {
        match pattern.get(at_pattern) {
            Some('*') => {
                star = Some((at_pattern, at_name));
                at_pattern += 1;
            }
            Some(character) if *character == '?' || *character == name[at_name] => {
                at_pattern += 1;
                at_name += 1;
            }
            _ => {
                let Some((star_pattern, star_name)) = star else { return false };
                star = Some((star_pattern, star_name + 1));
                at_pattern = star_pattern + 1;
                at_name = star_name + 1;
            }
        }
    }
    pattern[at_pattern..].iter().all(|character| *character == '*')
}
