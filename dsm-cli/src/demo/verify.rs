//! The check: the same text counted by a single process, with nothing shared, compared word by
//! word.

use std::collections::HashMap;

use super::summary::Difference;
use super::text::{Word, words};

/// How many differences are worth printing.
const SHOWN: usize = 10;

/// Counts the text by itself, `passes` times over.
pub(crate) fn count_alone(text: &str, passes: u64) -> HashMap<Word, u64> {
    let mut whole: HashMap<String, u64> = HashMap::new();
    for word in words(text) {
        *whole.entry(word).or_default() += passes;
    }
    let mut counts = HashMap::with_capacity(whole.len());
    for (word, count) in whole {
        *counts.entry(Word::new(&word)).or_default() += count;
    }
    counts
}

/// Compares; returns the first differences in the order of the words, none if all is equal.
pub(crate) fn differences(
    expected: &HashMap<Word, u64>,
    counted: &HashMap<Word, u64>,
) -> Vec<Difference> {
    let mut words: Vec<&Word> = expected
        .keys()
        .chain(counted.keys().filter(|word| !expected.contains_key(word)))
        .filter(|word| expected.get(word) != counted.get(word))
        .collect();
    words.sort();
    words
        .into_iter()
        .take(SHOWN)
        .map(|word| Difference {
            word: word.to_string(),
            counted: counted.get(word).copied().unwrap_or(0),
            expected: expected.get(word).copied().unwrap_or(0),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sort_of_difference_is_found() {
        let expected = count_alone("a b b c", 2);
        assert!(differences(&expected, &expected).is_empty());
        let mut counted = expected.clone();
        counted.insert(Word::new("b"), 5);
        counted.remove(&Word::new("c"));
        counted.insert(Word::new("d"), 1);
        let found: Vec<(String, u64, u64)> = differences(&expected, &counted)
            .into_iter()
            .map(|d| (d.word, d.counted, d.expected))
            .collect();
        let of = |word: &str, counted, expected| (word.to_owned(), counted, expected);
        assert_eq!(found, [of("b", 5, 4), of("c", 0, 2), of("d", 1, 0)]);
    }
}
