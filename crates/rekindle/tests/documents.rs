//! What documents show must be true: the definitions in `docs/LIFETIMES.md`.

use rekindle::definition::Definition;
use serde_json::Value;

/// The fenced JSON blocks of `docs/LIFETIMES.md`, in order.
fn presets() -> Vec<Value> {
    include_str!("../../../docs/LIFETIMES.md")
        .split("```json\n")
        .skip(1)
        .map(|rest| serde_json::from_str(rest.split("```").next().unwrap()).unwrap())
        .collect()
}

fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn every_preset_is_a_complete_definition() {
    for preset in presets() {
        let complete = Definition::from_json(&preset).unwrap().to_json();
        assert_eq!(names(&preset), names(&complete));
        for section in ["access_token", "refresh"] {
            assert_eq!(names(&preset[section]), names(&complete[section]));
        }
    }
}

#[test]
fn the_presets_keep_the_limits_that_they_are_named_for() {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    // Tag, longest overall, longest idle.
    let limits = [("aal1", 30 * DAY, 30 * DAY), ("aal2", 24 * HOUR, HOUR), ("aal3", 12 * HOUR, 15 * MINUTE)];
    let presets = presets();
    assert_eq!(presets.len(), limits.len());
    for (preset, (tag, overall, idle)) in presets.iter().zip(limits) {
        let preset = Definition::from_json(preset).unwrap();
        assert_eq!(preset.tag.as_str(), tag);
        assert!(preset.refresh.absolute_lifetime.seconds().0 <= overall, "{tag}");
        assert!(preset.refresh.idle_timeout.seconds().0 <= idle, "{tag}");
        assert!(preset.access_token.lifetime.seconds().0 * 4 <= preset.refresh.idle_timeout.seconds().0, "{tag}");
    }
}
