//! The JSON Schema of experiment files, so that editors complete and check them. Made from the tables that the validator walks.

use serde_json::{Map, Value, json};

use crate::{
    grammar,
    settings::{SETTINGS, Setting},
    shape::{Bounds, Field, Need, Shape},
    spelling,
    steps::StepKind,
    value,
};

/// The schema (draft 2020-12).
///
/// It knows shapes, not an experiment's own names: axis names and labels are checked when a file is loaded.
pub fn schema() -> Value {
    let mut definitions = Map::new();
    for setting in SETTINGS {
        definitions.insert(setting.path.to_owned(), described(shape(&setting.shape), setting.doc));
    }
    definitions.insert("settings".to_owned(), with_steps(closed(settings_below("")), json!({})));
    let value_names = value::Value::names_with_parts();
    let earlier: Vec<String> = value_names.iter().filter_map(|name| spelling::earlier(name)).collect();
    let forms = [
        json!({ "enum": value_names }),
        json!({ "enum": earlier, "deprecated": true }),
        json!({ "pattern": "^[a-z0-9]+/[a-z0-9@-]+$" }),
    ];
    definitions.insert("value".to_owned(), json!({ "type": "string", "anyOf": forms }));
    let label = json!({ "type": ["string", "number", "boolean"] });
    definitions.insert("label".to_owned(), label);
    definitions.insert(
        "where".to_owned(),
        json!({
            "type": "object",
            "additionalProperties": {
                "anyOf": [reference("label"), { "type": "array", "items": reference("label") }]
            }
        }),
    );

    let mut properties = Map::new();
    for section in &grammar::SECTIONS {
        properties.insert(section.key.to_owned(), described(section_shape(section.key), section.doc));
    }
    properties.insert("replicate.seed".to_owned(), described(seeds(), "Seeds over which results are aggregated."));
    properties.extend(settings_below(""));
    let mut root = Map::new();
    root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    root.insert("title".to_owned(), json!("ressa experiment"));
    root.extend(object(with_steps(closed(properties), json!({}))));
    root.insert("$defs".to_owned(), Value::Object(definitions));
    Value::Object(root)
}

fn section_shape(key: &str) -> Value {
    let columns = || -> Map<String, Value> {
        let varies = |setting: &&Setting| setting.path != "seed" && !matches!(setting.shape, Shape::Floors);
        let named = |setting: &'static Setting| {
            paths(setting).map(|path| {
                let schema = path.of(values(setting));
                (path.text, schema)
            })
        };
        SETTINGS.iter().filter(varies).flat_map(named).collect()
    };
    let labels = || json!({ "type": "array", "items": reference("label") });
    match key {
        "extends" => json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] }),
        "name" => shape(&Shape::Id),
        "replicate" => json!({
            "type": "object", "properties": { "seed": seeds() }, "required": ["seed"], "additionalProperties": false
        }),
        "axes" => {
            let mut columns = columns();
            columns.remove("steps");
            with_steps(closed(columns), values_of_steps())
        }
        "zip" => {
            let mut block = columns();
            block.insert("labels".to_owned(), described(labels(), "Labels of the rows; derived where absent."));
            let tags = json!({ "type": "object", "additionalProperties": labels() });
            block.insert("tags".to_owned(), described(tags, "Further coordinates, for panels and `where`."));
            json!({ "type": "object", "additionalProperties": with_steps(closed(block), values_of_steps()) })
        }
        "variants" => json!({
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": { "anyOf": [reference("settings"), { "type": "null" }] }
            }
        }),
        "include" => {
            let mut point = settings_below("");
            point.insert("name".to_owned(), described(json!({ "type": "string" }), "Name of the point."));
            json!({ "type": "array", "items": {
                "type": "object", "properties": point, "required": ["name"], "additionalProperties": reference("label")
            } })
        }
        "exclude" => json!({ "type": "array", "items": reference("where") }),
        "report" => shape(&Shape::Object(grammar::REPORT)),
        "claims" => shape(&Shape::List(&Shape::Object(grammar::CLAIM))),
        _ => json!({ "type": "string" }),
    }
}

fn seeds() -> Value {
    json!({ "anyOf": [
        { "type": "integer", "minimum": 0 },
        { "type": "string", "pattern": "^[0-9]+\\.\\.[0-9]+$" },
        { "type": "array", "items": { "type": "integer", "minimum": 0 }, "minItems": 1, "uniqueItems": true }
    ] })
}

/// A list of a setting's values, in any of the ways a list can be written.
fn values(setting: &Setting) -> Value {
    let mut forms = vec![json!({ "type": "array", "items": reference(setting.path), "minItems": 1 })];
    if setting.is_integer() {
        forms.push(json!({ "type": "string", "pattern": "^[0-9]+\\.\\.[0-9]+$" }));
    }
    if setting.is_integer() || matches!(setting.shape, Shape::Number(_)) {
        let number = || json!({ "type": "number" });
        forms.push(json!({
            "type": "object",
            "properties": { "from": number(), "to": number(), "step": number() },
            "required": ["from", "to", "step"],
            "additionalProperties": false
        }));
    }
    described(json!({ "anyOf": forms }), setting.doc)
}

/// A name under which a setting is read.
struct Path {
    text: String,
    is_earlier: bool,
}

impl Path {
    /// What is known of a value, for this name.
    fn of(&self, mut schema: Value) -> Value {
        if self.is_earlier {
            schema["deprecated"] = json!(true);
        }
        schema
    }
}

/// The names under which a setting is read: its path, and the path of earlier versions where it had another one.
fn paths(setting: &Setting) -> impl Iterator<Item = Path> {
    let earlier = spelling::earlier(setting.path).map(|text| Path { text, is_earlier: true });
    std::iter::once(Path { text: setting.path.to_owned(), is_earlier: false }).chain(earlier)
}

