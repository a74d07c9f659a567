//! When signing keys are made, sign, are published and retire, from times alone.

use crate::clock::{Seconds, Timestamp};

/// The longest lifetime of an access token that a session definition may choose: 7 days.
pub const MAX_ACCESS_LIFETIME: Seconds = Seconds(7 * DAY);

/// The longest that anybody, the servers themselves included, may work from a copy of the keys: one hour.
pub const MAX_KEYS_AGE: Seconds = Seconds(3600);

const DAY: u64 = 24 * 3600;

/// When keys are replaced, published and retired. The default: every 30 days, a day ahead, 8 days after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySchedule {
    rotate_every: Seconds,
    publish_ahead: Seconds,
    retire_after: Seconds,
}

impl Default for KeySchedule {
    fn default() -> Self {
        Self { rotate_every: Seconds(30 * DAY), publish_ahead: Seconds(DAY), retire_after: Seconds(8 * DAY) }
    }
}

/// Why a schedule was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// A cached JWKS could lack the key that signs.
    #[error("keys published {} s ahead could sign before every cache has them; use more than {} s", .0.0, MAX_KEYS_AGE.0)]
    PublishAhead(Seconds),
    /// A successor would be due before its predecessor signs.
    #[error("keys cannot be replaced every {} s; use more than the {} s that they are published ahead", rotate_every.0, publish_ahead.0)]
    RotateEvery {
        /// What was given.
        rotate_every: Seconds,
        /// What it must exceed.
        publish_ahead: Seconds,
    },
    /// A token could outlive its key.
    #[error("keys retired after {} s could be missed by their last tokens; use at least {} s", given.0, least.0)]
    RetireAfter {
        /// What was given.
        given: Seconds,
        /// [`MAX_ACCESS_LIFETIME`] and the time published ahead.
        least: Seconds,
    },
}

/// All that the schedule knows of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTimes {
    /// Since when it is published.
    pub created_at: Timestamp,
    /// From when it signs.
    pub signs_from: Timestamp,
}

/// What the schedule says about the keys of one scope and chain. Keys are named by their place in the slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The one that signs.
    pub signing: Option<usize>,
    /// A key that signs from then must be created now.
    pub next: Option<Timestamp>,
    /// To be shown in the JWKS, oldest first.
    pub published: Vec<usize>,
    /// No valid token carries them any more: they may be deleted.
    pub retired: Vec<usize>,
}

impl KeySchedule {
    /// Checks that no token can outlive its key, nor meet a cache that lacks it.
    ///
    /// A key signs for `rotate_every`, is published `publish_ahead` before that, and for `retire_after` after its successor
    /// took over.
    pub fn new(rotate_every: Seconds, publish_ahead: Seconds, retire_after: Seconds) -> Result<Self, InvalidSchedule> {
        // A server that learns late of an emergency rotation signs with the old key for as long as its copy may be old.
        let least = Seconds(MAX_ACCESS_LIFETIME.0.saturating_add(publish_ahead.0));
        if publish_ahead <= MAX_KEYS_AGE {
            Err(InvalidSchedule::PublishAhead(publish_ahead))
        } else if rotate_every <= publish_ahead {
            Err(InvalidSchedule::RotateEvery { rotate_every, publish_ahead })
        } else if retire_after < least {
            Err(InvalidSchedule::RetireAfter { given: retire_after, least })
        } else {
            Ok(Self { rotate_every, publish_ahead, retire_after })
        }
    }

    /// What is to be done at `now` about the keys of one scope and chain.
    ///
    /// The key with the latest `signs_from` that is not in the future signs (of two, the later created; of two of those,
    /// the later in the slice). A first key signs at once: there was nothing before it that a cache could hold.
    pub fn plan(&self, keys: &[KeyTimes], now: Timestamp) -> Plan {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|&i| (keys[i].signs_from, keys[i].created_at, i));
        let signs_from = |at: usize| keys[order[at]].signs_from;

