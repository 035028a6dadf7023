//! How many different values there are: HyperLogLog (Flajolet et al., 2007) with the estimate for
//! small numbers by counting empty registers. 4,096 registers: within 5 % in 99.8 % of all cases.

const BITS: u32 = 12;

/// An estimate of how many different values it has seen.
#[derive(Clone, Debug)]
pub struct Distinct {
    registers: Vec<u8>,
}

impl Default for Distinct {
    fn default() -> Self {
        Self { registers: vec![0; 1 << BITS] }
    }
}

impl Distinct {
    /// Takes the hash of one value.
    pub fn insert(&mut self, hash: u64) {
        let place = (hash >> (64 - BITS)) as usize;
        let rest = hash << BITS | 1 << (BITS - 1);
        let zeros = rest.leading_zeros() as u8 + 1;
        self.registers[place] = self.registers[place].max(zeros);
    }

    /// Takes all that another has seen.
    pub fn merge(&mut self, other: &Self) {
        for (own, other) in self.registers.iter_mut().zip(&other.registers) {
            *own = (*own).max(*other);
        }
    }

    /// The estimate.
    pub fn estimate(&self) -> u64 {
        let m = self.registers.len() as f64;
        let sum: f64 = self.registers.iter().map(|zeros| 0.5f64.powi(i32::from(*zeros))).sum();
        let estimate = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        let empty = self.registers.iter().filter(|zeros| **zeros == 0).count();
        if estimate <= 2.5 * m && empty > 0 {
            return (m * (m / empty as f64).ln()).round() as u64;
        }
        estimate.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_close_and_add_up() {
        let mut random = fastrand::Rng::with_seed(3);
        for n in [0u64, 10, 3_000, 20_000, 1_000_000] {
            let (mut one, mut other) = (Distinct::default(), Distinct::default());
            for i in 0..n {
                let hash = random.u64(..);
                one.insert(hash);
                if i % 2 == 0 { &mut other } else { &mut one }.insert(hash);
            }
            one.merge(&other);
            let error = (one.estimate() as f64 - n as f64).abs() / n.max(1) as f64;
            assert!(error < 0.05, "{n}: {}", one.estimate());
        }
    }
}
