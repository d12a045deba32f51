//! What is known of an image besides its pixels, small enough to be kept for every image of a collection.

use std::path::Path;

use crate::data::decode::Rgb;
use crate::data::phash::Fingerprint;
use crate::data::sniff::{Format, sniff};
use crate::error::Result;

/// An image without its pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portrait {
    /// By its content.
    pub format: Format,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// The EXIF orientation that the file carries, 1 (upright) to 8, applied or not.
    pub orientation: u8,
    /// Whether 16-bit gray lost values above 255.
    pub clipped: bool,
    /// By which near duplicates are found.
    pub fingerprint: Fingerprint,
}

impl Portrait {
    /// The portrait of a decoded file.
    ///
    /// # Errors
    /// Kind `Input`: the bytes are those of no image.
    pub fn of(bytes: &[u8], rgb: &Rgb) -> Result<Portrait> {
        let Rgb { width, height, orientation, clipped, .. } = *rgb;
        Ok(Portrait { format: sniff(bytes)?, width, height, orientation, clipped, fingerprint: Fingerprint::of(rgb) })
    }

    /// The format that the file's name promises, if it is another one.
    pub fn misnamed(&self, path: &str) -> Option<Format> {
        let ending = Path::new(path).extension()?.to_string_lossy().to_lowercase();
        Format::ALL.into_iter().find(|f| f.endings().contains(&&*ending)).filter(|promised| *promised != self.format)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::decode::decode;
    use crate::data::testing::png;

    #[test]
    fn a_portrait_tells_what_a_name_conceals() {
        let bytes = png(3, 2, &[9; 18]);
        let portrait = Portrait::of(&bytes, &decode(&bytes, false).unwrap()).unwrap();
        assert_eq!((portrait.format, portrait.width, portrait.height), (Format::Png, 3, 2));
        assert_eq!(portrait.misnamed("a/x.PNG"), None);
        assert_eq!(portrait.misnamed("a.png/x.JPEG"), Some(Format::Jpeg));
        assert_eq!((portrait.misnamed("a/x"), portrait.misnamed("a/x.txt")), (None, None));
    }
}
