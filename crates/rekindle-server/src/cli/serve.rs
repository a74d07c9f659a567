//! `rekindle serve`.

use std::{io::Write, path::Path, process::ExitCode};

use clap::Args;
use rekindle::{
    engine::Engine,
    rng::SystemRng,
    store::{ApiKey, Permission},
};
use rekindle_embedded::{OpenError, OpenStore, files, make_development_files};

use super::operator;
use crate::{
    config::{Config, Overrides, Problem, Problems},
    http::stop_signal,
    log,
    runtime::Server,
};

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// For development: makes secrets and an API key by itself, and accepts weak settings.
    #[arg(long)]
    dev: bool,
    #[command(flatten)]
    overrides: Overrides,
}

/// What development prints under the API key. It is also in README.md, with the default address.
const TRY: &str = r#"KEY=rkk_…                                            # the printed API key
API=http://127.0.0.1:3567/v1/default/dev             # product "default", environment "dev"
post() { curl -s -w '\n' -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' "$API/$1" -d "$2"; }
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

RT0=$(post sessions '{"user_id":"alice"}' | field refresh_token)                       # log in: generation 0
RT1=$(post sessions/refresh "{\"refresh_token\":\"$RT0\"}" | field refresh_token)      # generation 1
RT2=$(post sessions/refresh "{\"refresh_token\":\"$RT1\"}" | field refresh_token)      # generation 2
post sessions/refresh "{\"refresh_token\":\"$RT0\"}"                                   # a thief replays: token_theft_detected
post sessions/refresh "{\"refresh_token\":\"$RT2\"}"                                   # the session is over: session_revoked
"#;

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let config = match runtime.block_on(self.config()) {
            Ok(config) => config,
            Err(problems) => {
                eprintln!("{problems}");
                if !self.dev {
                    eprintln!(
                        "\nThe server was not started. For development, `rekindle serve --dev` accepts weak settings."
                    );
                }
                return Ok(ExitCode::FAILURE);
            }
        };
        log::install(&config.log);
        for key in &config.ignored {
            tracing::warn!("the SuperTokens configuration's `{key}` has no meaning here");
        }
        runtime.block_on(self.serve(config))
    }

    /// The configuration, if it is good enough; else everything that is wrong with it.
    async fn config(&self) -> Result<Config, Problems> {
        let mut config = Config::load(&self.overrides);
        if self.dev {
            if let Ok(config) = &mut config {
                config.development = true;
            }
            return config;
        }
        let mut problems = Config::check_for_production(&self.overrides);
        if let Ok(config) = &config {
            problems.extend(api_key_problem(config).await);
        }
        if problems.is_empty() { config } else { Err(Problems(problems)) }
    }

    async fn serve(self, config: Config) -> anyhow::Result<ExitCode> {
        if self.dev {
            make_development_files(&config.data_dir, config.secrets.is_none(), &SystemRng::default())?;
        }
        let server = Server::open(config).await?;
        let stop = stop_signal()?;
        let config = server.app().config();
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let base = format!("{scheme}://{}", server.address());
        let mut said = format!("Listening on {base}\n");
        if self.dev {
            let key = development_key(server.app().engine(), &config.data_dir).await?;
            said += &format!("API key: {key}\n\n# Start a session, refresh it, steal it: copy and paste.\n");
            said += &TRY.replace("rkk_…", &key).replace("http://127.0.0.1:3567", &base);
            said += &format!("\n# Data is in {}. Stop with Ctrl-C.\n", config.data_dir.display());
        }
        let mut out = std::io::stdout();
        out.write_all(said.as_bytes())?;
        out.flush()?;
        server.run(stop).await;
        Ok(ExitCode::SUCCESS)
    }
}

/// A production server that nobody can call was not set up to its end. Makes no store where there is none.
async fn api_key_problem(config: &Config) -> Option<Problem> {
    let in_force = match config.sqlite_path().is_none_or(|path| path.exists()) {
        false => false,
        true => match OpenStore::open(&config.location()).await {
            Ok(store) => match store.store().api_keys().await {
                Ok(keys) => keys.iter().any(|key| key.revoked_at.is_none()),
                Err(error) => return Some(Problem::new("store", error.to_string())),
            },
            Err(error) => return Some(Problem::new("store", error.to_string())),
        },
    };
    let reason = "the store has no API key that is in force: make one with `rekindle api-key create`";
    (!in_force).then(|| Problem::new("", reason))
}

/// The key in `dev-api-key`; a new one when there is none, or when it is not in force any more.
async fn development_key(engine: &Engine, data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join("dev-api-key");
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let hash = ApiKey::hash_of(text.trim());
            if engine.api_keys().await?.iter().any(|key| key.accepts(&hash)) {
                return Ok(text.trim().to_owned());
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(OpenError::file("the development API key", path)(e).into()),
    }
    let new = engine.create_api_key("development".into(), Permission::ALL.to_vec(), &operator()).await?;
    let key = new.secret.expose().to_owned();
    files::replace_private_file(&path, &format!("{key}\n"))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::TRY;

    #[test]
    fn the_readme_shows_the_lines_that_are_printed() {
        assert!(include_str!("../../../../README.md").contains(TRY));
    }
}
