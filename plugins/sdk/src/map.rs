//! Typed access to the state: a map under a prefix, or a single value.

use std::marker::PhantomData;

use crate::state;

/// What can be (part of) a key: fixed-width bytes that sort as the values do.
pub trait KeyBytes: Sized {
    /// Appends the key's bytes.
    fn write(&self, to: &mut Vec<u8>);
    /// Reads the key from the front of the bytes and moves them on.
    fn read(from: &mut &[u8]) -> Option<Self>;
}

/// What can be a value.
pub trait ValueBytes: Sized {
    /// Appends the value's bytes.
    fn write(&self, to: &mut Vec<u8>);
    /// Reads the value from the front of the bytes and moves them on.
    fn read(from: &mut &[u8]) -> Option<Self>;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl KeyBytes for $number {
            fn write(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_be_bytes());
            }
            fn read(from: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(<$number>::from_be_bytes(*bytes))
            }
        }
        impl ValueBytes for $number {
            fn write(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }
            fn read(from: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(<$number>::from_le_bytes(*bytes))
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64);

macro_rules! value_numbers {
    ($($number:ty),*) => {$(
        impl ValueBytes for $number {
            fn write(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }
            fn read(from: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(<$number>::from_le_bytes(*bytes))
            }
        }
    )*};
}
value_numbers!(i32, i64, f64);

macro_rules! arrays_and_tuples {
    ($($bytes:ident),*) => {$(
        impl<const N: usize> $bytes for [u8; N] {
            fn write(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(self);
            }
            fn read(from: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(*bytes)
            }
        }
        impl<A: $bytes, B: $bytes> $bytes for (A, B) {
            fn write(&self, to: &mut Vec<u8>) {
                self.0.write(to);
                self.1.write(to);
            }
            fn read(from: &mut &[u8]) -> Option<Self> {
                Some((A::read(from)?, B::read(from)?))
            }
        }
        impl<A: $bytes, B: $bytes, C: $bytes> $bytes for (A, B, C) {
            fn write(&self, to: &mut Vec<u8>) {
                self.0.write(to);
                self.1.write(to);
                self.2.write(to);
            }
            fn read(from: &mut &[u8]) -> Option<Self> {
                Some((A::read(from)?, B::read(from)?, C::read(from)?))
            }
        }
    )*};
}
arrays_and_tuples!(KeyBytes, ValueBytes);

impl<const N: usize> ValueBytes for [u64; N] {
    fn write(&self, to: &mut Vec<u8>) {
        for number in self {
            ValueBytes::write(number, to);
        }
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = <u64 as ValueBytes>::read(from)?;
        }
        Some(numbers)
    }
}

/// How many there are (u32 LE), then each of them.
impl<A: ValueBytes, B: ValueBytes> ValueBytes for Vec<(A, B)> {
    fn write(&self, to: &mut Vec<u8>) {
        ValueBytes::write(&(self.len() as u32), to);
        for pair in self {
            pair.write(to);
        }
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        let count = <u32 as ValueBytes>::read(from)?;
        (0..count).map(|_| ValueBytes::read(from)).collect()
    }
}

impl ValueBytes for bool {
    fn write(&self, to: &mut Vec<u8>) {
        to.push(u8::from(*self));
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        <u8 as ValueBytes>::read(from).map(|byte| byte != 0)
    }
}

/// The rest of the value: last in a tuple.
impl ValueBytes for Vec<u8> {
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self);
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        Some(std::mem::take(from).to_vec())
    }
}

/// The rest of the value: last in a tuple.
impl ValueBytes for String {
    fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.as_bytes());
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        String::from_utf8(std::mem::take(from).to_vec()).ok()
    }
}

/// Keys under a prefix, each with a value. Reads fail where the bytes in the state are of another shape, which means that
/// the plugin changed its `state_version` without need or did not where it had to.
#[derive(Clone, Copy, Debug)]
pub struct Map<K, V> {
    prefix: &'static [u8],
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: KeyBytes, V: ValueBytes> Map<K, V> {
    /// The map of all keys that begin with `prefix`.
    pub const fn new(prefix: &'static [u8]) -> Self {
        Map {
            prefix,
            types: PhantomData,
        }
    }

    fn key(&self, key: &K) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_key(key, &mut bytes);
        bytes
    }

    /// Appends the key as it lies in the state, for [`Keys`](crate::state::Keys) of the calls that take many.
    #[inline]
    pub fn write_key(&self, key: &K, to: &mut Vec<u8>) {
        to.extend_from_slice(self.prefix);
        key.write(to);
    }

    /// The value at a key.
    pub fn get(&self, key: &K) -> Result<Option<V>, String> {
        state::get(&self.key(key))
            .map(|bytes| decode(self.prefix, &bytes))
            .transpose()
    }

    /// Sets the value at a key.
    pub fn put(&self, key: &K, value: &V) {
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        state::put(&self.key(key), &bytes);
    }

    /// Removes a key.
    pub fn delete(&self, key: &K) {
        state::delete(&self.key(key));
    }

