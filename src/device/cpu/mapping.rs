//! Memory by the page: all zeros, or a private map of part of a file with zeros behind it, for weights that lie in a file and new
//! ones after them.
//!
//! ```text
//! file      | header | backbone's parameters | statistics ...
//! mapping            | backbone's parameters | zeros: a new head |
//!                      pages of the file       anonymous pages
//! ```
//!
//! Nothing is read before it is touched, a page is copied when it is first written, and pages that were never written are the file
//! cache's own, shared by all processes that map the file.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};

/// Memory of `size` bytes, which may begin with a part of a file.
pub struct Mapping {
    map: memmap2::MmapMut,
    /// From the start of the map, which is that of a page, to the first byte asked for.
    skip: usize,
    size: usize,
}

impl Mapping {
    /// `size` zeros.
    ///
    /// # Errors
    /// When the system has not that much.
    pub fn zeroed(size: usize) -> Result<Self> {
        let map = memmap2::MmapOptions::new().len(size).map_anon()?;
        in_large_pages(&map);
        Ok(Mapping { map, skip: 0, size })
    }

    /// `bytes` bytes of a file from `offset`, a multiple of four, on; then zeros up to `size` bytes.
    ///
    /// # Errors
    /// What the system says, an offset at which floats are not aligned, a file that ends before. Only Unix has room behind a map.
    pub fn new(file: &File, offset: usize, bytes: usize, size: usize) -> Result<Self> {
        let end = offset.checked_add(bytes).filter(|end| file.metadata().is_ok_and(|m| m.len() >= *end as u64));
        if !offset.is_multiple_of(4) || bytes == 0 || bytes > size || end.is_none() {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mut mapping = Self::over(file, offset, bytes, size)?;
        // The last page of the file's part goes on with what the file goes on with.
        let page_end = (mapping.skip + bytes).next_multiple_of(page()) - mapping.skip;
        mapping.bytes_mut()[bytes..page_end.min(size)].fill(0);
        Ok(mapping)
    }

    /// Anonymous pages for all of it, the first of which give way to the file's.
    #[cfg(unix)]
    fn over(file: &File, offset: usize, bytes: usize, size: usize) -> Result<Self> {
        use std::os::fd::AsRawFd;
        let skip = offset % page();
        let map = memmap2::MmapOptions::new().len(skip + size).map_anon()?;
        let from = libc::off_t::try_from(offset - skip).map_err(|_| Error::from(ErrorKind::InvalidInput))?;
        let (at, protection) = (map.as_ptr().cast_mut(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: the pages that are replaced lie within `map`, which alone owns them and unmaps them with the rest. The new ones
        // are private, and every pattern of bits is a float. Model files are replaced by renaming a finished file over them and
        // never written in place, so the mapped inode keeps its contents; a foreign program that shortens the file meanwhile ends
        // this process with SIGBUS, as with any mapped file.
        let placed =
            unsafe { libc::mmap(at.cast(), skip + bytes, protection, libc::MAP_PRIVATE | libc::MAP_FIXED, file.as_raw_fd(), from) };
        if placed == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(Mapping { map, skip, size }) }
    }

    /// A plain private map, which has no room behind it.
    #[cfg(not(unix))]
    fn over(file: &File, offset: usize, bytes: usize, size: usize) -> Result<Self> {
        if bytes < size {
            return Err(ErrorKind::Unsupported.into());
        }
        // SAFETY: as on Unix.
        let map = unsafe { memmap2::MmapOptions::new().offset(offset as u64).len(bytes).map_copy(file)? };
        Ok(Mapping { map, skip: 0, size })
    }

    /// Bytes of it.
    pub fn len(&self) -> usize {
        self.size
    }

    /// The first byte. The memory is writable; the constness of the borrow is not its.
    pub fn ptr(&self) -> *mut u8 {
        self.map.as_ptr().wrapping_add(self.skip).cast_mut()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.skip..][..self.size]
    }
}

/// Asks for pages of 2 MiB where the map has room for them: operands walked by column touch a page each step, and the processor looks up
/// few small pages at a time. A kernel that has none gives small ones, which work as well.
fn in_large_pages(map: &memmap2::MmapMut) {
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    #[cfg(not(target_os = "linux"))]
    let _ = map;
}

/// Bytes of a page.
#[cfg(unix)]
fn page() -> usize {
    // SAFETY: asks the system for a number.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Where a map has no room behind it, its end is its own.
#[cfg(not(unix))]
fn page() -> usize {
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// An open file of `count` bytes 1, 2, .. 251, 1, .. that has no name any more.
    fn file(count: usize) -> (File, Vec<u8>) {
        let path = std::env::temp_dir().join(format!("defrost-mapping-{}-{count}", std::process::id()));
        let bytes: Vec<u8> = (0..count).map(|i| (i % 251) as u8 + 1).collect();
        File::create(&path).unwrap().write_all(&bytes).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        (file, bytes)
    }

    #[test]
    fn a_part_of_a_file_stands_before_zeros() {
        let (file, bytes) = file(30_000);
        for (offset, count) in [(0, 30_000), (64, 1), (64, 4032), (4096, 4096), (5000, 20_000), (29_996, 4)] {
            for size in [count, count + 4, count + 5000, count + 100_000] {
                let Ok(mut mapping) = Mapping::new(&file, offset, count, size) else {
                    assert!(cfg!(not(unix)) && size > count, "{offset} {count} {size}");
                    continue;
                };
                let memory = mapping.bytes_mut();
                assert_eq!(memory.len(), size);
                assert!(memory[..count] == bytes[offset..][..count], "{offset} {count} {size}");
                assert!(memory[count..].iter().all(|&b| b == 0), "{offset} {count} {size}");
                memory.fill(7);
            }
        }
        assert_eq!(Mapping::new(&file, 0, 30_000, 30_000).unwrap().bytes_mut(), bytes, "nothing flows back into the file");
    }

    #[test]
    fn zeros_of_any_size() {
        for size in [0, 4, 4096, 1 << 30] {
            let mut mapping = Mapping::zeroed(size).unwrap();
            assert_eq!((mapping.len(), mapping.bytes_mut().len()), (size, size));
            assert!(mapping.bytes_mut().iter().step_by(1021).take(1000).all(|&b| b == 0));
        }
        assert!(Mapping::zeroed(usize::MAX / 2).is_err());
    }

    #[test]
    fn what_cannot_be_mapped_is_refused() {
        let (file, _) = file(10_000);
        for (offset, bytes, size) in [(0, 10_001, 10_001), (9996, 8, 8), (2, 4, 4), (0, 0, 4), (0, 8, 4), (usize::MAX - 3, 8, 8)] {
            assert!(Mapping::new(&file, offset, bytes, size).is_err(), "{offset} {bytes} {size}");
        }
    }
}
