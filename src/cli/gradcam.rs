//! Heat maps on disk: `predict --gradcam DIR` and `explain MODEL --image FILE`.

use super::model_args::Ready;
use super::output;
use crate::data::decode::decode_file;
use crate::data::stream::Stream;
use crate::error::{Error, Result};
use crate::metrics::argmax;
use crate::models::{Spec, did_you_mean};
use crate::ops::Backend;
use crate::report::{captioned, drawable, picture};
use crate::train::GradCam;
use crate::train::gradcam::{Cam, Explained, PLACES, plane_of};
use crate::weights::replace_file;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, RgbImage};
use rayon::prelude::*;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

/// Which classes of an image are explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Predicted,
    All,
    Class(usize),
}

impl Which {
    /// Reads `predicted`, `all` or the name of a class.
    ///
    /// # Errors
    /// When no class has that name.
    pub fn read(text: &str, classes: &[String]) -> Result<Self> {
        if let Some(class) = classes.iter().position(|class| class == text) {
            return Ok(Which::Class(class));
        }
        match text {
            "predicted" => Ok(Which::Predicted),
            "all" => Ok(Which::All),
            _ => {
                let names = classes.iter().map(String::as_str).chain(["predicted", "all"]);
                let advice = did_you_mean(text, names).unwrap_or_else(|| format!("the model knows {}", classes.join(", ")));
                Err(Error::input(format!("no class is called {text:?}")).advise(advice))
            }
        }
    }

    /// The classes to explain of an image with these probabilities; none where they are no numbers.
    fn of(self, probabilities: &[f64]) -> Vec<usize> {
        match self {
            _ if probabilities.iter().any(|p| !p.is_finite()) => Vec::new(),
            Which::Predicted => vec![argmax(probabilities)],
            Which::All => (0..probabilities.len()).collect(),
            Which::Class(class) => vec![class],
        }
    }
}

/// Checks the layer that a flag names.
///
/// # Errors
/// A layer that does not exist or has no feature maps.
pub fn check_layer(spec: &Spec, layer: Option<&str>, flag: &str) -> Result<()> {
    layer.map_or(Ok(()), |layer| plane_of(spec, layer).map(|_| ()).map_err(|e| e.at(flag)))
}

/// An image to explain: its file, and its name in the folder of overlays, without extension.
#[derive(Clone, Debug)]
pub struct Source {
    pub file: PathBuf,
    pub stem: PathBuf,
}

impl Source {
    /// An image that was found at the argument `root`: it is called as below that folder, or as the file itself.
    pub fn below(root: &Path, file: PathBuf) -> Self {
        let inside = file.strip_prefix(root).ok().filter(|rest| !rest.as_os_str().is_empty());
        let stem = inside.map_or_else(|| file.file_name().map(PathBuf::from).unwrap_or_default(), Path::to_path_buf);
        Source { stem: stem.with_extension(""), file }
    }
}

/// An overlay on disk.
#[derive(Clone, Debug)]
pub struct Written {
    pub path: PathBuf,
    pub class: usize,
    pub probability: f64,
    /// x and y of the hottest place in the image's own pixels; none if no place speaks for the class.
    pub hottest: Option<[usize; 2]>,
}

/// What a model answers for an image.
pub struct Answer {
    pub probabilities: Vec<f64>,
    /// What was written, or why the image could not be read again.
    pub overlays: Result<Vec<Written>>,
}

/// How and where overlays are drawn.
struct Drawing {
    folder: PathBuf,
    classes: Vec<String>,
    /// The classes as captions name them.
    captions: Vec<String>,
    layer: String,
    /// Whether images are turned as their EXIF orientation says.
    exif: bool,
}

/// A model that explains, and the folder that overlays go to.
pub struct Overlays<D: Backend> {
    cam: GradCam<D>,
    which: Which,
    drawing: Drawing,
    /// Paths that hold an image to explain or an overlay of this run, in lower case.
    taken: HashSet<String>,
}

impl<D: Backend> Overlays<D> {
    /// Overlays of `sources`, none of which is ever written over. The folder is made with its first overlay.
    ///
    /// # Errors
    /// When the folder is a file.
    pub fn new(cam: GradCam<D>, which: Which, folder: &Path, classes: Vec<String>, exif: bool, sources: &[Source]) -> Result<Self> {
        if folder.exists() && !folder.is_dir() {
            return Err(Error::input("is no folder, so that heat maps cannot go there").at(folder.display()));
        }
        let taken = sources.iter().map(|source| key(&source.file)).collect();
        let drawing = Drawing { folder: folder.into(), captions: drawable(&classes), classes, layer: cam.layer().into(), exif };
        Ok(Overlays { cam, which, drawing, taken })
    }

