//! Sorting in little code: the standard library's sort is faster for long lists, and is 10 to 20 kB for each type sorted.

use std::cmp::Ordering;

/// Sorts a list in place, in O(n log n) steps whatever is in it (heapsort). Equal entries may change places.
pub fn by<T>(list: &mut [T], order: impl Fn(&T, &T) -> Ordering) {
    for root in (0..list.len() / 2).rev() {
        sink(list, root, &order);
    }
    for end in (1..list.len()).rev() {
        list.swap(0, end);
        sink(list.get_mut(..end).unwrap_or_default(), 0, &order);
    }
}

/// Moves the entry at `root` down until none below it is greater.
fn sink<T>(heap: &mut [T], mut root: usize, order: &impl Fn(&T, &T) -> Ordering) {
    loop {
        let mut child = 2 * root + 1;
        let Some(mut greatest) = heap.get(child) else {
            return;
        };
        if let Some(second) = heap.get(child + 1)
            && order(second, greatest).is_gt()
        {
            (child, greatest) = (child + 1, second);
        }
        if heap
            .get(root)
            .is_none_or(|entry| order(entry, greatest).is_ge())
        {
            return;
        }
        heap.swap(root, child);
        root = child;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lists_are_sorted(mut list: Vec<(u8, u16)>) {
            let mut expected = list.clone();
            expected.sort();
            by(&mut list, Ord::cmp);
            prop_assert_eq!(list, expected);
        }
    }
}
