//! A file of lines that grows, read from where the last reading ended.

use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::SystemTime;

use super::Growth;

/// Bytes before the end of what was read that are compared before reading on: a file that was cut and grew again, as that of a
/// resumed stage, is found out by them unless it holds the same as before.
const COMPARED: usize = 256;
/// Longest line that is waited for.
const LONGEST_LINE: u64 = 256 << 20;

/// What takes the lines of a file.
pub(super) trait Sink {
    /// All that was read is void: the file begins anew.
    fn restart(&mut self);
    /// A whole line without its end: the byte where it begins, its number from 1, its text.
    fn line(&mut self, offset: u64, number: usize, text: &[u8]);
}

/// A file that is followed.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    /// Behind the last whole line.
    offset: u64,
    /// The bytes before it.
    before: Vec<u8>,
    lines: usize,
    /// Length and time of the file when it was looked at last.
    seen: Option<(u64, SystemTime)>,
    /// Its length then.
    length: u64,
    /// Whether there was more than was taken.
    pending: bool,
}

impl Follower {
    pub fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, before: Vec::new(), lines: 0, seen: None, length: 0, pending: false }
    }

    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Bytes that were read, and bytes that there are.
    pub fn progress(&self) -> (u64, u64) {
        (self.offset, self.length)
    }

    /// When the file was written last.
    pub fn modified(&self) -> Option<SystemTime> {
        self.seen.map(|(_, modified)| modified)
    }

    /// Gives the whole lines that are new to the sink, of about so many bytes at most. A last line without its end waits.
    pub fn poll(&mut self, most: u64, sink: &mut impl Sink) -> Result<Growth> {
        let data = match std::fs::metadata(&self.path) {
            Ok(data) => data,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(self.void(sink)),
            Err(error) => return Err(error),
        };
        let seen = (data.len(), data.modified()?);
        if self.seen == Some(seen) && !self.pending {
            return Ok(Growth::default());
        }
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        let mut growth = Growth::default();
        if length < self.offset || !self.goes_on(&mut file)? {
            growth = self.void(sink);
        }
        (self.seen, self.length) = (Some(seen), length);
        let (read, more) = self.read(&mut file, most.min(length - self.offset), sink)?;
        self.pending = more;
        growth.add(Growth { changed: read, more });
        Ok(growth)
    }

    /// Takes back all that was read, if anything was.
    fn void(&mut self, sink: &mut impl Sink) -> Growth {
        if self.offset == 0 {
            return Growth::default();
        }
        *self = Self::new(std::mem::take(&mut self.path));
        sink.restart();
        Growth { changed: true, more: false }
    }

    /// Whether the bytes before the end of what was read are still those.
    fn goes_on(&self, file: &mut File) -> Result<bool> {
        let mut there = vec![0; self.before.len()];
        file.seek(SeekFrom::Start(self.offset - self.before.len() as u64))?;
        match file.read_exact(&mut there) {
            Ok(()) => Ok(there == self.before),
            // Cut in this moment.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads so many bytes, or on to the end of a line that is longer; whether a line came, and whether more may follow.
    fn read(&mut self, file: &mut File, bytes: u64, sink: &mut impl Sink) -> Result<(bool, bool)> {
        file.seek(SeekFrom::Start(self.offset))?;
        let mut text = Vec::new();
        file.by_ref().take(bytes).read_to_end(&mut text)?;
        let mut cut = text.len() as u64 == bytes && self.offset + bytes < self.length;
        while cut && !text.contains(&b'\n') && (text.len() as u64) < LONGEST_LINE {
            let had = text.len();
            file.by_ref().take(bytes.max(1)).read_to_end(&mut text)?;
            cut = text.len() > had && self.offset + (text.len() as u64) < self.length;
        }
        let Some(end) = text.iter().rposition(|&byte| byte == b'\n') else { return Ok((false, false)) };
        let mut offset = self.offset;
        for line in text[..end].split(|&byte| byte == b'\n') {
            self.lines += 1;
            sink.line(offset, self.lines, line);
            offset += line.len() as u64 + 1;
        }
        let whole = &text[..=end];
        if whole.len() >= COMPARED {
            self.before = whole[whole.len() - COMPARED..].to_vec();
        } else {
            self.before.extend_from_slice(whole);
            let surplus = self.before.len().saturating_sub(COMPARED);
            self.before.drain(..surplus);
        }
        self.offset = offset;
        Ok((true, cut))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[derive(Default)]
    struct Kept {
        lines: Vec<(u64, usize, String)>,
        restarts: usize,
    }

    impl Sink for Kept {
        fn restart(&mut self) {
            self.lines.clear();
            self.restarts += 1;
        }

        fn line(&mut self, offset: u64, number: usize, text: &[u8]) {
            self.lines.push((offset, number, String::from_utf8_lossy(text).into_owned()));
        }
    }

    impl Kept {
        fn texts(&self) -> Vec<&str> {
            self.lines.iter().map(|(_, _, text)| text.as_str()).collect()
        }
    }

    fn append(path: &std::path::Path, text: &str) {
        std::fs::File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn lines_come_once_they_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut follower, mut kept) = (Follower::new(path.clone()), Kept::default());
        assert_eq!(follower.poll(100, &mut kept).unwrap(), Growth::default(), "no file yet");
        // After each piece: the lines so far, and whether anything was new.
        for (piece, lines, changed) in [
            ("a", &[][..], false),
            ("b", &[][..], false),
            ("c\nde", &["abc"][..], true),
            ("", &["abc"][..], false),
            ("f\n\ng\n", &["abc", "def", "", "g"][..], true),
        ] {
            append(&path, piece);
            let growth = follower.poll(100, &mut kept).unwrap();
            assert_eq!((kept.texts(), growth), (lines.to_vec(), Growth { changed, more: false }), "{piece:?}");
        }
        let places: Vec<(u64, usize)> = kept.lines.iter().map(|(offset, number, _)| (*offset, *number)).collect();
        assert_eq!(places, [(0, 1), (4, 2), (8, 3), (9, 4)]);
    }

    #[test]
    fn a_long_file_comes_in_pieces_and_a_line_that_is_longer_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let long = "x".repeat(300);
        append(&path, &format!("one\ntwo\nthree\nfour\n{long}\nfive\nsi"));
        let (mut follower, mut kept) = (Follower::new(path), Kept::default());
        let mut polls = 0;
        while follower.poll(10, &mut kept).unwrap().more {
            polls += 1;
            assert!(polls < 50);
        }
        assert_eq!(kept.texts(), ["one", "two", "three", "four", &long, "five"]);
        assert_eq!(polls, 3);
    }

    #[test]
    fn a_file_that_was_cut_is_read_anew_unless_it_holds_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let text: String = (0..100).map(|i| format!("line {i}\n")).collect();
        let (mut follower, mut kept) = (Follower::new(path.clone()), Kept::default());
        append(&path, &text);
        follower.poll(1 << 20, &mut kept).unwrap();
        // Cut: shorter than what was read.
        std::fs::write(&path, &text[..70]).unwrap();
        follower.poll(1 << 20, &mut kept).unwrap();
        assert_eq!((kept.restarts, kept.lines.len()), (1, 10), "{:?}", kept.texts());
        // Cut and grown beyond what was read, with other lines.
        std::fs::write(&path, format!("{}other\n{}", &text[..7], "y\n".repeat(200))).unwrap();
        follower.poll(1 << 20, &mut kept).unwrap();
        assert_eq!((kept.restarts, kept.lines.len(), kept.texts()[1]), (2, 202, "other"));
        // Written again as it was, and more: nothing is void.
        std::fs::write(&path, format!("{}other\n{}z\n", &text[..7], "y\n".repeat(200))).unwrap();
        follower.poll(1 << 20, &mut kept).unwrap();
        assert_eq!((kept.restarts, kept.lines.len()), (2, 203));
        std::fs::remove_file(&path).unwrap();
        assert!(follower.poll(1 << 20, &mut kept).unwrap().changed);
        assert_eq!((kept.restarts, kept.lines.len()), (3, 0));
    }
}
