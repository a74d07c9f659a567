//! Versions of the Core Driver Interface ("CDI"): which there are, and what each may.

use std::{fmt, str::FromStr};

use super::access::Version;

/// A version of the interface that this server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cdi(u8, u8);

impl Cdi {
    /// What a client speaks that calls a path without a prefix and names no version.
    pub(super) const FIRST: Self = Self(1, 0);
    /// What a client speaks that calls any other path and names no version.
    pub(super) const LATEST: Self = Self(5, 4);

    pub(super) const V2_0: Self = Self(2, 0);
    pub(super) const V2_2: Self = Self(2, 2);
    pub(super) const V2_3: Self = Self(2, 3);
    pub(super) const V2_4: Self = Self(2, 4);
    pub(super) const V2_6: Self = Self(2, 6);
    pub(super) const V2_7: Self = Self(2, 7);
    pub(super) const V2_8: Self = Self(2, 8);
    pub(super) const V2_9: Self = Self(2, 9);
    pub(super) const V2_21: Self = Self(2, 21);
    pub(super) const V3_0: Self = Self(3, 0);
    pub(super) const V4_0: Self = Self(4, 0);
    pub(super) const V5_0: Self = Self(5, 0);
    pub(super) const V5_6: Self = Self(5, 6);

    /// Every version, oldest first: an SDK takes the newest that it knows, too.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let minors = [(1, 0..=0), (2, 0..=21), (3, 0..=1), (4, 0..=0), (5, 0..=6)];
        minors.into_iter().flat_map(|(major, minors)| minors.map(move |minor| Self(major, minor)))
    }

    /// Which access tokens a client of this version gets.
    pub(super) fn access_token(self) -> Version {
        match self {
            v if v < Self::V2_0 => Version::V1,
            v if v < Self::V2_21 => Version::V2,
            v if v < Self::V3_0 => Version::V3,
            v if v < Self::V4_0 => Version::V4,
            _ => Version::V5,
        }
    }
}

impl fmt::Display for Cdi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl FromStr for Cdi {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        Self::all().find(|version| version.to_string() == s).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let parse = |text: &str| text.parse::<Cdi>();
        assert!(parse("2.9").unwrap() < parse("2.21").unwrap());
        for unknown in ["", "2", "2.22", "6.0", "2.09", "v2.9", "2.9 "] {
            assert_eq!(parse(unknown), Err(()), "{unknown}");
        }
        let listed: Vec<String> = Cdi::all().map(|v| v.to_string()).collect();
        assert_eq!((listed.len(), listed[0].as_str(), listed[32].as_str()), (33, "1.0", "5.6"));
    }

    #[test]
    fn each_version_has_its_access_token() {
        for (cdi, version) in [
            ("1.0", Version::V1),
            ("2.0", Version::V2),
            ("2.20", Version::V2),
            ("2.21", Version::V3),
            ("3.1", Version::V4),
            ("4.0", Version::V5),
            ("5.4", Version::V5),
        ] {
            assert_eq!(cdi.parse::<Cdi>().unwrap().access_token(), version, "{cdi}");
        }
    }
}
