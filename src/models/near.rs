//! "Did you mean": the names nearest to one that does not exist.

/// Up to three of `names` whose edit distance to `word`, ignoring case, is at most a third of the longer one; nearest
/// first. A name that contains the word counts as near too.
pub fn near<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let word = word.to_lowercase();
    let mut found: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let distance = edit_distance(&word, &lower);
            let close = 3 * distance <= word.len().max(lower.len());
            (close || (word.len() >= 3 && lower.contains(&word))).then_some((distance, name))
        })
        .collect();
    found.sort_by_key(|&(distance, _)| distance);
    found.into_iter().take(3).map(|(_, name)| name).collect()
}

/// `did you mean a, b or c?`, or nothing.
pub fn did_you_mean<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let names = near(word, names);
    let (last, rest) = names.split_last()?;
    Some(if rest.is_empty() { format!("did you mean {last}?") } else { format!("did you mean {} or {last}?", rest.join(", ")) })
}

/// Insertions, deletions and substitutions from one word to the other (Levenshtein), a row of the table at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_of_known_pairs() {
        for (a, b, distance) in [("kitten", "sitting", 3), ("", "abc", 3), ("flaw", "lawn", 2), ("same", "same", 0)] {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
        }
    }

    #[test]
    fn the_nearest_names_come_first() {
        let names = ["block1_conv1", "block5_conv3", "block5_pool"];
        assert_eq!(near("Block5-conv3", names)[0], "block5_conv3");
        assert_eq!(did_you_mean("block5_pol", names).as_deref().map(|s| s.starts_with("did you mean block5_pool")), Some(true));
        assert_eq!(did_you_mean("dense", names), None);
    }
}
