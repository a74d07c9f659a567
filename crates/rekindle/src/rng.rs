//! The one place where randomness enters.

use aws_lc_rs::rand::SecureRandom;

/// Where the engine draws random bytes.
///
/// Production uses [`SystemRng`]; only tests and the simulator put a seeded generator here.
pub trait Rng: Send + Sync + 'static {
    /// Fills `dest` with unpredictable bytes.
    fn fill(&self, dest: &mut [u8]);
}

/// The operating system's generator, through aws-lc.
#[derive(Debug, Default)]
pub struct SystemRng(());

impl Rng for SystemRng {
    #[expect(clippy::disallowed_methods, reason = "this is where randomness enters")]
    fn fill(&self, dest: &mut [u8]) {
        aws_lc_rs::rand::SystemRandom::new()
            .fill(dest)
            .expect("the operating system's random generator must work: no token is safe without it");
    }
}

/// `N` random bytes.
pub(crate) fn bytes<const N: usize>(rng: &dyn Rng) -> [u8; N] {
    let mut out = [0; N];
    rng.fill(&mut out);
    out
}
