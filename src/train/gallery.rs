//! The pictures of a report: images in small, and heat maps over them.

use super::gradcam::GradCam;
use crate::data::dataset::Options;
use crate::data::decode::{Rgb, decode_file};
use crate::data::stream::pixels_of;
use crate::error::Result;
use crate::metrics::Predictions;
use crate::metrics::predictions::Scored;
use crate::models::Spec;
use crate::ops::Backend;
use crate::report::page::{Explanation, Picture, Shot};
use crate::report::picture;
use crate::weights::ModelFile;
use rayon::prelude::*;
use std::path::Path;

/// How many of the worst mistakes are shown.
pub const MISTAKES: usize = 24;
/// Of how many mistakes, and of how many images that were taken for what they are, heat maps are shown.
const EXPLAINED: usize = 6;

/// The images in small, read on all cores; one that cannot be read leaves a gap with its caption.
///
/// # Errors
/// Kind `Internal`: a picture that cannot be encoded.
pub fn shots(scored: &[Scored], data: &Path, exif: bool) -> Result<Vec<Shot>> {
    let shot = |s: &Scored| {
        let picture = decode_file(&data.join(&s.path), exif).map_or_else(|_| Ok(Picture::lost()), |image| Picture::new(&image))?;
        Ok(Shot { picture, scored: s.clone() })
    };
    scored.par_iter().map(shot).collect()
}

/// Heat maps of the worst mistakes, for the predicted and for the true class, and of the surest right image of each of some
/// classes; an image that cannot be read has none. Also the layer that they look at.
///
/// # Errors
/// As [`GradCam::new`] and [`GradCam::explain`].
pub fn explanations<D: Backend>(
    device: D,
    file: &ModelFile,
    spec: &Spec,
    options: Options,
    of: &Predictions,
    data: &Path,
) -> Result<(Vec<Explanation>, String)> {
    let mut cam = GradCam::new(file, spec, None, device, 1)?;
    let mut all = Vec::new();
    for scored in of.mistakes(EXPLAINED).into_iter().chain(of.surest().into_iter().take(EXPLAINED)) {
        let Ok(image) = decode_file(&data.join(&scored.path), options.exif) else {
            all.push(Explanation { shot: Shot { picture: Picture::lost(), scored }, maps: Vec::new() });
            continue;
        };
        let classes = [&scored.predicted, &scored.class].map(|name| of.classes.iter().position(|c| c == name).unwrap_or(0));
        let wanted = &classes[..if classes[0] == classes[1] { 1 } else { 2 }];
        let explained = cam.explain(&pixels_of(&image, &options), &mut |_, _| wanted.to_vec())?;
        let below = picture(&image);
        let map = |cam: &super::gradcam::Cam| {
            let over = cam.heat.over(&below);
            let (width, height) = (over.width() as usize, over.height() as usize);
            let drawn = Rgb { width, height, pixels: over.into_raw(), ..image.clone() };
            Ok((of.classes[cam.class].clone(), Picture::new(&drawn)?))
        };
        let maps = explained.iter().flat_map(|e| &e.cams).map(map).collect::<Result<_>>()?;
        all.push(Explanation { shot: Shot { picture: Picture::new(&image)?, scored }, maps });
    }
    Ok((all, cam.layer().to_string()))
}
