//! `rekindle keys`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use rekindle::{
    clock::Timestamp,
    engine::Rotation,
    keys::{Algorithm, KeyId},
};

use super::{InScope, Source, operator, table};
use crate::runtime::Backend;

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
        let backend = Backend::open(&self.source.read_to_write()?).await?;
        let engine = &backend.engine;
        match self.action {
            Action::List { at } => {
                let keys = engine.signing_keys(&at.scope()).await?;
                let mut rows = vec![["KEY ID", "ALGORITHM", "PUBLISHED", "SIGNS FROM", "STATE"].map(str::to_owned)];
                rows.extend(keys.iter().map(|(kid, algorithm, published, signs_from)| {
                    let state = state(&keys, (algorithm, *signs_from), engine.now());
                    let texts = [kid.as_str(), algorithm.as_str()].map(str::to_owned);
                    let [kid, algorithm] = texts;
                    [kid, algorithm, published.to_string(), signs_from.to_string(), state.to_owned()]
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
    keys: &[(KeyId, Algorithm, Timestamp, Timestamp)],
    (algorithm, signs_from): (&Algorithm, Timestamp),
    now: Timestamp,
) -> &'static str {
    let successor = keys.iter().any(|key| key.1 == *algorithm && key.3 > signs_from && key.3 <= now);
    match signs_from <= now {
        false => "next",
        true if successor => "retiring",
        true => "signs",
    }
}
