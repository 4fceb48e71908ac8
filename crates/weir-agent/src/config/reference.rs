//! The JSON schema of the configuration and the page that describes every key, made from the types.

use std::fmt::Write as _;

use serde_json::Value;

use super::Document;

/// The JSON schema (draft 2020-12), for editors and for checking.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Document).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".to_owned(), "Configuration of weir agent".into());
    }
    schema
}

/// The schema as the text of its file.
pub fn schema_text() -> String {
    let mut text = serde_json::to_string_pretty(&schema()).expect("a tree of JSON can be written");
    text.push('\n');
    text
}

/// The reference page, in Markdown.
pub fn page() -> String {
    let schema = schema();
    let mut page = String::from(include_str!("reference_head.md"));
    page.push_str("\n| key | type | default | reload | description |\n|---|---|---|---|---|\n");
    rows(&schema, &schema, "", false, &mut page);
    page
}

/// A row for each key below a schema, as `key`, type, default, whether a reload changes it, description.
pub(crate) fn rows(root: &Value, schema: &Value, prefix: &str, reloads: bool, page: &mut String) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let reloads = reloads || property.get("x-reload").is_some();
        let inner = inner(root, property);
        let default = schema.get("default").and_then(|default| default.get(name));
        let default = property.get("default").or(default);
        row(&path, property, inner, default, reloads, page);
        rows(root, inner, &path, reloads, page);
        if let Some(items) = inner.get("items") {
            elements(root, items, &format!("{path}[]"), reloads, page);
        }
    }
}

fn elements(root: &Value, items: &Value, path: &str, reloads: bool, page: &mut String) {
    let items = resolve(root, items);
    rows(root, items, path, reloads, page);
    for variant in items.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
        let variant = resolve(root, variant);
        let properties = variant.get("properties").and_then(Value::as_object);
        let tag = properties
            .into_iter()
            .flatten()
            .find_map(|(name, property)| Some(format!("{name}: {}", property.get("const")?.as_str()?)));
        // Words alone were told with the list.
        let Some(tag) = tag else { continue };
        let doc = text(variant, "description");
        writeln!(page, "| `{path}` with `{tag}` | object | | | {doc} |").expect("a string takes any text");
        rows(root, variant, path, reloads, page);
    }
}

fn row(
    path: &str,
    property: &Value,
    inner: &Value,
    default: Option<&Value>,
    reloads: bool,
    page: &mut String,
) {
    if inner.get("const").is_some() {
        return;
    }
    let default = match default {
        None | Some(Value::Null) => String::new(),
        Some(Value::Object(_)) => "see below".to_owned(),
        Some(Value::String(text)) if text.is_empty() => String::new(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(value) => format!("`{value}`"),
    };
    let reloads = if reloads { "yes" } else { "" };
    let mut doc = text(property, "description");
    if doc.is_empty() {
        doc = text(inner, "description");
    }
    writeln!(page, "| `{path}` | {} | {default} | {reloads} | {doc} |", kind(inner))
        .expect("a string takes any text");
}

/// The schema of a value that is there: without the choice of leaving it out.
fn inner<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let is_something = |variant: &&Value| variant.get("type").and_then(Value::as_str) != Some("null");
    let some = schema.get("anyOf").and_then(Value::as_array).and_then(|any| any.iter().find(is_something));
    resolve(root, some.unwrap_or(schema))
}

fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let pointer = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix('#'));
    pointer.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

fn kind(schema: &Value) -> String {
    let list = |key: &str| schema.get(key).and_then(Value::as_array).into_iter().flatten();
    // Words with a description each are a choice of constants.
    let constants = list("oneOf").filter_map(|variant| variant.get("const"));
    let words: Vec<String> =
        list("enum").chain(constants).filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
    if !words.is_empty() {
        return words.join(", ");
    }
    let name = match schema.get("type") {
        Some(Value::Array(names)) => names.first().and_then(Value::as_str),
        Some(name) => name.as_str(),
        None => None,
    };
    let format = schema.get("format").and_then(Value::as_str);
    match (name, format) {
        (_, Some(unit @ ("duration" | "size"))) => unit.to_owned(),
        (Some("array"), _) => "list".to_owned(),
        (Some(name), _) => name.to_owned(),
        (None, _) => String::new(),
    }
}

fn text(schema: &Value, key: &str) -> String {
    let text = schema.get(key).and_then(Value::as_str).unwrap_or_default();
    text.replace('\n', " ").replace('|', "\\|")
}
