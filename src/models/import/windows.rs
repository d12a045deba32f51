//! Strides, padding and dilation of a configuration, held against the network's own: no shape of a weight tells them.

use super::super::export::nodes::{Node, nodes};
use super::super::model::Model;
use crate::error::{Error, Result};
use crate::weights::keras::ConfigLayer;
use serde_json::Value;

/// Keras's classes of layers with windows, each with its name in Keras 1.
const CLASSES: [[&str; 2]; 5] = [
    ["Conv2D", "Convolution2D"],
    ["SeparableConv2D", "SeparableConvolution2D"],
    ["MaxPooling2D", "MaxPooling2D"],
    ["AveragePooling2D", "AveragePooling2D"],
    ["ZeroPadding2D", "ZeroPadding2D"],
];

/// What a layer does to the image plane, with Keras's defaults filled in.
#[derive(PartialEq)]
struct Window {
    /// `pool_size`; of convolutions the shapes of weights tell it.
    pool: Option<[u64; 2]>,
    strides: [u64; 2],
    /// `valid`, `same`, or the pads of a padding layer.
    padding: String,
    dilation: [u64; 2],
}

/// The k-th layer of each class must do to the image plane what the network's k-th does: both lists are in graph order, as weights are.
///
/// # Errors
/// Another number of pools or paddings; a setting that differs, with the layer's name, what was found and what is expected.
pub fn check(layers: &[&ConfigLayer], body: &Model) -> Result<()> {
    let own = nodes(body, false)?;
    for names in CLASSES {
        let theirs: Vec<&&ConfigLayer> = layers.iter().filter(|l| names.contains(&l.class.as_str())).collect();
        let ours: Vec<&Node> = own.iter().filter(|n| n.class == names[0]).collect();
        if theirs.len() != ours.len() {
            let what = format!("the model has {} {} layers, {} has {}", theirs.len(), names[0], body.spec.backbone, ours.len());
            return Err(Error::input(what));
        }
        for (layer, node) in theirs.into_iter().zip(ours) {
            let (found, expected) = (Window::of(names[0], &layer.settings), Window::of(names[0], &node.settings));
            if let Some(what) = found.difference(&expected) {
                let whose = format!("{} of {}", node.name, body.spec.backbone);
                return Err(Error::input(format!("has {what} ({whose})")).at(&layer.name));
            }
        }
    }
    Ok(())
}

impl Window {
    fn of(class: &str, s: &Value) -> Self {
        let pool = class.ends_with("Pooling2D").then(|| pair(&s["pool_size"]).unwrap_or([2, 2]));
        let strides = pair(&s["strides"]).or(pair(&s["subsample"])).or(pool).unwrap_or([1, 1]);
        let padding = match class {
            "ZeroPadding2D" => pads(&s["padding"]),
            _ => s["padding"].as_str().or(s["border_mode"].as_str()).unwrap_or("valid").to_lowercase(),
        };
        Window { pool, strides, padding, dilation: pair(&s["dilation_rate"]).unwrap_or([1, 1]) }
    }

    /// `strides [1, 1], expected [2, 2]`.
    fn difference(&self, expected: &Self) -> Option<String> {
        let of = |what: &str, found: &dyn std::fmt::Debug, expected: &dyn std::fmt::Debug| {
            Some(format!("{what} {found:?}, expected {expected:?}"))
        };
        match self {
            _ if self == expected => None,
            _ if self.pool != expected.pool => of("pool size", &self.pool.unwrap_or_default(), &expected.pool.unwrap_or_default()),
            _ if self.strides != expected.strides => of("strides", &self.strides, &expected.strides),
            _ if self.dilation != expected.dilation => of("dilation rate", &self.dilation, &expected.dilation),
            _ => Some(format!("padding {}, expected {}", self.padding, expected.padding)),
        }
    }
}

/// `2`, `[2, 2]`; none where nothing is said.
fn pair(value: &Value) -> Option<[u64; 2]> {
    let [height, width] = value.as_array().map_or([value, value], |both| match both.as_slice() {
        [height, width] => [height, width],
        _ => [value, value],
    });
    Some([height.as_u64()?, width.as_u64()?])
}

/// `1`, `[1, 1]`, `[[1, 1], [1, 1]]` or Keras 1's names, as top, bottom, left, right.
fn pads(value: &Value) -> String {
    let sides = value.as_array().map(Vec::as_slice);
    let [top, bottom, left, right] = match (sides, pair(value)) {
        (_, Some([height, width])) => [height, height, width, width].map(Some),
        (Some([height, width]), None) => [&height[0], &height[1], &width[0], &width[1]].map(Value::as_u64),
        _ => ["top_pad", "bottom_pad", "left_pad", "right_pad"].map(|side| value.get(side).map_or(Some(0), Value::as_u64)),
    };
    let side = |pad: Option<u64>| pad.map_or("?".to_string(), |pad| pad.to_string());
    format!("[[{}, {}], [{}, {}]]", side(top), side(bottom), side(left), side(right))
}