    /// Reads and removes a key.
    pub fn take(&self, key: &K) -> Result<Option<V>, String> {
        state::take(&self.key(key))
            .map(|bytes| decode(self.prefix, &bytes))
            .transpose()
    }

    /// At most `limit` entries (and at most 10,000 or 4 MiB) in the order of the keys, after the key `after` if given, and
    /// whether there are more.
    pub fn page(&self, after: Option<&K>, limit: u32) -> Result<(Vec<(K, V)>, bool), String> {
        self.page_under(&[], after, limit)
    }

    /// As [`page`](Self::page), only entries whose keys begin as `head`: the first fields of `K`.
    pub fn page_under<H: KeyBytes>(
        &self,
        head: &H,
        after: Option<&K>,
        limit: u32,
    ) -> Result<(Vec<(K, V)>, bool), String> {
        let mut prefix = self.prefix.to_vec();
        head.write(&mut prefix);
        let after = after.map(|key| self.key(key));
        let page = state::scan(&prefix, after.as_deref(), limit);
        let entries = page
            .iter()
            .map(|(key, value)| self.entry(key, value))
            .collect::<Result<_, _>>()?;
        Ok((entries, page.more))
    }

    fn entry(&self, key: &[u8], value: &[u8]) -> Result<(K, V), String> {
        let mut rest = key.get(self.prefix.len()..).unwrap_or_default();
        let key = K::read(&mut rest).ok_or_else(|| shape(self.prefix))?;
        Ok((key, decode(self.prefix, value)?))
    }

    /// All entries in the order of the keys, until `each` answers false.
    pub fn each(&self, mut each: impl FnMut(K, V) -> bool) -> Result<(), String> {
        let mut result = Ok(());
        state::scan_all(self.prefix, |key, value| match self.entry(key, value) {
            Ok((key, value)) => each(key, value),
            Err(error) => {
                result = Err(error);
                false
            }
        });
        result
    }
}

/// One value at one key.
#[derive(Clone, Copy, Debug)]
pub struct Single<V> {
    key: &'static [u8],
    types: PhantomData<fn() -> V>,
}

impl<V: ValueBytes> Single<V> {
    /// The value at `key`.
    pub const fn new(key: &'static [u8]) -> Self {
        Single {
            key,
            types: PhantomData,
        }
    }

    /// The value, none before it was set.
    pub fn get(&self) -> Result<Option<V>, String> {
        state::get(self.key)
            .map(|bytes| decode(self.key, &bytes))
            .transpose()
    }

    /// Sets the value.
    pub fn put(&self, value: &V) {
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        state::put(self.key, &bytes);
    }
}

/// Declares a struct that can be a key, a value, or both, with its fields one after the other.
///
/// ```
/// use blockmill_sdk::prelude::*;
/// use blockmill_sdk::record;
///
/// record! {
///     /// Sums over a day.
///     #[derive(Clone, Debug, Default, PartialEq)]
///     pub struct Day: Value {
///         pub blocks: u32,
///         pub fees: u64,
///     }
/// }
///
/// record! {
///     /// Sorts by height, then by place.
///     #[derive(Clone, Copy, Debug, PartialEq)]
///     pub struct Place: Key {
///         pub height: u32,
///         pub position: u32,
///     }
/// }
///
/// const DAYS: Map<u32, Day> = Map::new(b"D");
/// const TXIDS: Map<Place, [u8; 32]> = Map::new(b"T");
/// ```
///
/// Keys sort as their fields do, the first one first. A field of variable length (`Vec<u8>`, `String`) may only be the last
/// one of a value. To read a field that was added later out of a state without it is not possible: that takes another
/// [`Descriptor::state_version`](crate::Descriptor::state_version).
#[macro_export]
macro_rules! record {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident: $($role:ident)and+ $fields:tt
    ) => {
        $(#[$meta])*
        $vis struct $name $fields
        $($crate::record!(@ $role $name $fields);)+
    };
    (@ Key $name:ident $fields:tt) => { $crate::record!(@@ KeyBytes $name $fields); };
    (@ Value $name:ident $fields:tt) => { $crate::record!(@@ ValueBytes $name $fields); };
    (@@ $bytes:ident $name:ident {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $of:ty),+ $(,)?
    }) => {
        impl $crate::$bytes for $name {
            fn write(&self, to: &mut ::std::vec::Vec<u8>) {
                $(<$of as $crate::$bytes>::write(&self.$field, to);)+
            }
            fn read(from: &mut &[u8]) -> ::std::option::Option<Self> {
                ::std::option::Option::Some($name {
                    $($field: <$of as $crate::$bytes>::read(from)?,)+
                })
            }
        }
    };
}

fn decode<V: ValueBytes>(name: &[u8], mut bytes: &[u8]) -> Result<V, String> {
    V::read(&mut bytes)
        .filter(|_| bytes.is_empty())
        .ok_or_else(|| shape(name))
}

fn shape(name: &[u8]) -> String {
    format!(
        "the state under `{}` has another shape than this plugin expects",
        String::from_utf8_lossy(name)
    )
}
