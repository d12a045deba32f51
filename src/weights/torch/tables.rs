//! What torchvision and timm call each weight, and what Keras calls it.
//!
//! A table lists modules in the order in which this program writes the layers down, so that layers which Keras numbers
//! itself (`conv2d_7`) get their number by counting.

/// What becomes of a tensor on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[out, in, height, width]` to `[height, width, in, out]`.
    Kernel,
    /// `[channels, 1, height, width]` to `[height, width, channels, 1]`.
    Depthwise,
    /// `[out, in]` to `[in, out]`.
    Dense,
    /// As it is.
    Vector,
}

/// A tensor of the file and the tensor of the model that it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub theirs: String,
    pub ours: String,
    pub layout: Layout,
}

/// A table being written, with the counts of layers that Keras numbers.
#[derive(Default)]
pub struct Table {
    pub rows: Vec<Row>,
    convs: usize,
    norms: usize,
}

impl Table {
    fn row(&mut self, theirs: String, ours: String, layout: Layout) {
        self.rows.push(Row { theirs, ours, layout });
    }

    fn conv(&mut self, theirs: &str, ours: &str) {
        self.row(format!("{theirs}.weight"), format!("{ours}/kernel"), Layout::Kernel);
    }

    fn norm(&mut self, theirs: &str, ours: &str) {
        let pairs = [("weight", "gamma"), ("bias", "beta"), ("running_mean", "moving_mean"), ("running_var", "moving_variance")];
        for (their, our) in pairs {
            self.row(format!("{theirs}.{their}"), format!("{ours}/{our}"), Layout::Vector);
        }
    }

    /// Under the name that Keras gives the next convolution without one.
    fn auto_conv(&mut self, theirs: &str) {
        let ours = numbered("conv2d", self.convs);
        self.convs += 1;
        self.conv(theirs, &ours);
    }

    fn auto_norm(&mut self, theirs: &str) {
        let ours = numbered("batch_normalization", self.norms);
        self.norms += 1;
        self.norm(theirs, &ours);
    }

    fn separable(&mut self, theirs: &str, ours: &str) {
        self.row(format!("{theirs}.conv1.weight"), format!("{ours}/depthwise_kernel"), Layout::Depthwise);
        self.row(format!("{theirs}.pointwise.weight"), format!("{ours}/pointwise_kernel"), Layout::Kernel);
    }

    fn dense(&mut self, theirs: &str) {
        self.row(format!("{theirs}.weight"), "dense/kernel".into(), Layout::Dense);
        self.row(format!("{theirs}.bias"), "dense/bias".into(), Layout::Vector);
    }
}

fn numbered(stem: &str, number: usize) -> String {
    if number == 0 { stem.into() } else { format!("{stem}_{number}") }
}

/// `features.N`, where ReLUs and pools are counted too.
pub fn vgg16() -> Table {
    let (mut t, mut module) = (Table::default(), 0);
    for (block, convs) in (1..).zip([2, 2, 3, 3, 3]) {
        for conv in 1..=convs {
            let (theirs, ours) = (format!("features.{module}"), format!("block{block}_conv{conv}"));
            t.conv(&theirs, &ours);
            t.row(format!("{theirs}.bias"), format!("{ours}/bias"), Layout::Vector);
            module += 2;
        }
        module += 1;
    }
    t
}