#[cfg(test)]
mod tests {
    use super::super::super::backbone::Backbone;
    use super::super::super::spec::Spec;
    use super::*;
    use serde_json::json;

    fn body(backbone: Backbone) -> Model {
        Spec { features_only: true, ..Spec::new(backbone, 0) }.build().unwrap()
    }

    /// The network's layers as a configuration, changed by `change`; then what is said of them.
    fn said(model: &Model, change: impl Fn(&mut ConfigLayer)) -> Result<()> {
        let config = |node: Node| ConfigLayer { name: node.name, class: node.class.into(), settings: node.settings, layers: Vec::new() };
        let mut layers: Vec<ConfigLayer> = nodes(model, false).unwrap().into_iter().map(config).collect();
        layers.iter_mut().for_each(change);
        check(&layers.iter().collect::<Vec<_>>(), model)
    }

    #[test]
    fn every_network_fits_itself_in_the_words_of_keras_3_and_1() {
        for backbone in Backbone::ALL {
            let model = body(backbone);
            said(&model, |_| ()).unwrap();
            said(&model, |layer| {
                let old = CLASSES.iter().find(|names| names[0] == layer.class);
                layer.class = old.map_or(layer.class.clone(), |names| names[1].into());
                let Some(s) = layer.settings.as_object_mut() else { return };
                for (new, old) in [("strides", "subsample"), ("padding", "border_mode")] {
                    if layer.class.contains("Convolution") {
                        s.remove(new).map(|value| s.insert(old.into(), value));
                    }
                }
                if layer.class == "ZeroPadding2D" {
                    let pad = s["padding"][0][0].clone();
                    s.insert("padding".into(), if pad == json!(1) { json!([1, 1]) } else { pad });
                }
            })
            .unwrap();
        }
    }

    #[test]
    fn a_window_that_differs_is_named() {
        let cases = [
            ("xception", "block1_conv1", "strides", json!([1, 1]), "has strides [1, 1], expected [2, 2] (block1_conv1 of xception)"),
            ("xception", "block1_conv2", "padding", json!("same"), "has padding same, expected valid"),
            ("xception", "block5_sepconv2", "dilation_rate", json!([2, 2]), "has dilation rate [2, 2], expected [1, 1]"),
            ("xception", "block13_pool", "strides", json!(1), "has strides [1, 1], expected [2, 2]"),
            ("vgg16", "block3_pool", "pool_size", json!([3, 3]), "has pool size [3, 3], expected [2, 2]"),
            ("vgg16", "block3_conv2", "padding", json!("valid"), "has padding valid, expected same"),
            ("inceptionv3", "average_pooling2d_4", "padding", json!("valid"), "has padding valid, expected same"),
            ("densenet121", "conv1_conv", "strides", json!([1, 1]), "has strides [1, 1], expected [2, 2]"),
            (
                "densenet121",
                "zero_padding2d",
                "padding",
                json!([[2, 3], [3, 3]]),
                "has padding [[2, 3], [3, 3]], expected [[3, 3], [3, 3]]",
            ),
            ("densenet121", "conv4_block7_2_conv", "dilation_rate", json!(3), "has dilation rate [3, 3], expected [1, 1]"),
        ];
        for (backbone, layer, key, value, expected) in cases {
            let model = body(backbone.parse().unwrap());
            let error = said(&model, |l| {
                if l.name == layer {
                    l.settings[key] = value.clone()
                }
            })
            .unwrap_err()
            .to_string();
            assert!(error.starts_with(&format!("{layer}: ")) && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_pool_too_few_is_noticed() {
        let error = said(&body(Backbone::Vgg16), |l| {
            if l.name == "block2_pool" {
                l.class = "Add".into()
            }
        })
        .unwrap_err();
        assert!(error.what().contains("the model has 4 MaxPooling2D layers, vgg16 has 5"), "{error}");
    }

    #[test]
    fn what_is_not_said_is_the_default() {
        let window = |class, s| Window::of(class, &s);
        assert!(window("Conv2D", json!({})) == window("Conv2D", json!({"strides": [1, 1], "padding": "valid", "dilation_rate": 1})));
        let pool = json!({"pool_size": [3, 3], "strides": null});
        assert_eq!(window("MaxPooling2D", pool).strides, [3, 3], "a pool steps by its size");
        assert_eq!(pads(&json!({"top_pad": 1, "left_pad": 2})), "[[1, 0], [2, 0]]");
        assert_eq!([pads(&json!("odd")), pads(&json!([[1, "x"], [0, 0]]))], ["[[0, 0], [0, 0]]", "[[1, ?], [0, 0]]"]);
    }
}
