//! The text format of Prometheus: families of samples.
//!
//! Written here and not by a library: what there is writes `OpenMetrics`, in which counters are named otherwise than in
//! the format that `promtool check metrics` and plain scrapers read.

use std::{
    borrow::Cow,
    fmt::{Display, Write as _},
};

use super::table::Metric;

/// Names and values of labels.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Some numbers, by how large they are.
pub(super) struct Distribution {
    /// Upper bounds, ascending, with how many numbers are at most as large and larger than the bound before.
    pub(super) bounds: Vec<(f64, u64)>,
    /// All numbers together.
    pub(super) sum: f64,
    /// How many there are.
    pub(super) count: u64,
}

/// Text that grows by one family after another.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    /// A family: its samples are `(labels, value)`. Nothing is written if there are none.
    pub(super) fn family<V: Display>(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = (Labels, V)>,
    ) {
        let mut is_first = true;
        for (labels, value) in samples {
            self.head(metric, &mut is_first);
            self.sample(metric.name, "", &labels, value);
        }
    }

    /// A family of sums: its samples are `(labels, sum, count)`.
    pub(super) fn summary(&mut self, metric: &Metric, samples: impl IntoIterator<Item = (Labels, f64, u64)>) {
        let mut is_first = true;
        for (labels, sum, count) in samples {
            self.head(metric, &mut is_first);
            self.sample(metric.name, "_sum", &labels, sum);
            self.sample(metric.name, "_count", &labels, count);
        }
    }

    /// A family of distributions.
    pub(super) fn histogram(
        &mut self,
        metric: &Metric,
        distributions: impl IntoIterator<Item = (Labels, Distribution)>,
    ) {
        let mut is_first = true;
        for (labels, distribution) in distributions {
            self.head(metric, &mut is_first);
            let mut sum = 0;
            let mut bucket = |bound: String, count: u64| {
                let labels = [&labels[..], &[("le", bound)]].concat();
                self.sample(metric.name, "_bucket", &labels, count);
            };
            for (bound, count) in &distribution.bounds {
                // Each bucket holds what is in the ones before as well.
                sum += count;
                bucket(bound.to_string(), sum);
            }
            bucket("+Inf".to_owned(), distribution.count);
            self.sample(metric.name, "_sum", &labels, distribution.sum);
            self.sample(metric.name, "_count", &labels, distribution.count);
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
    fn buckets_of_a_histogram_add_up_to_its_count() {
        let metric = Metric { name: "weir_x_seconds", kind: Kind::Histogram, help: "Times." };
        let mut text = Text::default();
        let distribution = Distribution { bounds: vec![(0.25, 2), (1.0, 3)], sum: 7.5, count: 6 };
        text.histogram(&metric, [(vec![("role", "uplink".to_owned())], distribution)]);
        let expect = "# HELP weir_x_seconds Times.\n# TYPE weir_x_seconds histogram\n\
                      weir_x_seconds_bucket{role=\"uplink\",le=\"0.25\"} 2\n\
                      weir_x_seconds_bucket{role=\"uplink\",le=\"1\"} 5\n\
                      weir_x_seconds_bucket{role=\"uplink\",le=\"+Inf\"} 6\n\
                      weir_x_seconds_sum{role=\"uplink\"} 7.5\n\
                      weir_x_seconds_count{role=\"uplink\"} 6\n";
        assert_eq!(text.finish(), expect);
    }

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
