//! Curves as SVG text, which needs neither fonts nor scripts nor a network.

use plotters::coord::Shift;
use plotters::prelude::*;

const SIZE: (u32, u32) = (560, 300);
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

/// A named value with its interval.
pub struct Bar {
    /// What stands below it.
    pub name: String,
    /// Its height.
    pub value: f64,
    /// Lower and upper end of the interval.
    pub interval: (f64, f64),
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

/// Shares between 0 and 1 with their intervals as SVG; nothing if there are none.
pub fn bars(title: &str, bars: &[Bar]) -> Option<String> {
    if bars.is_empty() {
        return None;
    }
    let mut svg = String::new();
    {
        let width = (bars.len() as u32 * 120 + 120).max(SIZE.0);
        let area = SVGBackend::with_string(&mut svg, (width, SIZE.1)).into_drawing_area();
        draw_bars(&area, title, bars).ok()?;
        area.present().ok()?;
    }
    Some(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;
type Ranges = ((f64, f64), (f64, f64));

fn draw_lines(area: &Area<'_>, title: &str, series: &[Series], ((x0, x1), (y0, y1)): Ranges) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 15))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(52)
        .build_cartesian_2d(x0..x1.max(x0 + 1.0), y0..y1)
        .map_err(|e| e.to_string())?;
    let mesh = chart.configure_mesh().light_line_style(WHITE).x_labels(6).y_labels(6).draw();
    mesh.map_err(|e| e.to_string())?;
    for (i, line) in series.iter().enumerate() {
        let color = COLORS[i % COLORS.len()];
        let points = line.points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite());
        let drawn = chart.draw_series(LineSeries::new(points, color.stroke_width(2))).map_err(|e| e.to_string())?;
        drawn.label(&line.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], color.stroke_width(2)));
    }
    if series.len() > 1 {
        let mut labels = chart.configure_series_labels();
        let styled = labels.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3));
        styled.position(legend(series, (x0 + x1) / 2.0)).draw().map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The upper corner on the side where the curves are lower.
fn legend(series: &[Series], middle: f64) -> SeriesLabelPosition {
    let mean = |left: bool| {
        let points = series.iter().flat_map(|s| &s.points).filter(|p| p.1.is_finite() && (p.0 < middle) == left);
        let (sum, count) = points.fold((0.0, 0), |(sum, count), p| (sum + p.1, count + 1));
        sum / f64::from(count.max(1))
    };
    if mean(true) > mean(false) { SeriesLabelPosition::UpperRight } else { SeriesLabelPosition::UpperLeft }
}

fn draw_bars(area: &Area<'_>, title: &str, bars: &[Bar]) -> Drawn {
    let name = |x: &SegmentValue<usize>| match x {
        SegmentValue::CenterOf(i) => bars.get(*i).map_or(String::new(), |bar| bar.name.clone()),
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    };
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 15))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(44)
        .build_cartesian_2d((0..bars.len()).into_segmented(), 0.0..1.0)
        .map_err(|e| e.to_string())?;
    let mut mesh = chart.configure_mesh();
    let styled = mesh.disable_x_mesh().light_line_style(WHITE).x_labels(bars.len()).x_label_formatter(&name);
    styled.y_label_formatter(&|y| format!("{:.0} %", 100.0 * y)).draw().map_err(|e| e.to_string())?;
    let heights = bars.iter().enumerate().map(|(i, bar)| (i, bar.value));
    let body = Histogram::vertical(&chart).style(COLORS[0].mix(0.6).filled()).margin(16).data(heights);
    chart.draw_series(body).map_err(|e| e.to_string())?;
    let whiskers = bars.iter().enumerate().map(|(i, bar)| {
        let x = SegmentValue::CenterOf(i);
        PathElement::new([(x.clone(), bar.interval.0), (x, bar.interval.1)], BLACK.stroke_width(2))
    });
    chart.draw_series(whiskers).map_err(|e| e.to_string())?;
    Ok(())
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
