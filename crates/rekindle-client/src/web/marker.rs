//! The marker: what a script may know of the session whose tokens it cannot read.

use std::{fmt, str::FromStr};

use rekindle::{clock::Timestamp, refresh::Commitment, session::SessionId};

use crate::session::Tokens;

/// Set by every response that sets a token: in the header `Rekindle-Session`, and beside cookies in one that scripts can read.
/// `<session id>.<generation>.<commitment>.<access token's expiry in seconds since 1970>`. The commitment of a bearer generation is
/// the empty text.
///
/// It proves nothing: it only tells two things apart that happen to lie in one jar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// Which session.
    pub session_id: SessionId,
    /// Its generation when the tokens were issued.
    pub generation: u32,
    /// The commitment of that generation.
    pub commitment: Option<Commitment>,
    /// When the access token expires.
    pub access_expires_at: Timestamp,
}

impl Marker {
    /// The marker of these tokens.
    pub fn of(tokens: &Tokens) -> Self {
        Self {
            session_id: tokens.session.id,
            generation: tokens.session.generation,
            commitment: tokens.commitment,
            access_expires_at: Timestamp::from_secs(tokens.access_token_expires_at.secs()),
        }
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.", self.session_id, self.generation)?;
        if let Some(commitment) = self.commitment {
            write!(f, "{commitment}")?;
        }
        write!(f, ".{}", self.access_expires_at.secs())
    }
}

/// Not a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not `<session id>.<generation>.<commitment>.<seconds>`")]
pub struct InvalidMarker;

impl FromStr for Marker {
    type Err = InvalidMarker;
    fn from_str(text: &str) -> Result<Self, InvalidMarker> {
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(InvalidMarker);
        let marker = Self {
            session_id: next()?.parse().map_err(|_| InvalidMarker)?,
            generation: number(next()?)?,
            commitment: match next()? {
                "" => None,
                commitment => Some(Commitment::parse(commitment).map_err(|_| InvalidMarker)?),
            },
            access_expires_at: Timestamp::from_secs(number(next()?)?),
        };
        if parts.next().is_some() { Err(InvalidMarker) } else { Ok(marker) }
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, InvalidMarker> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or(InvalidMarker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bearer_session_has_an_empty_commitment() {
        let text = "0199a3b4-7c00-7000-8000-000000000001.7..1795000000";
        let marker: Marker = text.parse().unwrap();
        assert_eq!((marker.generation, marker.commitment), (7, None));
        assert_eq!(marker.to_string(), text);
    }

    #[test]
    fn what_is_no_marker_is_refused() {
        let sid = "0199a3b4-7c00-7000-8000-000000000001";
        for bad in [
            "",
            "....",
            &format!("{sid}.7.."),
            &format!("{sid}.-7..1"),
            &format!("{sid}.+7..1"),
            &format!("{sid}.7.x.1"),
            &format!("{sid}.7..1.2"),
        ] {
            assert_eq!(bad.parse::<Marker>(), Err(InvalidMarker), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-0-9a-f.]{0,80}|.{0,40}") {
            let _ = text.parse::<Marker>();
        }

        #[test]
        fn text_round_trips(sid in any::<[u8; 16]>(), generation in any::<u32>(), c in any::<[u8; 16]>(), secs in 0..4_000_000_000_i64) {
            let marker = Marker {
                session_id: SessionId::from_bytes(sid),
                generation,
                commitment: Some(Commitment::from_bytes(c)).filter(|c| c.is_some()),
                access_expires_at: Timestamp::from_secs(secs),
            };
            prop_assert_eq!(marker.to_string().parse(), Ok(marker));
        }
    }
}
