//! The worlds that are searched, with what each promises, and the broken ones.

use rekindle::clock::Seconds;
use rekindle::rotation::OnMissingProof;
use stateright::{Checker, HasDiscoveries, Model};

use crate::broken::Broken;
use crate::client::Kind;
use crate::model::{Loot, Promise, Scenario, Script};
use crate::world::{LEEWAY, Server};

use OnMissingProof::*;
use Promise::*;

const EVERY: [OnMissingProof; 3] = [Refuse, Revoke, Downgrade];

const HONEST: &[Promise] = &[NoTheft, CanRefresh, NothingInvalid, ClearsOnlyTheEnded, FastPath, MintAgrees];
const EVICTED: &[Promise] = &[NoTheft, CanRefreshOrSignIn, NothingInvalid, FastPath];
const FORKED: &[Promise] = &[OneBranch, ForkEnds, NothingInvalid, FastPath, MintAgrees];

/// `small` by default, `large` with `REKINDLE_FULL=1`.
fn bound<T>(small: T, large: T) -> T {
    if std::env::var_os("REKINDLE_FULL").is_some_and(|v| v == "1") { large } else { small }
}

fn native() -> Scenario {
    Scenario {
        name: "native client",
        kind: Kind::Native,
        generations: bound(4, 5),
        network: 4,
        promises: HONEST,
        ..Scenario::BASE
    }
}

fn jar() -> Scenario {
    Scenario { name: "cookie jar", generations: bound(3, 4), network: 3, promises: HONEST, ..Scenario::BASE }
}

fn two_sessions() -> Scenario {
    Scenario {
        name: "two sessions in one browser",
        sessions: 2,
        generations: 3,
        network: 3,
        promises: HONEST,
        ..Scenario::BASE
    }
}

fn two_sessions_one_ended() -> Scenario {
    Scenario {
        name: "two sessions, one is ended elsewhere",
        revocations: 1,
        generations: bound(1, 2),
        network: 3,
        ..two_sessions()
    }
}

fn mixed() -> Scenario {
    Scenario { name: "old and new script side by side", script: Script::Mixed, ..jar() }
}

fn upgrade() -> Scenario {
    let server = Server { reuse_leeway: Seconds(0), ..Server::DEFAULT };
    Scenario { name: "upgrade from bearer", committed: false, confirms: true, server, ..jar() }
}

fn eviction() -> Scenario {
    Scenario {
        name: "storage evicted",
        evictions: bound(1, 2),
        generations: 3,
        network: 3,
        promises: EVICTED,
        ..mixed()
    }
}

fn lost_writes() -> Scenario {
    Scenario {
        name: "server loses its last writes, cookie jar",
        restores: bound(1, 2),
        generations: 3,
        network: 3,
        ..jar()
    }
}

fn lost_writes_late() -> Scenario {
    Scenario {
        name: "server loses its last writes, time passes",
        restores: bound(1, 2),
        ticks: 5,
        generations: bound(3, 4),
        network: 2,
        promises: &[NoTheft, CanRefresh, NothingInvalid, ClearsOnlyTheEnded, ClocksHold, FastPath, MintAgrees],
        ..native()
    }
}

fn lost_writes_evicted() -> Scenario {
    Scenario { name: "storage evicted and writes lost", restores: 1, network: 2, ..eviction() }
}

fn full_copy(kind: Kind) -> Scenario {
    let name = match kind {
        Kind::Native => "full copy of a native client",
        Kind::Jar => "full copy of a browser",
    };
    Scenario {
        name,
        kind,
        loot: Some((Loot::Everything, 1)),
        generations: 3,
        network: bound(2, 3),
        promises: FORKED,
        ..jar()
    }
}

/// A client that lost its openings has nothing to show a fork with: it must sign out.
fn full_copy_evicted() -> Scenario {
    Scenario {
        name: "full copy of a browser, storage evicted",
        evictions: 1,
        promises: &[OneBranch, ForkEndsOrIsGivenUp, NothingInvalid, FastPath, MintAgrees],
        ..full_copy(Kind::Jar)
    }
}

