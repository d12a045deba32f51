//! The settings of a run: the defaults of its backbone, overlaid by a config file, overlaid by flags.

use super::device::{DeviceArgs, Name};
use super::flags::Flags;
use super::output::tell;
use crate::error::{Error, Result};
use crate::models::{Backbone, did_you_mean};
use crate::train::Settings;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::de::DeTable;

/// The keys of the article "Is Frozen Weight Transfer Learning Always the Answer?" (its `utils/config.py` is valid TOML as it
/// stands), and what they are here. Its `epochs` and `lr` are ours; its `head` is the backbone.
const ARTICLE: [(&str, &str); 5] = [
    ("train_dataset_path", "data"),
    ("dataset_path", "data"),
    ("input_dim", "input-size"),
    ("head", "backbone"),
    ("classes_path", "classes"),
];

/// What other programs call settings of ours whose names are too far from them to be guessed.
const ELSEWHERE: [(&str, &str); 6] = [
    ("learning_rate", "lr"),
    ("learning-rate", "lr"),
    ("image_size", "input-size"),
    ("image-size", "input-size"),
    ("model", "backbone"),
    ("validation_split", "val-split"),
];

/// The article's folder of test images, which its training never sees.
const TEST_IMAGES: &str = "test_dataset_path";

/// Resolves what a command was given; says on stderr how the article's keys were read.
///
/// # Errors
/// No DATA, no backbone; a key of the file that no setting has, or a value of the wrong kind, with its line.
pub fn settings(data: Option<&Path>, config: Option<&Path>, flags: &Flags, device: &DeviceArgs) -> Result<Settings> {
    let file = config.map(File::read).transpose()?.unwrap_or_default();
    file.notes.iter().for_each(|note| tell(&format!("{}: {note}", file.path.display())));
    let mut given = file.table.clone();
    given.extend(table(flags)?);
    if let Some(data) = data {
        given.insert("data".into(), data.display().to_string().into());
    }
    if device.device != Name::Auto {
        given.insert("device".into(), device.device.to_string().into());
    }
    if let Some(threads) = device.threads {
        given.insert("threads".into(), i64::from(threads).into());
    }
    if device.exact {
        given.insert("exact".into(), true.into());
    }
    let text = |key: &str| given.get(key).and_then(toml::Value::as_str).map(String::from);
    let missing = |what: &str, advice: &str| Error::input(format!("{what} is missing")).advise(advice);
    let data = text("data").ok_or_else(|| missing("DATA", "name the folder of class folders: defrost train DATA ..."))?;
    let backbone = text("backbone").ok_or_else(|| missing("--backbone", "one of vgg16, xception, inceptionv3, densenet121"))?;
    let backbone: Backbone = backbone.parse()?;
    let mut defaults = Settings::new(PathBuf::from(data), backbone);
    if given.get("augment").and_then(toml::Value::as_bool) == Some(true) {
        defaults = defaults.with_preset();
    }
    let mut all = table(&defaults)?;
    all.extend(given);
    all.insert("backbone".into(), backbone.name().into());
    all.try_into().map_err(|e: toml::de::Error| file.wrong_value(&e))
}

fn table(value: &impl serde::Serialize) -> Result<toml::Table> {
    toml::Table::try_from(value).map_err(|e| Error::internal(e.to_string()))
}

/// The text of a file that is no longer than [`LONGEST`].
fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)?;
    match text.len() as u64 > LONGEST {
        true => Err(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("more than {LONGEST} bytes, which no config file has"))),
        false => Ok(text),
    }
}

/// Bytes of a config file; that of a run has about a thousand.
const LONGEST: u64 = 1 << 20;

/// A config file; empty where none was given.
#[derive(Default)]
struct File {
    path: PathBuf,
    table: toml::Table,
    /// The line of each key, from 1.
    lines: HashMap<String, usize>,
    /// How the article's keys were read.
    notes: Vec<String>,
}

impl File {
    /// Reads a file and refuses keys that no setting has.
    fn read(path: &Path) -> Result<Self> {
        let text = read_text(path).map_err(|e| Error::io(path, &e).at("--config"))?;
        let unreadable = |e: toml::de::Error| Error::input(e.to_string().trim_end().to_string()).at(path.display());
        let parsed = DeTable::parse(&text).map_err(unreadable)?;
        let line = |at: usize| text[..at].lines().count().max(1) + usize::from(text[..at].ends_with('\n'));
        let lines: HashMap<String, usize> =
            parsed.get_ref().keys().map(|key| (key.get_ref().to_string(), line(key.span().start))).collect();
        let mut file = File { path: path.into(), table: text.parse().map_err(unreadable)?, lines, notes: Vec::new() };
        file.translate()?;
        let known = table(&Settings::new("", Backbone::Vgg16))?;
        let unknown = file.table.keys().filter(|key| !known.contains_key(*key)).min_by_key(|key| file.lines.get(*key));
        match unknown {
            None => Ok(file),
            Some(key) => {
                let error = file.at(key, Error::input(format!("there is no setting {key:?}")));
                let same = ELSEWHERE.iter().find(|(theirs, _)| theirs == key).map(|(_, ours)| format!("did you mean {ours}?"));
                let near = same.or_else(|| did_you_mean(key, known.keys().map(String::as_str)));
                Err(error.advise(near.unwrap_or_else(|| "the settings have the names of the flags: `defrost train --help`".into())))
            }
        }
    }

