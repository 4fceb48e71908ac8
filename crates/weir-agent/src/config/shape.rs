//! Compares a configuration tree with the JSON schema of its types, and reports every difference.
//!
//! Reading into types stops at the first mistake; this does not. What does not fit is cut out of the tree, so that the
//! rest can still be judged. Only those words of JSON schema are known that [`schemars`] uses for our types.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use weir_flow::field::nearest;

use super::{At, Problems};

/// What was cut out of lists: by path of the list, the original indexes of the elements that stayed.
pub(super) type Kept = Vec<(String, Vec<usize>)>;

/// Checks the tree, turns what fits into a document and has it judged. Every problem has its path in the tree as it came.
pub(super) fn read<D: DeserializeOwned, T>(
    mut tree: Value,
    schema: &Value,
    mut problems: Problems,
    validate: impl FnOnce(D, &mut Problems) -> Option<T>,
) -> Result<T, Problems> {
    let kept = check(&mut tree, schema, &mut problems);
    let judged = match serde_json::from_value::<D>(tree) {
        Ok(document) => {
            let mut found = Problems::default();
            let judged = validate(document, &mut found);
            found.map_paths(|path| original_path(path, &kept));
            problems.append(found);
            judged
        }
        Err(error) => {
            // The shape was right, so this is a difference between schema and types; better said than hidden.
            problems.add(&At::default(), error.to_string());
            None
        }
    };
    match judged {
        Some(judged) if problems.is_empty() => Ok(judged),
        _ => Err(problems),
    }
}

/// Checks the tree and cuts out what does not fit.
pub(super) fn check(tree: &mut Value, schema: &Value, problems: &mut Problems) -> Kept {
    let mut walk = Walk { root: schema, problems, kept: Vec::new() };
    if !walk.fits(tree, schema, &At::default()) {
        *tree = Value::Object(Map::new());
    }
    walk.kept
}

/// Turns a path within the pruned tree into the one that the user wrote.
pub(super) fn original_path(path: &str, kept: &Kept) -> String {
    let mut path = path.to_owned();
    for (list, indexes) in kept {
        let Some(rest) = path.strip_prefix(list.as_str()).and_then(|rest| rest.strip_prefix('[')) else {
            continue;
        };
        let Some((index, rest)) = rest.split_once(']') else { continue };
        if let Some(original) = index.parse().ok().and_then(|index: usize| indexes.get(index)) {
            path = format!("{list}[{original}]{rest}");
        }
    }
    path
}

struct Walk<'a> {
    root: &'a Value,
    problems: &'a mut Problems,
    kept: Kept,
}

