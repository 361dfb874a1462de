//! A timer that wakes when it was asked to.
//!
//! tokio's own timer counts in milliseconds; a schedule on it sends in bursts of a millisecond, which hides from a
//! server the arrival of single updates and flatters whoever batches.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A timer of the kernel.
#[derive(Debug)]
pub struct Alarm {
    fd: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// Makes one; needs a tokio runtime.
    #[expect(
        deprecated,
        reason = "the successor is `unsafe` for any type; an OwnedFd keeps what it asks for by itself"
    )]
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { fd: AsyncFd::with_interest(timer, Interest::READABLE)? })
    }

    /// Waits until `at`. A time gone by lets the other tasks have their turn first.
    pub async fn until(&mut self, at: Instant) -> io::Result<()> {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            tokio::task::yield_now().await;
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let spec = Itimerspec { it_interval: zero, it_value: value };
        rustix::time::timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::empty(), &spec)?;
        loop {
            let mut ready = self.fd.readable().await?;
            let mut expirations = [0u8; 8];
            match rustix::io::read(self.fd.get_ref(), &mut expirations) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn it_never_wakes_early_and_can_be_set_again() {
        let mut alarm = Alarm::new().unwrap();
        for micros in [300, 0, 2_500] {
            let at = Instant::now() + Duration::from_micros(micros);
            alarm.until(at).await.unwrap();
            assert!(Instant::now() >= at, "woke before {micros} µs");
        }
    }
}
