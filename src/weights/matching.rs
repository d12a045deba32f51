//! Which weights of a model a file fills and which start new.

use super::format::{ModelFile, is_head};
use super::open::Tensor;
use crate::base::Val;
use crate::error::{Error, Result};
use crate::ir::{Graph, Init, Role};

/// Where a parameter or a state takes its first value from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    File(Tensor<'a>),
    New(Init),
}

/// What became of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The file's head goes on.
    Kept,
    /// A new head starts.
    New,
    /// The model has none.
    Absent,
}

/// What is asked of a file.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub backbone: &'a str,
    pub graph: &'a Graph,
    /// Hidden layers of the head, `1024:sigmoid`: their weights do not tell their activation.
    pub hidden: &'a [String],
    /// Class names of the data, in the order of the logits.
    pub classes: &'a [String],
}

/// A file matched with a graph.
#[derive(Clone, Debug)]
pub struct Matched<'a> {
    /// For each parameter, then each state of the graph, in file order.
    pub sources: Vec<(Val, Source<'a>)>,
    pub head: Head,
    /// What was kept and what starts new, as a sentence for the user.
    pub sentence: String,
}

impl ModelFile {
    /// Matches the file with a graph by tensor names. The backbone's tensors must all be there, with the right shapes, and no
    /// others. The head is kept if the class names agree, or if the file does not know them and their number agrees; else a
    /// new one starts. A graph without backbone takes the head alone.
    ///
    /// # Errors
    /// Another backbone; a tensor that is missing, unknown or of another shape. With the file's and the tensor's name.
    pub fn match_graph(&self, request: Request) -> Result<Matched<'_>> {
        let Request { backbone, graph, hidden, classes } = request;
        let path = self.tensors().path();
        let wanted: Vec<Val> = graph.params.iter().chain(&graph.states).copied().collect();
        let (head, body): (Vec<Val>, Vec<Val>) = wanted.iter().partition(|v| is_head(graph.name(**v)));
        if self.metadata().backbone != backbone {
            let what = format!("holds weights of {}, expected {backbone}", self.metadata().backbone);
            return Err(Error::input(what).at(path.display()));
        }
        for &v in &body {
            self.tensor_for(graph, v)?;
        }
        let known = |name: &str| is_head(name) || graph.named(name).is_some();
        if let Some(extra) = self.tensors().names().iter().find(|name| !body.is_empty() && !known(name)) {
            return Err(self.tensors().error(extra, format!("{backbone} has no such weight")));
        }

        let new_because = if head.is_empty() { None } else { self.new_head(graph, &head, hidden, classes) };
        let fate = match (&new_because, head.is_empty()) {
            (_, true) => Head::Absent,
            (None, _) => Head::Kept,
            (Some(_), _) => Head::New,
        };
        let source = |v: Val| match graph.role(v) {
            Role::Param { init, .. } | Role::State { init } if fate == Head::New && is_head(graph.name(v)) => Ok((v, Source::New(init))),
            _ => self.tensor_for(graph, v).map(|tensor| (v, Source::File(tensor))),
        };
        let sources = wanted.into_iter().map(source).collect::<Result<_>>()?;
        let file = path.display();
        let sentence = match (fate, new_because) {
            (Head::New, Some(why)) => format!("{file}: backbone kept; a new head for {} classes starts, because {why}", classes.len()),
            (Head::Kept, _) if self.metadata().classes.is_empty() => {
                format!("{file}: backbone and head kept; the file does not name its classes, their number {} agrees", classes.len())
            }
            (Head::Kept, _) => format!("{file}: backbone and head kept; the {} classes agree", classes.len()),
            _ => format!("{file}: backbone kept"),
        };
        Ok(Matched { sources, head: fate, sentence })
    }

    /// The tensor of a value, with its shape checked.
    fn tensor_for(&self, graph: &Graph, v: Val) -> Result<Tensor<'_>> {
        let (name, shape) = (graph.name(v), graph.ty(v).shape);
        let tensor = self.tensor(name)?;
        if tensor.shape == shape.dims() {
            return Ok(tensor);
        }
        Err(self.tensors().error(name, format!("has shape {:?}, expected {:?}", tensor.shape, shape.dims())))
    }

    /// Why the file's head cannot go on; `None` if it can.
    fn new_head(&self, graph: &Graph, head: &[Val], hidden: &[String], classes: &[String]) -> Option<String> {
        let Some(count) = self.class_count() else {
            return Some("the file has no head".into());
        };
        let theirs = &self.metadata().classes;
        if theirs.is_empty() && count != classes.len() {
            return Some(format!("the file's head has {count} classes, the data has {}", classes.len()));
        }
        if !theirs.is_empty() && theirs != classes {
            let first = theirs.iter().zip(classes).find(|(a, b)| a != b);
            return Some(match first {
                Some((a, b)) if theirs.len() == classes.len() => {
                    format!("the class names differ (first {a:?} in the file, {b:?} in the data)")
                }
                _ => format!("the file has {} classes, the data has {}", theirs.len(), classes.len()),
            });
        }
        let tensors = self.tensors().names().iter().filter(|name| is_head(name)).count();
        let fits = self.metadata().hidden == hidden && tensors == head.len() && head.iter().all(|&v| self.tensor_for(graph, v).is_ok());
        (!fits).then(|| "its hidden layers differ".to_string())
    }
}
