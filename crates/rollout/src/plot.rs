//! The evidence over time, as a picture.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::evidence::shown_guard;
use crate::guard::Guard;
use crate::plan::Plan;
use crate::report::{Limit, Point, Report};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 44.0;

/// The strongest evidence against a candidate over time, as an SVG that stands alone and can be read
/// on light and on dark. For failures and labels it is the confidence sequence of the odds ratio with
/// the tolerated one, for other guards the e-value with the one at which the candidate is taken back.
pub fn plot(report: &Report) -> String {
    let Some((candidate, guard, points)) = strongest(report) else {
        return frame("No evidence yet", "", |_| ());
    };
    let limit = report.limits.get(guard).copied();
    let bounds: Option<Vec<[f64; 3]>> = points.iter().map(|point| point.bounds).collect();
    let times = Times::of(points);
    let versions = format!("version {candidate} against version {}", report.champion);
    match bounds {
        Some(bounds) => {
            let title = format!("{}: {versions}", shown_guard(guard));
            let axis = "odds ratio, with bounds that hold at all times";
            frame(&title, axis, |svg| {
                let tolerated = limit.map_or(1.0, |limit| limit.tolerated);
                band(svg, &times, &bounds, tolerated);
            })
        }
        None => {
            let title = format!("{}: {versions}", shown_guard(guard));
            let axis = "e-value: evidence that it is worse";
            frame(&title, axis, |svg| {
                let logs: Vec<f64> = points.iter().map(|point| point.log_e).collect();
                line(svg, &times, &logs, limit.map(|limit| limit.log_e));
            })
        }
    }
}

/// The guard that has, or is nearest to having, taken a candidate back.
fn strongest(report: &Report) -> Option<(u64, &str, &[Point])> {
    let all = report.track.iter().flat_map(|(candidate, guards)| {
        guards.iter().map(|(guard, points)| (*candidate, guard.as_str(), points.as_slice()))
    });
    let margin = |(_, guard, points): &(u64, &str, &[Point])| {
        let limit = report.limits.get(*guard).map_or(0.0, |limit| limit.log_e);
        points.last().map_or(f64::NEG_INFINITY, |point| point.log_e - limit)
    };
    all.max_by(|a, b| margin(a).total_cmp(&margin(b)))
}

/// Where times are from left to right.
struct Times {
    seconds: Vec<f64>,
    last: f64,
}

impl Times {
    fn of(points: &[Point]) -> Self {
        let first = points.first().map(|point| point.time);
        let since =
            |point: &Point| first.map_or(0.0, |f| point.time.duration_since(f).as_secs_f64());
        let seconds: Vec<f64> = points.iter().map(since).collect();
        let last = seconds.last().copied().unwrap_or(0.0).max(1.0);
        Self { seconds, last }
    }

    fn x(&self, i: usize) -> f64 {
        LEFT + self.seconds[i] / self.last * (WIDTH - LEFT - RIGHT)
    }

    fn ticks(&self, svg: &mut String) {
        let (unit, name) = match self.last {
            last if last < 300.0 => (1.0, "s"),
            last if last < 18_000.0 => (60.0, "min"),
            _ => (3600.0, "h"),
        };
        for i in 0..=4 {
            let part = f64::from(i) / 4.0;
            let x = LEFT + part * (WIDTH - LEFT - RIGHT);
            let value = (self.last * part / unit * 10.0).round() / 10.0;
            text(svg, (x, HEIGHT - BOTTOM + 18.0), "middle", &format!("{value} {name}"));
        }
    }
}

