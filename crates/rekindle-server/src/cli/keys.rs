//! `rekindle keys`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use rekindle::{
    clock::Timestamp,
    engine::Rotation,
    keys::{Chain, KeyId},
};

use super::{InScope, Source, operator, table};
use crate::runtime;

#[derive(Debug, Args)]
pub(super) struct Keys {
    #[command(flatten)]
    source: Source,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List an environment's signing keys.
    List {
        #[command(flatten)]
        at: InScope,
    },
    /// Make new signing keys for an environment. They sign once every cache has them.
    Rotate {
        #[command(flatten)]
        at: InScope,
        /// For a private key that has leaked: the new keys sign at once, and what the old ones signed is refused.
        #[arg(long)]
        emergency: bool,
    },
}

impl Keys {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let opened = runtime::open(&self.source.read_of_store()?).await?;
        let engine = &opened.engine;
        match self.action {
            Action::List { at } => {
                let keys = engine.signing_keys(&at.scope()).await?;
                let mut rows = vec![["KEY ID", "CHAIN", "PUBLISHED", "SIGNS FROM", "STATE"].map(str::to_owned)];
                rows.extend(keys.iter().map(|(kid, chain, published, signs_from)| {
                    let state = state(&keys, (chain, *signs_from), engine.now());
                    let [kid, chain] = [kid.as_str(), chain.as_str()].map(str::to_owned);
                    [kid, chain, published.to_string(), signs_from.to_string(), state.to_owned()]
                }));
                print!("{}", table(&rows));
            }
            Action::Rotate { at, emergency } => {
                let how = if emergency { Rotation::Emergency } else { Rotation::Planned };
                let signs_from = engine.rotate_keys(&at.scope(), how, &operator()).await?;
                eprintln!("The new keys sign from {signs_from}.");
                if emergency {
                    eprintln!(
                        "Running servers refuse the old keys within seconds, other verifiers when they read the JWKS again."
                    );
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn state(
    keys: &[(KeyId, Chain, Timestamp, Timestamp)],
    (chain, signs_from): (&Chain, Timestamp),
    now: Timestamp,
) -> &'static str {
    let successor = keys.iter().any(|key| key.1 == *chain && key.3 > signs_from && key.3 <= now);
    match signs_from <= now {
        false => "next",
        true if successor => "retiring",
        true => "signs",
    }
}