/// Every way to write the settings below a section: `prune.metric` in full, or nested at any dot.
fn settings_below(prefix: &str) -> Map<String, Value> {
    let mut properties = Map::new();
    let every = SETTINGS.iter().flat_map(|setting| paths(setting).map(move |path| (setting, path)));
    for (setting, path) in every {
        let Some(rest) = path.text.strip_prefix(prefix) else { continue };
        properties.insert(rest.to_owned(), path.of(reference(setting.path)));
        for (dot, _) in rest.match_indices('.') {
            let section = &rest[..dot];
            if !properties.contains_key(section) {
                let below = settings_below(&format!("{prefix}{section}."));
                properties.insert(section.to_owned(), closed(below));
            }
        }
    }
    properties
}

fn shape(of: &Shape) -> Value {
    match of {
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Text | Shape::Form(_) | Shape::Path | Shape::Axis | Shape::Columns | Shape::Point | Shape::Published => {
            json!({ "type": "string" })
        }
        Shape::Id => json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9._+-]{0,79}$" }),
        Shape::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::Number(bounds) => number(bounds),
        Shape::Choice(words) => json!({ "type": "string", "enum": words }),
        Shape::ChoiceOr(words, other) => json!({ "anyOf": [shape(&Shape::Choice(words)), shape(other)] }),
        Shape::Pattern => json!({ "type": "string", "pattern": "^(unstructured|[0-9]+:[0-9]+)$" }),
        Shape::Set { of, min } => {
            json!({ "type": "array", "items": shape(of), "minItems": min, "uniqueItems": true })
        }
        Shape::List(of) => json!({ "type": "array", "items": shape(of) }),
        Shape::OrNull(of) => json!({ "anyOf": [shape(of), { "type": "null" }] }),
        Shape::Floors => json!({
            "type": "object",
            "propertyNames": reference("value"),
            "additionalProperties": { "type": "number", "minimum": 0, "maximum": 100 }
        }),
        Shape::Shares => json!({
            "type": "object",
            "additionalProperties": { "type": "number", "minimum": 0, "maximum": 1 }
        }),
        Shape::Object(fields) => fields_schema(fields),
        Shape::ByKind(kinds) => {
            let of_kinds = |(words, fields): &(&[&str], &[Field])| {
                let mut schema = fields_schema(fields);
                schema["properties"]["kind"]["enum"] = json!(words);
                schema
            };
            json!({ "oneOf": kinds.iter().map(of_kinds).collect::<Vec<_>>() })
        }
        Shape::Named(fields) => json!({
            "type": "object",
            "propertyNames": shape(&Shape::Id),
            "additionalProperties": fields_schema(fields)
        }),
        Shape::Texts => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Shape::Steps => steps(),
        Shape::Value => reference("value"),
        Shape::NumberOrValue => json!({ "anyOf": [{ "type": "number" }, reference("value")] }),
        Shape::Where => reference("where"),
        Shape::LabelOf(_) => reference("label"),
    }
}

/// A list of steps: a kind alone, or a kind with settings of its section and a name.
fn steps() -> Value {
    let kinds = StepKind::ALL.map(|kind| {
        let mut own = settings_below(&format!("{}.", kind.name()));
        own.insert("name".to_owned(), described(shape(&Shape::Id), "What settings and tables call the step."));
        let body = json!({ "anyOf": [closed(own), { "type": "null" }] });
        json!({
            "type": "object", "properties": { kind.name(): body }, "required": [kind.name()], "additionalProperties": false
        })
    });
    let names = json!({ "type": "string", "enum": StepKind::ALL.map(StepKind::name) });
    let item = Value::Array([names].into_iter().chain(kinds).collect());
    json!({ "anyOf": [{ "type": "array", "items": { "anyOf": item }, "minItems": 1 }, { "type": "null" }] })
}

fn number(bounds: &Bounds) -> Value {
    let mut schema = Map::from_iter([("type".to_owned(), json!("number"))]);
    let keys = [
        ("minimum", bounds.at_least),
        ("exclusiveMinimum", bounds.above),
        ("maximum", bounds.at_most),
        ("exclusiveMaximum", bounds.below),
    ];
    schema.extend(keys.into_iter().filter_map(|(key, bound)| Some((key.to_owned(), json!(bound?)))));
    Value::Object(schema)
}

fn fields_schema(fields: &[Field]) -> Value {
    let property = |field: &Field| (field.key.to_owned(), described(shape(&field.shape), field.doc));
    let mut schema = object(closed(fields.iter().map(property).collect()));
    let needed = |need: Need| fields.iter().filter(move |field| field.need == need).map(|field| field.key);
    schema.insert("required".to_owned(), needed(Need::Must).collect());
    let alternatives: Vec<Value> = needed(Need::OneOf).map(|key| json!({ "required": [key] })).collect();
    if !alternatives.is_empty() {
        schema.insert("oneOf".to_owned(), Value::Array(alternatives));
    }
    Value::Object(schema)
}

/// An object that may also have settings of steps, `steps.NAME.SETTING`, whose names the schema does not know.
fn with_steps(schema: Value, value: Value) -> Value {
    let mut schema = object(schema);
    schema.insert("patternProperties".to_owned(), json!({ "^steps\\.[a-z0-9]": value }));
    Value::Object(schema)
}

/// Values of a step's setting on an axis.
fn values_of_steps() -> Value {
    json!({ "type": ["array", "string", "object"] })
}

fn closed(properties: Map<String, Value>) -> Value {
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn reference(definition: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{definition}") })
}

fn described(schema: Value, doc: &str) -> Value {
    let mut schema = object(schema);
    schema.insert("description".to_owned(), json!(doc));
    Value::Object(schema)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