    /// Says on stderr how many overlays there are and what they show.
    pub fn report(&self, written: usize) {
        let [height, width] = self.cam.plane();
        let what = format!("Grad-CAM at {}, {width} x {height} places", self.cam.layer());
        let finer = if width < PLACES { "; an earlier layer is finer" } else { "" };
        let maps = if written == 1 { "heat map" } else { "heat maps" };
        output::tell(&format!("{written} {maps} in {} ({what}{finer})", self.drawing.folder.display()));
    }

    /// The answers for images with these pixels; their overlays are then on disk.
    ///
    /// # Errors
    /// Short memory; what the disk says to an overlay.
    pub fn explain(&mut self, pixels: &[f32], sources: &[&Source]) -> Result<Vec<Answer>> {
        let which = self.which;
        let explained = self.cam.explain(pixels, &mut |_, probabilities| which.of(probabilities))?;
        let mut jobs = Vec::new();
        for (source, explained) in sources.iter().zip(explained) {
            let paths: Vec<PathBuf> = explained.cams.iter().map(|cam| self.path(&source.stem, cam.class)).collect();
            jobs.push((source, explained, paths));
        }
        let drawing = &self.drawing;
        let draw = |(source, explained, paths): (&&Source, Explained, Vec<PathBuf>)| {
            let overlays = drawing.write(source, &explained, &paths)?;
            Ok(Answer { probabilities: explained.probabilities, overlays })
        };
        jobs.into_par_iter().map(draw).collect()
    }

    /// The path of an overlay: `DIR/STEM.CLASS.png`, numbered where that is taken.
    fn path(&mut self, stem: &Path, class: usize) -> PathBuf {
        let plain = |c: char| if c.is_control() || r#"/\:*?"<>|"#.contains(c) { '_' } else { c };
        let class: String = self.drawing.classes[class].chars().map(plain).collect();
        let name = stem.file_name().unwrap_or_default().to_string_lossy();
        let numbered = |n: usize| {
            let number = if n == 1 { String::new() } else { format!("-{n}") };
            self.drawing.folder.join(stem).with_file_name(format!("{name}{number}.{class}.png"))
        };
        let path = (1..).map(numbered).find(|path| !self.taken.contains(&key(path))).expect("some number is free");
        self.taken.insert(key(&path));
        path
    }
}

impl Drawing {
    /// Draws the overlays of one image. The outer error is the disk's, the inner one the image's.
    fn write(&self, source: &Source, explained: &Explained, paths: &[PathBuf]) -> Result<Result<Vec<Written>>> {
        if paths.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let image = match decode_file(&source.file, self.exif) {
            Ok(image) => image,
            Err(error) => return Ok(Err(error)),
        };
        let shown = picture(&image);
        let draw = |(cam, path): (&Cam, &PathBuf)| {
            let overlay = captioned(&cam.heat.over(&shown), &self.title(explained, cam), &self.note(cam));
            let parent = path.parent().unwrap_or(&self.folder);
            std::fs::create_dir_all(parent).map_err(|e| Error::io(parent, &e))?;
            write_png(path, &overlay)?;
            let hottest = (cam.peak > 0.0).then(|| cam.heat.hottest(image.width, image.height));
            Ok(Written { path: path.clone(), class: cam.class, probability: explained.probabilities[cam.class], hottest })
        };
        explained.cams.iter().zip(paths).map(draw).collect::<Result<_>>().map(Ok)
    }

    /// `polyps 0.9312`, and what was predicted instead if another class was.
    fn title(&self, explained: &Explained, cam: &Cam) -> String {
        let named = |class: usize| format!("{} {:.4}", self.captions[class], explained.probabilities[class]);
        let best = argmax(&explained.probabilities);
        if best == cam.class { named(best) } else { format!("{} (predicted: {})", named(cam.class), named(best)) }
    }

    fn note(&self, cam: &Cam) -> String {
        let (layer, [width, height]) = (&self.layer, [cam.heat.width, cam.heat.height]);
        if cam.peak > 0.0 { format!("Grad-CAM at {layer}, {width}x{height}") } else { format!("no place speaks for it at {layer}") }
    }
}

