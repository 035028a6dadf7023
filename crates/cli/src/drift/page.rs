//! A report as a page that stands alone: no asset from outside, light and dark.

use std::fmt::Write;

use monitor::drift::watch::{Seen, Status, WatchReport};
use monitor::drift::{Judged, Picture, Report, Side, Verdict, short};

use super::model::{self, Version};
use super::text;

const STYLE: &str = "
:root { color-scheme: light dark; --back: #fff; --ink: #1f2328; --faint: #59636e; --rule: #d0d7de;
  --before: #6e7781; --after: #0969da; --bad: #cf222e; --doubt: #9a6700; --good: #1a7f37 }
@media (prefers-color-scheme: dark) { :root { --back: #0d1117; --ink: #e6edf3; --faint: #9198a1;
  --rule: #30363d; --before: #8b949e; --after: #58a6ff; --bad: #ff7b72; --doubt: #d29922; --good: #3fb950 } }
body { margin: 2rem auto; max-width: 68rem; padding: 0 1rem; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.4rem } .faint { color: var(--faint) }
details { border-top: 1px solid var(--rule); padding: .5rem 0 } summary { cursor: pointer }
summary .name { font-weight: 600 } .drifted { color: var(--bad) } .too_few_rows { color: var(--doubt) }
.stable { color: var(--good) } .not_compared { color: var(--faint) }
table { border-collapse: collapse } td, th { padding: .15rem 1rem .15rem 0; text-align: left }
td.n { text-align: right; font-variant-numeric: tabular-nums } .both { display: flex; flex-wrap: wrap; gap: 2rem }
svg { max-width: 100%; height: auto } svg text { fill: var(--faint); font-size: 11px }
.b { fill: var(--before) } .a { fill: var(--after) } svg line { stroke: var(--rule) }
";

/// What the colours mean.
const LEGEND: &str = "<svg width=\"10\" height=\"10\"><rect class=\"b\" width=\"10\" height=\"10\"/></svg> before \
     <svg width=\"10\" height=\"10\"><rect class=\"a\" width=\"10\" height=\"10\"/></svg> after";

/// The page of two tables.
pub fn page(report: &Report, [before, after]: &[String; 2]) -> String {
    let mut page = head(&format!("Drift: {before} → {after}"));
    let _ = write!(page, "<p>{}.</p>", escaped(&text::found(report)));
    let settings = &report.settings;
    let _ = write!(
        page,
        "<p class=\"faint\">A column has drifted if a change is large (shift ≥ {}, missing ≥ {}, \
         new ≥ {}) and no chance (at most {} of the columns said to have drifted). {LEGEND}</p>",
        settings.shift, settings.missing, settings.new, settings.alpha
    );
    for mismatch in &report.mismatched {
        let side = if mismatch.only == Side::Before { "before" } else { "after" };
        let name = escaped(&mismatch.column);
        let _ = write!(page, "<p class=\"drifted\">only {side}: <b>{name}</b></p>");
    }
    report.columns.iter().for_each(|judged| column(&mut page, report, judged));
    for out in &report.left_out {
        let (name, why) = (escaped(&out.column), escaped(&out.why));
        let _ = write!(page, "<p class=\"faint\">left out: {name}: {why}</p>");
    }
    page.push_str("</body></html>\n");
    page
}

/// The page of a model.
pub fn of_model(name: &str, versions: &[Version]) -> String {
    let mut page = head(&format!("Drift of {name}"));
    for version in versions {
        let report = &version.report;
        let _ = write!(
            page,
            "<h2>Version {}</h2><p>{}, {} rows.</p><p class=\"faint\">{LEGEND}</p>",
            escaped(&version.version),
            escaped(&model::found(report)),
            report.rows
        );
        report.features.iter().for_each(|seen| feature(&mut page, report, seen));
        for note in &report.notes {
            let _ = write!(page, "<p class=\"faint\">{}</p>", escaped(note));
        }
    }
    page.push_str("</body></html>\n");
    page
}

fn feature(page: &mut String, report: &WatchReport, seen: &Seen) {
    let (class, open) = match seen.status {
        Status::Drifted => ("drifted", " open"),
        Status::Watched => ("stable", ""),
        Status::Learning => ("not_compared", ""),
    };
    let change = model::change(seen, report).map_or(String::new(), |(what, effect)| {
        format!("{} {}, {}", text::what(what), text::short3(effect), model::evidence(seen))
    });
    let _ = write!(
        page,
        "<details{open}><summary><span class=\"name\">{}</span> <span class=\"{class}\">{}</span> \
         <span class=\"faint\">{}</span></summary><div class=\"both\">",
        escaped(&seen.feature),
        model::status(seen),
        escaped(&change)
    );
    if let Some(picture) = &seen.picture {
        plot(page, picture);
    }
    page.push_str("<table><tr><th>change</th><th>effect</th><th>matters from</th></tr>");
    for (what, effect) in &seen.changes {
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            text::what(*what),
            text::short3(*effect),
            report.settings.threshold(*what)
        );
    }
    page.push_str("</table>");
    for drift in seen.drift.iter().chain(&seen.past) {
        let _ = write!(page, "<p>{}</p>", escaped(&model::told(drift)));
    }
    page.push_str("</div></details>");
}

fn head(title: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
    )
}

fn column(page: &mut String, report: &Report, judged: &Judged) {
    let measured = &judged.measured;
    let class = serde_json::to_value(judged.verdict).unwrap_or_default();
    let open = if judged.verdict == Verdict::Drifted { " open" } else { "" };
    let _ = write!(
        page,
        "<details{open}><summary><span class=\"name\">{}</span> <span class=\"{}\">{}</span> \
         <span class=\"faint\">{}</span></summary><div class=\"both\">",
        escaped(&measured.column),
        class.as_str().unwrap_or_default(),
        text::verdict(judged.verdict),
        escaped(&text::how(judged, &report.settings))
    );
    if let Some(picture) = &measured.picture {
        plot(page, picture);
    }
    page.push_str(
        "<table><tr><th>change</th><th>effect</th><th>matters from</th><th>chance</th></tr>",
    );
    for change in &measured.changes {
        let _ = write!(
            page,
            "<tr class=\"{}\"><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            if judged.because.contains(&change.what) { "drifted" } else { "" },
            text::what(change.what),
            text::short3(change.effect),
            report.settings.threshold(change.what),
            escaped(&text::probability(change.p))
        );
    }
    page.push_str("</table><table>");
    let statistics = serde_json::to_value(measured.statistics).unwrap_or_default();
    for (name, value) in statistics.as_object().into_iter().flatten() {
        let value = value.as_f64().map_or("∞".to_owned(), short);
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"n\">{value}</td></tr>",
            name.replace('_', " ")
        );
    }
    page.push_str("</table>");
    let notes = measured.not_compared.iter().cloned().chain(
        judged
            .visible
            .map(|visible| format!("Shifts from {} on would be seen.", text::short3(visible))),
    );
    notes.for_each(|note| page.push_str(&format!("<p class=\"faint\">{}</p>", escaped(&note))));
    page.push_str("</div></details>");
}

