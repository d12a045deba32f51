//! The field `depthwise` of a 1x1 convolution: what its input goes through first, and what that asks of the operands.

use super::{Conv2d, flops, geometry};
use crate::base::{Padding, Shape, Ty, Window};
use crate::ops::Rule;
use crate::ops::activation::Act;

/// The window of the depthwise half: the only one that fusion meets in our networks.
pub(super) const WINDOW: Window = Window { kernel: [3, 3], stride: [1, 1], padding: Padding::Same };

impl Conv2d {
    /// The place of the depthwise filter among the ins.
    pub(super) fn depthwise_at(&self) -> usize {
        self.pre_at() + 2 * usize::from(self.pre.is_some())
    }

    /// Whether the field may be filled from a depthwise convolution of this window.
    pub fn can_follow(&self, window: &Window) -> bool {
        let pointwise = self.window.on(1, 1).is_ok_and(|g| g.is_pointwise());
        pointwise && self.pre.is_none() && self.depthwise.is_none() && window.on(3, 3) == WINDOW.on(3, 3)
    }

    /// Checks the field against the filter of the depthwise half, `[3, 3, in, 1]`, if there is one, and the other fields.
    pub(super) fn check_depthwise(&self, filter: &[Ty], x: Shape) -> Result<(), String> {
        let Some(act) = self.depthwise else { return Ok(()) };
        let expected = Shape::from([3, 3, x.cols(), 1]);
        if filter[0].shape != expected {
            return Err(format!("depthwise filter has shape {}, expects {expected}", filter[0].shape));
        }
        let pointwise = self.window.on(1, 1).is_ok_and(|g| g.is_pointwise());
        if !pointwise || self.pre.is_some() || act == Act::Sigmoid {
            return Err(format!("{} does not go behind a depthwise convolution of {act}: a plain 1x1 window alone does", self.detail()));
        }
        Ok(())
    }

    /// What the sums are of.
    pub(super) fn source_formula(&self) -> String {
        match self.depthwise {
            None => super::pre_formula(self.pre),
            Some(Act::Linear) => "depthwise(x, d)".into(),
            Some(act) => format!("depthwise({act}(x), d)"),
        }
    }

    pub(super) fn depthwise_detail(&self) -> String {
        match self.depthwise {
            None => String::new(),
            Some(Act::Linear) => " of 3x3 depthwise".into(),
            Some(act) => format!(" of 3x3 depthwise of {act}"),
        }
    }

    pub(super) fn depthwise_flops(&self, x: Shape) -> u64 {
        self.depthwise.map_or(0, |_| flops(&geometry(&WINDOW, x), x.dims()[0], x.cols()))
    }
}
