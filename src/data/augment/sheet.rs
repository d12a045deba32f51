//! A contact sheet: what the network is shown, for a person to look at.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};

use super::Augmentation;
use crate::data::dataset::{Dataset, level};
use crate::error::{Error, Result};

/// Images that are spread over a collection.
const ROWS: usize = 6;
/// Columns: the image as it is, then as it is in so many epochs less one.
const COLUMNS: usize = 8;
/// Pixels between pictures.
const GAP: usize = 4;

/// The images of a sheet, spread evenly over `indices` in ascending order, so that each class has its share.
pub fn spread(indices: &[usize]) -> Vec<usize> {
    let mut sorted = indices.to_vec();
    sorted.sort_unstable();
    let rows = sorted.len().min(ROWS);
    (0..rows).map(|row| sorted[(2 * row + 1) * sorted.len() / (2 * rows)]).collect()
}

/// A PNG with these images, one a row: each as it is, then as the next epochs show it.
///
/// # Errors
/// Kind `Internal`: the picture cannot be encoded.
pub fn sheet(data: &Dataset, indices: &[usize], augmentation: &Augmentation) -> Result<Vec<u8>> {
    let size = data.options().size;
    let side = |count: usize| (count * (size + GAP) + GAP) as u32;
    let mut picture = RgbImage::from_pixel(side(COLUMNS), side(indices.len()), Rgb([255; 3]));
    let (mut plain, mut changed) = (vec![0.0; size * size * 3], vec![0.0; size * size * 3]);
    for (row, &index) in indices.iter().enumerate() {
        data.copy_image(index, &mut plain);
        for column in 0..COLUMNS {
            if column == 0 {
                changed.copy_from_slice(&plain);
            } else {
                let epoch = augmentation.epoch + column as u32 - 1;
                Augmentation { epoch, ..*augmentation }.apply(index, &plain, size, &mut changed);
            }
            let (left, top) = (GAP + column * (size + GAP), GAP + row * (size + GAP));
            for (i, pixel) in changed.chunks_exact(3).enumerate() {
                let colour = Rgb([level(pixel[0]), level(pixel[1]), level(pixel[2])]);
                picture.put_pixel((left + i % size) as u32, (top + i / size) as u32, colour);
            }
        }
    }
    let mut out = Cursor::new(Vec::new());
    picture.write_to(&mut out, ImageFormat::Png).map_err(|e| Error::internal(format!("a contact sheet is no PNG: {e}")))?;
    Ok(out.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::augment::{Augment, Flip};
    use crate::data::dataset::Options;
    use crate::data::decode::decode;
    use crate::data::listing::Listing;
    use crate::data::testing::{Folder, png};

    #[test]
    fn images_are_spread_over_all() {
        assert_eq!(spread(&[4, 0, 9]), [0, 4, 9]);
        assert_eq!(spread(&(0..60).rev().collect::<Vec<_>>()), [5, 15, 25, 35, 45, 55]);
        assert!(spread(&[]).is_empty());
    }

    #[test]
    fn a_sheet_shows_each_image_and_then_its_changes() {
        let f = Folder::new("sheet");
        for i in 0..3u8 {
            f.write(&format!("{}/{i}.png", if i < 1 { "a" } else { "b" }), &png(2, 2, &[i, 0, 0, 9, 0, 0, i, 0, 0, 9, 0, 0]));
        }
        let data = Dataset::load(&Listing::read(f.path(), None).unwrap(), None, &Options::keras(2), &|_, _| ()).unwrap();
        let augmentation = Augmentation { augment: Augment { flip: Flip::H, ..Augment::default() }, seed: 1, epoch: 1 };
        let sheet = decode(&sheet(&data, &[2, 0], &augmentation).unwrap(), false).unwrap();
        assert_eq!((sheet.width, sheet.height), (8 * 6 + 4, 2 * 6 + 4));
        let red = |column: usize, row: usize| sheet.pixels[((GAP + row * 6) * sheet.width + GAP + column * 6) * 3];
        assert_eq!((red(0, 0), red(0, 1)), (2, 0));
        let drawn: Vec<u8> = (1..8).map(|column| red(column, 0)).collect();
        let expected: Vec<u8> = (1..8).map(|e| if augmentation.augment.draw(1, e, 2).flip[0] { 9 } else { 2 }).collect();
        assert!(drawn == expected && drawn.contains(&9) && drawn.contains(&2), "{drawn:?} {expected:?}");
    }
}
