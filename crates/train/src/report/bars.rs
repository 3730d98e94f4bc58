//! Shares with their intervals as rows of HTML: names and numbers stay text, of the size of the page.

use super::markup::{escape, percent};

/// A named value with its interval.
pub struct Bar {
    /// What it is called.
    pub name: String,
    /// Its length, between 0 and 1.
    pub value: f64,
    /// Lower and upper end of the interval.
    pub interval: (f64, f64),
    /// A share that it stands beside, as a line across the row: what blind search comes to.
    pub blind: Option<f64>,
}

/// Shares between 0 and 1 with their intervals; nothing if there are none.
pub fn bars(title: &str, bars: &[Bar]) -> Option<String> {
    if bars.is_empty() {
        return None;
    }
    let rows: String = bars.iter().map(row).collect();
    Some(format!("<figure class=\"bars\"><figcaption>{}</figcaption>{rows}</figure>\n", escape(title)))
}

fn row(Bar { name, value, interval: (low, high), blind }: &Bar) -> String {
    let part = |share: f64| 100.0 * share.clamp(0.0, 1.0);
    let range = match low < high {
        true => format!(" <small>{} to {}</small>", percent(*low), percent(*high)),
        false => String::new(),
    };
    let line = blind.map_or(String::new(), |blind| {
        format!("<u style=\"left:{:.2}%\" title=\"blind search {} %\"></u>", part(blind), percent(blind))
    });
    format!(
        "<div><span>{}</span><span class=\"track\"><i style=\"width:{:.2}%\"></i>\
         <b style=\"left:{:.2}%;width:{:.2}%\"></b>{line}</span><span>{} %{range}</span></div>",
        escape(name),
        part(*value),
        part(*low),
        part(*high) - part(*low),
        percent(*value),
    )
}
