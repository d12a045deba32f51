//! Which GPUs there are, and in one sentence why there is none that can be used.

use super::Gpu;
use crate::base::Precision;
use crate::device::cuda::Cuda;
use crate::device::cuda::embedded::{CHIPS, NVCC};
use crate::error::{Error, Result};
use cudarc::driver::sys;
use std::ffi::CStr;

/// A GPU that the library lists.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub(super) device: i32,
    /// The N of `--device cuda:N`.
    pub ordinal: usize,
    pub name: String,
    /// Bytes.
    pub memory: u64,
    pub compute_capability: (u32, u32),
    pub multiprocessors: u32,
    /// Cycles per second at most.
    pub clock: f64,
    /// Shared memory that a block may have, in bytes.
    pub shared_limit: usize,
    /// The CUDA version that the driver supports, (major, minor).
    pub driver: (u32, u32),
}

impl Found {
    /// Floating-point operations per second at best: per multiprocessor and cycle as NVIDIA's architecture papers give them.
    pub fn peak(&self, precision: Precision) -> Option<f64> {
        let (f32, bf16) = match self.compute_capability {
            (8, 0) => (128.0, 2048.0),
            (9, _) => (256.0, 4096.0),
            (10, _) => (256.0, 8192.0),
            // GeForce: half rate when the sums are f32.
            (8 | 12, _) => (256.0, 512.0),
            _ => return None,
        };
        let per_cycle = match precision {
            Precision::Bf16 => bf16,
            Precision::Tf32 => bf16 / 2.0,
            Precision::F32 => f32,
            Precision::F64 => return None,
        };
        Some(per_cycle * f64::from(self.multiprocessors) * self.clock)
    }

    /// Whether the program has machine code for this very chip, and not only PTX of an older one.
    pub fn has_code(&self) -> bool {
        let (major, minor) = self.compute_capability;
        let chip = format!("sm_{major}{minor}");
        CHIPS.iter().any(|c| c.trim_end_matches('a') == chip)
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ((major, minor), (cuda, point)) = (self.compute_capability, self.driver);
        let (name, gib) = (&self.name, self.memory as f64 / (1u64 << 30) as f64);
        write!(
            f,
            "{name}, {gib:.0} GiB, compute capability {major}.{minor}, {} multiprocessors, driver for CUDA {cuda}.{point}",
            self.multiprocessors
        )
    }
}

/// What the library says as an error of ours.
pub fn check(code: sys::CUresult, doing: &str) -> Result<()> {
    if code == sys::CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let mut text = std::ptr::null();
    // SAFETY: the library is loaded, as a code came from it; it returns a constant string.
    let said = unsafe {
        sys::cuGetErrorString(code, &mut text);
        if text.is_null() { "an unknown error".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    };
    Err(Error::machine(format!("{doing}: {said}")).at("cuda"))
}

/// The refusal of a program whose build had no nvcc.
fn not_built() -> Error {
    let error = Error::machine("this build of defrost has no CUDA kernels: nvcc was not found when it was built").at("cuda");
    error.advise("run scripts/cuda-toolkit.sh and build again, or use --device cpu")
}

/// All GPUs of this machine.
///
/// # Errors
/// Without NVIDIA's library, with a driver older than the kernels need, and in a build without kernels.
pub fn devices() -> Result<Vec<Found>> {
    let Some(nvcc) = NVCC else { return Err(not_built()) };
    // SAFETY: loads the library, whose constructors are NVIDIA's, and lets go of it.
    if !unsafe { sys::is_culib_present() } {
        let error = Error::machine("NVIDIA's driver library (libcuda) is not on this machine").at("cuda");
        return Err(error.advise("install NVIDIA's driver, or use --device cpu"));
    }
    let (mut version, mut count) = (0, 0);
    // SAFETY: the library is there; the out pointers are valid.
    unsafe {
        check(sys::cuInit(0), "starting NVIDIA's driver")?;
        check(sys::cuDriverGetVersion(&mut version), "asking for the driver's version")?;
    }
    let driver = (version as u32 / 1000, version as u32 % 1000 / 10);
    old_enough(driver, nvcc)?;
    // SAFETY: as above.
    check(unsafe { sys::cuDeviceGetCount(&mut count) }, "counting GPUs")?;
    if count == 0 {
        return Err(Error::machine("there is a driver, and no NVIDIA GPU").at("cuda").advise("use --device cpu"));
    }
    (0..count).map(|ordinal| describe(ordinal, driver)).collect()
}

/// Code of nvcc's major version needs a driver of that version.
fn old_enough(driver: (u32, u32), nvcc: (u32, u32)) -> Result<()> {
    if driver.0 >= nvcc.0 {
        return Ok(());
    }
    let needed = match nvcc.0 {
        13 => "driver 580 or newer".to_string(),
        12 => "driver 525 or newer".to_string(),
        major => format!("a driver for CUDA {major}"),
    };
    let what = format!(
        "the driver is too old: it supports CUDA {}.{}, kernels made by nvcc {}.{} need {needed}",
        driver.0, driver.1, nvcc.0, nvcc.1
    );
    Err(Error::machine(what).at("cuda").advise("update NVIDIA's driver, or use --device cpu"))
}

fn describe(ordinal: i32, driver: (u32, u32)) -> Result<Found> {
    use sys::CUdevice_attribute_enum as Attribute;
    let (mut device, mut memory, mut name) = (0, 0, [0; 128]);
    // SAFETY: cuInit has succeeded; the out pointers are valid, and the name's length is given.
    unsafe {
        check(sys::cuDeviceGet(&mut device, ordinal), "looking at a GPU")?;
        check(sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as i32, device), "looking at a GPU")?;
        check(sys::cuDeviceTotalMem_v2(&mut memory, device), "looking at a GPU")?;
    }
    let attribute = |attribute: Attribute| {
        let mut value = 0;
        // SAFETY: as above.
        check(unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, device) }, "looking at a GPU")?;
        Ok(value as u32)
    };
    // SAFETY: the library ends the name with a zero.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    Ok(Found {
        device,
        ordinal: ordinal as usize,
        name,
        memory: memory as u64,
        compute_capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        clock: 1e3 * f64::from(attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?),
        shared_limit: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize,
        driver,
    })
}

