//! Text that arrives in pieces comes out as the whole would, without a byte of a stop string.

use minke_text::{StopStrings, Utf8Stream};
use proptest::prelude::*;

fn utf8(pieces: &[&[u8]]) -> String {
    let mut stream = Utf8Stream::default();
    let text: String = pieces.iter().map(|piece| stream.push(piece)).collect();
    text + &stream.finish()
}

/// The rule, slowly: the first end at which a stop string ends, and there the longest.
fn stopped(text: &str, stops: &[String]) -> (String, Option<String>) {
    let ends = text.char_indices().map(|(i, c)| i + c.len_utf8());
    for end in ends {
        let here = stops.iter().filter(|stop| !stop.is_empty() && text[..end].ends_with(stop.as_str()));
        if let Some(stop) = here.max_by_key(|stop| stop.len()) {
            return (text[..end - stop.len()].to_owned(), Some(stop.clone()));
        }
    }
    (text.to_owned(), None)
}

#[test]
fn every_cut_of_every_kind_of_sequence() {
    // Complete, overlong, surrogate, beyond U+10FFFF, lone continuation, cut off in the middle and at the end.
    let cases: [&[u8]; 9] = [
        "aé｜😀".as_bytes(),
        b"\xc0\xaf\xe0\x80\xaf",
        b"\xed\xa0\x80x",
        b"\xf4\x90\x80\x80",
        b"\x80\xbfa",
        b"\xe2\x82a",
        b"\xf0\x9f\x98",
        b"\xe2\x82",
        b"\xff\xfe",
    ];
    for bytes in cases {
        for bits in 0..1u32 << (bytes.len() - 1) {
            let mut pieces = Vec::new();
            let mut from = 0;
            for at in 1..bytes.len() {
                if bits >> (at - 1) & 1 == 1 {
                    pieces.push(&bytes[from..at]);
                    from = at;
                }
            }
            pieces.push(&bytes[from..]);
            assert_eq!(utf8(&pieces), String::from_utf8_lossy(bytes));
        }
    }
}

#[test]
fn only_the_undecided_is_held_back() {
    let mut stops = StopStrings::new(["\nUser:", "", "END"]);
    assert_eq!(stops.push("a\nUs"), "a");
    assert_eq!(stops.push("age EN"), "\nUsage ");
    assert_eq!(stops.push("Ding"), "");
    assert_eq!(stops.push("more"), "");
    assert_eq!(stops.hit(), Some("END"));
    assert_eq!(stops.flush(), "");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn bytes(bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\xf0\x9f\x98\x80\xe2\x82\xaca".to_vec())], 0..40), size in 1usize..6) {
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        prop_assert_eq!(utf8(&pieces), String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn stop_strings(text in "[abé]{0,24}", stops in prop::collection::vec("[abé]{0,5}", 0..4), size in 1usize..5) {
        let (before, hit) = stopped(&text, &stops);
        let mut filter = StopStrings::new(stops);
        let letters: Vec<char> = text.chars().collect();
        let mut passed = String::new();
        for piece in letters.chunks(size) {
            passed.push_str(&filter.push(&piece.iter().collect::<String>()));
            prop_assert!(before.starts_with(&passed));
        }
        prop_assert_eq!(filter.hit(), hit.as_deref());
        passed.push_str(&filter.flush());
        prop_assert_eq!(passed, before);
    }
}
