//! File, variables and options become one tree, before anything looks at its meaning.
//!
//! Later sources win: the file, then `WEIR_…` variables, then `--set`. Objects are merged key by key; everything else
//! is replaced.

use serde_json::{Map, Value};

use super::{At, Problems};

/// What the names of variables begin with.
const PREFIX: &str = "WEIR_";

/// Most elements that a list may be given one by one; stops `--set sinks[4000000000]=x`.
const MOST_ELEMENTS: usize = 1000;

/// A step from a value to one that it contains.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Reads YAML. Nothing at all is an empty object.
pub(crate) fn parse_yaml(text: &str) -> Result<Value, String> {
    let is_empty = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    if is_empty {
        return Ok(Value::Object(Map::new()));
    }
    match serde_saphyr::from_str(text) {
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        Ok(value) => Ok(value),
        Err(error) => Err(first_line(&error.to_string())),
    }
}

/// Puts the `WEIR_…` variables into the tree: `WEIR_SERVER__LISTEN` is `server.listen`, `WEIR_SINKS__0__FILE` is
/// `sinks[0].file`. Variables of other names are left alone: Kubernetes sets `WEIR_PORT` and the like for a
/// service that is called weir.
pub(super) fn apply_variables(
    tree: &mut Value,
    variables: impl Iterator<Item = (String, String)>,
    is_known: impl Fn(&str) -> bool,
    problems: &mut Problems,
) {
    for (name, text) in variables {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        let steps: Vec<Step> = path.to_lowercase().split("__").map(step_of_variable).collect();
        if !matches!(steps.first(), Some(Step::Key(key)) if is_known(key)) {
            continue;
        }
        if let Err(reason) = set(tree, &steps, scalar(&text)) {
            problems.add(&At::default(), format!("the variable {name} {reason}"));
        }
    }
}

/// Puts one `--set a.b=c` into the tree.
pub(super) fn apply_option(tree: &mut Value, option: &str, problems: &mut Problems) {
    let Some((path, text)) = option.split_once('=') else {
        problems.add(&At::default(), format!("--set {option} needs a value: --set {option}=…"));
        return;
    };
    let outcome = steps_of_path(path).and_then(|steps| set(tree, &steps, scalar(text)));
    if let Err(reason) = outcome {
        problems.add(&At::default(), format!("--set {path} {reason}"));
    }
}

fn step_of_variable(part: &str) -> Step {
    part.parse().map_or_else(|_| Step::Key(part.to_owned()), Step::Index)
}

fn steps_of_path(path: &str) -> Result<Vec<Step>, String> {
    let wrong = || "is no path of a key, such as server.listen or sinks[0].file".to_owned();
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (key, indexes) = part.split_at(part.find('[').unwrap_or(part.len()));
        if key.is_empty() {
            return Err(wrong());
        }
        steps.push(Step::Key(key.to_owned()));
        for index in indexes.split_inclusive(']') {
            let digits = index.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or_else(wrong)?;
            steps.push(Step::Index(digits.parse().map_err(|_no_number| wrong())?));
        }
    }
    Ok(steps)
}

/// A value as YAML would have it; text that is no YAML is text.
fn scalar(text: &str) -> Value {
    if text.is_empty() {
        return Value::String(String::new());
    }
    serde_saphyr::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn set(tree: &mut Value, steps: &[Step], value: Value) -> Result<(), String> {
    let mut place = tree;
    for step in steps {
        place = match step {
            Step::Key(key) => {
                if place.is_null() {
                    *place = Value::Object(Map::new());
                }
                let object = place.as_object_mut().ok_or("goes through something that has no keys")?;
                object.entry(key).or_insert(Value::Null)
            }
            Step::Index(index) => {
                if place.is_null() {
                    *place = Value::Array(Vec::new());
                }
                let list = place.as_array_mut().ok_or("goes through something that is no list")?;
                if *index > list.len() || *index >= MOST_ELEMENTS {
                    return Err(format!("skips elements: the next one of the list is {}", list.len()));
                }
                if *index == list.len() {
                    list.push(Value::Null);
                }
                &mut list[*index]
            }
        };
    }
    *place = value;
    Ok(())
}

/// The first line says what and where; the others quote the file.
fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_file_is_an_empty_object() {
        for text in ["", "\n\n", "# only words\n", "---\n", "null"] {
            assert_eq!(parse_yaml(text), Ok(json!({})), "{text:?}");
        }
    }

    #[test]
    fn later_sources_win_and_only_known_variables_count() {
        let mut tree = parse_yaml("interval: 1s\nserver:\n  listen: [a, b]\n").unwrap();
        let variables = [
            ("WEIR_SERVER__TOKEN__FILE", "/run/token"),
            ("WEIR_INTERVAL", "2s"),
            ("WEIR_SINKS__0__TYPE", "json"),
            ("WEIR_PORT", "tcp://10.0.0.1:4780"),
            ("HOME", "/root"),
        ];
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut problems = Problems::default();
        let is_known = |key: &str| ["interval", "server", "sinks"].contains(&key);
        apply_variables(&mut tree, variables, is_known, &mut problems);
        apply_option(&mut tree, "interval=3s", &mut problems);
        apply_option(&mut tree, "sinks[0].queue=4", &mut problems);
        apply_option(&mut tree, "server.listen=[]", &mut problems);
        assert_eq!(problems, Problems::default());
        let expect = json!({
            "interval": "3s",
            "server": { "listen": [], "token": { "file": "/run/token" } },
            "sinks": [{ "type": "json", "queue": 4 }],
        });
        assert_eq!(tree, expect);
    }

    #[test]
    fn what_cannot_be_set_is_a_problem() {
        fn check(option: &str, expect: &str) {
            let mut tree = json!({ "interval": "1s", "sinks": [] });
            let mut problems = Problems::default();
            apply_option(&mut tree, option, &mut problems);
            assert_eq!(problems.to_string(), expect);
        }
        check("interval", "--set interval needs a value: --set interval=…");
        check("interval.x=1", "--set interval.x goes through something that has no keys");
        check("sinks[7].type=json", "--set sinks[7].type skips elements: the next one of the list is 0");
        check("sinks[x]=1", "--set sinks[x] is no path of a key, such as server.listen or sinks[0].file");
        check("=1", "--set  is no path of a key, such as server.listen or sinks[0].file");
    }
}
