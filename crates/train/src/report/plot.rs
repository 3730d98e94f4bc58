//! Curves as SVG text, which needs neither fonts nor scripts nor a network.

use plotters::coord::Shift;
use plotters::prelude::*;

const SIZE: (u32, u32) = (480, 260);
/// Heights of the title and of a row of names above the curves.
const TITLE: i32 = 26;
const LEGEND: i32 = 18;
/// Sizes of text; what is written has four fifths of them as pixels.
const TITLE_FONT: i32 = 17;
const LABEL_FONT: i32 = 15;
/// Width of a character of a name, at most.
const CHARACTER: i32 = 7;
const INK: RGBColor = BLACK;
const RULE: RGBColor = RGBColor(0xe3, 0xdf, 0xd5);
/// The palette of Okabe and Ito, which colour-blind readers can tell apart.
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// A named curve.
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// Its points, by rising x.
    pub points: Vec<(f64, f64)>,
}

/// Curves over steps as SVG; nothing if there is no finite point.
pub fn lines(title: &str, series: &[Series]) -> Option<String> {
    let finite = |p: &&(f64, f64)| p.0.is_finite() && p.1.is_finite();
    let points: Vec<(f64, f64)> = series.iter().flat_map(|s| &s.points).filter(finite).copied().collect();
    let (x, y) = (span(points.iter().map(|p| p.0))?, padded(span(points.iter().map(|p| p.1))?));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).ok()?;
        draw_lines(&area, title, series, (x, y)).ok()?;
        area.present().ok()?;
    }
    Some(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;
type Ranges = ((f64, f64), (f64, f64));

fn draw_lines(area: &Area<'_>, title: &str, series: &[Series], ((x0, x1), (y0, y1)): Ranges) -> Drawn {
    let legend = legend(series);
    let rows = legend.iter().map(|(_, row, _)| row + 1).max().unwrap_or(0);
    let (head, body) = area.split_vertically(TITLE + rows * LEGEND);
    let text = |size: i32| ("sans-serif", size).into_font().color(&INK);
    head.draw(&Text::new(title.to_owned(), (4, 4), text(TITLE_FONT))).map_err(|e| e.to_string())?;
    for ((left, row, name), color) in legend.iter().zip(COLORS.iter().cycle()) {
        let (x, y) = (*left, TITLE + row * LEGEND);
        let mark = PathElement::new([(x, y + 8), (x + 14, y + 8)], color.stroke_width(3));
        head.draw(&mark).map_err(|e| e.to_string())?;
        head.draw(&Text::new(name.clone(), (x + 19, y + 1), text(LABEL_FONT))).map_err(|e| e.to_string())?;
    }
    let mut chart = ChartBuilder::on(&body)
        .margin(4)
        .margin_right(12)
        .x_label_area_size(24)
        .y_label_area_size(56)
        .build_cartesian_2d(x0..x1.max(x0 + 1.0), y0..y1)
        .map_err(|e| e.to_string())?;
    let mut mesh = chart.configure_mesh();
    let styled = mesh.max_light_lines(0).disable_x_mesh().bold_line_style(RULE).axis_style(INK);
    let styled = styled.x_labels(6).y_labels(5).label_style(text(LABEL_FONT));
    styled.x_label_formatter(&|x| step_label(*x)).draw().map_err(|e| e.to_string())?;
    for (line, color) in series.iter().zip(COLORS.iter().cycle()) {
        let points = line.points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite());
        chart.draw_series(LineSeries::new(points, color.stroke_width(2))).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// A step on the axis: whole.
fn step_label(x: f64) -> String {
    if (x - x.round()).abs() < 1e-6 { format!("{x:.0}") } else { String::new() }
}

/// Where the name of each curve stands above the curves: how far from the left, and in which row. A curve alone is what the
/// title says.
fn legend(series: &[Series]) -> Vec<(i32, i32, String)> {
    if series.len() < 2 {
        return Vec::new();
    }
    let (mut left, mut row) = (4, 0);
    let place = |line: &Series| {
        let width = 19 + 14 + CHARACTER * line.name.chars().count() as i32;
        if left > 4 && left + width > SIZE.0 as i32 {
            (left, row) = (4, row + 1);
        }
        let placed = (left, row, line.name.clone());
        left += width;
        placed
    };
    series.iter().map(place).collect()
}

/// The least and the largest value.
fn span(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |span, v| Some(span.map_or((v, v), |(low, high): (f64, f64)| (low.min(v), high.max(v)))))
}

/// The span with a margin.
fn padded((low, high): (f64, f64)) -> (f64, f64) {
    let air = if high > low { 0.06 * (high - low) } else { low.abs().max(1.0) * 0.1 };
    (low - air, high + air)
}
