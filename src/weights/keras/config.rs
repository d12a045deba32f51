//! A model's configuration: which layers it has, of which classes, with which settings. Read as data; nothing of it is run.

use crate::error::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;

/// Bytes of JSON: DenseNet121's configuration has a third of a million.
pub const LARGEST: usize = 2 << 20;

/// Models within models that are followed.
const DEPTH: usize = 4;

/// One layer, or one model within the model.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigLayer {
    pub name: String,
    /// `Conv2D`, `Dense`, `Rescaling`.
    pub class: String,
    /// Its settings: `units`, `activation`, `epsilon`.
    pub settings: Value,
    /// The layers of a model within the model.
    pub layers: Vec<ConfigLayer>,
}

/// The layers of a model in graph order.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    layers: Vec<ConfigLayer>,
}

impl Config {
    /// Reads `model_config` or `config.json`; `None` if it lists no layers, as those of models of one's own class do.
    ///
    /// # Errors
    /// No JSON, or too much of it.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        if text.len() > LARGEST {
            return Err(Error::input(format!("a configuration of {} bytes; at most {LARGEST} are read", text.len())));
        }
        let model: Value = serde_json::from_str(text).map_err(|e| Error::input(format!("the configuration is not JSON: {e}")))?;
        let layers = layers_of(&model, DEPTH)?;
        Ok((!layers.is_empty()).then_some(Config { layers }))
    }

    /// All layers, those of models within the model in the model's place.
    pub fn layers(&self) -> Vec<&ConfigLayer> {
        fn add<'c>(layers: &'c [ConfigLayer], all: &mut Vec<&'c ConfigLayer>) {
            for layer in layers {
                if layer.layers.is_empty() { all.push(layer) } else { add(&layer.layers, all) }
            }
        }
        let mut all = Vec::new();
        add(&self.layers, &mut all);
        all
    }

    /// The places of the layers in a model within the model, deeper ones included; empty if there is none of this name.
    pub(super) fn order_within(&self, nested: &str) -> HashMap<String, usize> {
        let Some(model) = self.layers.iter().find(|l| l.name == nested) else { return HashMap::new() };
        let inner = Config { layers: model.layers.clone() };
        inner.layers().into_iter().enumerate().map(|(i, l)| (l.name.clone(), i)).collect()
    }
}

/// The layers of a model's description: `{"class_name": .., "config": {"layers": [..]}}`, or, of an old sequential model,
/// `{"config": [..]}`.
fn layers_of(model: &Value, depth: usize) -> Result<Vec<ConfigLayer>> {
    let list = model["config"]["layers"].as_array().or_else(|| model["config"].as_array());
    let Some(list) = list else { return Ok(Vec::new()) };
    if depth == 0 {
        return Err(Error::input("models within models too deep to follow"));
    }
    let layer = |value: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let name = if value["config"]["name"].is_string() { text(&value["config"]["name"]) } else { text(&value["name"]) };
        let layers = layers_of(value, depth - 1)?;
        // A model's settings are its layers, which need not be kept twice.
        let settings = if layers.is_empty() { value["config"].clone() } else { Value::Null };
        Ok(ConfigLayer { name, class: text(&value["class_name"]), settings, layers })
    };
    list.iter().map(layer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_models_are_listed_in_their_place() {
        let text = r#"{"class_name": "Sequential", "config": {"layers": [
            {"class_name": "InputLayer", "config": {"name": "in"}},
            {"class_name": "Functional", "config": {"name": "base", "layers": [
                {"class_name": "Conv2D", "config": {"name": "b"}}, {"class_name": "Conv2D", "config": {"name": "a"}}]}},
            {"class_name": "Dense", "config": {"name": "dense", "units": 3}}]}}"#;
        let config = Config::parse(text).unwrap().unwrap();
        assert_eq!(config.layers().iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["in", "b", "a", "dense"]);
        assert_eq!(config.order_within("base"), HashMap::from([("b".to_string(), 0), ("a".to_string(), 1)]));
        assert_eq!(config.layers()[3].settings["units"], 3);
    }

    #[test]
    fn an_old_sequential_model_is_a_bare_list() {
        let config = Config::parse(r#"{"class_name": "Sequential", "config": [{"class_name": "Dense", "config": {"name": "d"}}]}"#)
            .unwrap()
            .unwrap();
        assert_eq!(config.layers()[0].class, "Dense");
    }

    #[test]
    fn what_describes_no_model_is_refused() {
        for text in ["[]", "{}", r#"{"config": {"layers": []}}"#] {
            assert_eq!(Config::parse(text).unwrap(), None, "{text}");
        }
        for text in ["", "{", &"[".repeat(100_000), &" ".repeat(LARGEST + 1)] {
            assert!(Config::parse(text).is_err(), "{text:.20}");
        }
        let deep = (0..9).fold(r#"{"config": {"layers": [{"class_name": "Dense"}]}}"#.to_string(), |inner, _| {
            format!(r#"{{"config": {{"layers": [{inner}]}}}}"#)
        });
        assert!(Config::parse(&deep).unwrap_err().what().contains("too deep"));
    }
}