/// Bars before and after side by side.
fn plot(page: &mut String, picture: &Picture) {
    const HEIGHT: f64 = 120.0;
    let most = picture.before.iter().chain(&picture.after).copied().fold(1e-9, f64::max);
    let width = 480.0 / picture.bars.len() as f64;
    let _ = write!(page, "<svg viewBox=\"0 0 480 {}\" width=\"480\" role=\"img\">", HEIGHT + 20.0);
    for (i, label) in picture.bars.iter().enumerate() {
        let left = i as f64 * width;
        for (class, shift, part) in [("b", 0.06, picture.before[i]), ("a", 0.5, picture.after[i])] {
            let height = part / most * HEIGHT;
            let _ = write!(
                page,
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\">\
                 <title>{}: {:.2} %</title></rect>",
                left + shift * width,
                HEIGHT - height,
                width * 0.42,
                escaped(label),
                part * 100.0
            );
        }
        // Labels of many bars would lie on each other.
        let every = (picture.bars.len() / 7).max(1);
        if i % every == 0 {
            let short: String = label.chars().take((width * every as f64 / 7.0) as usize).collect();
            let _ = write!(
                page,
                "<text x=\"{left:.1}\" y=\"{}\">{}</text>",
                HEIGHT + 14.0,
                escaped(&short)
            );
        }
    }
    let _ = write!(page, "<line x1=\"0\" x2=\"480\" y1=\"{HEIGHT}\" y2=\"{HEIGHT}\"/></svg>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
