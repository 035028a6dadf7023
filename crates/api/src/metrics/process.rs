//! What the process itself uses, as far as this system says.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the process uses; what cannot be known is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Process {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<f64>,
    pub(crate) virtual_bytes: Option<f64>,
    pub(crate) open_files: Option<f64>,
    pub(crate) max_files: Option<f64>,
    pub(crate) threads: Option<f64>,
    /// Seconds since 1970.
    pub(crate) started: Option<f64>,
}

/// Asked once: the two clocks that it is reckoned from are not read at the same moment.
static STARTED: LazyLock<Option<f64>> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    let uptime = read("/proc/uptime")?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Some(now - uptime + ticks(&read("/proc/self/stat")?)? / TICKS)
});

/// Of a second; what Linux shows to programs, whatever it counts in itself.
const TICKS: f64 = 100.0;

impl Process {
    /// Asks the system. Takes as long as there are open files: not for threads that serve.
    pub(crate) fn read() -> Self {
        let status = read("/proc/self/status").unwrap_or_default();
        let of_status = |name| field(&status, name);
        let limits = read("/proc/self/limits").unwrap_or_default();
        let files = std::fs::read_dir("/proc/self/fd").ok();
        Self {
            cpu_seconds: cpu_seconds(),
            resident_bytes: of_status("VmRSS:").map(|kilobytes| kilobytes * 1024.0),
            virtual_bytes: of_status("VmSize:").map(|kilobytes| kilobytes * 1024.0),
            // Without the one that reads them.
            open_files: files.map(|files| files.count().saturating_sub(1) as f64),
            max_files: field(&limits, "Max open files"),
            threads: of_status("Threads:"),
            started: *STARTED,
        }
    }
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// When the process was started, in ticks since the system was.
fn ticks(stat: &str) -> Option<f64> {
    // The program's name is in parentheses and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(unix)]
fn cpu_seconds() -> Option<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}

#[cfg(not(unix))]
fn cpu_seconds() -> Option<f64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_writes_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 4 0 8123 99 1 1";
        assert_eq!(ticks(stat), Some(8123.0));
        assert_eq!(field("Threads:\t17\nVmRSS:\t  123 kB", "VmRSS:"), Some(123.0));
        assert_eq!(
            field("Max open files            1024   4096   files", "Max open files"),
            Some(1024.0)
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_all_of_it() {
        let process = Process::read();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started = process.started.unwrap();
        assert!((now - 3600.0..=now + 1.0).contains(&started), "{started} of {now}");
        assert!(process.cpu_seconds.unwrap() > 0.0);
        assert!(process.resident_bytes.unwrap() < process.virtual_bytes.unwrap());
        assert!(process.open_files.unwrap() < process.max_files.unwrap());
        assert!(process.threads.unwrap() >= 1.0);
    }
}
