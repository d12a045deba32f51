//! The `.keras` archive: a zip of `config.json` and `model.weights.h5`, which Keras stores without compression, so that the
//! weights are read where they lie.
//!
//! Refused: names that lead out of a folder, two entries of one name, entries that overlap, archives within the archive,
//! encrypted entries, and entries that inflate to more than [`INFLATED`] bytes or [`RATIO`] times what is stored.

use super::config::LARGEST;
use crate::error::{Error, Result};
use flate2::bufread::DeflateDecoder;
use rawzip::{CompressionMethod, ZipArchive, ZipSliceEntry};
use std::borrow::Cow;
use std::collections::HashSet;
use std::io::Read;

/// Bytes of a compressed entry, inflated: more than the largest supported network.
const INFLATED: u64 = 128 << 20;

/// Inflated bytes per stored byte. Weights hardly shrink at all; JSON shrinks by a factor of 10 to 30.
const RATIO: u64 = 100;

/// Entries of an archive: Keras writes three, and a folder of assets.
const ENTRIES: usize = 1000;

/// What every zip begins with.
pub const SIGNATURE: &[u8] = b"PK\x03\x04";

/// The two entries that matter.
pub struct Archive<'a> {
    /// `config.json`.
    pub config: String,
    /// `model.weights.h5`.
    pub weights: Cow<'a, [u8]>,
}

impl<'a> Archive<'a> {
    /// Finds both entries and checks them against their checksums.
    ///
    /// # Errors
    /// No zip, none that Keras wrote, a damaged one, or one of those that are refused.
    pub fn open(data: &'a [u8]) -> Result<Self> {
        let archive = ZipArchive::from_slice(data).map_err(damaged)?;
        let (mut config, mut weights) = (None, None);
        let (mut names, mut ranges) = (HashSet::new(), Vec::new());
        let mut entries = archive.entries();
        while let Some(entry) = entries.next_entry().map_err(damaged)? {
            let name = String::from_utf8_lossy(entry.file_path().as_ref()).into_owned();
            let found = archive.get_entry(entry.wayfinder()).map_err(|e| damaged(e).at(&name))?;
            check(&name, &found).map_err(|e| e.at(&name))?;
            ranges.push(found.compressed_data_range());
            let most = if name == "config.json" { LARGEST as u64 } else { u64::MAX };
            let extracted = || extract(data, &found, (entry.compression_method(), entry.uncompressed_size_hint()), most);
            if entry.flags().is_encrypted() {
                return Err(Error::input("is encrypted").at(name));
            }
            match name.as_str() {
                "config.json" => config = Some(extracted().map_err(|e| e.at(&name))?),
                "model.weights.h5" => weights = Some(extracted().map_err(|e| e.at(&name))?),
                _ => (),
            }
            if !names.insert(name.clone()) || names.len() > ENTRIES {
                return Err(Error::input(format!("the archive has two entries of this name, or more than {ENTRIES}")).at(name));
            }
        }
        ranges.sort_unstable();
        if ranges.windows(2).any(|pair| pair[0].1 > pair[1].0) {
            return Err(Error::input("entries of the archive overlap, which is refused"));
        }
        let (Some(config), Some(weights)) = (config, weights) else {
            let npz = if names.contains("model.weights.npz") { " (its weights are .npz, which is not read)" } else { "" };
            return Err(Error::input(format!("is a zip archive, but not a .keras file: it lacks config.json or model.weights.h5{npz}")));
        };
        let config = String::from_utf8(config.into_owned()).map_err(|_| Error::input("is no text").at("config.json"))?;
        Ok(Archive { config, weights })
    }
}

/// What is refused for any entry.
fn check(name: &str, entry: &ZipSliceEntry) -> Result<()> {
    let leads_out = name.starts_with('/') || name.contains(['\\', ':', '\0']) || name.split('/').any(|part| part == "..");
    if leads_out {
        return Err(Error::input("the name of this entry leads out of the archive's folder, which is refused"));
    }
    if entry.data().starts_with(SIGNATURE) {
        return Err(Error::input("is an archive within the archive, which is refused"));
    }
    Ok(())
}

/// The bytes of an entry: where they lie if they are stored, else inflated.
fn extract<'a>(data: &'a [u8], entry: &ZipSliceEntry, (method, size): (CompressionMethod, u64), most: u64) -> Result<Cow<'a, [u8]>> {
    let (start, end) = entry.compressed_data_range();
    let stored = data.get(start as usize..end as usize).ok_or_else(|| Error::input("lies outside of the archive"))?;
    if size > most {
        return Err(Error::input(format!("has {size} bytes; at most {most} are read")));
    }
    let wrong = |e: std::io::Error| Error::input(format!("the archive is damaged: {e}"));
    if method == CompressionMethod::STORE {
        std::io::copy(&mut entry.verifying_reader(stored), &mut std::io::sink()).map_err(wrong)?;
        return Ok(Cow::Borrowed(stored));
    }
    if method != CompressionMethod::DEFLATE {
        return Err(Error::input(format!("is compressed by method {}, expected none or deflate", method.as_u16())));
    }
    if size > INFLATED || size > RATIO.saturating_mul(stored.len() as u64) + (1 << 20) {
        let what = format!("inflates from {} to {size} bytes, which is refused", stored.len());
        return Err(Error::input(what).advise("unzip it and import model.weights.h5 itself, if you trust the file"));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    // One byte more than declared is an error of the verifier.
    entry.verifying_reader(DeflateDecoder::new(stored)).take(size + 1).read_to_end(&mut bytes).map_err(wrong)?;
    match bytes.len() as u64 == size {
        true => Ok(Cow::Owned(bytes)),
        false => Err(Error::input(format!("the archive is damaged: {} bytes inflate, {size} are declared", bytes.len()))),
    }
}

fn damaged(error: rawzip::Error) -> Error {
    Error::input(format!("the zip archive is damaged: {error}"))
}
