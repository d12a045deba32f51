//! The HDF5 reader on files that h5py wrote (`tests/golden/make_hdf5.py`), sound and hostile.

use defrost::error::Result;
use defrost::weights::hdf5::{Dataset, File, Group};
use std::path::Path;

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hdf5").join(name)).unwrap()
}

fn floats(data: &Dataset) -> Vec<f32> {
    data.read().unwrap().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The elements that every golden data set of this length has.
fn expected(len: u64) -> Vec<f32> {
    (0..len).map(|i| i as f32 / 2.0 - 3.0).collect()
}

/// The three eras of the format.
const ERAS: [&str; 3] = ["v0", "v108", "latest"];

#[test]
fn every_float_type_is_read_in_both_byte_orders() {
    for era in ERAS {
        let bytes = golden(&format!("types_{era}.h5"));
        let file = File::parse(&bytes).unwrap();
        let root = file.root().unwrap();
        let group = root.group("conv1/bn").unwrap().unwrap();
        assert_eq!(group.names().count(), 6);
        for name in group.names() {
            let data = group.dataset(name).unwrap().unwrap();
            assert_eq!((data.shape(), floats(&data)), (&[2, 3][..], expected(6)), "{era} {name}");
        }
        let scalar = root.dataset("scalar").unwrap().unwrap();
        assert_eq!((scalar.shape(), floats(&scalar)), (&[][..], vec![-3.0]));
        assert!(floats(&root.dataset("empty").unwrap().unwrap()).is_empty());
        let error = root.dataset("integers").unwrap().unwrap().read().unwrap_err();
        assert!(error.what().contains("8-byte integers, expected f32"), "{error}");
        assert!(root.dataset("conv1/bn/absent").unwrap().is_none() && root.group("absent/bn").unwrap().is_none());
        assert!(root.dataset("conv1").is_err_and(|e| e.to_string().contains("conv1: is a group")));
        assert!(root.group("scalar").is_err_and(|e| e.to_string().contains("scalar: is a data set")));
    }
}

#[test]
fn texts_of_attributes_are_read_whatever_their_length() {
    for era in ERAS {
        let bytes = golden(&format!("types_{era}.h5"));
        let file = File::parse(&bytes).unwrap();
        let root = file.root().unwrap();
        let texts = |name: &str| root.texts(name).unwrap();
        let three = Some(vec!["input".to_string(), "conv1/bn".into(), "größe".into()]);
        assert_eq!((texts("fixed"), texts("variable")), (three.clone(), three), "{era}");
        assert_eq!(texts("one"), Some(vec!["3.15.1".to_string()]));
        assert_eq!((texts("none"), texts("absent")), (Some(vec![]), None));
        assert!(root.has_attribute("part0") && !root.has_attribute("part"));
    }
}

#[test]
fn many_links_and_attributes_are_all_found() {
    for era in ERAS {
        let bytes = golden(&format!("many_{era}.h5"));
        let file = File::parse(&bytes).unwrap();
        let root = file.root().unwrap();
        assert_eq!(root.names().count(), 151, "{era}");
        for i in 0..150 {
            assert_eq!(floats(&root.dataset(&format!("layer_{i}")).unwrap().unwrap()), [i as f32], "{era}");
        }
        let group = root.group("attributes").unwrap().unwrap();
        for i in 0..40 {
            assert_eq!(group.texts(&format!("a{i}")).unwrap(), Some(vec![format!("text {i}")]), "{era}");
        }
    }
}

#[test]
fn chunks_are_put_together() {
    for era in ERAS {
        let bytes = golden(&format!("chunks_{era}.h5"));
        let file = File::parse(&bytes).unwrap();
        let root = file.root().unwrap();
        let names: Vec<&str> = root.names().collect();
        assert_eq!(names.len(), if era == "latest" { 8 } else { 7 }, "{names:?}");
        for name in names {
            let data = root.dataset(name).unwrap().unwrap();
            let len = data.shape().iter().product();
            assert_eq!(floats(&data), expected(len), "{era} {name}");
        }
    }
}

#[test]
fn what_leads_elsewhere_or_was_never_written_is_refused() {
    let said = |result: Result<Option<Dataset>>| match result.and_then(|data| data.unwrap().read().map(|_| ())) {
        Ok(()) => panic!("it was read"),
        Err(error) => error.to_string(),
    };
    for name in ["refused.h5", "refused_latest.h5"] {
        let bytes = golden(name);
        let file = File::parse(&bytes).unwrap();
        let root = file.root().unwrap();
        let refusals = [
            ("soft", "soft: is a soft link, which is refused"),
            ("external", "external: is an external link, which is refused"),
            ("virtual", "virtual: is a virtual data set, which is refused"),
            ("raw", "raw: has its data in another file, which is refused"),
            ("never", "its data was never written"),
            ("lzf", "filter 32000"),
        ];
        for (name, why) in refusals.into_iter().filter(|(name, _)| root.has(name)) {
            let error = said(root.dataset(name));
            assert!(error.contains(why), "{name}: {error}");
        }
        assert_eq!(floats(&root.dataset("data").unwrap().unwrap()), expected(4));
        if name == "refused.h5" {
            // Its shape is known, and asks nobody for memory.
            assert_eq!(root.dataset("bomb").unwrap().unwrap().shape(), [1 << 20; 3]);
            assert_eq!(floats(&root.dataset("growing").unwrap().unwrap()), expected(4));
        } else {
            assert!(said(root.dataset("growing")).contains("h5repack"));
        }
    }
}

#[test]
fn a_file_cut_short_anywhere_is_an_error() {
    let bytes = golden("legacy.h5");
    for len in (0..bytes.len()).step_by(7) {
        let error = File::parse(&bytes[..len]).err().unwrap_or_else(|| panic!("{len} of {} bytes were taken for a file", bytes.len()));
        assert!(["not an HDF5", "damaged", "truncated"].iter().any(|why| error.what().contains(why)), "{error}");
    }
}

/// All that a group holds, read.
fn read_all(group: &Group, depth: usize) -> Result<()> {
    for name in group.names().filter(|_| depth < 8) {
        if group.is_group(name)? {
            group.group(name)?.map_or(Ok(()), |g| read_all(&g, depth + 1))?;
        } else if let Some(data) = group.dataset(name)? {
            let len = data.shape().iter().try_fold(1u64, |n, &d| n.checked_mul(d));
            if len.is_some_and(|n| n < 1 << 16) {
                data.read()?;
            }
        }
    }
    Ok(())
}

#[test]
fn every_byte_may_be_wrong_without_a_panic() {
    for name in ["types_v0.h5", "types_latest.h5", "refused_latest.h5"] {
        let good = golden(name);
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff, good[at] ^ 0x10] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _ = File::parse(&bytes).and_then(|file| read_all(&file.root()?, 0));
            }
        }
    }
}
