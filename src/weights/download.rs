//! A file from the network: resumed where it broke off, tried again where that may help, believed only by its sum.
//!
//! The bytes gather in a part file; beside it stands where they come from and the server's tag of that version. A request for
//! the rest goes with `If-Range: TAG`, so that a server whose file has changed, like one that knows no ranges, sends all of
//! it, and the part begins anew. Proxies are those of the environment (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`).

use super::digest::md5;
use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::Agent;
use ureq::http::{HeaderMap, StatusCode, header};

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub url: String,
    /// In hexadecimal.
    pub md5: String,
    /// Bytes, where known.
    pub size: Option<u64>,
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection, an answer, or the next byte.
    pub timeout: Duration,
    /// Attempts after the first that bring nothing new, before giving up.
    pub retries: u32,
}

/// What happens, for a progress bar.
pub enum News<'a> {
    /// So many bytes are there, of so many where that is known.
    At(u64, Option<u64>),
    /// Something to know that stops nothing.
    Note(&'a str),
}

/// Bytes of a file whose size nobody tells, at most.
const LARGEST: u64 = 2 << 30;

/// Why an attempt ended early.
enum Failure {
    /// It may be over in a moment.
    Passing(String),
    Final(Error),
}

/// Brings a file to `part`, whole and with the right sum; the caller takes it from there.
///
/// # Errors
/// An address that does not exist, a file with another sum, a network that stays away (the part is kept), a full disk.
pub fn download(wanted: &Wanted, part: &Path, patience: Patience, tell: &mut dyn FnMut(News)) -> Result<()> {
    let agent = agent(patience.timeout);
    let mut part = Part::open(part, &wanted.url)?;
    if part.len > 0 && Some(part.len) == wanted.size && md5(&part.path)? == wanted.md5 {
        return Ok(());
    }
    let (mut failures, mut furthest, mut patched) = (0, part.len, false);
    loop {
        patched |= part.len > 0;
        match attempt(&agent, wanted, &mut part, tell) {
            Ok(()) => {
                let sum = md5(&part.path)?;
                if sum == wanted.md5 {
                    return Ok(());
                }
                part.clear()?;
                // Parts of two versions make neither; a whole one is judged.
                if !std::mem::take(&mut patched) {
                    return Err(wrong_sum(wanted, &sum));
                }
                tell(News::Note("the parts do not make the file that is wanted; it is downloaded anew"));
            }
            Err(Failure::Final(error)) => return Err(error.at(&wanted.url)),
            Err(Failure::Passing(why)) => {
                failures = if part.len > furthest { 1 } else { failures + 1 };
                furthest = furthest.max(part.len);
                if failures > patience.retries {
                    let kept = if part.len > 0 { "; what came is kept, and the same command goes on from there" } else { "" };
                    return Err(Error::machine(format!("{why}{kept}")).at(&wanted.url));
                }
                let wait = Duration::from_millis(500 << (failures - 1).min(5));
                tell(News::Note(&format!("{why}; trying again in {:.1} s", wait.as_secs_f64())));
                std::thread::sleep(wait);
            }
        }
    }
}

fn wrong_sum(wanted: &Wanted, sum: &str) -> Error {
    let what = format!("has the MD5 {sum}, expected {}: it is another file, or a page of a proxy", wanted.md5);
    Error::input(what).at(&wanted.url)
}

fn agent(timeout: Duration) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_resolve(Some(timeout))
        .timeout_connect(Some(timeout))
        .timeout_send_request(Some(timeout))
        .timeout_recv_response(Some(timeout))
        .timeout_per_read(Some(timeout))
        .user_agent(concat!("defrost/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::new_with_config(config)
}

/// One request for what is missing.
fn attempt(agent: &Agent, wanted: &Wanted, part: &mut Part, tell: &mut dyn FnMut(News)) -> Result<(), Failure> {
    let mut request = agent.get(&wanted.url).header(header::ACCEPT_ENCODING, "identity");
    if part.len > 0 {
        request = request.header(header::RANGE, format!("bytes={}-", part.len));
        if !part.tag.is_empty() {
            request = request.header(header::IF_RANGE, &part.tag);
        }
    }
    let mut answer = request.call().map_err(|e| judged(&e))?;
    let (status, headers) = (answer.status(), answer.headers());
    let offered = whole(status, headers);
    match status {
        StatusCode::PARTIAL_CONTENT if range_start(headers) == Some(part.len) => {}
        StatusCode::OK => part.begin(&tag(headers)).map_err(Failure::Final)?,
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
            part.clear().map_err(Failure::Final)?;
            return Err(Failure::Passing("the server has no such part".into()));
        }
        _ => return Err(refused(status)),
    }
    if let (Some(offered), Some(size)) = (offered, wanted.size)
        && offered != size
    {
        part.clear().map_err(Failure::Final)?;
        return Err(Failure::Final(Error::input(format!("offers {offered} bytes, the file that is wanted has {size}"))));
    }
    receive(answer.body_mut().as_reader(), part, offered.or(wanted.size), tell)
}

