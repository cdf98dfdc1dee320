//! The scripts, each one atomic step on one conversation.

use std::sync::LazyLock;

/// A script by its name; the metrics of calls are labelled with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    AppendFast,
    Append,
    Claim,
    Keep,
    Announce,
    Read,
    Look,
    Renew,
    Release,
    Open,
    Close,
}

pub(super) struct Loaded {
    pub(super) source: String,
    pub(super) sha: String,
}

impl Script {
    pub(super) const ALL: [Self; 11] = [
        Self::AppendFast,
        Self::Append,
        Self::Claim,
        Self::Keep,
        Self::Announce,
        Self::Read,
        Self::Look,
        Self::Renew,
        Self::Release,
        Self::Open,
        Self::Close,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AppendFast => "append_fast",
            Self::Append => "append",
            Self::Claim => "claim",
            Self::Keep => "keep",
            Self::Announce => "announce",
            Self::Read => "read",
            Self::Look => "look",
            Self::Renew => "renew",
            Self::Release => "release",
            Self::Open => "open",
            Self::Close => "close",
        }
    }

    pub(super) fn loaded(self) -> &'static Loaded {
        static LOADED: LazyLock<Vec<Loaded>> = LazyLock::new(|| Script::ALL.map(Script::load).into());
        &LOADED[self as usize]
    }

    fn load(self) -> Loaded {
        let body = match self {
            // Every function of the prelude costs each call; this one is to cost nothing it does not need.
            Self::AppendFast => {
                let source = include_str!("scripts/append_fast.lua").to_owned();
                let sha = redis::Script::new(&source).get_hash().to_owned();
                return Loaded { source, sha };
            }
            Self::Append => include_str!("scripts/append.lua"),
            Self::Claim => include_str!("scripts/claim.lua"),
            Self::Keep => include_str!("scripts/keep.lua"),
            Self::Announce => include_str!("scripts/announce.lua"),
            Self::Read => include_str!("scripts/read.lua"),
            Self::Look => include_str!("scripts/look.lua"),
            Self::Renew => include_str!("scripts/renew.lua"),
            Self::Release => include_str!("scripts/release.lua"),
            Self::Open => include_str!("scripts/open.lua"),
            Self::Close => include_str!("scripts/close.lua"),
        };
        let source = format!("{}\n{body}", include_str!("scripts/prelude.lua"));
        let sha = redis::Script::new(&source).get_hash().to_owned();
        Loaded { source, sha }
    }
}
