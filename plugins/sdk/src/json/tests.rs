//! Against `serde_json`.

use super::*;
use proptest::prelude::*;

#[test]
fn what_is_written_is_read_back() {
    let name = "a variable";
    let value = json!({
        "number": 18_446_744_073_709_551_615u64,
        "negative": -9_223_372_036_854_775_808i64,
        "real": 2.75,
        "text": "a \"b\" \\ \n\u{1} ü 𝄞",
        "list": [1, [], {}, null, [true, false],],
        name: Some("x"),
        ("in parentheses"): None::<u32>,
    });
    assert_eq!(Json::parse(&value.to_string()), Ok(value.clone()));
    assert_eq!(value["list"][1], json!([]));
    assert_eq!(value["list"][9]["x"], Json::Null);
    assert_eq!(value["a variable"], "x");
    assert_eq!(json!([1].map(|n| n + 1)), json!([2]));
}

#[test]
fn reals_are_written_with_the_digits_that_count() {
    let written = |number: f64| Json::Real(number).to_string();
    assert_eq!(written(0.0), "0.0");
    assert_eq!(written(0.1 + 0.2), "0.3");
    assert_eq!(written(-1.5), "-1.5");
    assert_eq!(written(1234.123456789), "1234.123456789");
    assert_eq!(written(0.999_999_999_9), "1.0");
    assert_eq!(written(20_999_999.976_9), "20999999.9769");
    assert_eq!(written(1e12), "1000000000000.0");
    assert_eq!(written(f64::NAN), "null");
    assert_eq!(written(f64::INFINITY), "null");
    assert_eq!(
        Json::parse(&written(f64::MAX))
            .unwrap()
            .as_f64()
            .map(|n| n / f64::MAX > 0.999_999),
        Some(true)
    );
}

#[test]
fn what_is_no_json_is_refused() {
    let deep = "[".repeat(100_000);
    let texts = [
        "",
        " ",
        "{",
        "}",
        "[1,]",
        "{\"a\":1,}",
        "{\"a\"}",
        "{a:1}",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "tru",
        "nul",
        "\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\n\"",
        "1 2",
        "[1 2]",
        "'a'",
        &deep,
    ];
    for text in texts {
        let error = Json::parse(text);
        assert!(error.is_err(), "{text:.20}: {error:?}");
    }
}

/// Any JSON text with numbers that both read alike.
fn values() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        (-1_000_000..1_000_000i32).prop_map(|n| (f64::from(n) / 512.0).into()),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn it_reads_and_writes_as_serde_json_does(value in values()) {
        let theirs = value.to_string();
        let ours = Json::parse(&theirs).unwrap();
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&ours.to_string()).unwrap(), value.clone());
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(Json::parse(&pretty).unwrap(), ours);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[\\[\\]{}:,\"\\\\u0-9eE.+-dtrflsn ]{0,40}") {
        let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        let ours = Json::parse(&text).is_ok();
        // A number too large for a double is none to serde_json.
        prop_assert!(ours || !theirs, "{}", text);
    }
}
