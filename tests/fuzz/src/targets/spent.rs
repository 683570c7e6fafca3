//! The columns of what a block spends, as the log keeps them and as a plugin gives them.

use blockmill::frame::Spent;

use super::Verdict;
use crate::memory;

/// The bytes are those of [`Spent::encode`].
pub fn run(data: &[u8]) -> Verdict {
    memory::bounded_by(data, 16, || {
        let Ok(spent) = Spent::decode(data) else {
            return Verdict::Refused;
        };
        assert_eq!(spent.check(spent.len()), Ok(()));
        assert_eq!(spent.encode(), data, "written as it was read");
        if !data.is_empty() {
            assert!(Spent::decode(&data[..data.len() - 1]).is_err());
        }
        // Cut in two anywhere and put together again it is the same.
        for count in [0, spent.len() / 2, spent.len()] {
            let mut rest = spent.clone();
            let mut front = rest.take_front(count).expect("so many there are");
            assert_eq!(front.check(count), Ok(()));
            assert_eq!(rest.check(spent.len() - count), Ok(()));
            front.append(&rest);
            assert_eq!(front, spent);
        }
        assert_eq!(spent.clone().take_front(spent.len() + 1), None);
        Verdict::Taken
    })
}