    /// Gives the article's keys our names.
    fn translate(&mut self) -> Result<()> {
        let mut read = Vec::new();
        for (theirs, ours) in ARTICLE {
            let Some(value) = self.table.remove(theirs) else { continue };
            let line = self.lines.get(theirs).copied().unwrap_or_default();
            if self.table.insert(ours.into(), value).is_some() {
                let twice = Error::input(format!("{theirs} is {ours:?} here, which line {} gives", self.lines[ours]));
                return Err(self.at(theirs, twice));
            }
            self.lines.insert(ours.into(), line);
            read.push(format!("{theirs} is {}", if ours == "data" { "DATA".into() } else { format!("--{ours}") }));
        }
        let test = self.table.remove(TEST_IMAGES);
        if read.is_empty() && test.is_none() {
            return Ok(());
        }
        self.notes.extend((!read.is_empty()).then(|| format!("{} here", read.join(", "))));
        if !self.table.contains_key("preprocess") {
            self.table.insert("preprocess".into(), "none".into());
            let note = "pixels go in as they are, as in the article (--preprocess none); ImageNet weights expect --preprocess backbone";
            self.notes.push(note.into());
        }
        if let Some(test) = test {
            let folder = test.as_str().map_or(test.to_string(), String::from);
            let note = format!("{TEST_IMAGES} is not trained or validated on; then: defrost evaluate RUN/best.safetensors {folder}");
            self.notes.push(note);
        }
        Ok(())
    }

    /// Names a key's line and the file.
    fn at(&self, key: &str, error: Error) -> Error {
        match self.lines.get(key) {
            Some(line) => error.at(format!("line {line}")).at(self.path.display()),
            None => error,
        }
    }

    /// What was wrong with a value: the parser names the key on a line of its own.
    fn wrong_value(&self, e: &toml::de::Error) -> Error {
        let plain = [
            ("expected f64", "expected a number"),
            ("expected usize", "expected a whole number"),
            ("expected u32", "expected a whole number"),
        ];
        let message = plain.iter().fold(e.message().to_string(), |text, (types, words)| text.replace(types, words));
        let error = Error::input(message);
        let text = e.to_string();
        let key = text.lines().find_map(|l| l.strip_prefix("in `")).map(|k| k.trim_end_matches('`').to_string());
        key.map_or(error.clone(), |key| self.at(&key, error.at(&key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::settings::PreprocessName;
    use clap::{Args, Command, FromArgMatches};

    impl Flags {
        fn parse_from<const N: usize>(words: [&str; N]) -> Self {
            Flags::from_arg_matches(&Flags::augment_args(Command::new("")).get_matches_from(words)).unwrap()
        }
    }

    fn refusal(name: &str, text: &str) -> String {
        let path = std::env::temp_dir().join(format!("defrost-config-{name}-{}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let error = File::read(&path).err().map_or(String::new(), |e| e.to_string());
        std::fs::remove_file(&path).unwrap();
        error
    }

    /// `utils/config.py` of the article's repository, github.com/amine0110/medical-imaging-classification, as it stands.
    const CONFIG_PY: &str = "\
# Data paths
classes_path = 'utils/annotation.txt'
train_dataset_path = './dataset/train'
test_dataset_path = './dataset/test'

# Training configs
input_dim = 224   # 299, 224
epochs = 20
lr=0.01
head = 'xception' # xception, vgg16, inceptionv3, densenet121
";

    #[test]
    fn the_article_s_config_is_valid_as_it_stands() {
        let path = std::env::temp_dir().join(format!("defrost-config-article-{}.py", std::process::id()));
        std::fs::write(&path, CONFIG_PY).unwrap();
        let (file, args) = (File::read(&path).unwrap(), DeviceArgs { device: Name::Auto, threads: None, exact: false });
        let settings = settings(None, Some(&path), &Flags::parse_from([""]), &args).unwrap();
        std::fs::write(&path, CONFIG_PY.to_string() + "backbone = 'vgg16'\n").unwrap();
        let twice = File::read(&path).err().unwrap().to_string();
        std::fs::remove_file(&path).unwrap();
        let expected = Settings {
            input_size: 224,
            epochs: 20,
            lr: 0.01,
            preprocess: PreprocessName::None,
            classes: "utils/annotation.txt".into(),
            ..Settings::new("./dataset/train", Backbone::Xception)
        };
        assert_eq!(settings, expected);
        settings.check().unwrap();
        assert_eq!(file.notes.len(), 3);
        assert_eq!(
            file.notes[0],
            "train_dataset_path is DATA, input_dim is --input-size, head is --backbone, classes_path is --classes here"
        );
        assert!(file.notes[2].ends_with("defrost evaluate RUN/best.safetensors ./dataset/test"), "{:?}", file.notes);
        assert!(twice.contains("line 10: head is \"backbone\" here, which line 11 gives"), "{twice}");
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_name() {
        for (i, (text, says)) in [
            ("backbone = \"vgg16\"\nepoch = 3\n", "line 2: there is no setting \"epoch\"\n  did you mean epochs"),
            ("learning_rate = 0.1\n", "line 1: there is no setting \"learning_rate\"\n  did you mean lr?"),
            ("# epoch\n\n\"epoch\" = 3\n", "line 3: there is no setting \"epoch\""),
            ("# lrr = 1\nlr = 0.1\n  lrr.x = 3\n", "line 3: there is no setting \"lrr\""),
            ("text = \"\"\"\nlrr\n\"\"\"\nlr = 1", "line 1: there is no setting \"text\"\n  the settings have the names of the flags"),
            ("lr = 0.1\n[learning]\nrate = 3\n", "line 2: there is no setting \"learning\""),
        ]
        .into_iter()
        .enumerate()
        {
            let error = refusal(&format!("unknown{i}"), text);
            assert!(error.contains(says), "{text:?}: {error}");
        }
        assert_eq!(refusal("known", "lr = 0.1\n\"batch-size\" = 3\n"), "");
        assert!(refusal("broken", "lr = \n").contains("TOML parse error at line 1"));
    }
}
