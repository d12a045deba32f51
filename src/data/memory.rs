//! How much memory the process can still have, where the system says so: Linux hands out more than it has and ends the
//! program when it is used.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that can be had without swapping, within the limit of the process's control group and within what the environment
/// variable `DEFROST_MEMORY` allows (`6G`, `800M`); `None` where nothing is told.
pub fn available() -> Option<u64> {
    [machine(), group(), std::env::var("DEFROST_MEMORY").ok().and_then(|text| bytes(&text))].into_iter().flatten().min()
}

/// A number of bytes, perhaps in units of 1024 and its powers.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim().trim_end_matches(['B', 'b', 'i']);
    let unit = digits.chars().last()?.to_ascii_uppercase();
    let power = "KMGT".find(unit).map_or(0, |i| i as i32 + 1);
    let number: f64 = digits.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim().parse().ok()?;
    (number >= 0.0).then_some((number * 1024f64.powi(power)) as u64)
}

/// `MemAvailable` of the kernel.
fn machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// What the control group (a container, a batch job) has left: its limit less what it holds, files that can be dropped not
/// counted.
fn group() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().filter_map(membership).filter_map(|(version, folder)| left(version, &folder)).min()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    One,
    Two,
}

/// One line of `/proc/self/cgroup`, `id:controllers:path`, as the folder that tells of memory. Inside a container the path
/// may be the host's, and the folder is then the root.
fn membership(line: &str) -> Option<(Version, PathBuf)> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    let (version, root) = match controllers {
        "" => (Version::Two, "/sys/fs/cgroup"),
        _ if controllers.split(',').any(|c| c == "memory") => (Version::One, "/sys/fs/cgroup/memory"),
        _ => return None,
    };
    let folder = Path::new(root).join(path.trim_start_matches('/'));
    Some((version, if folder.is_dir() { folder } else { root.into() }))
}

fn left(version: Version, folder: &Path) -> Option<u64> {
    let (limit, used) = match version {
        Version::One => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        Version::Two => ("memory.max", "memory.current"),
    };
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    // No limit is the word `max`, or a number near 2^63.
    let limit = number(limit).filter(|&limit| limit < 1 << 60)?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let droppable = |key: &str| stat.lines().find_map(|l| l.strip_prefix(key)?.trim().parse::<u64>().ok());
    let droppable = droppable("total_inactive_file ").or(droppable("inactive_file ")).unwrap_or(0);
    Some(limit.saturating_sub(number(used)?.saturating_sub(droppable)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Folder;

    #[test]
    fn sizes_are_read_with_their_units() {
        let sizes = ["1500", "2K", "0.5G", "3 MiB", "8GB", "lots", "", "-1"].map(bytes);
        assert_eq!(sizes, [Some(1500), Some(2048), Some(1 << 29), Some(3 << 20), Some(8 << 30), None, None, None]);
    }

    #[test]
    fn a_groups_limit_less_its_use_is_left() {
        let f = Folder::new("memory");
        f.write("memory.max", b"1000\n");
        f.write("memory.current", b"700\n");
        assert_eq!(left(Version::Two, f.path()), Some(300));
        f.write("memory.stat", b"anon 1\ninactive_file 200\n");
        assert_eq!(left(Version::Two, f.path()), Some(500));
        f.write("memory.max", b"max\n");
        assert_eq!(left(Version::Two, f.path()), None);
        f.write("memory.limit_in_bytes", b"9223372036854771712\n");
        f.write("memory.usage_in_bytes", b"700\n");
        assert_eq!(left(Version::One, f.path()), None);
        assert_eq!(membership("4:cpu,memory:/none/such"), Some((Version::One, "/sys/fs/cgroup/memory".into())));
        assert_eq!(membership("3:cpuset:/"), None);
    }

    #[test]
    fn this_machine_tells() {
        if Path::new("/proc/meminfo").exists() {
            assert!(available().is_some_and(|bytes| (1 << 20..1 << 50).contains(&bytes)), "{:?}", available());
        }
    }
}
