//! How a thread that reads a tap shares the CPUs with those that are tapped.

use std::io;

/// From now on the thread that calls this interrupts nobody when it is woken: it waits for an idle CPU, or for its turn
/// (`SCHED_BATCH`, since 2.6.16; sched(7)). Threads that it starts do the same.
///
/// # Errors
///
/// If the system forbids it; the thread goes on as before.
pub fn interrupt_nobody() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters outlive the call, which keeps nothing of them; 0 means the thread itself.
    let outcome = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_thread_is_of_those_that_interrupt_nobody() {
        let policy = || {
            // SAFETY: asks for a number.
            unsafe { libc::sched_getscheduler(0) }
        };
        thread::spawn(move || {
            assert_eq!(policy(), libc::SCHED_OTHER);
            interrupt_nobody().unwrap();
            assert_eq!(policy(), libc::SCHED_BATCH);
        })
        .join()
        .unwrap();
    }
}
