//! The text format of Prometheus: families of samples.
//!
//! Written here and not by a library: what there is writes `OpenMetrics`, in which counters are named otherwise than in
//! the format that `promtool check metrics` and plain scrapers read.

use std::{
    borrow::Cow,
    fmt::{Display, Write as _},
};

use super::table::Metric;

/// Text that grows by one family after another.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    /// A family: its samples are `(labels, value)`. Nothing is written if there are none.
    pub(super) fn family<V: Display>(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = (Vec<(&'static str, String)>, V)>,
    ) {
        let mut is_first = true;
        for (labels, value) in samples {
            self.head(metric, &mut is_first);
            self.sample(metric.name, "", &labels, value);
        }
    }

    /// A family of sums: its samples are `(labels, sum, count)`.
    pub(super) fn summary(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = (Vec<(&'static str, String)>, f64, u64)>,
    ) {
        let mut is_first = true;
        for (labels, sum, count) in samples {
            self.head(metric, &mut is_first);
            self.sample(metric.name, "_sum", &labels, sum);
            self.sample(metric.name, "_count", &labels, count);
        }
    }

    /// Name and type of a family that may get samples later.
    pub(super) fn declare(&mut self, metric: &Metric) {
        self.head(metric, &mut true);
    }

    fn head(&mut self, metric: &Metric, is_first: &mut bool) {
        if std::mem::take(is_first) {
            let Metric { name, kind, help } = metric;
            writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes any text");
        }
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: &[(&'static str, String)], value: impl Display) {
        self.0.push_str(name);
        self.0.push_str(suffix);
        let mut separator = '{';
        for (name, value) in labels {
            write!(self.0, "{separator}{name}=\"{}\"", escaped(value)).expect("a string takes any text");
            separator = ',';
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        writeln!(self.0, " {value}").expect("a string takes any text");
    }

    /// A family of one sample without labels.
    pub(super) fn single(&mut self, metric: &Metric, value: impl Display) {
        self.family(metric, [(Vec::new(), value)]);
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '"', '\n']) {
        return text.into();
    }
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
}

#[cfg(test)]
mod tests {
    use super::{super::table::Kind, *};

    #[test]
    fn labels_are_escaped_and_empty_families_left_out() {
        let metric = Metric { name: "weir_x_total", kind: Kind::Counter, help: "Things." };
        let mut text = Text::default();
        text.family(&metric, Vec::<(Vec<(&str, String)>, u64)>::new());
        text.family(&metric, [(vec![("a", "x\"y\\z\n".to_owned()), ("b", String::new())], 7)]);
        text.single(&metric, 1.5);
        let expect = "# HELP weir_x_total Things.\n# TYPE weir_x_total counter\n\
                      weir_x_total{a=\"x\\\"y\\\\z\\n\",b=\"\"} 7\n\
                      # HELP weir_x_total Things.\n# TYPE weir_x_total counter\nweir_x_total 1.5\n";
        assert_eq!(text.finish(), expect);
    }
}