fn full_copy_reported() -> Scenario {
    let server = Server { report_only: true, ..Server::DEFAULT };
    Scenario { name: "full copy, theft is only reported", server, ..full_copy(Kind::Jar) }
}

fn token_and_opening() -> Scenario {
    Scenario { name: "token and opening stolen", loot: Some((Loot::TokenAndOpening, 1)), ..full_copy(Kind::Jar) }
}

fn token_alone() -> Scenario {
    Scenario {
        name: "tokens alone stolen, `refuse`",
        loot: Some((Loot::Token, 2)),
        promises: &[TokenAloneIsNothing, NothingInvalid, FastPath],
        ..full_copy(Kind::Jar)
    }
}

fn token_alone_revoke() -> Scenario {
    let server = Server { on_missing_proof: Revoke, ..Server::DEFAULT };
    Scenario { name: "tokens alone stolen, `revoke`", server, ..token_alone() }
}

fn token_alone_downgrade() -> Scenario {
    let server = Server { on_missing_proof: Downgrade, reuse_leeway: Seconds(0), ..Server::DEFAULT };
    Scenario {
        name: "a token alone stolen, `downgrade`",
        loot: Some((Loot::Token, 1)),
        confirms: true,
        server,
        promises: &[ForkEnds, NothingInvalid, FastPath],
        ..full_copy(Kind::Jar)
    }
}

fn upgrade_theft() -> Scenario {
    Scenario {
        name: "token stolen before the upgrade",
        committed: false,
        loot: Some((Loot::Token, 1)),
        confirms: true,
        ..full_copy(Kind::Jar)
    }
}

fn branches() -> Scenario {
    Scenario {
        name: "full copy and writes lost",
        restores: 1,
        promises: &[ForkEndsOrIsOutrun, NothingInvalid],
        ..full_copy(Kind::Native)
    }
}

fn bearer() -> Scenario {
    Scenario {
        name: "bearer client, answers lost",
        kind: Kind::Native,
        script: Script::Old,
        committed: false,
        generations: bound(3, 4),
        network: 1,
        ticks: 5,
        confirms: true,
        promises: &[NoTheft, CanRefresh, BearerChildIsKept, BearerReplayIsTheft, ClocksHold, FastPath],
        ..Scenario::BASE
    }
}

fn bearer_replays(reuse_leeway: Seconds) -> Scenario {
    let name = if reuse_leeway == LEEWAY { "bearer tokens replayed" } else { "bearer tokens replayed, leeway 0" };
    Scenario {
        name,
        network: 2,
        ticks: 3,
        loot: Some((Loot::Token, 1)),
        server: Server { reuse_leeway, ..Server::DEFAULT },
        promises: &[BearerChildIsKept, BearerReplayIsTheft, ClocksHold, FastPath],
        ..bearer()
    }
}

fn ended() -> Scenario {
    Scenario {
        name: "ended from elsewhere, writes lost",
        revocations: 1,
        restores: 1,
        network: 2,
        promises: &[NoTheft, StaysRevoked, FastPath, MintAgrees],
        ..mixed()
    }
}

fn clocks() -> Scenario {
    Scenario {
        name: "clocks, writes lost",
        restores: 1,
        ticks: 6,
        generations: bound(2, 3),
        network: 2,
        promises: &[NoTheft, NothingInvalid, ClocksHold, FastPath, MintAgrees],
        ..jar()
    }
}

/// Under each of these policies, with and without a leeway.
fn holds_under(policies: &[OnMissingProof], scenario: Scenario) {
    for &on_missing_proof in policies {
        for reuse_leeway in [Seconds(0), LEEWAY] {
            let server = Server { on_missing_proof, reuse_leeway, ..scenario.server };
            holds(Scenario { server, ..scenario.clone() });
        }
    }
}

/// Searches everything, and prints what was searched.
fn holds(scenario: Scenario) {
    let (name, bounds) = (scenario.name, scenario.bounds());
    let checker = scenario.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!(
        "holds   | {name} | {bounds} | {} states | depth {} | {}",
        checker.unique_state_count(),
        checker.max_depth(),
        if checker.discoveries().is_empty() { "every promise kept" } else { "BROKEN" }
    );
    if let Some((promise, path)) = checker.discoveries().into_iter().next() {
        for (_, action) in path.clone().into_vec() {
            println!("          {action:?}");
        }
        panic!("{name}: `{promise}` does not hold: {:#?}", path.last_state());
    }
}

