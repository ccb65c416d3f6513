//! The word a user most likely meant.

/// Words longer than this are not compared: nobody mistypes them into another.
const MAX_WORD: usize = 64;

/// The one of `candidates` nearest to `word`, if any is near: at most a third of its letters
/// inserted, left out, changed or swapped with their neighbour. Leading parts (up to a dot) that
/// both share do not count.
pub(crate) fn nearest<T: AsRef<str>>(word: &str, candidates: impl IntoIterator<Item = T>) -> Option<T> {
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let shared = common_parts(word, candidate.as_ref());
            let (tail, other) = (&word[shared..], &candidate.as_ref()[shared..]);
            Some((distance(tail, other, (tail.len() / 3).max(1))?, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many leading bytes of `a` are whole parts that `b` starts with too.
pub(crate) fn common_parts(a: &str, b: &str) -> usize {
    let parts = a.split_inclusive('.').zip(b.split_inclusive('.'));
    parts.take_while(|(a, b)| a == b).map(|(a, _)| a.len()).sum()
}

/// How many letters were inserted, left out, changed or swapped with their neighbour, if it is `limit` or
/// less.
fn distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > limit || a.len().max(b.len()) > MAX_WORD {
        return None;
    }
    Some(strsim::osa_distance(a, b)).filter(|&distance| distance <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits_and_swaps() {
        assert_eq!(distance("path", "path", 1), Some(0));
        assert_eq!(distance("pth", "path", 1), Some(1));
        assert_eq!(distance("paht", "path", 1), Some(1));
        assert_eq!(distance("memory_size", "memory.size", 3), Some(1));
        assert_eq!(distance("cpus", "uuid", 2), None);
        assert_eq!(distance(&"x".repeat(1000), &"x".repeat(1000), 300), None);
    }

    #[test]
    fn prefers_the_nearest_and_refuses_the_far() {
        assert_eq!(nearest("core", ["cores", "cpus", "console"]), Some("cores"));
        assert_eq!(nearest("frobnicate", ["cores", "cpus"]), None);
        assert_eq!(nearest("memory.sise", ["memory.thp", "memory.size"]), Some("memory.size"));
        assert_eq!(nearest("device.disk0.xyz", ["device.disk0.ro"]), None, "what is shared is no likeness");
    }
}
