//! What a name is created with, beyond its type. Ignored, but for checks, by those who find it.

use crate::error::Error;
use crate::error::kind::ErrorKind;
use crate::tag::TypeTag;

/// How to look up, or create, a segment of one value.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct SegmentOptions {
    pub(crate) tag: Option<TypeTag>,
}

impl SegmentOptions {
    /// The default: the type's own tag.
    pub const fn new() -> Self {
        Self { tag: None }
    }

    /// Identifies the type by this tag in place of its name; see [`TypeTag`].
    pub const fn tag(mut self, tag: TypeTag) -> Self {
        self.tag = Some(tag);
        self
    }
}

/// How to look up, or create, an area.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct AreaOptions {
    pub(crate) first_segment: Option<usize>,
    pub(crate) largest_segment: Option<usize>,
    pub(crate) limit: Option<usize>,
}

impl AreaOptions {
    /// The default: a first segment of 1 MiB, or less if no segment, or all of them together, may
    /// have as much; segments that double; no limit.
    pub const fn new() -> Self {
        Self { first_segment: None, largest_segment: None, limit: None }
    }

    pub(crate) fn to_core(self) -> Result<dsa_core::Options, Error> {
        let default = dsa_core::Options::default();
        let bytes = |bytes: Option<usize>, default| bytes.map_or(default, |bytes| bytes as u64);
        let maximum = bytes(self.largest_segment, default.maximum);
        let limit = bytes(self.limit, default.limit);
        let usual = maximum.min(limit).min(1 << 20) / default.initial * default.initial;
        let usual = usual.max(default.initial);
        let initial = bytes(self.first_segment, usual);
        let options = dsa_core::Options { initial, maximum, limit };
        let checked = match self.first_segment {
            Some(_) => options.check(),
            // What is wrong then is not how long the usual one is.
            None => dsa_core::Options { initial: default.initial, ..options }.check(),
        };
        checked?;
        Ok(options)
    }

    /// Bytes of the first segment: from 64 KiB to 1 TiB, a multiple of 64 KiB.
    pub const fn first_segment(mut self, bytes: usize) -> Self {
        self.first_segment = Some(bytes);
        self
    }

    /// Bytes of the longest segment that growth makes: from those of the first one to 1 TiB. A
    /// larger allocation still gets its own.
    pub const fn largest_segment(mut self, bytes: usize) -> Self {
        self.largest_segment = Some(bytes);
        self
    }

    /// Bytes that all segments together may have, at least those of the first one.
    pub const fn limit(mut self, bytes: usize) -> Self {
        self.limit = Some(bytes);
        self
    }
}

/// How to look up, or create, a hash table.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct HashOptions {
    pub(crate) key_tag: Option<TypeTag>,
    pub(crate) value_tag: Option<TypeTag>,
    pub(crate) partitions: Option<u32>,
    pub(crate) limit: Option<usize>,
}

impl HashOptions {
    /// The default: the types' own tags, 128 partitions, no limit.
    pub const fn new() -> Self {
        Self { key_tag: None, value_tag: None, partitions: None, limit: None }
    }

    /// The area that a table lives in: its first segment is long enough for an empty table (at most
    /// two kilobytes a partition; what is not used is not backed by memory), and none is longer
    /// than a table can refer to.
    pub(crate) fn area(self) -> Result<AreaOptions, Error> {
        let partitions = self.partitions.unwrap_or(dshash_core::DEFAULT_PARTITIONS);
        let most = dshash_core::MAX_PARTITIONS;
        if !partitions.is_power_of_two() || partitions > most {
            let reason =
                format!("it can't be {partitions}: it must be a power of two from 1 to {most}");
            return Err(ErrorKind::InvalidOption { what: "partitions", reason }.into());
        }
        let table = (partitions as usize * 2080).min(1 << 20);
        let first = (table + (16 << 10)).next_multiple_of(64 << 10);
        if let Some(limit) = self.limit.filter(|limit| *limit < first) {
            let reason = format!(
                "{limit} bytes are less than {partitions} partitions need, {first}; raise it, or \
                 take fewer `partitions`"
            );
            return Err(ErrorKind::InvalidOption { what: "limit", reason }.into());
        }
        let area = AreaOptions::new()
            .first_segment(first)
            .largest_segment(dshash_core::MAX_SEGMENT_SIZE as usize);
        Ok(AreaOptions { limit: self.limit, ..area })
    }

    /// Identifies the types of key and value by these tags in place of their names; see
    /// [`TypeTag`].
    pub const fn tags(mut self, key: TypeTag, value: TypeTag) -> Self {
        self.key_tag = Some(key);
        self.value_tag = Some(value);
        self
    }

    /// Partitions: a power of two, up to 1,024. Each has a lock of its own: more let more writers
    /// work at once, fewer make an empty table smaller.
    pub const fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// Bytes that the table's memory may have in all. An empty table takes two kilobytes a
    /// partition; less than that is an error that says how much it is.
    pub const fn limit(mut self, bytes: usize) -> Self {
        self.limit = Some(bytes);
        self
    }
}
