//! Patterns against the crate `regex-lite`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use proptest::prelude::*;
use regex_lite::Regex;

use crate::pattern::Pattern;

fn check(pattern: &str, texts: &[&str]) {
    let ours = Pattern::new(pattern);
    let theirs = Regex::new(pattern);
    assert_eq!(ours.is_some(), theirs.is_ok(), "{pattern:?}: {theirs:?}");
    if let (Some(ours), Ok(theirs)) = (ours, theirs) {
        for text in texts {
            assert_eq!(
                ours.is_match(text),
                theirs.is_match(text),
                "{pattern:?} {text:?}"
            );
        }
    }
}

const TEXTS: &[&str] = &[
    "",
    "51",
    "0014751e76e8199196d454941c45d1b3a323f1433bd6",
    "76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac",
    "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
    "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
    "a-b_c.d [e] {f} ^g$ #h &&i ~~j",
    "aaaaaaaaaaaaaaaa",
    "-]^\\",
];

#[test]
fn what_the_grammar_has_means_what_it_means_there() {
    for pattern in [
        "",
        "^",
        "$",
        "^$",
        "^51$",
        "^0014",
        "8f18{2}ac$",
        "(01|03)+",
        "^(00|51)(14|20)",
        "a|",
        "|a",
        "(|a)b",
        "()",
        "()*",
        "(a*)*b",
        "(a*)+",
        "(a|b)*c",
        "a{0}",
        "a{2}",
        "a{2,}",
        "a{16}",
        "a{17}",
        "^a{3,16}$",
        "^a{1,15}$",
        "a{0,1}b",
        "(a?){3}",
        "(a{2}){3}x?",
        "a{3,2}",
        "a{",
        "a{}",
        "a{,3}",
        "a{x}",
        "a{1",
        "a{1,",
        "a{1,2",
        "a{ 1 , 2 }",
        "{2}",
        "*",
        "a**",
        "a+?",
        "a??",
        "a*?b",
        "a{1,2}?",
        "+",
        "(",
        ")",
        "a)",
        "(a",
        "((a)",
        "(?:a|b)c",
        "(?P<x>a)",
        "(?<x>a)",
        "(?<x",
        "(?<>a)",
        "(?<1>a)",
        "(?<a.b[0]>a)",
        "(?P=x)",
        "(?=a)",
        "(?!a)",
        "(?<=a)",
        "(?<!a)",
        "(?",
        "(?)",
        "(?:)",
        "(?:",
        "(?i)A1ZP",
        "(?i:a1ZP)1",
        "(?i:a1)ZP",
        "((?i)a1)zp",
        "(?i)[A-F]{6}",
        "(?-i)a",
        "(?i-i)a",
        "(?i-s)a",
        "(?--i)a",
        "(?i-)a",
        "(?ii)a",
        "(?q)a",
        "(?imsRUux-)a",
        "(?imsRUu)a",
        "(?mR)^5",
        "(?x) a b # c\n c",
        "(?x: a ) b",
        "(?x)[ a - c ]+d",
        "(?x) a {2}",
        "[abc]",
        "[^abc]",
        "[a-f0-9]+$",
        "^[0-9a-f]+$",
        "[]a]",
        "[^]a]",
        "[]",
        "[^]",
        "[",
        "[a",
        "[a-",
        "[-a]",
        "[a-]",
        "[--a]",
        "[---]",
        "[a--]",
        "[z-a]",
        "[a-a]",
        r"[\d-z]",
        r"[a-\d]",
        r"[\w.]",
        r"[\b]",
        r"[\x41-\x5A]",
        "[[:digit:]]{5}",
        "[[:^digit:]]{9}",
        "[[:nope:]]",
        "[[:digit:]",
        "[[a]]",
        "[a&&b]",
        "[a~~b]",
        "[&]",
        "[~]",
        "[a&b]",
        "[^-a]",
        r"[\]]",
        r"[\^\-\\]",
        "[.*+?(){}|$]",
        r"\d",
        r"^\d+$",
        r"\D\D",
        r"\w+\W",
        r"\s",
        r"\S{40}",
        r"\.",
        r"\-",
        r"\/",
        r"\#",
        r"\&",
        r"\~",
        r"\[",
        r"\{f\}",
        r"\^g\$",
        r"\é",
        "é",
        "[é]",
        "[^é]",
        "[a-é]",
        r"\1",
        r"\0",
        r"\pL",
        r"\p{L}",
        r"\q",
        r"\",
        r"\x41",
        r"\x4",
        r"\xzz",
        r"\x{41}",
        r"\x{}",
        r"\x{110000}",
        r"\x{zz}",
        r"\u0041",
        r"\U00000041",
        r"\u004",
        r"\n",
        r"\t",
        r"\a\f\r\v",
        r"\A51",
        r"51\z",
        r"\Z",
        r"\b51\b",
        r"\Ba",
        r"a\B",
        r"\<b",
        r"b\>",
        r"\b{start}b",
        r"b\b{end}",
        r"\b{start-half}c",
        r"c\b{end-half}",
        r"\b{nope}",
        r"\b{2}",
        r"\b{1,2}b",
        r"a\b*-",
        "^*5",
        "$*",
        "(^|a)b",
        "(a|^)5",
        "5(1|$)$",
        "a^",
        "$a",
        "(?:a{2}|b){2,3}",
        "((((((((((a))))))))))",
        "[[:word:]-]+ ",
        "}",
        "]",
        "a}",
        "a]",
        "-",
        "~~",
        "#",
    ] {
        check(pattern, TEXTS);
    }
    for (depth, fits) in [(40, true), (50, true), (51, false), (200, false)] {
        let pattern = format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(Pattern::new(&pattern).is_some(), fits, "{depth}");
    }
}

