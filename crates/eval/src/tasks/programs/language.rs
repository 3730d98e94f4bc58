//! The language of programs: up to three operations on a list, one after the other.

use minke_spec::draw::Stream;
use std::fmt;

/// Most operations of a program.
pub(super) const LONGEST_PROGRAM: usize = 3;
/// Largest number on the way.
const LARGEST: u32 = 99;

/// An operation on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Rev,
    Sort,
    Tail,
    Init,
    Rot,
    Diffs,
    Max,
    Min,
    Evens,
    Odds,
    Inc,
    Dec,
    Dbl,
    Half,
    Sums,
}

impl Operation {
    const ALL: [(Self, &'static str); 15] = [
        (Self::Rev, "rev"),
        (Self::Sort, "sort"),
        (Self::Tail, "tail"),
        (Self::Init, "init"),
        (Self::Rot, "rot"),
        (Self::Diffs, "diffs"),
        (Self::Max, "max"),
        (Self::Min, "min"),
        (Self::Evens, "evens"),
        (Self::Odds, "odds"),
        (Self::Inc, "inc"),
        (Self::Dec, "dec"),
        (Self::Dbl, "dbl"),
        (Self::Half, "half"),
        (Self::Sums, "sums"),
    ];

    /// The name in programs.
    pub(super) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The result; nothing if it leaves the limits.
    pub(super) fn run(self, list: &[u32]) -> Option<Vec<u32>> {
        let each = |f: fn(u32) -> u32| list.iter().map(|&x| f(x)).collect::<Vec<_>>();
        let one = |value: Option<&u32>| value.map(|&value| vec![value]);
        let output = match self {
            Self::Rev => list.iter().rev().copied().collect(),
            Self::Sort => {
                let mut sorted = list.to_vec();
                sorted.sort_unstable();
                sorted
            }
            Self::Tail => list.get(1..)?.to_vec(),
            Self::Init => list[..list.len().checked_sub(1)?].to_vec(),
            Self::Rot => {
                let mut rotated = list.to_vec();
                rotated.rotate_left(usize::from(!list.is_empty()));
                rotated
            }
            Self::Diffs => list.windows(2).map(|pair| pair[0].abs_diff(pair[1])).collect(),
            Self::Max => one(list.iter().max())?,
            Self::Min => one(list.iter().min())?,
            Self::Evens => list.iter().copied().filter(|x| x % 2 == 0).collect(),
            Self::Odds => list.iter().copied().filter(|x| x % 2 == 1).collect(),
            Self::Inc => each(|x| x + 1),
            Self::Dec => each(|x| x.saturating_sub(1)),
            Self::Dbl => each(|x| x * 2),
            Self::Half => each(|x| x / 2),
            Self::Sums => {
                let mut total = 0;
                list.iter()
                    .map(|&x| {
                        total += x;
                        total
                    })
                    .collect()
            }
        };
        output.iter().all(|&x| x <= LARGEST).then_some(output)
    }
}

/// Up to three operations, joined by `|` in text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program(Vec<Operation>);

impl Program {
    /// The program that a text is.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > LONGEST_PROGRAM * 16 {
            return None;
        }
        let find = |name: &str| Operation::ALL.iter().find(|(_, n)| *n == name.trim()).map(|&(op, _)| op);
        let operations: Vec<Operation> = text.split('|').map(find).collect::<Option<_>>()?;
        (operations.len() <= LONGEST_PROGRAM).then_some(Self(operations))
    }

    /// Every program, the shortest first.
    pub(super) fn all() -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        let mut longest = vec![Self(Vec::new())];
        for _ in 0..LONGEST_PROGRAM {
            longest = longest.iter().flat_map(Self::extended).collect();
            all.extend_from_slice(&longest);
        }
        all
    }

    /// A random program of so many operations.
    pub(super) fn random(length: usize, stream: &mut Stream) -> Self {
        Self((0..length).map(|_| stream.choose(&Operation::ALL).0).collect())
    }

    /// How likely a random program of its length is this one.
    pub(super) fn chance(&self) -> f64 {
        (Operation::ALL.len() as f64).powi(-(self.0.len() as i32))
    }

    /// The programs that begin with this one and have one operation more.
    pub(super) fn extended(&self) -> impl Iterator<Item = Self> {
        Operation::ALL.into_iter().map(|(op, _)| Self([&self.0[..], &[op]].concat()))
    }

    /// The number of operations.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The operations.
    pub(super) fn operations(&self) -> &[Operation] {
        &self.0
    }

    /// What the program makes of a list; nothing if it leaves the limits.
    pub(super) fn run(&self, list: &[u32]) -> Option<Vec<u32>> {
        self.0.iter().try_fold(list.to_vec(), |list, op| op.run(&list))
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|op| op.name()).collect();
        f.write_str(&names.join("|"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_do_what_their_names_say() {
        type Case<'a> = (&'a str, &'a [u32], Option<&'a [u32]>);
        let cases: [Case; 13] = [
            ("rev", &[1, 2, 3], Some(&[3, 2, 1])),
            ("tail|rev", &[2, 4, 8], Some(&[8, 4])),
            ("sort|init", &[5, 1, 3], Some(&[1, 3])),
            ("sums", &[1, 2, 3], Some(&[1, 3, 6])),
            ("rot|rot", &[4, 3, 2], Some(&[2, 4, 3])),
            ("evens|max", &[3, 4, 6], Some(&[6])),
            ("odds|max", &[4, 6], None),
            ("min", &[], None),
            ("dbl|dbl|dbl", &[30], None),
            ("half|dec", &[1, 9], Some(&[0, 3])),
            ("inc|min", &[7, 2], Some(&[3])),
            ("diffs", &[7, 2, 9], Some(&[5, 7])),
            ("tail", &[], None),
        ];
        for (program, input, want) in cases {
            assert_eq!(Program::parse(program).unwrap().run(input).as_deref(), want, "{program}");
        }
        for bad in ["", "rev|", "nope", "rev|rev|rev|rev", "rev sort", "REV"] {
            assert!(Program::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn names_stand_at_their_numbers() {
        assert!(Operation::ALL.iter().enumerate().all(|(i, (op, _))| *op as usize == i));
    }
}
