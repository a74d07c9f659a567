//! What has to be done now and then, without a request.

use rekindle::{
    clock::{Seconds, Timestamp},
    engine::{Engine, Error},
    keys::{Chain, KeyId},
    session::Scope,
};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};

use super::{Condition, TICK};
use crate::app::App;

/// How often the age of the signing keys is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(60);

/// Keeps the engine in order, for ever.
pub(super) async fn run(app: App) {
    let engine = app.engine();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut upkeep, mut ages) = (Condition::of("the upkeep"), Condition::of("the measuring of key ages"));
    let mut measured: Option<Instant> = None;
    loop {
        ticks.tick().await;
        upkeep.note(engine.upkeep().await);
        if measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
            measured = Some(Instant::now());
            if let Some(age) = ages.note(oldest_signing_key(engine).await) {
                app.metrics().signing_key_age(age);
            }
        }
    }
}

/// The age of the oldest key that signs at the moment, of all scopes; 0 when there is none.
async fn oldest_signing_key(engine: &Engine) -> Result<Seconds, Error> {
    let (now, mut oldest) = (engine.now(), Seconds(0));
    for product in engine.products().await? {
        for environment in product.environments {
            let scope = Scope { product: product.product.tag.clone(), env: environment.slug };
            let keys = match engine.signing_keys(&scope).await {
                // Deleted since it was listed.
                Err(Error::ProductNotFound(_) | Error::EnvironmentNotFound(_)) => continue,
                keys => keys?,
            };
            oldest = signing(&keys, now).map(|from| now.since(from)).fold(oldest, Seconds::max);
        }
    }
    Ok(oldest)
}

/// Since when the present key of each chain signs that the schedule replaces.
fn signing(keys: &[(KeyId, Chain, Timestamp, Timestamp)], now: Timestamp) -> impl Iterator<Item = Timestamp> {
    Chain::ALL
        .into_iter()
        .filter(|chain| *chain != Chain::Static)
        .filter_map(move |chain| keys.iter().filter(|key| key.1 == chain && key.3 <= now).map(|key| key.3).max())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rekindle::keys::Algorithm;

    #[test]
    fn a_key_that_was_replaced_or_does_not_sign_yet_has_no_say() {
        let at = Timestamp::from_secs;
        let key = |algorithm, from| ("k".parse().unwrap(), Chain::Access(algorithm), at(0), at(from));
        let keys =
            [key(Algorithm::EdDsa, 10), key(Algorithm::EdDsa, 20), key(Algorithm::EdDsa, 99), key(Algorithm::Es256, 5)];
        assert_eq!(signing(&keys, at(50)).collect::<Vec<_>>(), [at(20), at(5)]);
        assert_eq!(signing(&[], at(50)).count(), 0);
    }
}