        // Before the first key's time (its maker's clock was ahead) there is no other to sign with.
        let signing = (0..order.len()).rev().find(|&at| signs_from(at) <= now).or(order.first().map(|_| 0));
        let next = match order.len().checked_sub(1) {
            None => Some(now),
            Some(newest) => {
                let due = signs_from(newest) + self.rotate_every;
                (now >= self.successor_due(signs_from(newest))).then(|| due.max(self.rotated_now(now)))
            }
        };
        let still = |at: usize| at + 1 == order.len() || now < signs_from(at + 1) + self.retire_after;
        let (published, retired): (Vec<usize>, Vec<usize>) = (0..order.len()).partition(|&at| still(at));
        let keys = |places: Vec<usize>| places.into_iter().map(|at| order[at]).collect();
        Plan { signing: signing.map(|at| order[at]), next, published: keys(published), retired: keys(retired) }
    }

    /// The same for keys that are replaced only when somebody asks for it, and whose tokens may live for any time: none is retired.
    pub fn by_hand(self) -> Self {
        Self { rotate_every: Seconds(u64::MAX), retire_after: Seconds(u64::MAX), ..self }
    }

    /// A schedule in seconds instead of days, for the tests of what is built on Rekindle: a verifier that caches a JWKS may meet
    /// tokens of a key that it lacks.
    pub fn for_tests(rotate_every: Seconds, publish_ahead: Seconds, retire_after: Seconds) -> Self {
        Self { rotate_every, publish_ahead, retire_after }
    }

    /// How long a key signs.
    pub(super) fn rotate_every(&self) -> Seconds {
        self.rotate_every
    }

    /// When the successor of a key that signs from `signs_from` is to be made.
    pub(super) fn successor_due(&self, signs_from: Timestamp) -> Timestamp {
        signs_from + self.rotate_every - self.publish_ahead
    }

    /// For how long after its successor took over a key stays published.
    pub(super) fn retire_after(&self) -> Seconds {
        self.retire_after
    }

    /// From when a key signs that is created now because somebody asked for it.
    ///
    /// In an emergency use `now` itself: caches may refuse the first tokens for [`MAX_KEYS_AGE`], and a key that has leaked
    /// must also be deleted, since until then what it signs is believed.
    pub fn rotated_now(&self, now: Timestamp) -> Timestamp {
        now + self.publish_ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::tests::NOW;
    use proptest::prelude::*;

    fn schedule() -> impl Strategy<Value = KeySchedule> {
        let hour = 3600_u64;
        (2..72 * hour, 1..40 * 24 * hour, 0..9 * 24 * hour).prop_map(move |(ahead, rotate, retire)| {
            let ahead = MAX_KEYS_AGE.0 + ahead;
            let retire = MAX_ACCESS_LIFETIME.0 + ahead + retire;
            KeySchedule::new(Seconds(ahead + rotate), Seconds(ahead), Seconds(retire)).unwrap()
        })
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Act {
        Upkeep,
        Nothing,
        Rotate,
        Emergency,
    }

    /// What a store holds at a moment: the keys by the order of their creation.
    struct View {
        at: Timestamp,
        keys: Vec<(usize, KeyTimes)>,
    }

    impl View {
        fn plan(&self, schedule: &KeySchedule, now: Timestamp) -> Plan {
            schedule.plan(&self.keys.iter().map(|k| k.1).collect::<Vec<_>>(), now)
        }

        fn signing(&self, schedule: &KeySchedule, now: Timestamp) -> (usize, KeyTimes) {
            self.keys[self.plan(schedule, now).signing.expect("a store with keys has one that signs")]
        }
    }

    /// Lets time pass in random steps, and does what the plan says where somebody looks.
    fn history(schedule: &KeySchedule, steps: &[(u64, Act)]) -> Vec<View> {
        let (mut now, mut keys, mut made) = (NOW, Vec::new(), 0);
        let mut views = Vec::new();
        for (step, act) in [(0, Act::Upkeep)].iter().chain(steps) {
            now = now + Seconds(*step);
            let view = View { at: now, keys: keys.clone() };
            let plan = view.plan(schedule, now);
            let add = match act {
                Act::Upkeep => plan.next,
                Act::Nothing => None,
                Act::Rotate => Some(schedule.rotated_now(now)),
                Act::Emergency => Some(now),
            };
            if *act == Act::Upkeep {
                let retired: Vec<usize> = plan.retired.iter().map(|&i| keys[i].0).collect();
                keys.retain(|k| !retired.contains(&k.0));
            }
            if let Some(signs_from) = add {
                keys.push((made, KeyTimes { created_at: now, signs_from }));
                made += 1;
            }
            views.push(View { at: now, keys: keys.clone() });
        }
        views
    }

    /// Whatever was signed at each moment, by servers whose copy is up to `publish_ahead` old, can be verified to its end.
    fn no_token_loses_its_key(schedule: &KeySchedule, views: &[View]) {
        for (i, view) in views.iter().enumerate() {
            let stale = views[..=i].iter().rposition(|v| v.at + schedule.publish_ahead <= view.at).unwrap_or(0);
            for copy in &views[stale..=i] {
                let (signed, _) = copy.signing(schedule, view.at);
                for later in views[i..].iter().take_while(|v| v.at <= view.at + MAX_ACCESS_LIFETIME) {
                    // What may be deleted in between is what the plan no longer publishes.
                    let published = later.plan(schedule, later.at).published;
                    assert!(published.iter().any(|&k| later.keys[k].0 == signed), "{signed} at {}", view.at);
                }
            }
        }
    }

    fn steps(acts: impl Strategy<Value = Act> + Clone) -> impl Strategy<Value = Vec<(u64, Act)>> {
        let step = prop_oneof![8 => 0..2 * DAY, 2 => 0..3600_u64, 1 => 0..60 * DAY];
        prop::collection::vec((step, acts), 1..60)
    }

    proptest! {
        #[test]
        fn no_key_signs_before_every_cache_can_have_it(
            schedule in schedule(),
            steps in steps(prop_oneof![6 => Just(Act::Upkeep), 2 => Just(Act::Nothing), 1 => Just(Act::Rotate)]),
        ) {
            let views = history(&schedule, &steps);
            no_token_loses_its_key(&schedule, &views);
            for (i, view) in views.iter().enumerate() {
                let (made, key) = view.signing(&schedule, view.at);
                prop_assert!(key.signs_from <= view.at);
                prop_assert!(made == 0 || key.created_at + schedule.publish_ahead <= view.at);
                // A server whose copy is old signs with the same key, so long as nothing was done in an emergency.
                let stale = views[..=i].iter().rposition(|v| v.at + schedule.publish_ahead <= view.at).unwrap_or(0);
                prop_assert!(views[stale..=i].iter().all(|copy| copy.signing(&schedule, view.at).0 == made));
                prop_assert!(view.plan(&schedule, view.at).published.contains(
                    &view.keys.iter().position(|k| k.0 == made).unwrap()
                ));
            }
        }

        #[test]
        fn emergencies_cost_no_token_its_key(
            schedule in schedule(),
            steps in steps(prop_oneof![
                6 => Just(Act::Upkeep), 2 => Just(Act::Nothing), 1 => Just(Act::Rotate), 1 => Just(Act::Emergency)
            ]),
        ) {
            no_token_loses_its_key(&schedule, &history(&schedule, &steps));
        }

        #[test]
        fn keys_are_replaced_and_retired_and_stay_few(schedule in schedule(), every in 600..DAY) {
            let cycle = schedule.rotate_every.0 + schedule.retire_after.0;
            let steps = vec![(every, Act::Upkeep); (3 * cycle / every + 2) as usize];
            let views = history(&schedule, &steps);
            let few = schedule.retire_after.0 / schedule.rotate_every.0 + 3;
            prop_assert!(views.iter().all(|v| v.keys.len() as u64 <= few));
            let last = views.last().unwrap();
            prop_assert!(last.keys.iter().all(|k| k.0 > 0), "the first key is gone after three cycles");
            // Each successor takes over on time, or as soon as the next look at the keys allowed.
            let (made, key) = last.signing(&schedule, last.at);
            prop_assert!(last.at < key.signs_from + schedule.rotate_every + Seconds(every));
            prop_assert!(made > 0);
        }

        #[test]
        fn the_order_of_the_records_does_not_matter(
            schedule in schedule(),
            times in prop::collection::hash_set((0..40_u64, 0..40_u64), 0..6),
            now in 0..40_u64,
        ) {
            let at = |day: u64| Timestamp::from_secs((day * DAY) as i64);
            let mut keys: Vec<KeyTimes> =
                times.iter().map(|&(c, s)| KeyTimes { created_at: at(c), signs_from: at(s) }).collect();
            let named = |keys: &[KeyTimes], places: &[usize]| places.iter().map(|&i| keys[i]).collect::<Vec<_>>();
            let plan = schedule.plan(&keys, at(now));
            prop_assert_eq!(plan.signing.is_none(), keys.is_empty());
            prop_assert_eq!(plan.published.len() + plan.retired.len(), keys.len());
            let before = keys.clone();
            keys.reverse();
            let again = schedule.plan(&keys, at(now));
            prop_assert_eq!(again.next, plan.next);
            prop_assert_eq!(again.signing.map(|i| keys[i]), plan.signing.map(|i| before[i]));
            prop_assert_eq!(named(&keys, &again.published), named(&before, &plan.published));
            prop_assert_eq!(named(&keys, &again.retired), named(&before, &plan.retired));
        }
    }

    #[test]
    fn a_schedule_under_which_a_token_could_lose_its_key_is_refused() {
        let new = |rotate, ahead, retire| KeySchedule::new(Seconds(rotate), Seconds(ahead), Seconds(retire));
        assert_eq!(new(30 * DAY, DAY, 8 * DAY), Ok(KeySchedule::default()));
        assert_eq!(
            new(30 * DAY, 3600, 8 * DAY).unwrap_err().to_string(),
            "keys published 3600 s ahead could sign before every cache has them; use more than 3600 s"
        );
        assert_eq!(
            new(DAY, DAY, 8 * DAY).unwrap_err().to_string(),
            "keys cannot be replaced every 86400 s; use more than the 86400 s that they are published ahead"
        );
        assert_eq!(
            new(30 * DAY, 2 * DAY, 8 * DAY).unwrap_err().to_string(),
            "keys retired after 691200 s could be missed by their last tokens; use at least 777600 s"
        );
    }

    #[test]
    fn the_life_of_a_chain_of_keys() {
        let schedule = KeySchedule::default();
        let day = |n: u64| NOW + Seconds(n * DAY);
        assert_eq!(schedule.plan(&[], NOW).next, Some(NOW));
        let first = KeyTimes { created_at: NOW, signs_from: NOW };
        assert_eq!(schedule.plan(&[first], day(29) - Seconds(1)).next, None);
        assert_eq!(schedule.plan(&[first], day(29)).next, Some(day(30)));
        assert_eq!(schedule.plan(&[first], day(90)).next, Some(day(91)), "late: never without notice");
        let second = KeyTimes { created_at: day(29), signs_from: day(30) };
        let plan = |now| schedule.plan(&[first, second], now);
        let early = Plan { signing: Some(0), next: None, published: vec![0, 1], retired: vec![] };
        assert_eq!(plan(day(30) - Seconds(1)), early);
        assert_eq!(plan(day(30)), Plan { signing: Some(1), ..early });
        let over = Plan { signing: Some(1), next: None, published: vec![1], retired: vec![0] };
        assert_eq!(plan(day(38) - Seconds(1)).published, [0, 1], "a late server's last token has just expired");
        assert_eq!(plan(day(38)), over);
        // A server whose clock is behind that of the first key's maker still signs.
        assert_eq!(schedule.plan(&[second], NOW).signing, Some(0));
    }
}
