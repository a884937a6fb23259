//! A report as a page that needs nothing but itself.

use super::report::{Figures, Report};
use std::fmt::Write as _;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #ddd}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}svg{width:100%;height:auto}.bar{fill:#2a6f97}.rest{fill:#e5e5e5}text{font:12px system-ui,sans-serif;fill:currentColor}\
@media(prefers-color-scheme:dark){body{color:#e6e6e6;background:#161616}th,td{border-color:#333}.rest{fill:#333}.bar{fill:#61a5c2}}";
const BUCKETS: usize = 20;

/// The page.
pub fn html(report: &Report) -> String {
    let mut out =
        String::from("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">");
    let id = report.suite.id.short();
    let _ = write!(out, "<title>Suite {id}</title><style>{STYLE}</style><h1>Suite {id}</h1>");
    let all = &report.all;
    let _ = write!(
        out,
        "<p>{} of {} attempts passed ({:.1} %), mean reward {:.3}. Agent: {}. Begun {}.</p>",
        all.passed,
        all.attempts,
        percent(all),
        all.mean_reward,
        escape(report.suite.agent_command.as_deref().unwrap_or(&report.suite.agent)),
        report.suite.created_at
    );
    if let Some(cost) = all.cost {
        let _ = write!(out, "<p>Cost: {cost:.4} {}</p>", escape(report.currency.as_deref().unwrap_or("")));
    }
    if report.not_made + report.left > 0 {
        let _ = write!(out, "<p>{} attempts could not be made, {} are left.</p>", report.not_made, report.left);
    }
    out.push_str("<h2>Pass rate by difficulty</h2>");
    out.push_str(&bars(report));
    out.push_str("<h2>Time of an attempt</h2>");
    out.push_str(&histogram(&all.seconds, "time of attempts", &|value| format!("{value:.2} s")));
    out.push_str("<h2>Most memory of an attempt</h2>");
    out.push_str(&histogram(&all.memory, "memory of attempts", &|value| format!("{:.1} MiB", value / 1_048_576.0)));
    out.push_str(
        "<h2>Tasks</h2><table><tr><th>task<th class=n>attempts<th class=n>passed<th class=n>reward<th class=n>median<th class=n>p95</tr>",
    );
    for (task, figures) in &report.by_task {
        let _ = write!(
            out,
            "<tr><td>{}<td class=n>{}<td class=n>{:.1} %<td class=n>{:.3}<td class=n>{:.2} s<td class=n>{:.2} s</tr>",
            escape(task),
            figures.attempts,
            percent(figures),
            figures.mean_reward,
            figures.seconds_median,
            figures.seconds_p95
        );
    }
    out.push_str("</table></html>\n");
    out
}

fn percent(figures: &Figures) -> f64 {
    figures.passed as f64 * 100.0 / figures.attempts.max(1) as f64
}

fn bars(report: &Report) -> String {
    let height = 28 * report.by_difficulty.len();
    let mut out = format!("<svg viewBox=\"0 0 600 {height}\" role=\"img\" aria-label=\"pass rate by difficulty\">");
    for (at, (name, figures)) in report.by_difficulty.iter().enumerate() {
        let (y, share) = (at * 28, percent(figures));
        let _ = write!(
            out,
            "<text x=\"0\" y=\"{}\">{}</text><rect class=\"rest\" x=\"100\" y=\"{}\" width=\"400\" height=\"20\"/>\
             <rect class=\"bar\" x=\"100\" y=\"{}\" width=\"{:.1}\" height=\"20\"/><text x=\"510\" y=\"{}\">{share:.1} % of {}</text>",
            y + 16,
            escape(name),
            y + 2,
            y + 2,
            share * 4.0,
            y + 16,
            figures.attempts
        );
    }
    out + "</svg>"
}

fn histogram(values: &[f64], label: &str, shown: &dyn Fn(f64) -> String) -> String {
    let longest = values.last().copied().unwrap_or(0.0).max(0.001);
    let mut counts = [0usize; BUCKETS];
    for value in values {
        counts[((value / longest * BUCKETS as f64) as usize).min(BUCKETS - 1)] += 1;
    }
    let most = counts.iter().max().copied().unwrap_or(0).max(1);
    let mut out = format!("<svg viewBox=\"0 0 600 170\" role=\"img\" aria-label=\"{label}\">");
    for (at, count) in counts.iter().enumerate() {
        let height = 140.0 * *count as f64 / most as f64;
        let _ = write!(
            out,
            "<rect class=\"bar\" x=\"{}\" y=\"{:.1}\" width=\"28\" height=\"{height:.1}\"><title>{count}</title></rect>",
            at * 30,
            145.0 - height
        );
    }
    let _ = write!(out, "<text x=\"0\" y=\"162\">0</text><text x=\"530\" y=\"162\">{}</text></svg>", shown(longest));
    out
}

fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_is_text() {
        assert_eq!(escape("<script>\"&"), "&lt;script&gt;&quot;&amp;");
    }
}
