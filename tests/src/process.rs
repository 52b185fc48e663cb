//! What the system says of a process, where it does: on Linux. And how one ends.

use std::time::Duration;

/// Memory that a process has in use, in bytes.
pub fn resident(id: u32) -> Option<u64> {
    memory(id, "VmRSS:")
}

/// The most memory that a process ever had in use, in bytes.
pub fn peak(id: u32) -> Option<u64> {
    memory(id, "VmHWM:")
}

fn memory(id: u32, member: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(member))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
}

/// Processor time that a process has used, on all cores.
pub fn cpu_time(id: u32) -> Option<Duration> {
    /// Linux counts it in hundredths of a second for programs.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name before it may hold anything but ends with the last parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_secs_f64((ticks()? + ticks()?) as f64 / TICKS))
}

/// Asks a process to end, by SIGTERM. Where there is none, it is left alone.
pub fn terminate(id: u32) {
    #[cfg(unix)]
    if let Some(pid) = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw) {
        // One that is gone needs no asking.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    #[cfg(not(unix))]
    let _ = id;
}

/// Ends this process as by SIGKILL, at once: no destructor runs, nothing is flushed.
pub fn die() -> ! {
    #[cfg(unix)]
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}
