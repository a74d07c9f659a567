//! What a server outside of development refuses.

use std::{net::IpAddr, path::Path};

use rekindle::refresh::SecretRing;

use super::{Config, Problem, SecretSource, StoreUrl};

impl Config {
    /// Every setting that is too weak for production: with an empty list the server may start.
    ///
    /// Looks at the files that the configuration names, and at `file`, the configuration itself, for who can read them.
    pub fn problems_for_production(&self, file: Option<&Path>) -> Vec<Problem> {
        let mut problems = Vec::new();
        match &self.issuer {
            None => problems.push(Problem::new("issuer", "is required: the `https:` URL that verifiers will pin")),
            Some(url) if !url.is_https() => problems.push(Problem::new("issuer", "must be an `https:` URL").with(url)),
            Some(_) => {}
        }
        if !self.listen.ip().is_loopback() && self.tls.is_none() && self.trusted_proxies.is_empty() {
            problems.push(
                Problem::new(
                    "listen",
                    "is reachable from other machines in plain HTTP: set [tls], or name the proxies that end TLS in trusted_proxies",
                )
                .with(self.listen),
            );
        }
        for (at, network) in self.trusted_proxies.iter().enumerate().filter(|(_, network)| network.is_everything()) {
            let reason =
                "is the whole internet: anybody could choose the address that is logged; name the proxies alone";
            problems.push(Problem::new(format!("trusted_proxies[{at}]"), reason).with(network));
        }
        if let Some(listen) = self.metrics.listen.filter(|listen| !is_private(listen.ip())) {
            let reason =
                "serves metrics without a key: use a loopback or private address, or a key with the scope `metrics`";
            problems.push(Problem::new("metrics.listen", reason).with(listen));
        }
        if let Some(file) = file.filter(|file| has_mode(file, 0o022)) {
            let reason = format!("{} can be changed by others: `chmod go-w` it", file.display());
            problems.push(Problem::new("", reason));
        }
        if self.test_rotation.is_some() {
            problems.push(Problem::new("", "--test-mode is for development: signing keys are replaced too often"));
        }
        let keyless = &self.supertokens.keyless_from;
        for (at, network) in keyless.iter().enumerate().filter(|(_, network)| network.is_everything()) {
            let reason = "is the whole internet: name the networks of the backends that send no key";
            problems.push(Problem::new(format!("supertokens.keyless_from[{at}]"), reason).with(network));
        }
        self.check_secrets(file, &mut problems);
        self.check_store(file, &mut problems);
        if self.limits.requests_per_second.value() == 0 {
            problems.push(
                Problem::new("limits.requests_per_second", "must be at least 1: no limit is for development").with(0),
            );
        }
        if let Some(tls) = &self.tls {
            check_private("tls.key", &tls.key, &mut problems);
            if let Err(e) = std::fs::File::open(&tls.certificate) {
                problems.push(
                    Problem::new("tls.certificate", format!("cannot be read: {e}")).with(tls.certificate.display()),
                );
            }
        }
        for (at, webhook) in self.webhooks.iter().enumerate() {
            if !webhook.url.is_https() {
                problems.push(Problem::new(format!("webhooks[{at}].url"), "must be an `https:` URL"));
            }
            let key = match &webhook.secret {
                SecretSource::File(_) => format!("webhooks[{at}].secret_file"),
                SecretSource::Value(_) => format!("webhooks[{at}].secret"),
            };
            if let Some(len) = check_secret(&key, &webhook.secret, file, &mut problems).map(|s| s.expose().len())
                && len < 32
            {
                problems.push(Problem::new(key, format!("has {len} bytes; it needs at least 32 random ones")));
            }
        }
        problems
    }

    fn check_secrets(&self, file: Option<&Path>, problems: &mut Vec<Problem>) {
        let Some(source) = &self.secrets else {
            return problems.push(Problem::new("secrets", "are required: set secrets.file"));
        };
        let key = match source {
            SecretSource::File(_) => "secrets.file",
            SecretSource::Value(_) => "secrets.value",
        };
        if let Some(secret) = check_secret(key, source, file, problems)
            && let Err(e) = SecretRing::parse(secret.expose())
        {
            problems.push(Problem::new(key, e.to_string()));
        }
    }

    /// A URL with a password must not be where others can read it. (Its driver insists on TLS to other machines.)
    fn check_store(&self, file: Option<&Path>, problems: &mut Vec<Problem>) {
        if let StoreUrl::Postgres(url) | StoreUrl::Mysql(url) | StoreUrl::Redis(url) = &self.store
            && self.store.to_string().contains("***")
            && let Some(file) = file.filter(|file| readable_by_others(file))
            && std::fs::read_to_string(file).is_ok_and(|text| text.contains(url.expose()))
        {
            let reason = format!(
                "carries a password, and others can read {}: `chmod 600` it, or use the variable REKINDLE_STORE",
                file.display()
            );
            problems.push(Problem::new("store", reason));
        }
    }
}

