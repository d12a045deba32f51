//! What went wrong, where, and what to do about it.
//!
//! An [`Error`] carries a message (what was found and what was expected), the places it passed through (layer, file,
//! device; innermost first) and, where there is one, a piece of advice. Its [`Kind`] decides the exit code of the
//! program. Nothing in the library panics at a user; a broken internal promise is an [`Kind::Internal`] error.

use std::fmt;

/// The result of every fallible function of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who can mend it; decides the exit code (see the README).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Wrong input or usage: exit code 2.
    Input,
    /// The machine could not (memory, device, disk): exit code 3.
    Machine,
    /// Done in part, some inputs failed and were named: exit code 1.
    Partial,
    /// Interrupted by the user, everything saved: exit code 130.
    Interrupted,
    /// A promise inside the program was broken, which is a defect of the program: exit code 3.
    Internal,
}

/// One failure, ready to be read by a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    what: String,
    places: Vec<String>,
    advice: Option<String>,
}

impl Error {
    fn new(kind: Kind, what: impl Into<String>) -> Self {
        Error { kind, what: what.into(), places: Vec::new(), advice: None }
    }

    /// The user's input is wrong.
    pub fn input(what: impl Into<String>) -> Self {
        Self::new(Kind::Input, what)
    }

    /// The machine cannot do it.
    pub fn machine(what: impl Into<String>) -> Self {
        Self::new(Kind::Machine, what)
    }

    /// Some of the inputs failed; the rest was done.
    pub fn partial(what: impl Into<String>) -> Self {
        Self::new(Kind::Partial, what)
    }

    /// The user asked to stop.
    pub fn interrupted(what: impl Into<String>) -> Self {
        Self::new(Kind::Interrupted, what)
    }

    /// The program broke one of its own promises.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(Kind::Internal, what)
    }

    /// A failed file operation, with the file's name and the system's reason.
    pub fn io(path: impl AsRef<std::path::Path>, cause: &std::io::Error) -> Self {
        use std::io::ErrorKind::*;
        let kind = match cause.kind() {
            NotFound | PermissionDenied | InvalidInput | InvalidData | NotADirectory | IsADirectory => Kind::Input,
            _ => Kind::Machine,
        };
        let what = match cause.kind() {
            StorageFull | QuotaExceeded => format!("{cause}; make room and try again"),
            _ => cause.to_string(),
        };
        Self::new(kind, what).at(path.as_ref().display())
    }

    /// Names where it happened: a layer, a file, a device. The innermost place is added first.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.places.push(place.to_string());
        self
    }

    /// Says what to do next; the first advice given is kept.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice.get_or_insert(advice.into());
        self
    }

    /// Who can mend it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message alone, without places and advice.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The places, innermost first.
    pub fn places(&self) -> &[String] {
        &self.places
    }

    /// The exit code of a program that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Partial => 1,
            Kind::Input => 2,
            Kind::Machine | Kind::Internal => 3,
            Kind::Interrupted => 130,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in self.places.iter().rev() {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.what)?;
        if let Some(advice) = &self.advice {
            write!(f, "\n  {advice}")?;
        }
        if self.kind == Kind::Internal {
            f.write_str("\n  This is a defect in defrost, not in your input; please report it.")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_from_the_outermost_place_to_the_message_to_the_advice() {
        let e = Error::input("input has 128 channels, the filter expects 64").at("block3_conv1").at("vgg16").advise("check --weights");
        assert_eq!(e.to_string(), "vgg16: block3_conv1: input has 128 channels, the filter expects 64\n  check --weights");
        assert_eq!(e.exit_code(), 2);
    }

    #[test]
    fn a_full_disk_is_the_machines_and_says_what_to_do() {
        let e = Error::io("runs/1/last.safetensors", &std::io::ErrorKind::StorageFull.into());
        assert!(e.exit_code() == 3 && e.to_string().contains("; make room and try again"), "{e}");
        assert_eq!(Error::io("x", &std::io::ErrorKind::NotFound.into()).exit_code(), 2);
    }
}
