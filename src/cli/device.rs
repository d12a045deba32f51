//! `--device`, `--threads` and `--exact`, which many commands share.

use crate::device::cpu::Cpu;
use crate::device::cuda::{Cuda, gpu};
use crate::device::naive::Naive;
use crate::error::{Error, Result};
use crate::train::Settings;

/// What `--device` may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// An NVIDIA GPU if there is one that can be used, otherwise all cores.
    Auto,
    Cpu,
    Naive,
    /// GPU number N.
    Cuda(usize),
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let gpu = |n: &str| n.parse().ok().filter(|&n: &usize| n < 1024).map(Name::Cuda);
        let known = match text.to_lowercase().as_str() {
            "auto" => Some(Name::Auto),
            "cpu" => Some(Name::Cpu),
            "naive" => Some(Name::Naive),
            "cuda" => Some(Name::Cuda(0)),
            other => other.strip_prefix("cuda:").and_then(gpu),
        };
        known.ok_or_else(|| "it may be auto, cpu, cuda, cuda:N (the GPU of that number) or naive".into())
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Name::Auto => f.write_str("auto"),
            Name::Cpu => f.write_str("cpu"),
            Name::Naive => f.write_str("naive"),
            Name::Cuda(0) => f.write_str("cuda"),
            Name::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Machine")]
pub struct DeviceArgs {
    /// Where to compute: auto (a GPU if one can be used, otherwise cpu), cpu (all cores), cuda or cuda:N (an NVIDIA GPU), naive
    /// (plain f64 loops: the specification, a thousand times slower)
    #[arg(long, value_name = "DEVICE", default_value_t = Name::Auto)]
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
    Cuda(Cuda),
    Naive(Naive),
}

impl DeviceArgs {
    /// What the settings of a run say.
    ///
    /// # Errors
    /// When no device has the name.
    pub fn of(settings: &Settings) -> Result<Self> {
        let wrong = |why: String| Error::input(format!("is {:?}; {why}", settings.device)).at("device");
        let device = settings.device.parse().map_err(wrong)?;
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
            Name::Auto => match gpu::open(0) {
                Ok(gpu) => Ok(Chosen::Cuda(gpu)),
                Err(_) => Ok(Chosen::Cpu(self.cpu()?)),
            },
            Name::Cpu => Ok(Chosen::Cpu(self.cpu()?)),
            Name::Naive => Ok(Chosen::Naive(Naive)),
            Name::Cuda(n) => Ok(Chosen::Cuda(gpu::open(n)?)),
        }
    }

    /// The CPU, for a command that measures it alone.
    ///
    /// # Errors
    /// When another device was asked for.
    pub fn measured(&self) -> Result<Cpu> {
        match self.device {
            Name::Auto | Name::Cpu => self.cpu(),
            Name::Naive => Err(Error::input("the naive device is a specification, its speed says nothing").advise("use --device cpu")),
            Name::Cuda(_) => Err(Error::input("--peak measures the processor").advise("use --device cpu")),
        }
    }

    fn cpu(&self) -> Result<Cpu> {
        Ok(Cpu::new(self.threads.map_or(0, usize::from))?.exact(self.exact))
    }
}

/// Evaluates an expression with the device of whichever kind was chosen: `on_device!(args.open()?, d => train(d, settings))`.
macro_rules! on_device {
    ($chosen:expr, $device:ident => $body:expr) => {
        match $chosen {
            $crate::cli::device::Chosen::Cpu($device) => $body,
            $crate::cli::device::Chosen::Cuda($device) => $body,
            $crate::cli::device::Chosen::Naive($device) => $body,
        }
    };
}
pub(super) use on_device;

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn a_device_is_named_by_a_word_and_a_gpu_by_its_number() {
        for (text, name) in
            [("auto", Name::Auto), ("cpu", Name::Cpu), ("naive", Name::Naive), ("cuda", Name::Cuda(0)), ("cuda:3", Name::Cuda(3))]
        {
            assert_eq!(text.parse(), Ok(name));
            assert_eq!(name.to_string(), text);
        }
        assert_eq!("CUDA:0".parse(), Ok(Name::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:99999999999999999999", "cuda1"] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }
}
