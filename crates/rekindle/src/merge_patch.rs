//! JSON merge patch (RFC 7396).

use serde_json::{Map, Value};

/// Applies `patch` to `target` (RFC 7396, section 2): objects are merged member by member, `null` removes a member, and
/// everything else, arrays included, is replaced whole.
///
/// ```
/// use serde_json::json;
/// let mut data = json!({ "theme": "dark", "cart": { "items": 2 } });
/// rekindle::merge_patch(&mut data, &json!({ "theme": null, "cart": { "items": 3 } }));
/// assert_eq!(data, json!({ "cart": { "items": 3 } }));
/// ```
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let members = target.as_object_mut().expect("made an object above");
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge_patch(members.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::tests::any_json;
    use proptest::prelude::*;
    use serde_json::json;

    fn merged(mut target: Value, patch: &Value) -> Value {
        merge_patch(&mut target, patch);
        target
    }

    #[test]
    fn the_cases_of_rfc_7396_appendix_a() {
        for (target, patch, expected) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            assert_eq!(merged(target.clone(), &patch), expected, "{target} patched with {patch}");
        }
    }

    proptest! {
        #[test]
        fn patching_twice_is_patching_once(target in any_json(), patch in any_json()) {
            let once = merged(target, &patch);
            prop_assert_eq!(merged(once.clone(), &patch), once);
        }

        #[test]
        fn an_empty_patch_changes_no_object(members in prop::collection::hash_map(".{0,4}", any_json(), 0..4)) {
            let target = Value::Object(members.into_iter().collect());
            prop_assert_eq!(merged(target.clone(), &json!({})), target);
        }
    }
}
