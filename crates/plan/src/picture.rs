//! Pictures of answers: bars or curves, as lines of text and as SVG, which needs neither fonts nor scripts.

use std::fmt::Write;

use plotters::coord::Shift;
use plotters::prelude::*;
use serde::Serialize;

use crate::Error;
use crate::number::grouped;

/// What an answer shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Picture {
    /// Nothing.
    #[default]
    None,
    /// Named values.
    Bars {
        /// What they are.
        title: String,
        /// Their unit.
        unit: String,
        /// The values.
        bars: Vec<Bar>,
    },
    /// Panels of curves over the same numbers, one above the other; both axes by powers of two.
    Curves {
        /// What lies on the horizontal axis.
        x: String,
        /// The panels.
        panels: Vec<Panel>,
    },
}

/// A named value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bar {
    /// Its name.
    pub name: String,
    /// The value.
    pub value: f64,
}

/// Curves with one vertical axis.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Panel {
    /// What they show, with the unit.
    pub title: String,
    /// The curves.
    pub curves: Vec<Curve>,
}

/// A named curve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// Its name.
    pub name: String,
    /// Its points, by rising x.
    pub points: Vec<(f64, f64)>,
}

const BAR: usize = 40;

impl Picture {
    /// Bars.
    pub fn bars(title: &str, unit: &str, bars: impl IntoIterator<Item = (String, f64)>) -> Self {
        let bars = bars.into_iter().map(|(name, value)| Bar { name, value }).collect();
        Self::Bars { title: title.to_owned(), unit: unit.to_owned(), bars }
    }

    /// The picture in characters; nothing if there is none.
    pub fn text(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Bars { title, unit, bars } => text_bars(&format!("{title}, {unit}"), bars),
            Self::Curves { panels, .. } => {
                let mut out = String::new();
                for panel in panels {
                    // The first curve is the answer; the others are there to compare.
                    if let Some(curve) = panel.curves.first() {
                        let bars = curve.points.iter().map(|&(x, value)| Bar { name: grouped(x), value });
                        let _ = write!(out, "{}", text_bars(&panel.title, &bars.collect::<Vec<_>>()));
                    }
                }
                out
            }
        }
    }

    /// The picture as SVG.
    ///
    /// # Errors
    /// If there is nothing to draw.
    pub fn svg(&self) -> Result<String, Error> {
        let mut svg = String::new();
        let drawn = match self {
            Self::None => return Err(Error::Picture("this answer has none".into())),
            Self::Bars { title, unit, bars } => {
                let size = (760, 70 + 26 * bars.len() as u32);
                let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
                draw_bars(&area, &format!("{title}, {unit}"), bars)
            }
            Self::Curves { x, panels } => {
                let size = (760, 300 * panels.len() as u32);
                let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
                draw_curves(&area, x, panels)
            }
        };
        drawn.map_err(|error| Error::Picture(error.to_string()))?;
        Ok(svg)
    }
}

fn text_bars(title: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.value).filter(|v| v.is_finite()).fold(0.0, f64::max);
    let width = bars.iter().map(|bar| bar.name.chars().count()).max().unwrap_or(0);
    let mut out = format!("{title}\n");
    for Bar { name, value } in bars {
        let length =
            if most > 0.0 && value.is_finite() { (value / most * BAR as f64).round().max(0.0) as usize } else { 0 };
        let _ = writeln!(out, "  {name:<width$}  {:<BAR$}  {}", "\u{2588}".repeat(length), grouped(*value));
    }
    out
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// The palette of Okabe and Ito, which colour-blind readers can tell apart.
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

fn draw_bars(area: &Area<'_>, title: &str, bars: &[Bar]) -> Drawn {
    area.fill(&WHITE).map_err(|e| e.to_string())?;
    let text = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    area.draw(&Text::new(title.to_owned(), (16, 12), text(16))).map_err(|e| e.to_string())?;
    let most = bars.iter().map(|bar| bar.value).filter(|v| v.is_finite()).fold(0.0, f64::max);
    for (i, Bar { name, value }) in bars.iter().enumerate() {
        let (top, left) = (44 + 26 * i as i32, 250);
        let length = if most > 0.0 && value.is_finite() { (value / most * 380.0).round() as i32 } else { 0 };
        let bar = Rectangle::new([(left, top), (left + length.max(1), top + 18)], COLORS[0].filled());
        area.draw(&bar).map_err(|e| e.to_string())?;
        area.draw(&Text::new(name.clone(), (16, top + 2), text(13))).map_err(|e| e.to_string())?;
        let value = Text::new(grouped(*value), (left + length + 8, top + 2), text(13));
        area.draw(&value).map_err(|e| e.to_string())?;
    }
    area.present().map_err(|e| e.to_string().into())
}

fn draw_curves(area: &Area<'_>, x: &str, panels: &[Panel]) -> Drawn {
    area.fill(&WHITE).map_err(|e| e.to_string())?;
    for (panel, area) in panels.iter().zip(area.split_evenly((panels.len(), 1))) {
        draw_panel(&area, x, panel)?;
    }
    area.present().map_err(|e| e.to_string().into())
}

fn draw_panel(area: &Area<'_>, x: &str, panel: &Panel) -> Drawn {
    let points = || panel.curves.iter().flat_map(|curve| curve.points.iter().copied());
    let range = |of: fn((f64, f64)) -> f64| {
        let (low, high) = points().map(of).fold((f64::MAX, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
        if low > high { (1.0, 2.0) } else { (low, high.max(low * 1.01)) }
    };
    let ((x0, x1), (y0, y1)) = (range(|p| p.0), range(|p| p.1));
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 15))
        .margin(10)
        .margin_right(30)
        .x_label_area_size(34)
        .y_label_area_size(60)
        .build_cartesian_2d((x0..x1).log_scale().base(2.0), (y0 / 1.1..y1 * 1.1).log_scale().base(2.0))
        .map_err(|e| e.to_string())?;
    let mut mesh = chart.configure_mesh();
    let format = |v: &f64| grouped(*v);
    let styled = mesh.light_line_style(WHITE).x_desc(x).x_label_formatter(&format).y_label_formatter(&format);
    styled.draw().map_err(|e| e.to_string())?;
    for (i, curve) in panel.curves.iter().enumerate() {
        let color = COLORS[i % COLORS.len()];
        let line = LineSeries::new(curve.points.iter().copied(), color.stroke_width(2)).point_size(3);
        let drawn = chart.draw_series(line).map_err(|e| e.to_string())?;
        drawn.label(&curve.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], color.stroke_width(2)));
    }
    let mut labels = chart.configure_series_labels();
    let styled = labels.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3));
    styled.position(SeriesLabelPosition::UpperRight).draw().map_err(|e| e.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let picture = Picture::bars("Cost", "USD", [("a".to_owned(), 10.0), ("bb".to_owned(), 5.0)]);
        let text = picture.text();
        let lengths: Vec<usize> = text.lines().skip(1).map(|line| line.matches('\u{2588}').count()).collect();
        assert_eq!(lengths, [40, 20]);
        let svg = picture.svg().unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("Cost, USD"), "{svg}");
        assert!(Picture::None.svg().is_err());
    }

    #[test]
    fn curves_are_drawn_even_from_one_point() {
        let curve = Curve { name: "c".into(), points: vec![(16.0, 3.0)] };
        let picture =
            Picture::Curves { x: "ranks".into(), panels: vec![Panel { title: "t".into(), curves: vec![curve] }] };
        assert!(picture.svg().unwrap().contains("ranks"));
    }
}
