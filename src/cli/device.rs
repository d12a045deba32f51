//! `--device`, `--threads` and `--exact`, which many commands share.

use crate::device::cpu::Cpu;
use crate::device::naive::Naive;
use crate::error::{Error, Result};
use crate::train::Settings;
use clap::ValueEnum;

/// What `--device` may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// The fastest device of this machine
    Auto,
    /// All cores, f32
    Cpu,
    /// Plain f64 loops: the specification, a thousand times slower
    Naive,
    /// An NVIDIA GPU; not in this build
    Cuda,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Name::Auto => "auto",
            Name::Cpu => "cpu",
            Name::Naive => "naive",
            Name::Cuda => "cuda",
        })
    }
}

#[derive(clap::Args, Clone, Debug)]
pub struct DeviceArgs {
    /// Where to compute
    #[arg(long, value_name = "DEVICE", value_enum, default_value_t = Name::Auto, hide_possible_values = false)]
    pub device: Name,
    /// Threads of the CPU device [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Take every sum of a convolution term by term, without Winograd's algorithm (cpu): smaller rounding errors, less speed
    #[arg(long)]
    pub exact: bool,
}

/// A device of a kind known at run time only; see [`on_device!`].
pub enum Chosen {
    Cpu(Cpu),
    Naive(Naive),
}

impl DeviceArgs {
    /// What the settings of a run say.
    ///
    /// # Errors
    /// When no device has the name.
    pub fn of(settings: &Settings) -> Result<Self> {
        let named = |what: &str| Error::input(format!("{what:?} is none of auto, cpu, naive, cuda")).at("device");
        let device = Name::from_str(&settings.device, true).map_err(|_| named(&settings.device))?;
        Ok(DeviceArgs { device, threads: u16::try_from(settings.threads).ok().filter(|&n| n > 0), exact: settings.exact })
    }

    /// The flags that say the same.
    pub fn words(&self) -> Vec<String> {
        let threads = self.threads.map(|n| ["--threads".into(), n.to_string()]);
        let exact = self.exact.then(|| "--exact".into());
        ["--device".into(), self.device.to_string()].into_iter().chain(threads.into_iter().flatten()).chain(exact).collect()
    }

    /// Opens the device.
    ///
    /// # Errors
    /// When this build or this machine does not have it.
    pub fn open(&self) -> Result<Chosen> {
        match self.device {
            Name::Auto | Name::Cpu => Ok(Chosen::Cpu(self.cpu()?)),
            Name::Naive => Ok(Chosen::Naive(Naive)),
            Name::Cuda => Err(no_cuda()),
        }
    }

    /// Opens the device for a command that holds it against the machine's peak.
    ///
    /// # Errors
    /// As [`DeviceArgs::open`], and for the naive device, whose speed says nothing.
    pub fn measured(&self) -> Result<Cpu> {
        match self.open()? {
            Chosen::Cpu(cpu) => Ok(cpu),
            Chosen::Naive(_) => Err(Error::input("the naive device is a specification, its speed says nothing").advise("use --device cpu")),
        }
    }

    fn cpu(&self) -> Result<Cpu> {
        Ok(Cpu::new(self.threads.map_or(0, usize::from))?.exact(self.exact))
    }
}

/// The refusal of `--device cuda`.
pub fn no_cuda() -> Error {
    Error::machine("this build of defrost has no CUDA device").advise("use --device cpu (or leave --device out)")
}

/// Evaluates an expression with the device of whichever kind was chosen: `on_device!(args.open()?, d => train(d, settings))`.
macro_rules! on_device {
    ($chosen:expr, $device:ident => $body:expr) => {
        match $chosen {
            $crate::cli::device::Chosen::Cpu($device) => $body,
            $crate::cli::device::Chosen::Naive($device) => $body,
        }
    };
}
pub(super) use on_device;