/// Searches until the one promise breaks, shortest trace first.
fn breaks(scenario: Scenario, broken: Broken, promise: &'static [Promise; 1]) {
    let server = Server { broken: Some(broken), ..scenario.server };
    fails(Scenario { server, promises: promise, ..scenario }, &format!("{broken:?}"));
}

fn fails(scenario: Scenario, what: &str) {
    let (name, promise) = (scenario.name, scenario.promises[0]);
    let checker = scenario.checker().spawn_bfs().join();
    let Some(path) = checker.discovery(promise.name()) else {
        panic!("{what}: `{}` held in all {} states of `{name}`", promise.name(), checker.unique_state_count());
    };
    let actions = path.into_actions();
    println!("breaks  | {what} | {name} | {} | {} steps", promise.name(), actions.len());
    for action in actions {
        println!("          {action:?}");
    }
}

macro_rules! tests {
    ($($test:ident: $run:expr;)*) => { $(#[test] fn $test() { $run; })* };
}

mod promises {
    use super::*;

    tests! {
        native_clients: holds_under(&EVERY, native());
        cookie_jar_clients: holds_under(&EVERY, jar());
        two_sessions_in_one_browser: holds_under(bound(&[Refuse], &EVERY), two_sessions());
        one_of_two_sessions_ends: holds(two_sessions_one_ended());
        old_and_new_script: holds(mixed());
        the_upgrade_from_bearer: holds_under(&EVERY, upgrade());
        evicted_storage: holds(eviction());
        lost_writes_and_a_cookie_jar: holds_under(&EVERY, lost_writes());
        lost_writes_and_time: holds(lost_writes_late());
        lost_writes_and_evicted_storage: holds(lost_writes_evicted());
        a_full_copy_of_a_native_client: holds_under(&[Refuse, Revoke], full_copy(Kind::Native));
        a_full_copy_of_a_browser: holds_under(&[Refuse, Revoke], full_copy(Kind::Jar));
        a_full_copy_that_is_only_reported: holds(full_copy_reported());
        a_full_copy_and_evicted_storage: holds(full_copy_evicted());
        a_full_copy_under_downgrade: for kind in [Kind::Native, Kind::Jar] {
            holds_under(&[Downgrade], Scenario { confirms: true, promises: &[ForkEnds, FastPath], ..full_copy(kind) });
        };
        a_stolen_token_and_opening: holds_under(&[Refuse, Revoke], token_and_opening());
        stolen_tokens_alone: holds(token_alone());
        stolen_tokens_alone_under_revoke: holds(token_alone_revoke());
        a_stolen_token_alone_under_downgrade: holds(token_alone_downgrade());
        a_token_stolen_before_the_upgrade: holds_under(&[Refuse, Revoke], upgrade_theft());
        a_full_copy_and_lost_writes: holds(branches());
        bearer_clients: holds(bearer());
        bearer_replays_within_leeway: holds(bearer_replays(LEEWAY));
        bearer_replays_without_leeway: holds(bearer_replays(Seconds(0)));
        an_ended_session: holds(ended());
        the_clocks: holds(clocks());
    }
}

mod broken_rules {
    use super::*;

    tests! {
        rule_1_literally: breaks(jar(), Broken::RepeatedCommitmentLiteral, &[NothingInvalid]);
        rule_2_revoked: breaks(ended(), Broken::RevokedIgnored, &[StaysRevoked]);
        rule_2_absolute: breaks(clocks(), Broken::AbsoluteIgnored, &[ClocksHold]);
        rule_3: breaks(lost_writes(), Broken::NoFastForward, &[CanRefresh]);
        rules_3_and_4_swapped: breaks(lost_writes_late(), Broken::IdleBeforeFastForward, &[CanRefresh]);
        rule_4: breaks(clocks(), Broken::IdleIgnored, &[ClocksHold]);
        rule_5: breaks(jar(), Broken::NoRule5, &[CanRefresh]);
        rule_5_after_an_eviction: breaks(eviction(), Broken::NoRule5, &[CanRefreshOrSignIn]);
        rule_6_the_named_generation: breaks(jar(), Broken::NoNamedGeneration, &[NoTheft]);
        rule_7: breaks(mixed(), Broken::NoRule7, &[NoTheft]);
        rule_8_foreign_branch: breaks(branches(), Broken::ForeignBranch, &[ForkEndsOrIsOutrun]);
        rule_8_opening: breaks(token_alone(), Broken::AnyOpening, &[TokenAloneIsNothing]);
        rule_8_opening_after_a_copy: breaks(full_copy(Kind::Native), Broken::AnyOpening, &[OneBranch]);
        rule_8_exact_retry: breaks(native(), Broken::NoExactRetry, &[NoTheft]);
        rule_8_fork: breaks(full_copy(Kind::Native), Broken::NoFork, &[ForkEnds]);
        rule_8_fork_at_the_upgrade: breaks(upgrade_theft(), Broken::NoFork, &[ForkEnds]);
        rule_8_upgrade: breaks(upgrade(), Broken::NoUpgradeRows, &[NoTheft]);
        rule_8_unconfirmed_child: breaks(bearer(), Broken::AlwaysConfirmed, &[BearerChildIsKept]);
        rule_8_confirmed_child: breaks(bearer_replays(Seconds(0)), Broken::NeverConfirmed, &[BearerReplayIsTheft]);
        rule_8_newest: breaks(full_copy(Kind::Native), Broken::NoNewest, &[ForkEnds]);
        rule_8_newest_only_when_said: breaks(jar(), Broken::AlwaysNewest, &[NoTheft]);
        rule_8_old_bearer: breaks(bearer_replays(Seconds(0)), Broken::OldBearerSuperseded, &[BearerReplayIsTheft]);
        the_idle_expiry_passes_the_absolute: breaks(clocks(), Broken::IdleUnclamped, &[ClocksHold]);
        no_revocation_log: breaks(ended(), Broken::NoRevocationLog, &[StaysRevoked]);
        sent_before_durable: breaks(native(), Broken::SentBeforeDurable, &[NoTheft]);
        an_unchecked_opening: breaks(eviction(), Broken::UncheckedOpening, &[NoTheft]);
        told_the_presented_commitment_only: breaks(eviction(), Broken::ToldPresentedOnly, &[NoTheft]);
        told_no_session: breaks(two_sessions(), Broken::ToldNoSession, &[NoTheft]);
        newest_only_if_nothing_newer: breaks(full_copy(Kind::Jar), Broken::NewestOnlyIfNothingNewer, &[ForkEnds]);
        a_terminal_answer_names_nothing: breaks(two_sessions_one_ended(), Broken::EndedNamesNothing, &[ClearsOnlyTheEnded]);
        a_terminal_answer_clears_anything: breaks(two_sessions_one_ended(), Broken::ClearsAnything, &[ClearsOnlyTheEnded]);
    }
}

/// What the protocol does not promise, shown so that nobody believes that it does.
mod limits {
    use super::*;

    tests! {
        eviction_under_downgrade: {
            let server = Server { on_missing_proof: Downgrade, ..Server::DEFAULT };
            fails(Scenario { script: Script::New, server, promises: &[NoTheft], ..eviction() }, "eviction under `downgrade`");
        };
        old_script_under_downgrade: {
            let server = Server { on_missing_proof: Downgrade, ..Server::DEFAULT };
            fails(Scenario { server, promises: &[NoTheft], ..mixed() }, "an old script under `downgrade`");
        };
        eviction_during_the_upgrade: {
            fails(Scenario { evictions: 1, promises: &[NoTheft], ..upgrade() }, "eviction during the upgrade");
        };
        a_copied_client_that_lost_its_openings: {
            fails(Scenario { promises: &[ForkEnds], ..full_copy_evicted() }, "eviction after a full copy");
        };
        a_bearer_client_with_delayed_requests: {
            fails(Scenario { network: 2, promises: &[NoTheft], ..bearer() }, "a bearer client whose request is delayed");
        };
    }
}