#[test]
fn a_pattern_has_a_bound_however_it_is_written() {
    for pattern in [
        "(a{99}){99}",
        "a{4097}",
        "a{4294967295}",
        "a{4294967295,}",
        "(a{64}){65}",
        "((a{64}){64}){64}",
        "a{0,4000}{0,4000}",
        "a{99999999999}",
    ] {
        assert!(Pattern::new(pattern).is_none(), "{pattern}");
    }
    for pattern in [
        "a{4096}",
        "(a{64}){64}",
        "(a{60}){60,}",
        "(){4294967295}",
        "a{0,2000}",
    ] {
        assert!(Pattern::new(pattern).is_some(), "{pattern}");
    }
}

#[test]
fn what_takes_others_for_ever_takes_a_moment() {
    let text = "a".repeat(20_000);
    for pattern in [
        "(a*)*b",
        "(a+)+$b",
        "(a|a)*b",
        "(.*)*.*(.*)*b",
        "^(a?){200}b",
    ] {
        assert!(!Pattern::new(pattern).unwrap().is_match(&text), "{pattern}");
    }
}

/// Pieces of patterns; most patterns of them are whole.
fn pieces() -> impl Strategy<Value = String> {
    let atom = prop_oneof![
        4 => "[0-9a-c]",
        1 => prop_oneof![
            Just("."), Just("\\d"), Just("\\W"), Just("[a-c]"), Just("[^0-5]"), Just("[[:alpha:]1]"), Just("^"), Just("$"), Just("\\b"), Just("\\B"),
            Just("\\<"), Just("\\b{end}"), Just("\\x61"), Just("\\."), Just("(?i)"), Just("(?i:B)"), Just("[]0]"), Just("A"),
        ].prop_map(str::to_owned),
    ];
    atom.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            proptest::collection::vec(inner.clone(), 1..4)
                .prop_map(|parts| format!("({})", parts.join("|"))),
            (
                inner.clone(),
                "[*+?]|[{][0-3][}]|[{][0-2],[}]|[{][0-2],[2-3][}]"
            )
                .prop_map(|(inner, times)| format!("(?:{inner}){times}")),
            (inner, "[*+?]").prop_map(|(inner, times)| format!("{inner}{times}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn patterns_match_what_they_match_there(
        pattern in pieces(),
        texts in proptest::collection::vec("[0-9a-cA-C]{0,12}|[a-c01]{0,4}[-. _][a-c01]{0,4}", 1..8),
    ) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        check(&pattern, &texts);
    }

    #[test]
    fn no_text_stops_the_parser(pattern in "[\\[\\](){}|?*+^$.\\\\abdwWxu0-3:,&~iPé<>= #-]{0,16}") {
        let ours = Pattern::new(&pattern);
        let theirs = Regex::new(&pattern);
        prop_assert_eq!(ours.is_some(), theirs.is_ok(), "{}: {:?}", pattern, theirs);
        if let (Some(ours), Ok(theirs)) = (ours, theirs) {
            for text in TEXTS {
                prop_assert_eq!(ours.is_match(text), theirs.is_match(text), "{} {}", pattern, text);
            }
        }
    }
}
