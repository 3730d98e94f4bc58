//! Which units are told apart? Those of measurement, so that centimetres are neither metres nor square centimetres; what is
//! counted (apples, dollars per day) says nothing about the number and is left out.

/// A unit of measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unit {
    /// What is measured.
    pub(super) kind: Kind,
    /// Of `kind`, where some units are powers: 2 for an area. 1 otherwise.
    pub(super) power: u32,
    /// How many of the smallest unit of its kind make this one, as a fraction; to the power of `power` for a square or cube.
    pub(super) factor: (u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Length,
    Mass,
    Time,
    Volume,
    Money,
    Speed,
    HalfOfDay,
}

/// The unit that words mean; nothing for what is counted.
pub(super) fn unit(words: &str, exponent: Option<u32>) -> Option<Unit> {
    let words = words.trim();
    let prefixes = [("square ", 2), ("sq ", 2), ("cubic ", 3), ("cu ", 3)];
    let (name, prefix) = prefixes
        .iter()
        .find_map(|&(prefix, power)| words.strip_prefix(prefix).map(|name| (name, Some(power))))
        .unwrap_or((words, None));
    let name = name.strip_suffix(" squared").or(name.strip_suffix(" cubed")).unwrap_or(name);
    let suffix = if words.ends_with(" squared") { Some(2) } else { words.ends_with(" cubed").then_some(3) };
    let power = exponent.or(prefix).or(suffix).unwrap_or(1);
    let (kind, factor) =
        UNITS.iter().find(|(names, ..)| names.contains(&name)).map(|&(_, kind, factor)| (kind, factor))?;
    ((1..=3).contains(&power)).then_some(Unit { kind, power, factor })
}

/// Whether a word is the name of a unit: in mathematics `cm` is then no product of `c` and `m`.
pub(super) fn is_unit(word: &str) -> bool {
    UNITS.iter().any(|(names, ..)| names.contains(&word))
}

/// Names, kind, and how many of the smallest of that kind. Lengths in units of a hundredth of a millimetre.
const UNITS: [(&[&str], Kind, (u64, u64)); 27] = [
    (&["mm", "millimeter", "millimeters", "millimetre", "millimetres"], Kind::Length, (100, 1)),
    (&["cm", "centimeter", "centimeters", "centimetre", "centimetres"], Kind::Length, (1000, 1)),
    (&["m", "meter", "meters", "metre", "metres"], Kind::Length, (100_000, 1)),
    (&["km", "kilometer", "kilometers", "kilometre", "kilometres"], Kind::Length, (100_000_000, 1)),
    (&["inch", "inches"], Kind::Length, (2540, 1)),
    (&["ft", "foot", "feet"], Kind::Length, (30_480, 1)),
    (&["yd", "yard", "yards"], Kind::Length, (91_440, 1)),
    (&["mi", "mile", "miles"], Kind::Length, (160_934_400, 1)),
    (&["mg", "milligram", "milligrams"], Kind::Mass, (1, 1)),
    (&["g", "gram", "grams"], Kind::Mass, (1000, 1)),
    (&["kg", "kilogram", "kilograms"], Kind::Mass, (1_000_000, 1)),
    (&["lb", "lbs", "pound", "pounds"], Kind::Mass, (45_359_237, 100)),
    (&["oz", "ounce", "ounces"], Kind::Mass, (45_359_237, 1600)),
    (&["s", "sec", "secs", "second", "seconds"], Kind::Time, (1, 1)),
    (&["min", "mins", "minute", "minutes"], Kind::Time, (60, 1)),
    (&["h", "hr", "hrs", "hour", "hours"], Kind::Time, (3600, 1)),
    (&["day", "days"], Kind::Time, (86_400, 1)),
    (&["week", "weeks"], Kind::Time, (604_800, 1)),
    (&["ml", "milliliter", "milliliters", "millilitre", "millilitres"], Kind::Volume, (1, 1)),
    (&["l", "liter", "liters", "litre", "litres"], Kind::Volume, (1000, 1)),
    (&["cent", "cents"], Kind::Money, (1, 1)),
    (&["dollar", "dollars"], Kind::Money, (100, 1)),
    (&["mph", "miles per hour", "mi / h"], Kind::Speed, (44_704, 1)),
    (&["kph", "kmh", "km / h", "km per hour", "kilometers per hour", "kilometres per hour"], Kind::Speed, (250_000, 9)),
    (&["m / s", "meters per second", "metres per second"], Kind::Speed, (100_000, 1)),
    (&["am", "a m"], Kind::HalfOfDay, (1, 1)),
    (&["pm", "p m"], Kind::HalfOfDay, (2, 1)),
];
