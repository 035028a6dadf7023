//! Waiting for a moment in time to a few microseconds.

use std::io;
use std::time::Instant;

/// A timer. Tokio's own rounds to milliseconds, which at 10,000 requests a second would send ten at
/// once and charge the server for the wait.
#[cfg(target_os = "linux")]
pub struct Timer(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Timer {
    /// A timer of the current runtime.
    pub fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let interest = tokio::io::Interest::READABLE;
        // SAFETY: an owned descriptor stays the same and stays open until it is dropped, and the
        // timer lets nobody take it out.
        let registered =
            unsafe { tokio::io::unix::AsyncFd::register_with_interest(descriptor, interest) };
        Ok(Self(registered.map_err(|error| io::Error::other(error.to_string()))?))
    }

    /// Waits until then; returns at once if it is past.
    pub async fn wait_until(&self, then: Instant) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let wait = then.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return Ok(());
        }
        let it_value =
            Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let time = Itimerspec { it_interval, it_value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &time)?;
        loop {
            let mut ready = self.0.readable().await?;
            let fired = rustix::io::read(self.0.get_ref(), &mut [0u8; 8]);
            ready.clear_ready();
            match fired {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Elsewhere the runtime's timer has to do: rates above about 1,000 a second come in bunches.
#[cfg(not(target_os = "linux"))]
pub struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    /// A timer of the current runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits until then; returns at once if it is past.
    pub async fn wait_until(&self, then: Instant) -> io::Result<()> {
        tokio::time::sleep_until(then.into()).await;
        Ok(())
    }
}

/// The intended times of a Poisson process: gaps are exponentially distributed and do not depend on
/// how the server does.
pub struct Poisson {
    random: fastrand::Rng,
    mean_gap: f64,
    next: Instant,
}

impl Poisson {
    /// `rate` events a second from `start` on; the seed makes runs comparable.
    pub fn new(rate: f64, start: Instant, seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), mean_gap: 1.0 / rate, next: start }
    }
}

impl Iterator for Poisson {
    type Item = Instant;

    fn next(&mut self) -> Option<Instant> {
        // 1 - u is never 0, so the logarithm is finite.
        let gap = -(1.0 - self.random.f64()).ln() * self.mean_gap;
        self.next += std::time::Duration::try_from_secs_f64(gap).ok()?;
        Some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_gaps_of_a_poisson_process_have_its_mean_and_spread() {
        let start = Instant::now();
        let times: Vec<f64> = Poisson::new(1000.0, start, 7)
            .take(20_000)
            .map(|time| (time - start).as_secs_f64())
            .collect();
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean * 1000.0 - 1.0).abs() < 0.03, "{mean}");
        // An exponential's standard deviation is its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{variance}");
    }

    #[tokio::test]
    async fn the_timer_does_not_fire_early() {
        let timer = Timer::new().unwrap();
        for micros in [0, 50, 300, 1500] {
            let then = Instant::now() + Duration::from_micros(micros);
            timer.wait_until(then).await.unwrap();
            assert!(Instant::now() >= then);
        }
    }
}
