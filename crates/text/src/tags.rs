//! The tags around the thought.

/// Opens the thought.
pub const THINK_OPEN: &str = "<think>";
/// Closes the thought.
pub const THINK_CLOSE: &str = "</think>";

/// A tag around the thought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThinkTag {
    /// `<think>`
    Open,
    /// `</think>`
    Close,
}

impl ThinkTag {
    pub(crate) const ALL: [Self; 2] = [Self::Open, Self::Close];

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Open => THINK_OPEN,
            Self::Close => THINK_CLOSE,
        }
    }
}

/// The ids of the tags in a vocabulary, where they are tokens of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThinkTokens {
    /// Id of `<think>`.
    pub open: Option<u32>,
    /// Id of `</think>`.
    pub close: Option<u32>,
}

impl ThinkTokens {
    /// The tag that an id stands for.
    pub fn tag(&self, id: u32) -> Option<ThinkTag> {
        ThinkTag::ALL.into_iter().find(|&tag| self.id(tag) == Some(id))
    }

    pub(crate) fn id(&self, tag: ThinkTag) -> Option<u32> {
        match tag {
            ThinkTag::Open => self.open,
            ThinkTag::Close => self.close,
        }
    }
}
