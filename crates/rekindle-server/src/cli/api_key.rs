//! `rekindle api-key`.

use std::process::ExitCode;

use anyhow::ensure;
use clap::{Args, Subcommand};
use rekindle::store::Permission;

use super::{Source, operator, table};
use crate::runtime;

#[derive(Debug, Args)]
pub(super) struct ApiKeys {
    #[command(flatten)]
    source: Source,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key and print it, this once. A running server accepts it within a second.
    Create {
        /// What it is for, 1 to 128 bytes.
        #[arg(long)]
        name: String,
        /// What it may do; give it several times for several scopes.
        #[arg(long = "scope", required = true, value_name = "SCOPE", value_parser = permission)]
        scopes: Vec<Permission>,
    },
    /// List all keys, revoked ones too. The keys themselves are kept nowhere.
    List,
    /// Revoke a key. Running servers refuse it within a second.
    Revoke {
        /// Its id, `key_…`.
        id: String,
    },
}

impl ApiKeys {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        // The first key is made before the first start, in a store that is made with it.
        let config = match self.action {
            Action::Create { .. } => self.source.read_to_write(),
            Action::List | Action::Revoke { .. } => self.source.read_of_store(),
        };
        let engine = runtime::open(&config?).await?;
        let engine = &engine.engine;
        match self.action {
            Action::Create { name, mut scopes } => {
                ensure!((1..=128).contains(&name.len()), "--name has {} bytes; it takes 1 to 128", name.len());
                let mut seen = Vec::new();
                scopes.retain(|scope| {
                    !seen.contains(scope) && {
                        seen.push(*scope);
                        true
                    }
                });
                let new = engine.create_api_key(name, scopes, &operator()).await?;
                println!("{}", new.secret.expose());
                eprintln!("This is the key `{}` ({}). It is shown only now.", new.key.id, names(&new.key.permissions));
            }
            Action::List => {
                let mut rows = vec![["ID", "NAME", "SCOPES", "CREATED", "REVOKED"].map(str::to_owned)];
                rows.extend(engine.api_keys().await?.into_iter().map(|key| {
                    let revoked = key.revoked_at.map_or_else(|| "-".into(), |at| at.to_string());
                    [key.id, key.name, names(&key.permissions), key.created_at.to_string(), revoked]
                }));
                print!("{}", table(&rows));
            }
            Action::Revoke { id } => {
                engine.revoke_api_key(&id, &operator()).await?;
                eprintln!("`{id}` is revoked.");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn permission(text: &str) -> Result<Permission, String> {
    let all = || Permission::ALL.map(Permission::as_str).join(", ");
    Permission::ALL.into_iter().find(|p| p.as_str() == text).ok_or_else(|| format!("the scopes are {}", all()))
}

fn names(permissions: &[Permission]) -> String {
    permissions.iter().map(|p| p.as_str()).collect::<Vec<_>>().join(",")
}
