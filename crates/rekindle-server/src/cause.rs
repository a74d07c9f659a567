//! An error and what caused it, on one line.

use std::error::Error;

/// The error's message and those of its causes. What a message tells already is not told again.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let (mut told, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        let text = cause.to_string();
        if !told.ends_with(&text) {
            told = format!("{told}: {text}");
        }
        next = cause.source();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Nested {
        #[error("the file `{0}` cannot be read")]
        Untold(&'static str, #[source] std::io::Error),
        #[error("the start failed: {0}")]
        Told(#[source] Box<Self>),
    }

    #[test]
    fn each_cause_is_told_once() {
        let cause = || std::io::Error::other("the disk is gone");
        assert_eq!(chain(&Nested::Untold("a", cause())), "the file `a` cannot be read: the disk is gone");
        let told = chain(&Nested::Told(Box::new(Nested::Untold("a", cause()))));
        assert_eq!(told, "the start failed: the file `a` cannot be read: the disk is gone");
    }
}