impl<'a> Walk<'a> {
    /// Whether the value fits, at least after cutting.
    fn fits(&mut self, value: &mut Value, schema: &'a Value, at: &At) -> bool {
        let schema = self.resolve(schema);
        if let Some(variants) = choices(schema) {
            return self.fits_one(value, variants, at);
        }
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
            return self.is_allowed(value, allowed, at);
        }
        if let Some(only) = schema.get("const") {
            return self.is_allowed(value, std::slice::from_ref(only), at);
        }
        let types = types(schema);
        if value.is_null() && types.contains(&"null") {
            return true;
        }
        if types.contains(&"string") && (value.is_number() || value.is_boolean()) {
            // YAML reads 65536 as a number, which is a size all the same.
            *value = Value::String(value.to_string());
        }
        match types.iter().copied().find(|name| *name != "null") {
            Some("object") => self.fits_object(value, schema, at),
            Some("array") => self.fits_list(value, schema, at),
            Some("integer") => self.fits_integer(value, schema, at),
            Some("string") => self.is(value.is_string(), value, "text", at),
            Some("boolean") => self.is(value.is_boolean(), value, "true or false", at),
            Some("number") => self.is(value.is_number(), value, "a number", at),
            _ => true,
        }
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let Some(name) = schema.get("$ref").and_then(Value::as_str) else { return schema };
        name.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)).unwrap_or(schema)
    }

    fn is(&mut self, fits: bool, value: &Value, wanted: &str, at: &At) -> bool {
        if !fits {
            self.problems.add(at, format!("must be {wanted}, not {}", described(value)));
        }
        fits
    }

    fn is_allowed(&mut self, value: &Value, allowed: &[Value], at: &At) -> bool {
        if allowed.contains(value) {
            return true;
        }
        let words: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        let text = match value.as_str() {
            Some(word) => unknown("value", word, &words),
            None => format!("must be one of {}", words.join(", ")),
        };
        self.problems.add(at, text);
        false
    }

    fn fits_integer(&mut self, value: &Value, schema: &Value, at: &At) -> bool {
        let Some(number) = value.as_i64() else {
            return self.is(false, value, "a whole number", at);
        };
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        #[expect(clippy::cast_precision_loss, reason = "bounds are small")]
        let number = number as f64;
        let text = match (bound("minimum"), bound("maximum")) {
            (Some(least), _) if number < least => format!("must be {least} or more"),
            (_, Some(most)) if number > most => format!("must be {most} or less"),
            _ => return true,
        };
        self.problems.add(at, text);
        false
    }

    fn fits_list(&mut self, value: &mut Value, schema: &'a Value, at: &At) -> bool {
        let Some(list) = value.as_array_mut() else { return self.is(false, value, "a list", at) };
        let Some(items) = schema.get("items") else { return true };
        let mut kept = Vec::new();
        let mut index = 0;
        list.retain_mut(|element| {
            let fits = self.fits(element, items, &at.index(index));
            if fits {
                kept.push(index);
            }
            index += 1;
            fits
        });
        self.kept.push((at.as_str().to_owned(), kept));
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
        let text = match (bound("minItems"), bound("maxItems")) {
            (Some(least), Some(most)) if least == most && index as u64 != most => {
                format!("must have {most} elements, not {index}")
            }
            (Some(least), _) if (index as u64) < least => format!("must have {least} elements or more"),
            (_, Some(most)) if index as u64 > most => format!("must have {most} elements or fewer"),
            // What was cut out has its own problem, and a list of another length would be one more.
            (least, most) => return least.max(most).is_none() || list.len() == index,
        };
        self.problems.add(at, text);
        false
    }

    fn fits_object(&mut self, value: &mut Value, schema: &'a Value, at: &At) -> bool {
        let Some(object) = value.as_object_mut() else {
            return self.is(false, value, "keys and values", at);
        };
        let properties = schema.get("properties").and_then(Value::as_object);
        let names: Vec<&str> = properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        object.retain(|name, value| {
            let place = at.key(name);
            if let Some(property) = properties.and_then(|properties| properties.get(name)) {
                return self.fits(value, property, &place);
            }
            self.problems.add(&place, unknown("key", name, &names));
            false
        });
        let required = schema.get("required").and_then(Value::as_array);
        let mut is_complete = true;
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                // If it was cut out, its own problem has been told.
                is_complete = false;
                let place = at.key(name);
                if !self.problems.iter().any(|problem| problem.path.starts_with(place.as_str())) {
                    self.problems.add(at, format!("needs `{name}`"));
                }
            }
        }
        is_complete
    }

    /// A value that may have one of several shapes: nothing or something, or objects told apart by `type`.
    fn fits_one(&mut self, value: &mut Value, variants: &'a [Value], at: &At) -> bool {
        let is_null = |schema: &Value| types(schema).contains(&"null");
        if value.is_null() && variants.iter().any(is_null) {
            return true;
        }
        let shapes: Vec<&Value> =
            variants.iter().filter(|schema| !is_null(schema)).map(|schema| self.resolve(schema)).collect();
        let words: Vec<Value> = shapes.iter().copied().flat_map(words).cloned().collect();
        if !words.is_empty() {
            return self.is_allowed(value, &words, at);
        }
        match shapes.as_slice() {
            [only] if tag(only).is_none() => self.fits(value, only, at),
            _ => self.fits_tagged(value, &shapes, at),
        }
    }

    fn fits_tagged(&mut self, value: &mut Value, shapes: &[&'a Value], at: &At) -> bool {
        if !value.is_object() {
            return self.is(false, value, "keys and values", at);
        }
        let tags: Vec<(&str, &str)> = shapes.iter().copied().filter_map(tag).collect();
        let Some((key, _)) = tags.first() else { return true };
        let words: Vec<&str> = tags.iter().map(|(_, word)| *word).collect();
        let Some(wanted) = value.get(key) else {
            self.problems.add(at, format!("needs `{key}`: one of {}", words.join(", ")));
            return false;
        };
        let place = wanted.as_str().and_then(|wanted| words.iter().position(|word| *word == wanted));
        if let Some(place) = place {
            return self.fits(value, shapes[place], at);
        }
        let text = match wanted.as_str() {
            Some(word) => unknown("value", word, &words),
            None => format!("must be one of {}", words.join(", ")),
        };
        self.problems.add(&at.key(key), text);
        false
    }
}

/// The key by which objects of several shapes are told apart, and its value in this one.
fn tag(schema: &Value) -> Option<(&str, &str)> {
    let properties = schema.get("properties")?.as_object()?;
    properties.iter().find_map(|(name, property)| Some((name.as_str(), property.get("const")?.as_str()?)))
}

/// The words that a schema allows, if it allows nothing else.
fn words(schema: &Value) -> &[Value] {
    match (schema.get("const"), schema.get("enum").and_then(Value::as_array)) {
        (Some(only), _) => std::slice::from_ref(only),
        (None, Some(several)) => several,
        (None, None) => &[],
    }
}

fn choices(schema: &Value) -> Option<&[Value]> {
    let list = schema.get("oneOf").or_else(|| schema.get("anyOf"))?;
    list.as_array().map(Vec::as_slice)
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Says that there is no such word, and which one is nearest.
fn unknown(what: &str, word: &str, words: &[&str]) -> String {
    let farthest = (word.chars().count() / 3).clamp(1, 3);
    match nearest(word, words.iter().copied()) {
        Some((near, distance)) if distance <= farthest => {
            format!("unknown {what} `{word}`, did you mean `{near}`?")
        }
        _ => format!("unknown {what} `{word}`: use one of {}", words.join(", ")),
    }
}

/// What a value is, without saying what it holds: it may be a secret in the wrong place.
fn described(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "keys and values",
    }
}
