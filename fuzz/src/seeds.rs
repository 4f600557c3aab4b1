//! Inputs that are the same on every run, for the bodies as ordinary tests.

/// A small generator with a fixed sequence (splitmix64).
#[derive(Clone, Debug)]
pub struct Sequence(u64);

impl Sequence {
    /// The sequence of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// `count` inputs of up to `longest` bytes. Random bytes alone rarely repeat an operation or name
/// the same thing twice, so inputs also have runs of one byte and repeat pieces of themselves.
pub fn inputs(seed: u64, count: usize, longest: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut sequence = Sequence::new(seed);
    (0..count).map(move |_| {
        let wanted = sequence.next_u64() as usize % (longest + 1);
        let mut input = Vec::with_capacity(wanted);
        while input.len() < wanted {
            let choice = sequence.next_u64();
            let length = (1 + (choice >> 8) as usize % 32).min(wanted - input.len());
            match choice % 4 {
                0 => input.extend(std::iter::repeat_n((choice >> 40) as u8, length)),
                1 if !input.is_empty() => {
                    let from = (choice >> 32) as usize % input.len();
                    let to = (from + length).min(input.len());
                    input.extend_from_within(from..to);
                }
                _ => input.extend((0..length).map(|_| sequence.next_u64() as u8)),
            }
        }
        input
    })
}

/// Runs a target's body over the files named on the command line: the programs in `fuzz_targets`
/// do this when they are built without libFuzzer.
pub fn replay(body: fn(&[u8])) {
    for path in std::env::args_os().skip(1) {
        let bytes = std::fs::read(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        println!("{}: {} bytes", path.display(), bytes.len());
        body(&bytes);
    }
}
