//! Weights that come from and go to other programs.

mod export;
mod fetch;
mod hdf5;
mod import;
mod mapped;
mod torch;

use defrost::ir::Init;
use defrost::weights::Draw;
use std::path::PathBuf;

/// A folder of its own that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("defrost-weights-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Numbers in -1..1 that depend on a name and their position alone.
fn hashed(name: &str, len: usize) -> Vec<f64> {
    let draw = Draw::new(42, name, Init::GlorotUniform { fan_in: 3, fan_out: 3 });
    (0..len).map(|i| f64::from(draw.at(i))).collect()
}