/// What came of loading kernels onto a GPU.
pub fn loaded(code: sys::CUresult, found: &Found) -> Result<()> {
    use sys::CUresult as Code;
    let (major, minor) = found.compute_capability;
    let error = match code {
        Code::CUDA_ERROR_NO_BINARY_FOR_GPU | Code::CUDA_ERROR_INVALID_PTX => {
            let what = format!("no kernels for {} (compute capability {major}.{minor}); this build has {}", found.name, CHIPS.join(", "));
            Error::machine(what).advise("build with DEFROST_CUDA_ARCHS=all (compute capability 8.0 is the oldest), or use --device cpu")
        }
        Code::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            Error::machine("the driver is too old for the kernels' PTX").advise("update NVIDIA's driver, or use --device cpu")
        }
        other => return check(other, "loading kernels"),
    };
    Err(error.at("cuda"))
}

/// Opens GPU `ordinal`.
///
/// # Errors
/// See [`devices`]; no such GPU, or no kernels for its chip.
pub fn open(ordinal: usize) -> Result<Cuda> {
    let found = devices()?;
    let count = found.len();
    let Some(gpu) = found.into_iter().nth(ordinal) else {
        let are = if count == 1 { "there is one GPU, cuda:0".to_string() } else { format!("there are {count} GPUs, from cuda:0 on") };
        return Err(Error::input(format!("there is no cuda:{ordinal}; {are}")));
    };
    Ok(Cuda::new(Gpu::new(gpu)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_driver_is_told_by_its_number() {
        assert!(old_enough((13, 0), (13, 0)).is_ok() && old_enough((13, 1), (13, 0)).is_ok() && old_enough((14, 0), (13, 0)).is_ok());
        let error = old_enough((12, 4), (13, 0)).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert_eq!(error.what(), "the driver is too old: it supports CUDA 12.4, kernels made by nvcc 13.0 need driver 580 or newer");
    }

    #[test]
    fn a_chip_without_kernels_is_told_by_its_name() {
        let found = Found {
            device: 0,
            ordinal: 0,
            name: "Tesla T4".into(),
            memory: 16 << 30,
            compute_capability: (7, 5),
            multiprocessors: 40,
            clock: 1.59e9,
            shared_limit: 64 << 10,
            driver: (13, 0),
        };
        let error = loaded(sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU, &found).unwrap_err();
        assert!(error.what().starts_with("no kernels for Tesla T4 (compute capability 7.5); this build has "), "{error}");
        assert_eq!(found.to_string(), "Tesla T4, 16 GiB, compute capability 7.5, 40 multiprocessors, driver for CUDA 13.0");
        assert!(loaded(sys::CUresult::CUDA_SUCCESS, &found).is_ok() && !found.has_code());
        let hopper = Found { compute_capability: (9, 0), ..found };
        assert_eq!(hopper.has_code(), CHIPS.contains(&"sm_90a"));
    }

    #[test]
    fn without_a_gpu_one_sentence_says_why() {
        if let Err(error) = devices() {
            assert_eq!(error.exit_code(), 3);
            assert_eq!(error.what().lines().count(), 1);
        }
    }
}