/// A scale of powers from bottom to top.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// Logarithms of what has to be seen.
    fn of(logs: impl Iterator<Item = f64> + Clone) -> Self {
        let finite = logs.filter(|log| log.is_finite());
        let low = finite.clone().fold(f64::INFINITY, f64::min);
        let high = finite.fold(f64::NEG_INFINITY, f64::max);
        if low > high {
            return Self { low: -1.0, high: 1.0 };
        }
        let room = ((high - low) * 0.08).max(0.2);
        Self { low: low - room, high: high + room }
    }

    fn y(&self, log: f64) -> f64 {
        let part = ((log - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
    }

    fn ticks(&self, svg: &mut String) {
        for i in 0..=4 {
            let log = self.low + (self.high - self.low) * f64::from(i) / 4.0;
            let y = self.y(log);
            let _ = write!(
                svg,
                r#"<line class="grid" x1="{LEFT}" x2="{}" y1="{y:.1}" y2="{y:.1}"/>"#,
                WIDTH - RIGHT
            );
            text(svg, (LEFT - 8.0, y + 4.0), "end", &short(log.exp()));
        }
    }
}

fn band(svg: &mut String, times: &Times, bounds: &[[f64; 3]], tolerated: f64) {
    // What is not bounded yet leaves the picture at its edges.
    let logs = bounds.iter().flatten().filter(|bound| (1e-3..1e6).contains(*bound));
    let scale = Scale::of(logs.map(|bound| bound.ln()).chain([tolerated.ln()]));
    scale.ticks(svg);
    times.ticks(svg);
    let at = |i: usize, bound: f64| {
        let log = bound.ln().clamp(scale.low, scale.high);
        format!("{:.1},{:.1} ", times.x(i), scale.y(log))
    };
    let upper = bounds.iter().enumerate().map(|(i, b)| at(i, b[2]));
    let lower = bounds.iter().enumerate().rev().map(|(i, b)| at(i, b[0]));
    let outline: String = upper.chain(lower).collect();
    let _ = write!(svg, r#"<polygon class="band" points="{}"/>"#, outline.trim_end());
    let middle: String = bounds.iter().enumerate().map(|(i, b)| at(i, b[1])).collect();
    let _ = write!(svg, r#"<polyline class="line" points="{}"/>"#, middle.trim_end());
    rule(svg, scale.y(tolerated.ln()), &format!("tolerated: {}", short(tolerated)));
}

fn line(svg: &mut String, times: &Times, logs: &[f64], limit: Option<f64>) {
    let scale = Scale::of(logs.iter().copied().chain(limit).chain([0.0]));
    scale.ticks(svg);
    times.ticks(svg);
    let at = |(i, log): (usize, &f64)| {
        let log = log.clamp(scale.low, scale.high);
        format!("{:.1},{:.1} ", times.x(i), scale.y(log))
    };
    let points: String = logs.iter().enumerate().map(at).collect();
    let _ = write!(svg, r#"<polyline class="line" points="{}"/>"#, points.trim_end());
    if let Some(limit) = limit {
        rule(svg, scale.y(limit), &format!("taken back at {}", short(limit.exp())));
    }
}

fn rule(svg: &mut String, y: f64, label: &str) {
    let right = WIDTH - RIGHT;
    let _ = write!(svg, r#"<line class="rule" x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/>"#);
    text(svg, (right, y - 6.0), "end", label);
}

fn frame(title: &str, axis: &str, draw: impl FnOnce(&mut String)) -> String {
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="system-ui, sans-serif" font-size="12"><title>{}</title><style>
.back {{ fill: #fff }} text {{ fill: #1f2328 }} .grid {{ stroke: #d0d7de }} .band {{ fill: #0969da; fill-opacity: .18 }}
.line {{ fill: none; stroke: #0969da; stroke-width: 2 }} .rule {{ stroke: #cf222e; stroke-width: 1.5; stroke-dasharray: 6 4 }}
@media (prefers-color-scheme: dark) {{ .back {{ fill: #0d1117 }} text {{ fill: #e6edf3 }} .grid {{ stroke: #30363d }}
.band {{ fill: #58a6ff }} .line {{ stroke: #58a6ff }} .rule {{ stroke: #ff7b72 }} }}
</style><rect class="back" width="{WIDTH}" height="{HEIGHT}"/>"#,
        escaped(title)
    );
    let _ = write!(svg, r#"<text x="{LEFT}" y="18" font-size="15">{}</text>"#, escaped(title));
    text(&mut svg, (LEFT, 36.0), "start", axis);
    draw(&mut svg);
    text(&mut svg, (WIDTH - RIGHT, HEIGHT - 8.0), "end", "time since the first evidence");
    svg.push_str("</svg>");
    svg
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, content: &str) {
    let content = escaped(content);
    let _ = write!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{content}</text>"#);
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Two or three digits.
fn short(number: f64) -> String {
    match number {
        n if !(1e-3..1e5).contains(&n) => format!("{n:.0e}"),
        n if n >= 10.0 => format!("{n:.0}"),
        n if n >= 0.1 => format!("{n:.2}"),
        n => format!("{n:.3}"),
    }
}

/// What the plot has to know of the plan.
pub(crate) fn limits(plan: &Plan, report: &Report) -> BTreeMap<String, Limit> {
    let of = |(name, weight): (String, f64)| {
        let tolerated = Guard::parse(&name).tolerated_odds(plan).unwrap_or(1.0);
        let limit = Limit { log_e: report.threshold(plan, weight), tolerated };
        (name, limit)
    };
    plan.guard_weights().into_iter().map(of).collect()
}
