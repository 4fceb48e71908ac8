//! In which order flows send: evenly, or as skewed as real traffic.

/// Numbers in a sequence, `STEPS` of the `patch` program.
pub(crate) const STEPS: usize = 1 << 18;

/// How often each flow comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    /// All equally often, each time in another order: the worst case for every cache.
    Uniform,
    /// The n-th most frequent 1/n times as often as the first (Zipf's law).
    Zipf,
}

impl Distribution {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Zipf => "zipf",
        }
    }
}

/// Flow numbers below `flows`, which is at most 65,536, in the order of packets. The same in every run.
pub(crate) fn numbers(flows: usize, distribution: Distribution) -> Vec<u16> {
    let mut random = Random(0x5eed);
    let mut all: Vec<u16> = (0..flows).map(|flow| u16::try_from(flow).expect("at most 65,536")).collect();
    let mut numbers = Vec::with_capacity(STEPS + flows);
    match distribution {
        Distribution::Uniform => {
            while numbers.len() < STEPS {
                random.shuffle(&mut all);
                numbers.extend_from_slice(&all);
            }
        }
        Distribution::Zipf => {
            // Popular flows must not be neighbours.
            random.shuffle(&mut all);
            let mut sum = 0.0;
            let mut sums = Vec::with_capacity(flows);
            for rank in 1..=flows {
                #[expect(clippy::cast_precision_loss, reason = "at most 65,536")]
                let weight = 1.0 / rank as f64;
                sum += weight;
                sums.push(sum);
            }
            while numbers.len() < STEPS {
                let wanted = random.fraction() * sum;
                let rank = sums.partition_point(|upto| *upto < wanted).min(flows - 1);
                numbers.push(all[rank]);
            }
        }
    }
    numbers.truncate(STEPS);
    numbers
}

/// `SplitMix64` of Sebastiano Vigna: enough for a shuffle.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn shuffle(&mut self, numbers: &mut [u16]) {
        for last in (1..numbers.len()).rev() {
            let bound = last as u64 + 1;
            let other = usize::try_from(self.next() % bound).expect("below a length");
            numbers.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_sequence_has_every_flow_equally_often() {
        let numbers = numbers(256, Distribution::Uniform);
        let mut counts = [0; 256];
        for number in numbers {
            counts[usize::from(number)] += 1;
        }
        assert_eq!(counts, [STEPS / 256; 256]);
    }

    #[test]
    fn a_skewed_sequence_is_dominated_by_few_flows() {
        let numbers = numbers(4096, Distribution::Zipf);
        let mut counts = vec![0; 4096];
        for number in numbers {
            counts[usize::from(number)] += 1;
        }
        counts.sort_unstable();
        // The first of 4,096 has 1 / ln(4096) or so of everything.
        assert!((25_000..35_000).contains(&counts[4095]), "{}", counts[4095]);
    }
}
