//! The suite that every store runs, whole: `conformance!` makes a test of each check.
//!
//! A check takes a new store. It tells what the contract asks (see [`rekindle::store`]) by its name, and knows nothing of the
//! store's inside.

mod concurrency;
mod configuration;
mod ends;
mod feed;
mod lists;
mod moves;
mod outbox;
mod scopes;
mod starts;
mod sweeps;
mod users;
mod values;

pub use concurrency::*;
pub use configuration::*;
pub use ends::*;
pub use feed::*;
pub use lists::*;
pub use moves::*;
pub use outbox::*;
pub use scopes::*;
pub use starts::*;
pub use sweeps::*;
pub use users::*;
pub use values::*;

/// Makes a `#[tokio::test]` of every check. `$make` is an expression of a function or closure that returns a future of
/// `(Arc<dyn Store>, guard)`: a new store, and whatever must outlive it.
#[macro_export]
macro_rules! conformance {
    ($make:expr) => {
        $crate::each_check! { conformance, $make;
            of_16_advances_one_wins
            of_16_starts_with_one_key_one_creates
            of_many_starts_at_once_each_has_its_own_answer
            of_many_ends_at_once_each_has_its_own_answer
            the_maximum_of_sessions_holds_under_contention
            no_session_outlives_a_racing_ban
            after_an_end_nothing_applies
            a_reader_of_the_feed_misses_nothing
            a_dropped_future_leaves_nothing_half_done
            nothing_is_shared_between_scopes_that_are_named_alike
            what_is_deleted_leaves_scopes_that_are_named_alike
            a_new_store_can_serve
            products_live_and_die
            environments_live_and_die
            definitions_keep_their_versions
            what_is_in_use_cannot_be_deleted
            the_longest_access_lifetime_is_remembered
            the_configuration_s_version_grows_with_each_change
            a_signing_key_is_added_after_the_newest
            secret_checks_are_registered_once
            secret_usage_counts_unended_sessions
            api_keys_are_created_and_revoked
            an_end_leaves_all_its_traces
            the_first_end_stays
            an_end_needs_every_condition
            ending_many_obeys_every_filter
            ending_many_goes_in_batches
            ending_many_tells_what_is_idle
            the_feed_is_ordered
            the_feed_forgets_expired_entries
            the_feed_never_repeats_a_number
            the_feed_is_told_by_scope
            sessions_are_listed_newest_first_in_pages
            sessions_are_listed_by_every_filter
            events_are_listed_by_every_filter
            events_of_unknown_sessions_are_dropped
            a_repeated_event_is_kept_once
            the_audit_log_goes_back_in_time
            an_advance_moves_the_row
            an_advance_never_passes_the_absolute_expiry
            an_advance_needs_every_condition
            an_advance_needs_a_living_session
            an_elevation_in_place_keeps_the_confirmation
            an_elevation_refuses_older_generations
            a_fast_forward_brings_the_row_forward
            a_fast_forward_needs_every_condition
            a_fast_forward_undoes_a_noted_idle_expiry
            a_fast_forward_never_undoes_a_revocation
            a_confirmation_needs_every_condition
            a_confirmation_leaves_ended_sessions
            an_update_writes_data_and_claims
            an_update_needs_every_condition
            moves_and_updates_are_independent
            notifications_of_a_session_are_taken_in_order
            a_lease_hides_a_notification
            notifications_are_taken_in_batches
            only_events_that_wish_it_are_notified
            a_started_session_is_read_back_whole
            a_start_with_the_same_session_id_is_a_repetition
            a_repeated_idempotency_key_gives_the_first_session
            an_idempotency_key_of_another_request_is_a_mismatch
            an_idempotency_key_expires
            idempotency_keys_belong_to_their_scope
            a_refused_start_leaves_nothing
            a_repeated_start_of_a_swept_session_says_so
            a_banned_user_cannot_start
            a_start_replaces_the_previous_session
            an_unusable_previous_session_refuses_the_start
            the_maximum_of_sessions_rejects
            the_maximum_of_sessions_ends_the_oldest
            anonymous_users_have_no_maximum
            a_sweep_notes_natural_ends_once
            a_sweep_tells_webhooks_of_their_products
            a_sweep_removes_after_the_retention
            a_sweep_keeps_to_its_budget
            a_sweep_removes_bans_that_are_over
            users_are_listed_in_byte_order
            a_user_is_summed_up
            a_ban_ends_and_keeps_out
            an_erasure_leaves_nothing
            an_erased_user_is_a_stranger
            an_erasure_leaves_the_keys_of_others
            user_ids_are_opaque
            data_is_kept_to_the_byte
            extreme_rows_are_kept
            ids_sort_by_their_bytes
            bans_are_kept_whole
        }
    };
}

/// Makes every test that a store runs, both suites and both comparisons with the store in memory: `$cases` sequences of intents,
/// and `$copies` copies. `$make` is as [`transfer_suite!`](crate::transfer_suite) takes it.
#[macro_export]
macro_rules! store_suite {
    ($make:expr, cases: $cases:expr, copies: $copies:expr) => {
        $crate::conformance!($make);
        $crate::transfer_suite!($make);

        #[test]
        fn it_answers_as_the_store_in_memory_does() {
            $crate::differential::check($cases, $make);
        }

        #[test]
        fn it_is_copied_as_the_store_in_memory_is() {
            $crate::transfer::check($copies, $make);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! each_check {
    ($suite:ident, $make:expr; $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $check() {
                let (store, _guard) = ($make)().await;
                $crate::$suite::$check(store).await;
            }
        )*
    };
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rekindle::memory::MemoryStore;
    use rekindle::store::Store;

    async fn memory() -> (Arc<dyn Store>, ()) {
        (Arc::new(MemoryStore::new()), ())
    }

    crate::conformance!(memory);

    #[test]
    fn every_check_is_in_the_suite() {
        let files = [
            include_str!("conformance/concurrency.rs"),
            include_str!("conformance/configuration.rs"),
            include_str!("conformance/ends.rs"),
            include_str!("conformance/feed.rs"),
            include_str!("conformance/lists.rs"),
            include_str!("conformance/moves.rs"),
            include_str!("conformance/outbox.rs"),
            include_str!("conformance/scopes.rs"),
            include_str!("conformance/starts.rs"),
            include_str!("conformance/sweeps.rs"),
            include_str!("conformance/users.rs"),
            include_str!("conformance/values.rs"),
        ];
        let suite = include_str!("conformance.rs");
        for line in files.iter().flat_map(|f| f.lines()) {
            if let Some(rest) = line.strip_prefix("pub async fn ") {
                let name = rest.split('(').next().expect("a function has parentheses");
                assert!(suite.lines().any(|l| l.trim() == name), "`{name}` is not listed in `conformance!`");
            }
        }
    }
}