/// The secret, if it can be read; others must not be able to.
fn check_secret(
    key: &str,
    source: &SecretSource,
    file: Option<&Path>,
    problems: &mut Vec<Problem>,
) -> Option<super::Secret> {
    match (source, file) {
        (SecretSource::File(path), _) => check_private(key, path, problems),
        (SecretSource::Value(_), Some(file)) if readable_by_others(file) => problems.push(Problem::new(
            key,
            format!("is in {}, which others can read: `chmod 600` it, or name a file instead", file.display()),
        )),
        (SecretSource::Value(_), _) => {}
    }
    source.read().ok()
}

fn check_private(key: &str, path: &Path, problems: &mut Vec<Problem>) {
    if let Err(e) = std::fs::File::open(path) {
        problems.push(Problem::new(key, format!("cannot be read: {e}")).with(path.display()));
    } else if has_mode(path, 0o066) {
        problems.push(Problem::new(key, "can be read or changed by others: `chmod 600` it").with(path.display()));
    }
}

/// Whether the file's group or everybody may read it.
fn readable_by_others(path: &Path) -> bool {
    has_mode(path, 0o044)
}

/// Whether the file has any of these permissions. Without Unix permissions nobody can tell.
fn has_mode(path: &Path, any_of: u32) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & any_of != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = (path, any_of);
        false
    }
}

/// Whether an address is of this machine or of a private network (RFC 1918, RFC 4193, link-local).
fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::super::Overrides;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn found(text: &str, file: Option<&Path>) -> Vec<String> {
        let config = Config::from_toml(text, &Overrides::default()).unwrap();
        config.problems_for_production(file).iter().map(Problem::to_string).collect()
    }

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    const SECRET: &str = "1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n";

    #[test]
    fn the_defaults_lack_an_issuer_and_secrets() {
        assert_eq!(
            found("", None),
            [
                "issuer: is required: the `https:` URL that verifiers will pin",
                "secrets: are required: set secrets.file",
            ]
        );
    }

    #[test]
    fn every_weak_setting_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, secrets) = (dir.path().join("c.toml"), dir.path().join("secrets"));
        write(&file, "", 0o644);
        write(&secrets, SECRET, 0o640);
        let text = format!(
            "listen = '0.0.0.0:80'\nissuer = 'http://s.example'\nsecrets.file = '{}'\nlimits.requests_per_second = 0\n\
             [[webhooks]]\nproduct = 'default'\nurl = 'http://h.example'\nevents = ['session.ended']\nsecret = 'short'",
            secrets.display()
        );
        let found = found(&text, Some(&file));
        let keys: Vec<&str> = found.iter().map(|p| p.split([' ', ':']).next().unwrap()).collect();
        assert_eq!(
            keys,
            [
                "issuer",
                "listen",
                "secrets.file",
                "limits.requests_per_second",
                "webhooks[0].url",
                "webhooks[0].secret",
                "webhooks[0].secret",
            ]
        );
        assert!(!found.concat().contains("short"), "{found:?}");
    }

    #[test]
    fn proxies_that_are_everybody_files_that_others_write_and_open_metrics_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (file, secrets) = (dir.path().join("c.toml"), dir.path().join("secrets"));
        write(&file, "", 0o666);
        write(&secrets, SECRET, 0o622);
        let text = |metrics| {
            format!(
                "listen = '0.0.0.0:80'\ntrusted_proxies = ['10.0.0.1', '0.0.0.0/0', '::/0']\nissuer = 'https://s.example'\n\
                 secrets.file = '{}'\nmetrics.listen = '{metrics}:9100'",
                secrets.display()
            )
        };
        let said = found(&text("0.0.0.0"), Some(&file));
        let starts = [
            "trusted_proxies[1] = 0.0.0.0/0: is the whole internet",
            "trusted_proxies[2] = ::/0: ",
            "metrics.listen = 0.0.0.0:9100: serves metrics without a key",
            &format!("{} can be changed by others", file.display()),
            "secrets.file = ",
        ];
        assert_eq!(said.len(), starts.len(), "{said:?}");
        assert!(said.iter().zip(starts).all(|(said, start)| said.starts_with(start)), "{said:?}");
        for (address, private) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("192.168.0.1", true),
            ("[fd00::1]", true),
            ("[::1]", true),
            ("8.8.8.8", false),
            ("[::]", false),
            ("[2001:db8::1]", false),
            ("[::ffff:8.8.8.8]", false),
        ] {
            let said = found(&text(address), None).concat();
            assert_eq!(!said.contains("metrics.listen"), private, "{address}");
        }
    }

    #[test]
    fn a_careful_configuration_passes() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = dir.path().join("secrets");
        write(&secrets, SECRET, 0o600);
        let text = format!(
            "listen = '0.0.0.0:80'\ntrusted_proxies = ['10.0.0.1']\nissuer = 'https://s.example'\nsecrets.file = '{}'",
            secrets.display()
        );
        assert_eq!(found(&text, None), Vec::<String>::new());
    }

    #[test]
    fn a_missing_or_damaged_secret_is_said_without_quoting_it() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = dir.path().join("secrets");
        let text = format!("issuer = 'https://s.example'\nsecrets.file = '{}'", secrets.display());
        assert!(found(&text, None)[0].contains("cannot be read"), "{:?}", found(&text, None));
        write(&secrets, "hunter2", 0o600);
        assert_eq!(found(&text, None), ["secrets.file: line 1 is not `<key id 0-255>:<base64url without padding>`"]);
    }
}
