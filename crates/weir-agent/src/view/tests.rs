use serde_json::{Value, json};

use super::*;
use crate::batch::samples::parcels;

fn view(rows: usize, keep: u64, memory: usize) -> Arc<View> {
    View::new(LiveConfig { rows, keep: Duration::from_secs(keep), memory })
}

fn fill(view: &Arc<View>, flows: u16, seconds: u64) {
    let mut viewer = Viewer::new(Arc::clone(view));
    for second in 1..=seconds {
        assert_eq!(viewer.write(&parcels(flows, second), &Patience::default()).unwrap(), Receipt::default());
    }
}

#[test]
fn a_frame_has_a_list_for_each_column_and_the_sum_of_the_others() {
    let view = view(3, 60, 1 << 20);
    fill(&view, 10, 1);
    let frame: Value = serde_json::from_str(&view.next(0).unwrap().frame.json).unwrap();
    assert_eq!(
        (&frame["time"], &frame["interval"], &frame["rows"]),
        (&json!("1970-01-01T00:00:01.000000000Z"), &json!(1), &json!(3))
    );
    assert_eq!(frame["columns"]["source.address"], json!(["10.0.0.1", "10.0.0.1", "10.0.0.1"]));
    assert_eq!(frame["columns"]["flow.bytes"], json!([60, 60, 60]));
    assert_eq!(frame["columns"].get("source.process.pid"), None);
    let others = json!([{
        "flow.observation": "uplink", "flow.count": 7, "flow.packets": 7, "flow.bytes": 420,
        "flow.reverse.packets": 0, "flow.reverse.bytes": 0,
    }]);
    assert_eq!(frame["others"], others);
}

#[test]
fn a_quiet_interval_is_a_frame_too() {
    let view = view(3, 60, 1 << 20);
    fill(&view, 0, 1);
    let frame: Value = serde_json::from_str(&view.next(0).unwrap().frame.json).unwrap();
    assert_eq!((&frame["rows"], &frame["columns"], &frame["others"]), (&json!(0), &json!({}), &json!([])));
}

#[test]
fn who_was_away_gets_what_is_still_there_and_the_number_of_what_is_not() {
    let view = view(100, 60, 1);
    fill(&view, 1, 5);
    let next = view.next(2).unwrap();
    assert_eq!((next.frame.number, next.lost), (5, 2));
    assert!(view.next(5).is_none());
    assert!(view.next(77).is_none());
    assert!(view.next(u64::MAX).is_none());
}

#[test]
fn the_columns_that_are_named_exist() {
    let names: Vec<&str> = encode::columns().map(|field| field.name).collect();
    for name in ["source.address", "flow.bytes", "flow.reverse.packets", "flow.start", "flow.end_reason"] {
        assert!(names.contains(&name), "{name}");
    }
    assert!(!names.contains(&"flow.community_id"));
}