/// Explains single images: a line for each heat map on stdout, with the hottest place in the image's own pixels.
///
/// # Errors
/// A layer without feature maps, what the disk says; kind `Partial` if images could not be read.
pub fn explain_images<D: Backend>(
    ready: Ready,
    device: D,
    layer: Option<&str>,
    which: Which,
    files: &[PathBuf],
    folder: &Path,
) -> Result<()> {
    let Ready { file, spec, images } = ready;
    let classes = file.class_names();
    let sources: Vec<Source> = files.iter().map(|file| Source::below(file, file.clone())).collect();
    let batch = files.len().min(8);
    check_layer(&spec, layer, "--layer")?;
    let cam = GradCam::new(&file, &spec, layer, device, batch)?;
    let mut overlays = Overlays::new(cam, which, folder, classes.clone(), images.exif, &sources)?;
    let (mut done, mut failed, mut written) = (0, 0, 0);
    for portion in Stream::new(files.iter().cloned().map(Ok).collect(), images, batch)? {
        let (read, unread): (Vec<_>, Vec<_>) = portion.files.iter().zip(&sources[done..]).partition(|(file, _)| file.is_ok());
        let read: Vec<&Source> = read.into_iter().map(|(_, source)| source).collect();
        let lost = unread.into_iter().filter_map(|(file, source)| Some((source, file.as_ref().err()?.clone())));
        let mut lost: Vec<(&Source, Error)> = lost.collect();
        for (source, answer) in read.iter().zip(overlays.explain(&portion.pixels, &read)?) {
            match answer.overlays {
                Ok(maps) if maps.is_empty() => lost.push((source, Error::input("the model's numbers for it are not finite"))),
                Ok(maps) => maps.iter().try_for_each(|map| {
                    written += 1;
                    output::print(&line(map, &classes))
                })?,
                Err(error) => lost.push((source, error)),
            }
        }
        lost.iter().for_each(|(source, error)| output::warn(&format!("{}: {}", source.file.display(), error.what())));
        (done, failed) = (done + portion.files.len(), failed + lost.len());
    }
    if written > 0 {
        overlays.report(written);
    }
    match failed {
        0 => Ok(()),
        n if n == files.len() => Err(Error::input("no image could be explained")),
        n => Err(Error::partial(format!("{n} of {} images could not be explained", files.len()))),
    }
}

/// `heat/scan.polyps.png  polyps  0.9312  hottest at x 212, y 140`.
fn line(map: &Written, classes: &[String]) -> String {
    let place = map.hottest.map_or("no place speaks for it".into(), |[x, y]| format!("hottest at x {x}, y {y}"));
    format!("{}  {}  {:.4}  {place}\n", map.path.display(), classes[map.class], map.probability)
}

/// One key for all spellings of a path.
fn key(path: &Path) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.into());
    whole.to_string_lossy().to_lowercase()
}

fn write_png(path: &Path, image: &RgbImage) -> Result<()> {
    let (width, height) = image.dimensions();
    replace_file(path, |file| PngEncoder::new(file).write_image(image, width, height, ExtendedColorType::Rgb8).map_err(io::Error::other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Heatmap;

    #[test]
    fn classes_are_chosen_by_name_or_all_or_the_most_probable() {
        let classes = ["polyps", "stool", "all"].map(String::from);
        let read = |text| Which::read(text, &classes);
        // A class that is called like a choice is that class.
        assert_eq!((read("predicted"), read("stool"), read("all")), (Ok(Which::Predicted), Ok(Which::Class(1)), Ok(Which::Class(2))));
        assert_eq!(Which::read("all", &classes[..2]), Ok(Which::All));
        assert!(read("polyp").unwrap_err().to_string().contains("did you mean polyps?"));
        assert!(read("xyz").unwrap_err().to_string().contains("polyps, stool"));
        assert_eq!([Which::Predicted, Which::All, Which::Class(0)].map(|w| w.of(&[0.2, 0.7, 0.1])), [vec![1], vec![0, 1, 2], vec![0]]);
        assert!(Which::All.of(&[0.2, f64::NAN]).is_empty());
    }

    #[test]
    fn captions_name_classes_in_letters_that_are_drawn() {
        let classes = ["息肉", "Полип"].map(String::from).to_vec();
        let drawing = Drawing { folder: "heat".into(), captions: drawable(&classes), classes, layer: "relu".into(), exif: false };
        let explained = Explained { probabilities: vec![0.25, 0.75], cams: Vec::new() };
        let cam = |class| Cam { class, heat: Heatmap { height: 1, width: 1, values: vec![1.0] }, peak: 1.0 };
        assert_eq!(drawing.title(&explained, &cam(0)), "class 0: U+606F U+8089 0.2500 (predicted: Полип 0.7500)");
        assert_eq!(drawing.title(&explained, &cam(1)), "Полип 0.7500");
    }

    #[test]
    fn an_overlay_is_called_like_its_image_below_the_argument() {
        let stem = |root: &str, file: &str| Source::below(Path::new(root), file.into()).stem;
        assert_eq!(stem("data", "data/a/1.x.png"), Path::new("a/1.x"));
        assert_eq!(stem("data/a/1.png", "data/a/1.png"), Path::new("1"));
        assert_eq!(stem(".", "./scan"), Path::new("scan"));
    }
}