/// `features.denseblock1.denselayer1.norm1` and so on; the classifier is one linear layer.
pub fn densenet121() -> Table {
    let mut t = Table::default();
    t.conv("features.conv0", "conv1_conv");
    t.norm("features.norm0", "conv1_bn");
    for (block, layers) in (1..).zip([6, 12, 24, 16]) {
        for layer in 1..=layers {
            let (theirs, ours) = (format!("features.denseblock{block}.denselayer{layer}"), format!("conv{}_block{layer}", block + 1));
            t.norm(&format!("{theirs}.norm1"), &format!("{ours}_0_bn"));
            t.conv(&format!("{theirs}.conv1"), &format!("{ours}_1_conv"));
            t.norm(&format!("{theirs}.norm2"), &format!("{ours}_1_bn"));
            t.conv(&format!("{theirs}.conv2"), &format!("{ours}_2_conv"));
        }
        if block < 4 {
            let (theirs, ours) = (format!("features.transition{block}"), format!("pool{}", block + 1));
            t.norm(&format!("{theirs}.norm"), &format!("{ours}_bn"));
            t.conv(&format!("{theirs}.conv"), &format!("{ours}_conv"));
        }
    }
    t.norm("features.norm5", "bn");
    t.dense("classifier");
    t
}

/// The legacy Xception of timm and Cadene's model zoo: `block1.rep.0.conv1`, numbered one below Keras's blocks.
pub fn xception() -> Table {
    let mut t = Table::default();
    for (conv, bn, ours) in [("conv1", "bn1", "block1_conv1"), ("conv2", "bn2", "block1_conv2")] {
        t.conv(conv, ours);
        t.norm(bn, &format!("{ours}_bn"));
    }
    for block in 1..=12 {
        let (theirs, ours) = (format!("block{block}"), format!("block{}", block + 1));
        let down = matches!(block, 1..=3 | 12);
        if down {
            t.auto_conv(&format!("{theirs}.skip"));
            t.auto_norm(&format!("{theirs}.skipbn"));
        }
        // ReLU, convolution, batch norm are three modules; the first block has no leading ReLU.
        let first = if block == 1 { 0 } else { 1 };
        for conv in 0..if down { 2 } else { 3 } {
            let ours = format!("{ours}_sepconv{}", conv + 1);
            t.separable(&format!("{theirs}.rep.{}", first + 3 * conv), &ours);
            t.norm(&format!("{theirs}.rep.{}", first + 3 * conv + 1), &format!("{ours}_bn"));
        }
    }
    for (conv, bn, ours) in [("conv3", "bn3", "block14_sepconv1"), ("conv4", "bn4", "block14_sepconv2")] {
        t.separable(conv, ours);
        t.norm(bn, &format!("{ours}_bn"));
    }
    t.dense("fc");
    t
}

const FIVE: &str = "branch1x1 branch5x5_1 branch5x5_2 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3 branch_pool";
const SEVEN: &str = "branch1x1 branch7x7_1 branch7x7_2 branch7x7_3 \
                     branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 branch7x7dbl_5 branch_pool";
const EXPANDED: &str = "branch1x1 branch3x3_1 branch3x3_2a branch3x3_2b \
                        branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a branch3x3dbl_3b branch_pool";
const MIXED: [(&str, &str); 11] = [
    ("Mixed_5b", FIVE),
    ("Mixed_5c", FIVE),
    ("Mixed_5d", FIVE),
    ("Mixed_6a", "branch3x3 branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3"),
    ("Mixed_6b", SEVEN),
    ("Mixed_6c", SEVEN),
    ("Mixed_6d", SEVEN),
    ("Mixed_6e", SEVEN),
    ("Mixed_7a", "branch3x3_1 branch3x3_2 branch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4"),
    ("Mixed_7b", EXPANDED),
    ("Mixed_7c", EXPANDED),
];

/// `Mixed_5b.branch1x1.conv` and `.bn`; branches stand in the order of [`crate`]'s own definition.
pub fn inception_v3() -> Table {
    let mut t = Table::default();
    let stem = "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 Conv2d_3b_1x1 Conv2d_4a_3x3".split(' ').map(String::from);
    let branches = MIXED.iter().flat_map(|(block, branches)| branches.split_whitespace().map(move |branch| format!("{block}.{branch}")));
    for unit in stem.chain(branches) {
        t.auto_conv(&format!("{unit}.conv"));
        t.auto_norm(&format!("{unit}.bn"));
    }
    t.dense("fc");
    t
}