/// Appends what comes.
fn receive(mut body: impl Read, part: &mut Part, whole: Option<u64>, tell: &mut dyn FnMut(News)) -> Result<(), Failure> {
    let mut file = part.append().map_err(Failure::Final)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        tell(News::At(part.len, whole));
        let n = match body.read(&mut buffer) {
            Ok(n) => n,
            Err(e) => return Err(Failure::Passing(format!("the connection broke after {} bytes ({e})", part.len))),
        };
        if n == 0 {
            return match whole {
                Some(whole) if part.len < whole => {
                    Err(Failure::Passing(format!("the connection ended after {} of {whole} bytes", part.len)))
                }
                _ => Ok(()),
            };
        }
        if part.len + n as u64 > whole.unwrap_or(LARGEST) {
            part.clear().map_err(Failure::Final)?;
            return Err(Failure::Final(Error::input("sends more bytes than the file that is wanted has")));
        }
        file.write_all(&buffer[..n]).map_err(|e| Failure::Final(Error::io(&part.path, &e)))?;
        part.len += n as u64;
    }
}

/// What a refusal means.
fn refused(status: StatusCode) -> Failure {
    let what = format!("the server answers {status}");
    match status.as_u16() {
        408 | 425 | 429 | 500..=599 => Failure::Passing(what),
        _ => Failure::Final(Error::input(what)),
    }
}

/// Whether trying again can help against an error of the connection.
fn judged(error: &ureq::Error) -> Failure {
    use ureq::Error::*;
    match error {
        BadUri(_) | InvalidProxyUrl | TooManyRedirects | RedirectFailed | Http(_) => Failure::Final(Error::input(error.to_string())),
        HostNotFound => Failure::Final(Error::machine("no such host, or no network")),
        Io(e) if e.to_string().contains("lookup address") => Failure::Final(Error::machine("no such host, or no network")),
        Io(e) => Failure::Passing(e.to_string()),
        Timeout(what) => Failure::Passing(format!("nothing came in time ({what})")),
        other => Failure::Passing(other.to_string()),
    }
}

/// The size of the whole file, of `Content-Range: bytes 5-9/10` or `Content-Length`.
fn whole(status: StatusCode, headers: &HeaderMap) -> Option<u64> {
    let text = |name| headers.get(name)?.to_str().ok();
    match status {
        StatusCode::PARTIAL_CONTENT => text(header::CONTENT_RANGE)?.rsplit('/').next()?.parse().ok(),
        _ => text(header::CONTENT_LENGTH)?.parse().ok(),
    }
}

fn range_start(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// What names this version of the file in `If-Range`: a strong ETag, else the time of its last change.
fn tag(headers: &HeaderMap) -> String {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let tag = text(header::ETAG).filter(|tag| !tag.starts_with("W/")).or_else(|| text(header::LAST_MODIFIED));
    tag.unwrap_or_default().to_string()
}

/// What has come so far, and of what.
struct Part {
    path: PathBuf,
    /// Where the address and the tag stand, a line each.
    origin: PathBuf,
    url: String,
    tag: String,
    len: u64,
}

impl Part {
    fn open(path: &Path, url: &str) -> Result<Self> {
        let origin = origin(path);
        let text = fs::read_to_string(&origin).unwrap_or_default();
        let mut lines = text.lines();
        let same = lines.next() == Some(url);
        let mut part = Part { path: path.into(), origin, url: url.into(), tag: lines.next().unwrap_or_default().into(), len: 0 };
        match fs::metadata(path) {
            Ok(found) if same => part.len = found.len(),
            _ => part.tag.clear(),
        }
        Ok(part)
    }

    /// Empties the part for a version of the file.
    fn begin(&mut self, tag: &str) -> Result<()> {
        self.clear()?;
        self.tag = tag.into();
        File::create(&self.path).map_err(|e| Error::io(&self.path, &e))?;
        fs::write(&self.origin, format!("{}\n{tag}\n", self.url)).map_err(|e| Error::io(&self.origin, &e))
    }

    fn append(&self) -> Result<File> {
        OpenOptions::new().append(true).open(&self.path).map_err(|e| Error::io(&self.path, &e))
    }

    fn clear(&mut self) -> Result<()> {
        (self.len, self.tag) = (0, String::new());
        remove(&self.path)
    }
}

fn origin(part: &Path) -> PathBuf {
    part.with_extension("origin")
}

/// Removes a part and what stands beside it; nothing there is no error.
///
/// # Errors
/// What the disk says.
pub fn remove(part: &Path) -> Result<()> {
    for path in [part, &origin(part)] {
        match fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(path, &e)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read() {
        let headers = |pairs: &[(header::HeaderName, &str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
        };
        let partial = headers(&[(header::CONTENT_RANGE, "bytes 5-9/10"), (header::CONTENT_LENGTH, "5")]);
        assert_eq!((range_start(&partial), whole(StatusCode::PARTIAL_CONTENT, &partial)), (Some(5), Some(10)));
        assert_eq!(whole(StatusCode::PARTIAL_CONTENT, &headers(&[(header::CONTENT_RANGE, "bytes 5-9/*")])), None);
        assert_eq!(whole(StatusCode::OK, &headers(&[(header::CONTENT_LENGTH, "12")])), Some(12));
        assert_eq!(tag(&headers(&[(header::ETAG, "\"abc\""), (header::LAST_MODIFIED, "then")])), "\"abc\"");
        assert_eq!(tag(&headers(&[(header::ETAG, "W/\"abc\""), (header::LAST_MODIFIED, "then")])), "then");
        assert_eq!(tag(&headers(&[])), "");
    }
}
