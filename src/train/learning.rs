//! What the settings say of how a run learns, as the values that the loop works with.

use super::schedule::{Plateau, Schedule, Shape};
use super::settings::{PrecisionName, ScheduleName, ScoreName, Settings};
use super::step::Clip;
use crate::base::Precision;
use crate::error::{Error, Result};
use crate::models::Freeze;
use std::time::Duration;

impl Settings {
    /// Refuses what makes no sense.
    pub(super) fn check_learning(&self) -> Result<()> {
        let wrong = |flag: &str, found: f64, expected: &str| Err(Error::input(format!("{found} is not {expected}")).at(flag));
        let amount = |x: f64| x.is_finite() && x >= 0.0;
        let positive = "zero or a positive number";
        match self {
            s if s.freeze_epochs > 0 && s.freeze == "all" => {
                Err(Error::input("has no end to come to: --freeze all freezes the backbone in every epoch").at("--freeze-epochs"))
            }
            s if !amount(s.unfreeze_lr) => wrong("--unfreeze-lr", s.unfreeze_lr, positive),
            s if s.unfreeze_lr > 0.0 && s.freeze_epochs == 0 => Err(Error::input("needs --freeze-epochs").at("--unfreeze-lr")),
            s if s.accumulate == 0 => wrong("--accumulate", 0.0, "at least 1"),
            s if !amount(s.clip_norm) => wrong("--clip-norm", s.clip_norm, positive),
            s if !amount(s.clip_value) => wrong("--clip-value", s.clip_value, positive),
            s if s.clip_norm > 0.0 && s.clip_value > 0.0 => {
                Err(Error::input("one kind of clipping excludes the other, as in Keras").at("--clip-value").at("--clip-norm"))
            }
            s if !amount(s.warmup_epochs) => wrong("--warmup-epochs", s.warmup_epochs, positive),
            s if s.warmup_epochs > 0.0 && s.warmup_steps > 0 => {
                Err(Error::input("the warm-up is given twice").at("--warmup-steps").at("--warmup-epochs"))
            }
            s if s.lr_step == 0 => wrong("--lr-step", 0.0, "at least 1"),
            s if !(s.lr_gamma > 0.0 && s.lr_gamma < 1.0) => wrong("--lr-gamma", s.lr_gamma, "between 0 and 1"),
            s if !(s.lr_min >= 0.0 && s.lr_min < s.lr) => wrong("--lr-min", s.lr_min, &format!("in 0..{}, the learning rate", s.lr)),
            s if s.patience == 0 => wrong("--patience", 0.0, "at least 1"),
            s if !amount(s.min_delta) => wrong("--min-delta", s.min_delta, positive),
            s => s.time_limit().map(drop),
        }
    }

    /// How long a command may take.
    ///
    /// # Errors
    /// What is no time.
    pub fn time_limit(&self) -> Result<Option<Duration>> {
        let text = self.time_limit.as_str();
        let wrong = || Error::input(format!("{text:?} is no time")).at("--time-limit").advise("expected none, 90m, 1h30m or 45s");
        let (mut seconds, mut rest) = (0.0, text);
        if text == "none" {
            return Ok(None);
        }
        while !rest.is_empty() {
            let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(rest.len());
            let (number, unit) = (&rest[..end], rest[end..].chars().next());
            let unit_seconds = [('s', 1.0), ('m', 60.0), ('h', 3600.0), ('d', 86_400.0)].into_iter().find(|(c, _)| Some(*c) == unit);
            let amount: f64 = number.trim().parse().map_err(|_| wrong())?;
            seconds += amount * unit_seconds.ok_or_else(wrong)?.1;
            rest = &rest[end + 1..];
        }
        Duration::try_from_secs_f64(seconds).ok().filter(|_| !text.is_empty()).map(Some).ok_or_else(wrong)
    }

    /// Refuses what watches a validation that has no images.
    pub(super) fn check_validation(&self, images: usize) -> Result<()> {
        let flag = match self {
            _ if images > 0 => return Ok(()),
            s if s.schedule == ScheduleName::Plateau => "--schedule plateau",
            s if s.early_stop > 0 => "--early-stop",
            _ => return Ok(()),
        };
        Err(Error::input("watches the validation, which has no images").at(flag))
    }

    /// What stands still in an epoch, counted from 1.
    pub fn freeze_in(&self, epoch: usize) -> Freeze {
        if epoch <= self.freeze_epochs { Freeze::All } else { Freeze::from(&self.freeze[..]) }
    }

    /// What stands still, one after the other.
    pub fn phases(&self) -> Vec<Freeze> {
        let mut phases = vec![self.freeze_in(1), self.freeze_in(usize::MAX)];
        phases.dedup();
        phases
    }

    /// Whether a frozen backbone's features are kept: those of images that change in every epoch cannot be.
    pub fn keeps_features(&self) -> bool {
        self.feature_cache && self.augmentation(1).is_none()
    }

    /// Images of one change of the weights.
    pub fn images_per_step(&self) -> usize {
        self.batch_size * self.accumulate
    }

    /// The learning rates of a run with so many steps in an epoch.
    pub fn schedule(&self, steps_per_epoch: usize) -> Schedule {
        let all = self.epochs * steps_per_epoch;
        let warmup = if self.warmup_steps > 0 { self.warmup_steps } else { (self.warmup_epochs * steps_per_epoch as f64).round() as usize };
        let shape = match self.schedule {
            ScheduleName::Constant => Shape::Constant,
            ScheduleName::Step => Shape::Step { epochs: self.lr_step, gamma: self.lr_gamma },
            ScheduleName::Cosine => Shape::Cosine,
            ScheduleName::Plateau => Shape::Plateau(Plateau {
                gamma: self.lr_gamma,
                patience: self.patience,
                cooldown: self.cooldown,
                min_delta: self.min_delta,
                larger: self.plateau_on == ScoreName::ValAccuracy,
            }),
        };
        let later = (self.unfreeze_lr > 0.0).then_some((self.freeze_epochs, self.unfreeze_lr));
        let steps = if self.steps > 0 { all.min(self.steps) } else { all };
        Schedule { shape, lr: self.lr, later, min: self.lr_min, warmup, steps_per_epoch, steps }
    }

    /// What steps compute in.
    pub fn precision(&self) -> Precision {
        match self.precision {
            PrecisionName::F32 => Precision::F32,
            PrecisionName::Tf32 => Precision::Tf32,
            PrecisionName::Bf16 => Precision::Bf16,
        }
    }

    /// What is done to gradients before the optimizer reads them.
    pub fn clip(&self) -> Clip {
        match self {
            s if s.clip_norm > 0.0 => Clip::Norm(s.clip_norm),
            s if s.clip_value > 0.0 => Clip::Value(s.clip_value),
            _ => Clip::None,
        }
    }
}
