//! Who uses a sandbox that is kept for one owner, and since when nobody has.
//!
//! ```text
//! made ─▶ in use ⇄ unused ─▶ over: unused for `idle`, or for the grace that came with a release
//! ```
//! A use that begins within the grace takes the release back. Nobody begins one when it is over: whoever is late makes another sandbox.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The uses of one sandbox.
#[derive(Debug)]
pub struct Usage {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    active: usize,
    /// When the last use ended.
    unused_since: Instant,
    /// When it was released, and how long it may be wanted again.
    released: Option<(Instant, Duration)>,
    over: bool,
}

/// One use; it ends when this is dropped.
#[derive(Debug)]
pub struct Use(Arc<Usage>);

impl Default for Usage {
    fn default() -> Self {
        let state = State { active: 0, unused_since: Instant::now(), released: None, over: false };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }
}

impl Usage {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one; None if it is over.
    pub fn begin(self: &Arc<Self>) -> Option<Use> {
        let mut state = self.lock();
        if state.over {
            return None;
        }
        state.active += 1;
        state.released = None;
        Some(Use(Arc::clone(self)))
    }

    /// Its owner has done with it, unless it comes back within the grace.
    pub fn release(&self, grace: Duration) {
        self.lock().released = Some((Instant::now(), grace));
        self.changed.notify_one();
    }

    /// Until it is over; without `idle` only a release ends it.
    pub async fn over(&self, idle: Option<Duration>) {
        loop {
            let changed = self.changed.notified();
            let end = self.end(idle);
            if end.is_some_and(|end| end <= Instant::now()) {
                let mut state = self.lock();
                // Somebody may have come meanwhile.
                if state.active == 0 {
                    state.over = true;
                    return;
                }
                continue;
            }
            match end {
                Some(end) => tokio::select! { () = changed => {}, () = sleep_until(end) => {} },
                None => changed.await,
            }
        }
    }

    fn end(&self, idle: Option<Duration>) -> Option<Instant> {
        let state = self.lock();
        if state.active > 0 {
            return None;
        }
        let released = state.released.map(|(since, grace)| since.max(state.unused_since) + grace);
        let unused = idle.map(|idle| state.unused_since + idle);
        released.into_iter().chain(unused).min()
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.active -= 1;
        state.unused_since = Instant::now();
        drop(state);
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const IDLE: Option<Duration> = Some(Duration::from_mins(5));
    const GRACE: Duration = Duration::from_secs(30);

    async fn is_over(usage: &Usage, within: u64) -> bool {
        timeout(Duration::from_secs(within), usage.over(IDLE)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_uses_is_over() {
        let usage = Arc::new(Usage::default());
        let used = usage.begin().expect("new");
        assert!(!is_over(&usage, 1000).await, "it is used");
        drop(used);
        assert!(!is_over(&usage, 299).await);
        assert!(is_over(&usage, 2).await);
        assert!(usage.begin().is_none(), "whoever is late makes another");
    }

    #[tokio::test(start_paused = true)]
    async fn a_release_gives_a_grace() {
        let usage = Arc::new(Usage::default());
        usage.release(GRACE);
        assert!(!is_over(&usage, 29).await);
        let again = usage.begin().expect("within the grace");
        drop(again);
        assert!(!is_over(&usage, 299).await, "the release was taken back");
        usage.release(GRACE);
        assert!(is_over(&usage, 31).await || usage.begin().is_none());
        // Released while it is used: the grace counts from the end of that.
        let usage = Arc::new(Usage::default());
        let used = usage.begin().expect("new");
        usage.release(Duration::ZERO);
        assert!(!is_over(&usage, 60).await);
        drop(used);
        assert!(is_over(&usage, 1).await);
    }

    #[tokio::test(start_paused = true)]
    async fn without_idle_only_a_release_ends_it() {
        let usage = Arc::new(Usage::default());
        assert!(timeout(Duration::from_secs(1_000_000), usage.over(None)).await.is_err());
        usage.release(GRACE);
        assert!(timeout(Duration::from_secs(31), usage.over(None)).await.is_ok());
    }
}
