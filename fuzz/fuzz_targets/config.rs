//! A configuration that is accepted is written as TOML; whatever is refused says why.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle_server::config::{Config, Overrides};

fuzz_target!(|text: &str| match Config::from_toml(text, &Overrides::default()) {
    Ok(config) => assert!(!config.to_toml().is_empty()),
    Err(problems) => assert!(!problems.to_string().is_empty()),
});
